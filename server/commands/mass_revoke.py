"""The commands `accounts`: what is done to many accounts at once, such as after a theft.

Each account is revoked in a transaction of its own, so that it may be stopped, and run again for those that are left.
The running servers revoke the tokens at the platforms, as fast as these let them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import click

from server.accounts.callers import as_caller
from server.accounts.errors import AccountNotFound
from server.accounts.model import Account, AccountFilter, Status
from server.accounts.ports import Store
from server.accounts.revoke import revocation_at
from server.commands.in_bulk import confirm, counted, with_bar
from server.commands.operate import check_registered, operator
from server.commands.plainly import load, told_plainly
from server.config import ConfigError, Settings

AT_ONCE = 64
NOT_REVOKED = frozenset({Status.ACTIVE, Status.EXPIRED})


@click.group("accounts")
def accounts_group() -> None:
    """Revoke many accounts at once, such as after a theft."""


@accounts_group.command("revoke")
@click.option("--platform", help="Only those on this platform.")
@click.option("--profile", default="", metavar="PREFIX", help="Only those of profiles whose ids begin so.")
@click.option("--all", "everything", is_flag=True, help="All there are.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def accounts_revoke(config_file: Path, *, platform: str | None, profile: str, everything: bool, yes: bool) -> None:
    """Revoke accounts, as their callers could one by one. Their users have to connect again.

    It may be stopped at any time; the same command goes on with those that are left.
    """
    with told_plainly():
        settings = load(config_file)
        which = chosen(settings, platform, profile, everything=everything)
        count = asyncio.run(count_accounts(settings, which))
        if not count:
            click.echo("nothing to do: there are no such accounts")
            return
        confirm(f"{counted(count, 'account')} to be revoked, here and at their platforms.", yes=yes)
        revoked = with_bar("revoking", lambda bar: revoke_all(settings, which, bar(count)))
    click.echo(f"{counted(revoked, 'account')} revoked; running servers revoke their tokens at the platforms")


def chosen(settings: Settings, platform: str | None, profile: str, *, everything: bool) -> AccountFilter:
    """Raises ConfigError where nothing is said, or a platform that is not registered."""
    if not (platform or profile or everything):
        raise ConfigError(["say which: --platform, --profile or --all"])
    if platform is not None:
        check_registered(settings, platform)
    platforms = None if platform is None else frozenset({platform})
    return AccountFilter(profile_prefixes=(profile,), platforms=platforms, statuses=NOT_REVOKED)


async def count_accounts(settings: Settings, which: AccountFilter) -> int:
    from server.parts import store_beside  # noqa: PLC0415 (imports the whole server)

    async with store_beside(settings) as store:
        return sum([len(some) async for some in pages(store, which)])


async def revoke_all(settings: Settings, which: AccountFilter, progress: Callable[[int], object]) -> int:
    from server.parts import registered_platforms, store_beside  # noqa: PLC0415
    from server.platforms.http import Sender  # noqa: PLC0415

    async with store_beside(settings) as store:
        platforms = registered_platforms(settings, Sender(), store.clock)

        async def revoke(account: Account) -> None:
            at_platform = revocation_at(platforms.get(account.platform))
            with contextlib.suppress(AccountNotFound):  # it was erased this instant: nothing is left to revoke
                await store.revoke_account(account.id, caller=as_caller(operator()), **at_platform)

        revoked = 0
        async for some in pages(store, which):
            await asyncio.gather(*map(revoke, some))
            revoked += len(some)
            progress(len(some))
        return revoked


async def pages(store: Store, which: AccountFilter) -> AsyncIterator[tuple[Account, ...]]:
    after, more = "", True
    while more:
        page = await store.list_accounts(which, after=after, size=AT_ONCE)
        if page.accounts:
            yield page.accounts
            after = page.accounts[-1].id
        more = page.more
