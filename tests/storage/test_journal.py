"""The journal: what it has taken is on disk, sealed, and comes back once; what it has not taken is not there."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from server.accounts.grants import Refreshed
from server.storage import journal, keyring
from server.storage.journal import FileJournal
from server.storage.vault import Vault
from tests.storage.make import token_set

EXPIRE_TIME = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def refreshed(number: int = 1, *, ends: bool = True, refreshable: bool = True) -> Refreshed:
    expire_time = EXPIRE_TIME if ends else None
    return Refreshed(
        grant_id=f"grant-{number}",
        profile_id="profile-1",
        platform="twitter",
        generation=number,
        scopes_before=("tweet.read",),
        token_set=token_set(number, expire_time=expire_time, refresh_token=refreshable),
        due_time=expire_time,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "accounts.db.journal"


@pytest.fixture
def reopen(folder: Path, vault: Vault, new_id: Callable[[], str]) -> Callable[[], FileJournal]:
    """The journal as a process finds it that starts now."""
    return lambda: FileJournal(folder, vault, new_id)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


async def test_what_is_kept_comes_back_whole_and_in_order_after_a_restart(reopen: Callable[[], FileJournal]) -> None:
    kept = reopen()
    for number in range(1, 6):
        await kept.keep(refreshed(number))
    found = reopen()
    assert kept.depth == found.depth == 5
    assert [entry for _, entry in await found.entries()] == [refreshed(number) for number in range(1, 6)]


async def test_what_is_erased_does_not_come_back(reopen: Callable[[], FileJournal], folder: Path) -> None:
    kept = reopen()
    await kept.keep(refreshed())
    await kept.keep(refreshed(2))
    [(first, _), _] = await kept.entries()
    await kept.erase(first)
    assert kept.depth == reopen().depth == len(files(folder)) == 1
    assert [entry for _, entry in await reopen().entries()] == [refreshed(2)]
    await kept.erase(first)
    assert kept.depth == 1, "erasing twice changes nothing"


async def test_a_token_set_is_kept_also_where_all_other_threads_hang(reopen: Callable[[], FileJournal]) -> None:
    """Commits were given up there, which takes long where nobody answers that either."""
    go_on = threading.Event()
    hanging = [asyncio.create_task(asyncio.to_thread(go_on.wait, 60)) for _ in range(64)]
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(20):
            await reopen().keep(refreshed())
    finally:
        go_on.set()
        await asyncio.gather(*hanging)
    assert reopen().depth == 1


@pytest.fixture
def open_folder(folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(0o755)
    return folder


async def test_folder_and_entries_are_for_their_owner_alone_and_hold_no_token(
    open_folder: Path, reopen: Callable[[], FileJournal]
) -> None:
    await reopen().keep(refreshed())
    [file] = files(open_folder)
    assert mode(open_folder) == 0o700
    assert mode(file) == 0o600
    assert not [word for word in (b"canary", b"grant-1", b"profile-1", b"twitter") if word in file.read_bytes()]


async def test_an_entry_is_synced_before_it_has_its_name_and_its_folder_after(
    reopen: Callable[[], FileJournal], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = reopen()
    steps: list[tuple[str, int]] = []

    def note(file: int) -> None:
        named = sum(path.suffix != journal.UNFINISHED for path in files(folder))
        steps.append((Path(f"/proc/self/fd/{file}").readlink().suffix, named))

    monkeypatch.setattr(os, "fsync", note)
    await kept.keep(refreshed())
    assert steps == [(journal.UNFINISHED, 0), (folder.suffix, 1)]


@pytest.mark.parametrize("step", ["fsync", "sync_folder"])
async def test_what_could_not_be_kept_is_told_and_leaves_nothing(
    reopen: Callable[[], FileJournal], folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    kept = reopen()
    with monkeypatch.context() as broken:
        broken.setattr(journal.os if step == "fsync" else journal, step, full)
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                await kept.keep(refreshed())
    assert kept.depth == 0 and files(folder) == []
    await kept.keep(refreshed())
    assert [entry for _, entry in await reopen().entries()] == [refreshed()]


async def test_what_is_erased_while_its_writer_waits_for_the_folder_is_counted_no_more(
    reopen: Callable[[], FileJournal], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = reopen()
    named, go_on = threading.Event(), threading.Event()

    def slow(_: Path) -> None:
        named.set()
        assert go_on.wait(5)

    monkeypatch.setattr(journal, "sync_folder", slow)
    keeping = asyncio.create_task(kept.keep(refreshed()))
    assert await asyncio.to_thread(named.wait, 5)
    monkeypatch.undo()
    for name, _ in await kept.entries():
        await kept.erase(name)
    go_on.set()
    await keeping
    assert kept.depth == 0 and not await kept.entries()


async def test_an_entry_that_a_crash_left_whole_but_unnamed_is_not_lost(
    reopen: Callable[[], FileJournal], folder: Path
) -> None:
    await reopen().keep(refreshed())
    [file] = files(folder)
    file.rename(file.with_name(file.name + journal.UNFINISHED))
    found = reopen()
    assert found.depth == 1
    assert [entry for _, entry in await found.entries()] == [refreshed()]


async def test_an_entry_that_a_crash_left_torn_is_no_entry_at_any_length(
    reopen: Callable[[], FileJournal], folder: Path
) -> None:
    await reopen().keep(refreshed())
    [file] = files(folder)
    whole = file.read_bytes()
    file.unlink()
    torn = file.with_name(file.name + journal.UNFINISHED)
    for length in range(len(whole)):
        torn.write_bytes(whole[:length])
        assert reopen().depth == 0, length
    torn.write_bytes(whole)
    assert reopen().depth == 1


async def test_an_entry_that_does_not_open_holds_up_no_other_stays_and_is_told_once(
    reopen: Callable[[], FileJournal], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = reopen()
    await kept.keep(refreshed())
    [file] = files(folder)
    renamed = file.rename(folder / "00000000-0000-7000-8000-000000000000")
    await kept.keep(refreshed(2))
    with caplog.at_level(logging.CRITICAL):
        for _ in range(3):
            assert [entry for _, entry in await kept.entries()] == [refreshed(2)]
    assert [record.message for record in caplog.records] == ["a journal entry does not open"]
    assert renamed.exists()


async def test_what_is_no_entry_is_no_hindrance(reopen: Callable[[], FileJournal], folder: Path) -> None:
    (folder / "lost+found").mkdir(parents=True)
    kept = reopen()
    await kept.keep(refreshed())
    assert kept.depth == 1
    assert [entry for _, entry in await kept.entries()] == [refreshed()]


async def test_a_token_set_that_does_not_end_and_cannot_be_refreshed_is_kept_as_it_is(
    reopen: Callable[[], FileJournal],
) -> None:
    endless = refreshed(ends=False, refreshable=False)
    await reopen().keep(endless)
    assert [entry for _, entry in await reopen().entries()] == [endless]


async def test_a_folder_that_is_new_is_itself_safe_on_disk(
    reopen: Callable[[], FileJournal], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    sync = keyring.sync_folder

    def note(path: Path) -> None:
        synced.append(path)
        sync(path)

    monkeypatch.setattr(journal, "sync_folder", note)
    reopen()
    assert folder.parent in synced
