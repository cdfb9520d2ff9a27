"""docs/watching.md as its readers would use it: its code and its shell lines, against the sandbox."""

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from synposter_accounts import Accounts, Change, Listing, News

from tests.e2e.conftest import PROFILE, Whole

MANUAL = Path(__file__).parents[2] / "docs/watching.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", MANUAL.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def manual() -> SimpleNamespace:
    """All code of the page, as one module."""
    names: dict[str, Any] = {}
    exec(compile("\n".join(blocks("python")), str(MANUAL), "exec"), names)
    return SimpleNamespace(**names)


async def test_the_mirror_shows_what_can_be_posted_to(whole: Whole, manual: SimpleNamespace) -> None:
    kept = await whole.connect()
    gone = await whole.connect("bob")
    await whole.accounts.revoke(gone.id)

    def look() -> list[str]:
        with Accounts(whole.local.target, whole.local.api_key) as accounts:
            return manual.usable(accounts, PROFILE)  # type: ignore[no-any-return]

    assert await asyncio.to_thread(look) == [kept.handle]


def is_complete(news: News) -> bool:
    return isinstance(news, Listing) and news.complete


async def lose(whole: Whole, username: str) -> None:
    """The user takes the account away at the platform, and the service finds out."""
    whole.clock.offset += timedelta(minutes=2)
    await whole.sandbox.revoke_user(username)
    await whole.refresh_due()


async def test_the_notifier_misses_nothing_while_it_is_away(
    whole: Whole, manual: SimpleNamespace, tmp_path: Path
) -> None:
    lost_before = await whole.connect("bob")
    await lose(whole, "bob")
    account = await whole.connect()

    def notify(ends: Callable[[News], bool]) -> list[tuple[str, str]]:
        database = sqlite3.connect(tmp_path / "notifier.db")
        database.execute("CREATE TABLE IF NOT EXISTS watched (resume_token TEXT)")
        database.execute("CREATE TABLE IF NOT EXISTS messages (account_id TEXT, kind TEXT)")
        with Accounts(whole.local.target, whole.local.api_key) as accounts:
            manual.notify(accounts, PROFILE, database, ends)
        found = database.execute("SELECT * FROM messages").fetchall()
        database.close()
        return found

    assert await asyncio.to_thread(notify, is_complete) == [(lost_before.id, "EXPIRED")]
    await lose(whole, "ada")
    told = await asyncio.to_thread(notify, lambda news: isinstance(news, Change))
    assert told == [(lost_before.id, "EXPIRED"), (account.id, "EXPIRED")]


async def test_the_shell_lines_work_as_they_stand(whole: Whole) -> None:
    account = await whole.connect()
    told = {"KEY": whole.local.api_key, "PROFILE": PROFILE, "TARGET": whole.local.target}
    environment = {**os.environ, **told, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    [lines] = blocks("sh")
    done = await asyncio.to_thread(
        subprocess.run, ["bash", "-ec", lines], env=environment, capture_output=True, text=True, check=False
    )
    assert account.id in done.stdout and '"complete": true' in done.stdout, done.stderr
