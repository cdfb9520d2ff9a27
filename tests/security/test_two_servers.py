"""One state and one code are used once (rows A4 and A5), whichever of two real servers on one database they come to."""

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from synposter_accounts import AccountsError, AsyncAccounts, ConnectExpired

from server.accounts.flow import ResultPage
from server.web.pages import PAGES
from tests.e2e.conftest import PROFILE, Whole, browse
from tests.faults.processes import Fleet, fleet
from tests.postgres import fresh_database


@pytest.fixture
async def pair(tmp_path: Path, postgres: str) -> AsyncIterator[Fleet]:
    """Two servers with the same configuration but for their ports."""
    async with fleet(tmp_path, servers=2, database_url=fresh_database(postgres)) as running:
        first, second = running.servers
        listen = second.settings["server"]
        text = first.config_file.read_text()
        for key in ("grpc_listen", "http_listen"):
            text = text.replace(f'{key} = "{first.settings["server"][key]}"', f'{key} = "{listen[key]}"')
        second.config_file.write_text(text)
        shutil.copy2(first.folder / "api-key", second.folder / "api-key")
        await asyncio.to_thread(running.start)
        yield running


def at_each(pair: Fleet, callback: str) -> list[str]:
    """The same callback at either server."""
    query = urlsplit(callback).query
    return [
        f"http://{local.settings['server']['http_listen']}/oauth/callback/twitter?{query}" for local in pair.servers
    ]


async def visit(browser: aiohttp.ClientSession, url: str, method: str = "GET") -> tuple[int, bytes]:
    async with browser.request(method, url, allow_redirects=False) as response:
        return response.status, await response.read()


@pytest.mark.parametrize("by_itself", [False, True], ids=["with a return url", "completed by the callback"])
async def test_a4_one_state_brought_fifty_times_to_two_servers_counts_once_and_all_others_look_alike(
    pair: Fleet, by_itself: bool
) -> None:
    local = pair.servers[0]
    async with AsyncAccounts(local.target, local.api_key) as accounts, aiohttp.ClientSession() as browser:
        return_url = None if by_itself else f"{local.public_url}/your-app"
        begun = await accounts.begin_connect(PROFILE, "twitter", return_url=return_url)
        urls = at_each(pair, await pair.sandbox.consent(begun.authorization_url, "ada"))
        for url in urls:
            assert (await visit(browser, url, "HEAD"))[0] == 405, "a link scanner uses nothing up"
        answers = await asyncio.gather(*(visit(browser, url) for url in urls * 25))
    once = 200 if by_itself else 303
    assert Counter(status for status, _ in answers) == {once: 1, 410: 49}
    assert {body for status, body in answers if status == 410} == {PAGES[ResultPage.EXPIRED].body}
    assert await pair.sent() == int(by_itself)


async def test_a4_a_state_is_worth_nothing_after_ten_minutes(service: Whole) -> None:
    begun = await service.accounts.begin_connect(PROFILE, "twitter", return_url=service.return_url)
    callback = await service.sandbox.consent(begun.authorization_url, "ada")
    service.clock.offset += timedelta(minutes=10, seconds=1)
    async with aiohttp.ClientSession() as browser:
        assert await visit(browser, callback) == (410, PAGES[ResultPage.EXPIRED].body)
    assert await service.sandbox.requests("token") == []


@pytest.mark.parametrize("works", [True, False], ids=["a code that works", "a code that is refused"])
async def test_a5_a_hundred_completions_at_two_servers_use_the_code_once_and_answer_alike(
    pair: Fleet, works: bool
) -> None:
    one, two = pair.servers
    async with AsyncAccounts(one.target, one.api_key) as first, AsyncAccounts(two.target, two.api_key) as second:
        if not works:
            await pair.sandbox.settings(code_seconds=0)
        begun = await first.begin_connect(PROFILE, "twitter", return_url=f"{one.public_url}/your-app")
        back = await browse(await pair.sandbox.consent(begun.authorization_url, "ada"))
        await pair.sandbox.fault("token", "hold_after")

        async def complete(accounts: AsyncAccounts) -> str:
            try:
                [account] = await accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
            except AccountsError as error:
                return type(error).__name__
            return account.id

        calls = [asyncio.create_task(complete(accounts)) for accounts in (first, second) for _ in range(50)]
        await pair.sandbox.until_held()
        await asyncio.sleep(1)  # while the platform thinks, all the others have come
        await pair.sandbox.release()
        answers = Counter(await asyncio.gather(*calls))
    assert list(answers.values()) == [100]
    assert (answers.keys() == {"CodeRefused"}) is not works
    assert await pair.sent() == 1


async def test_a5_a_completion_code_is_worth_nothing_after_the_platforms_code_has_ended(service: Whole) -> None:
    back = await service.come_back()
    service.clock.offset += timedelta(seconds=31)
    with pytest.raises(ConnectExpired):
        await service.accounts.complete_connect(PROFILE, completion_code=back["completion_code"])
    assert await service.sandbox.requests("token") == []
