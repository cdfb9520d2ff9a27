"""The pages in a real browser: they stand alone, and can be read by day and by night."""

import logging
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext

from server.accounts.flow import AuthorizationResponse, ResultPage, ShowPage
from server.web.callback import CallbackServer
from server.web.pages import PAGES
from tests.browser.conftest import DESKTOP, PHONE, Watched

STATUS_NOTE = "Failed to load resource: the server responded with a status of"
"""Chromium says this of every page whose own status is 400 or more."""
COLOURS = """selector => [getComputedStyle(document.querySelector(selector)).color,
  getComputedStyle(document.querySelector("main")).backgroundColor]"""


@pytest.fixture
async def shown_at() -> AsyncIterator[str]:
    """Where a result page is shown by its name."""

    async def answer(name: str, response: AuthorizationResponse) -> ShowPage:
        return ShowPage(ResultPage(name))

    async def healthy() -> bool:
        return True

    server = CallbackServer(answer, healthy, timedelta(seconds=1), platforms=list(ResultPage))
    port = await server.start("127.0.0.1", 0)
    yield f"http://127.0.0.1:{port}/oauth/callback"
    await server.stop()


@pytest.mark.parametrize("result", list(ResultPage))
async def test_a_page_asks_for_nothing_and_breaks_no_policy(
    phone: BrowserContext, shown_at: str, screenshots: Path, result: ResultPage, caplog: pytest.LogCaptureFixture
) -> None:
    page = await phone.new_page()
    watched = Watched(page)
    url = f"{shown_at}/{result}?state=s&code=c"
    with caplog.at_level(logging.INFO, "server.web"):
        response = await page.goto(url, wait_until="networkidle")
    await page.screenshot(path=screenshots / f"page-{result}.png")
    assert response and response.status == PAGES[result].status
    assert [each for each in watched.complaints if not each.startswith(STATUS_NOTE)] == []
    assert watched.requests == [url]
    assert [record.message for record in caplog.records] == ["http"]


async def test_a_browser_that_comes_when_many_do_comes_again_by_itself(phone: BrowserContext) -> None:
    now = 1000.0

    async def answer(name: str, response: AuthorizationResponse) -> ShowPage:
        return ShowPage(ResultPage.CONNECTED)

    async def healthy() -> bool:
        return True

    server = CallbackServer(answer, healthy, timedelta(seconds=1), platforms=["twitter"], clock=lambda: now)
    port = await server.start("127.0.0.1", 0)
    while server._callbacks.take() == 0:
        pass
    page = await phone.new_page()
    response = await page.goto(f"http://127.0.0.1:{port}/oauth/callback/twitter?state=s&code=c")
    assert response and (response.status, await page.title()) == (503, "One moment")
    now += 1
    await page.get_by_role("heading", name="Your account is connected").wait_for(timeout=10_000)
    await server.stop()


@pytest.mark.parametrize("result", list(ResultPage))
async def test_a_page_says_its_language_and_one_heading_that_is_its_title(
    phone: BrowserContext, shown_at: str, result: ResultPage
) -> None:
    page = await phone.new_page()
    await page.goto(f"{shown_at}/{result}?state=s")
    assert await page.get_attribute("html", "lang") == "en"
    assert await page.get_by_role("heading").all_inner_texts() == [await page.title()]
    assert await page.get_by_role("img").count() == 0, "the symbol is decoration, and not read out"


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_fits_and_is_easy_to_read(
    browser: Browser, shown_at: str, screenshots: Path, viewport: dict[str, int], scheme: str
) -> None:
    context = await browser.new_context(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]
    page = await context.new_page()
    grounds = set()
    for result in ResultPage:
        await page.goto(f"{shown_at}/{result}?state=s")
        await page.screenshot(path=screenshots / f"page-{result}-{viewport['width']}-{scheme}.png")
        for selector, least in (("h1", 7.0), (".next", 7.0), ("p", 4.5), ("svg", 3.0)):  # WCAG 2.2, 1.4.3 and 1.4.11
            text, ground = await page.evaluate(COLOURS, selector)
            assert contrast(text, ground) >= least, (result, selector)
            grounds.add(luminance(ground) > 0.5)
        overflow = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not overflow, result
    await context.close()
    assert grounds == {scheme == "light"}


def luminance(colour: str) -> float:
    """Of a computed `rgb(r, g, b)`: relative luminance, 0 to 1 (WCAG 2.2)."""
    shares = [int(number) / 255 for number in re.findall(r"\d+", colour)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
