"""A person with a phone: sign in, consent, and the page that says how it went."""

from datetime import timedelta
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, Page

from tests.browser.conftest import DESKTOP, PHONE, Watched
from tests.e2e.conftest import PROFILE, Whole


async def open_consent(page: Page, whole: Whole, screenshots: Path | None = None) -> None:
    begun = await whole.accounts.begin_connect(PROFILE, "twitter")
    await page.goto(begun.authorization_url)
    if screenshots:
        await page.screenshot(path=screenshots / "1-sign-in.png")
    await page.get_by_role("button", name="Continue as @ada").click()
    await page.get_by_role("heading", name="Give this app access?").wait_for()
    if screenshots:
        await page.screenshot(path=screenshots / "2-consent.png")


async def test_a_person_connects_an_account(phone: BrowserContext, whole: Whole, screenshots: Path) -> None:
    page = await phone.new_page()
    watched = Watched(page)
    await open_consent(page, whole, screenshots)
    assert "sandbox" in (await page.inner_text("body")).lower()
    assert "Post and repost for you" in await page.inner_text("main")
    watched.requests.clear()
    await page.get_by_role("button", name="Allow").click()
    await page.get_by_role("heading", name="Your account is connected").wait_for()
    await page.screenshot(path=screenshots / "3-connected.png")
    assert watched.complaints == []
    assert all("/authorize" in url or "/oauth/callback/twitter" in url for url in watched.requests)
    [account] = [each async for each in whole.accounts.list(PROFILE)]
    assert account.handle == "ada"

    await page.reload()
    await page.get_by_role("heading", name="This link has ended").wait_for()
    await page.screenshot(path=screenshots / "4-ended.png")


async def test_a_person_who_cancels_is_told_that_nothing_happened(
    phone: BrowserContext, whole: Whole, screenshots: Path
) -> None:
    page = await phone.new_page()
    await open_consent(page, whole)
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_role("heading", name="You did not give permission").wait_for()
    await page.screenshot(path=screenshots / "5-denied.png")
    assert [each async for each in whole.accounts.list(PROFILE)] == []


async def test_a_person_whose_connect_fails_is_told_what_to_do(
    phone: BrowserContext, whole: Whole, screenshots: Path
) -> None:
    await whole.sandbox.fault("token", "status_before", status=503)
    page = await phone.new_page()
    await open_consent(page, whole)
    await page.get_by_role("button", name="Allow").click()
    await page.get_by_role("heading", name="That did not work").wait_for()
    await page.screenshot(path=screenshots / "6-failed.png")


async def test_a_person_who_took_too_long_is_told_so(phone: BrowserContext, whole: Whole) -> None:
    page = await phone.new_page()
    await open_consent(page, whole)
    whole.clock.offset += timedelta(minutes=11)
    await page.get_by_role("button", name="Allow").click()
    await page.get_by_role("heading", name="This link has ended").wait_for()


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_fits_in_light_and_dark(
    browser: Browser, whole: Whole, screenshots: Path, viewport: dict[str, int], scheme: str
) -> None:
    context = await browser.new_context(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]
    page = await context.new_page()
    await open_consent(page, whole)
    places = [page.url, f"{whole.local.public_url}/oauth/callback/twitter?state=unknown&code=c"]
    for number, url in enumerate(places):
        await page.goto(url)
        await page.screenshot(path=screenshots / f"fit-{number}-{viewport['width']}-{scheme}.png")
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= viewport["width"], "it scrolls sideways"
    await context.close()
