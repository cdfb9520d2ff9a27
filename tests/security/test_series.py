"""Whatever is sent, the metrics have the same series: labels come from closed sets (row C3)."""

from pathlib import Path

import aiohttp
import grpc
import pytest
from synposter_accounts import AccountsError

from tests.platforms.peer import http, says
from tests.security.acting import Acting, acting

Series = set[tuple[str, frozenset[tuple[str, str]]]]
KINDS = 8
"""After so many numbers each kind of junk and each class of status has come once."""


def series(service: Acting) -> Series:
    registry = service.whole.app.metrics.registry
    return {(sample.name, frozenset(sample.labels.items())) for each in registry.collect() for sample in each.samples}


async def send_junk(service: Acting, channel: grpc.aio.Channel, browser: aiohttp.ClientSession, number: int) -> None:
    """Seven values that nobody has sent before, each where something counts."""
    junk = f"junk{number}"
    status = 210 + 100 * (number % 4) + number % 80
    service.peer.answer = says(http(b"{}", f"{status} {junk}"))
    assert (await service.call(path=f"/2/users/{junk}")).status_code == status
    for refused in ({"method": junk.upper()}, {"path": f"/{junk}"}, {"account_id": junk}):
        await service.refusal(**refused)
    with pytest.raises(AccountsError):
        await service.whole.accounts.begin_connect(junk, junk, return_url=service.whole.return_url)
    with pytest.raises(grpc.aio.AioRpcError):
        await channel.unary_unary(f"/synposter.accounts.v1.AccountService/{junk}")(b"")
    async with browser.get(f"http://127.0.0.1:{service.whole.app.http_port}/oauth/callback/{junk}?state=s"):
        pass


@pytest.mark.parametrize("values", [500, pytest.param(10_000, marks=pytest.mark.long)])
async def test_c3_thousands_of_junk_values_make_no_new_series(tmp_path: Path, values: int) -> None:
    async with (
        acting(tmp_path) as service,
        grpc.aio.insecure_channel(service.whole.local.target) as channel,
        aiohttp.ClientSession() as browser,
    ):
        for number in range(KINDS):
            await send_junk(service, channel, browser, number)
        before = series(service)
        assert {"accounts_calls_total", "accounts_refusals_total"} <= {name for name, _ in before}
        for number in range(KINDS, values // 7):
            await send_junk(service, channel, browser, number)
        assert series(service) == before
        assert "junk" not in service.metrics().lower()
