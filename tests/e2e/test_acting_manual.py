"""docs/acting.md as its readers would use it: its configuration, its code and its shell lines, against the sandbox."""

import asyncio
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from synposter_accounts import Account, Accounts, CallerNotPermitted

from tests.e2e.conftest import PROFILE, Whole, whole_service

MANUAL = Path(__file__).parents[2] / "docs/acting.md"
PUBLISHER, ANALYTICS = "publisher-key", "analytics-key"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", MANUAL.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def manual() -> SimpleNamespace:
    """All code of the page, as one module."""
    names: dict[str, Any] = {}
    exec(compile("\n".join(blocks("python")), str(MANUAL), "exec"), names)
    return SimpleNamespace(**names)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Whole]:
    """A service with the page's configuration added to its own."""
    [callers] = blocks("toml")
    for key in (PUBLISHER, ANALYTICS):
        callers = callers.replace("…", hashlib.sha256(key.encode()).hexdigest(), 1)
    async with whole_service(tmp_path / "deployment", more="\n" + callers) as whole:
        yield whole


async def run(service: Whole, work: Callable[..., Any], *given: Any, key: str = PUBLISHER, **more: Any) -> Any:
    """Calls a function of the page with the sync client of one of its callers, in a thread."""

    def called() -> Any:
        with Accounts(service.local.target, key) as accounts:
            return work(accounts, *given, **more)

    return await asyncio.to_thread(called)


async def test_the_publisher_posts_once(service: Whole, manual: SimpleNamespace) -> None:
    account = await service.connect()
    post_id = await run(service, manual.publish, account, "hello")
    assert [(post["id"], post["text"]) for post in await service.sandbox.posts()] == [(post_id, "hello")]


async def test_the_publisher_finds_the_post_whose_answer_was_lost(service: Whole, manual: SimpleNamespace) -> None:
    account = await service.connect()
    for fault, taken in (("drop_before", False), ("drop_after", True), ("status_after", True)):
        await service.sandbox.fault("post", fault)
        with pytest.raises(manual.Unclear):
            await run(service, manual.publish, account, fault)
        found = await run(service, manual.find, account, fault)
        assert [post["id"] for post in await service.sandbox.posts() if post["text"] == fault] == [found] * taken
    for kind, facts in (("status_before", {"status": 503}), ("rate_limited", {}), ("status_before", {"status": 403})):
        await service.sandbox.fault("read", kind, **facts)
        with pytest.raises(manual.Unclear):  # and not "it is not there", upon which it would be posted again
            await run(service, manual.find, account, "drop_after")


async def test_the_publisher_waits_for_the_limit_and_for_the_service(service: Whole, manual: SimpleNamespace) -> None:
    account = await service.connect()
    await service.sandbox.settings(requests_a_window=1)
    await run(service, manual.publish, account, "first")
    with pytest.raises(manual.Later) as told:
        await run(service, manual.publish, account, "second")
    assert timedelta() < told.value.args[0] <= timedelta(minutes=16)
    service.app.actor._limits._known.clear()  # as another process would meet it
    with pytest.raises(manual.Later) as told:
        await run(service, manual.publish, account, "second")
    assert timedelta() < told.value.args[0] <= timedelta(minutes=16)
    assert [post["text"] for post in await service.sandbox.posts()] == ["first"]


async def test_the_publisher_asks_the_user_whose_account_is_expired(service: Whole, manual: SimpleNamespace) -> None:
    account = await service.connect()
    service.clock.offset += timedelta(minutes=2)
    await service.sandbox.revoke_user("ada")
    with pytest.raises(manual.AskTheUser) as told:
        await run(service, manual.publish, account, "hello")
    assert told.value.args[0].startswith(f"{service.sandbox.url}/i/oauth2/authorize?")


async def test_the_publisher_tells_a_refusal_of_the_platform(service: Whole, manual: SimpleNamespace) -> None:
    account = await service.connect()
    with pytest.raises(manual.Refused) as told:
        await run(service, manual.publish, account, "x" * 281)
    assert told.value.args[0] == 400
    await service.sandbox.fault("post", "status_before", status=403)  # with a page, as a firewall in front of X has it
    with pytest.raises(manual.Refused, match="bad hour"):
        await run(service, manual.publish, account, "hello")
    await service.sandbox.fault("post", "redirect", location="/2/tweets")
    with pytest.raises(manual.Refused):
        await run(service, manual.publish, account, "hello")
    assert await service.sandbox.posts() == []


async def test_an_odd_answer_to_a_post_is_unclear(service: Whole, manual: SimpleNamespace) -> None:
    account = await service.connect()
    await service.sandbox.fault("post", "html_after")
    with pytest.raises(manual.Unclear):
        await run(service, manual.publish, account, "hello")
    assert await run(service, manual.find, account, "hello") is not None


async def test_a_video_goes_up_in_segments(service: Whole, manual: SimpleNamespace) -> None:
    account = await service.connect(scopes=("tweet.read", "tweet.write", "users.read", "offline.access", "media.write"))
    content = os.urandom(9 * 1024 * 1024)
    media_id = await run(service, manual.upload, account, content, "video/mp4")
    [media] = await service.sandbox.media()
    assert (media["id"], media["ready"], media["segments"]) == (media_id, True, 3)
    assert media["sha256"] == hashlib.sha256(content).hexdigest()


async def test_the_publisher_shares_on_linkedin(service: Whole, manual: SimpleNamespace) -> None:
    account = await service.connect(platform="linkedin")
    urn = await run(service, manual.share, account, "hello")
    [post] = await service.sandbox.posts()
    assert (urn, post["platform"]) == (f"urn:li:share:{post['id']}", "linkedin")


async def test_analytics_reads_every_page_waits_for_the_limit_and_cannot_post(
    service: Whole, manual: SimpleNamespace
) -> None:
    account = await service.connect()
    assert await run(service, manual.impressions, account, key=ANALYTICS) == {}
    await service.sandbox.settings(requests_a_window=1000)
    texts = [str(number) for number in range(130)]
    await asyncio.gather(*(run_post(service, account, text) for text in texts))
    await service.sandbox.settings(requests_a_window=1, window_seconds=2)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        service.clock.offset += timedelta(seconds=seconds + 1)
        manual.time.sleep(2)  # the sandbox has a clock of its own

    seen = await run(service, manual.impressions, account, key=ANALYTICS, wait=wait)
    assert set(seen) == {post["id"] for post in await service.sandbox.posts()}
    assert len(seen) == 130 and waits
    with pytest.raises(CallerNotPermitted):
        await run(service, manual.publish, account, "hello", key=ANALYTICS)


async def run_post(service: Whole, account: Account, text: str) -> None:
    assert (await service.accounts.call(account.id, "POST", "/2/tweets", json={"text": text})).ok


async def test_the_owner_is_told_who_used_the_account(service: Whole, manual: SimpleNamespace) -> None:
    account = await service.connect()
    await run(service, manual.publish, account, "hello")
    await run(service, manual.impressions, account, key=ANALYTICS)
    told = [line[17:] for line in await run(service, manual.told_to_the_owner, PROFILE)]
    assert told == ["analytics GET /2/users/{id}/tweets sent", "publisher POST /2/tweets sent"]


async def test_the_shell_lines_work_as_they_stand(service: Whole) -> None:
    account = await service.connect()
    told = {"KEY": PUBLISHER, "ACCOUNT": account.id, "TARGET": service.local.target}
    environment = {**os.environ, **told, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    [lines] = blocks("sh")
    done = await asyncio.to_thread(
        subprocess.run, ["bash", "-ec", lines], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"status_code": 201' in done.stdout and '"route": "/2/tweets"' in done.stdout
    assert [post["text"] for post in await service.sandbox.posts()] == ["hello"]
