"""`make demo`: the whole story, played with a service and a sandbox of its own in under a minute.

It plays each part: the caller's web app, the user's browser, the user in X's settings, and the service's operator.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
from rich.console import Console
from synposter_accounts import (
    Account,
    AccountChangeKind,
    AccountStatus,
    AsyncAccounts,
    Change,
    OutcomeUnknown,
    PlatformRevocation,
)

from sandbox.control import Control
from sandbox.local import Local, StartFailed
from sandbox.ports import free_port

PROFILE = "acme/ada-and-grace"
PATIENCE = 30.0
console = Console(highlight=False)


class Demo:
    """The story, one chapter a method."""

    def __init__(self, accounts: AsyncAccounts, sandbox: Control, return_url: str) -> None:
        self.accounts = accounts
        self.sandbox = sandbox
        self.return_url = return_url
        self.changes: list[str] = []
        self.watching = asyncio.Event()

    async def told_live(self) -> None:
        """Tells the story with a watch beside it, as a service that must know at once when an account is lost."""
        watch = asyncio.create_task(self.watch())
        try:
            await self.watching.wait()
            await self.tell()
            async with asyncio.timeout(PATIENCE):
                await watch
            missed = {"CONNECTED", "IDENTITY_CHANGED", "EXPIRED", "RECONNECTED", "REVOKED"} - set(self.changes)
            check(not missed, f"a watch of the profile was told all {len(self.changes)} changes, each as it happened")
        finally:
            watch.cancel()

    async def watch(self) -> None:
        """Until an account is revoked, which is how the story ends."""
        async for news in self.accounts.watch(PROFILE):
            self.watching.set()
            if isinstance(news, Change) and news.account is not None:
                self.changes.append(news.kind.name)
                say(f"[dim]watched: {news.kind.name} @{news.account.handle}[/dim]")
                if news.kind is AccountChangeKind.REVOKED:
                    return

    async def connect(self, username: str, account_id: str | None = None) -> Account:
        """As the caller's web app and the user's browser would: begin, consent, come back, complete."""
        begun = await self.accounts.begin_connect(PROFILE, "twitter", return_url=self.return_url, account_id=account_id)
        callback = await self.sandbox.consent(begun.authorization_url, username)
        async with aiohttp.ClientSession() as browser, browser.get(callback, allow_redirects=False) as response:
            query = parse_qs(urlsplit(response.headers["Location"]).query)
        [account] = await self.accounts.complete_connect(PROFILE, completion_code=query["completion_code"][0])
        return account

    async def tell(self) -> None:
        chapter("Two accounts on one profile")
        ada, grace = await self.connect("ada"), await self.connect("grace")
        for account in (ada, grace):
            say(f"{account.id}  @{account.handle}  {account.status.name}  {' '.join(account.scopes)}")
        listed = [account.id async for account in self.accounts.list(PROFILE)]
        check(listed == [ada.id, grace.id], "the list shows both, the newest last")

        chapter("A post on @ada's behalf")
        answer = await self.accounts.call(ada.id, "POST", "/2/tweets", json={"text": "Hello from the demo"})
        say(f"{answer.status_code}  {answer.json()['data']}")
        if answer.rate_limit is not None:
            say(f"{answer.rate_limit.remaining} of {answer.rate_limit.limit} are left until "
                f"{answer.rate_limit.reset_time:%H:%M:%S}")  # fmt: skip
        check([post["text"] for post in await self.sandbox.posts()] == ["Hello from the demo"], "X has it, once")
        await self.sandbox.fault("post", "drop_after")
        try:
            await self.accounts.call(ada.id, "POST", "/2/tweets", json={"text": "And its answer is lost"})
        except OutcomeUnknown as error:
            say(f"{error.reason}: {error}")
        check(len(await self.sandbox.posts()) == 2, "X has that one, too, and it was not sent again")
        async for use in self.accounts.list_usage(ada.id):
            say(f"{use.time:%H:%M:%S}  {use.caller}  {use.method} {use.route}  {use.result}")

        chapter("A refresh, watched as it happens")
        before = (await self.sandbox.ledger())[0]
        refreshed = await self.until(ada.id, lambda account: account.last_refresh_time is not None)
        say(f"@{refreshed.handle} was refreshed at {refreshed.last_refresh_time:%H:%M:%S}; its token ends at "
            f"{refreshed.access_token_expire_time:%H:%M:%S}")  # fmt: skip
        check((await self.sandbox.ledger())[0] != before, "the platform has rotated the refresh token")

        chapter("A handle renamed at the platform")
        await self.sandbox.rename("ada", "countess")
        renamed = await self.until(ada.id, lambda account: account.handle == "countess")
        check(renamed.id == ada.id, "@ada is @countess now; the account is the same")

        chapter("A grant taken back at the platform")
        await self.sandbox.revoke_user("grace")
        expired = await self.until(grace.id, lambda account: account.status is AccountStatus.EXPIRED)
        say(f"@{expired.handle} is {expired.status.name}: {expired.status_reason.name}")

        chapter("A reconnect")
        again = await self.connect("grace", account_id=grace.id)
        check(again.id == grace.id and again.status is AccountStatus.ACTIVE, "ACTIVE again, under the same id")

        chapter("A revoke")
        revoked = await self.accounts.revoke(ada.id)
        say(f"@{revoked.account.handle} is {revoked.account.status.name}; at the platform: "
            f"{revoked.platform_revocation.name}")  # fmt: skip
        check(revoked.platform_revocation is PlatformRevocation.CONFIRMED, "the platform has confirmed it")
        alive = [grant for grant in await self.sandbox.ledger() if grant["alive"] and grant["username"] == "countess"]
        check(not alive, "the platform's ledger holds nothing live of that user")

    async def until(self, account_id: str, holds: Callable[[Account], bool]) -> Account:
        """The account as soon as something holds of it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            account = await self.accounts.get(account_id)
            if holds(account):
                return account
            if time.monotonic() > deadline:
                raise SystemExit(f"waited {PATIENCE:.0f} s in vain; the account is {account}")
            await asyncio.sleep(0.1)


def chapter(title: str) -> None:
    console.print(f"\n[bold]{title}[/bold]")


def say(line: str) -> None:
    console.print(f"  {line}", soft_wrap=True)


def check(holds: bool, line: str) -> None:
    if not holds:
        raise SystemExit(f"not so: {line}")
    say(f"[green]✓[/green] {line}")


async def play(local: Local) -> None:
    assert local.sandbox_url is not None
    async with AsyncAccounts(local.target, local.api_key) as accounts, Control(local.sandbox_url) as sandbox:
        await Demo(accounts, sandbox, f"{local.public_url}/your-app").told_live()


def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, Path(name, "processes.log").open("wb") as log:
        local = Local(
            Path(name),
            ports={part: free_port() for part in ("grpc", "http", "sandbox")},
            min_interval="1s",
            identity_interval="2s",
            access_token_seconds=6,
            log=log,
        )
        try:
            with local:
                asyncio.run(play(local))
        except StartFailed as failed:
            log.flush()
            sys.exit(f"error: {failed}\n{Path(log.name).read_text()}")
        except KeyboardInterrupt:
            sys.exit(130)
    console.print(f"\nThat was all of it, in {time.monotonic() - began:.0f} seconds.")


if __name__ == "__main__":
    main()
