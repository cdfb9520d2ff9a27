"""A profile is deleted over gRPC: the ledger holds nothing live of it, whatever becomes of the process meanwhile."""

import asyncio
import contextlib
import signal
import time

import pytest
from synposter_accounts import (
    AccountNotFound,
    AccountsError,
    AsyncAccounts,
    Erasure,
    PlatformRevocation,
    ServiceUnreachable,
)

from sandbox.local import Local
from tests.e2e.conftest import PROFILE, Whole
from tests.e2e.test_operating import command
from tests.e2e.test_processes import connected


async def test_a_deleted_profile_is_gone_and_the_ledger_holds_nothing_live_of_it(whole: Whole) -> None:
    accounts = [await whole.connect("ada"), await whole.connect("grace")]
    erasure = await whole.accounts.delete_profile(PROFILE)
    assert [each.account_id for each in erasure.accounts] == sorted(account.id for account in accounts)
    assert {each.platform_revocation for each in erasure.accounts} == {PlatformRevocation.CONFIRMED}
    assert not any(grant["alive"] for grant in await whole.sandbox.ledger())
    assert [account async for account in whole.accounts.list(PROFILE)] == []
    with pytest.raises(AccountNotFound):
        await whole.accounts.get(accounts[0].id)
    again = await whole.accounts.delete_profile(PROFILE)
    assert (again.erasure_id, again.accounts) == (erasure.erasure_id, erasure.accounts)


async def test_a_killed_deletion_is_finished_by_whoever_starts_next(deployment: Local) -> None:
    for delay in (0.005, 0.03):
        accounts = [await connected(deployment, username) for username in ("ada", "grace")]
        profile_id = accounts[0].profile_id
        async with AsyncAccounts(deployment.target, deployment.api_key, timeout=5) as client:
            deleting = asyncio.create_task(client.delete_profile(profile_id))
            await asyncio.sleep(delay)
            await asyncio.to_thread(deployment.kill, "server", signal.SIGKILL)
            with contextlib.suppress(AccountsError):
                await deleting
        deployment.start_server()
        erasure = await reached(deployment, profile_id)
        assert {account.id for account in accounts} <= {each.account_id for each in erasure.accounts}
        # Tokens that were being revoked at the kill are leased for a minute, and then tried again.
        assert {each.platform_revocation.name for each in erasure.accounts} <= {"CONFIRMED", "PENDING"}
    async with AsyncAccounts(deployment.target, deployment.api_key) as client:
        assert [account async for account in client.list(profile_id)] == []
    await asyncio.sleep(2)
    verified = command(deployment, "audit", "verify")
    assert verified.returncode == 0, verified.stdout


async def reached(local: Local, profile_id: str) -> Erasure:
    """Deletes the profile, as soon as the channel has found the new process."""
    until = time.monotonic() + 20
    while True:
        try:
            async with AsyncAccounts(local.target, local.api_key) as client:
                return await client.delete_profile(profile_id)
        except ServiceUnreachable:
            assert time.monotonic() < until
            await asyncio.sleep(0.2)
