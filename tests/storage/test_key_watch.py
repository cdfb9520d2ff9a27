"""Who uses which key, and the key watch: nobody seals with a key that another process does not know, and a key goes
only when nobody can seal with it any more."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from peewee import Database

from server.storage import key_file, key_use, key_watch
from server.storage.engine import Engine
from server.storage.journal import FileJournal
from server.storage.key_watch import SETTLE_SECONDS, KeyWatch
from server.storage.keyring import KeyRing, KeyRingError
from server.storage.postgres import PostgresEngine
from server.storage.vault import Vault, key_id_of
from tests.storage.test_journal import refreshed


class Process:
    """What of a server has to do with keys: its key file, vault, journal and watch, on a machine of its own."""

    def __init__(self, name: str, machine: Path, engine: Engine, new_id: Callable[[], str]) -> None:
        self.key_file = machine / "keys.json"
        self.vault = Vault(KeyRing.load(self.key_file))
        self.folder = machine / "journal"
        self.journal = FileJournal(self.folder, self.vault, new_id)
        self.seconds = 0.0
        self.watch = KeyWatch(self.key_file, engine, self.vault, self.journal, name, lambda: self.seconds)

    @property
    def seals_with(self) -> str:
        return key_id_of(self.vault.seal(b"", ("a",)))


@pytest.fixture
def first(engine: Engine, tmp_path: Path, new_id: Callable[[], str]) -> Process:
    return Process("first", tmp_path, engine, new_id)


@pytest.fixture
def second(engine: Engine, tmp_path: Path, new_id: Callable[[], str], first: Process) -> Process:
    """On another machine, with a copy of the key file."""
    machine = tmp_path / "second"
    machine.mkdir()
    bring(first.key_file, machine / "keys.json")
    return Process("second", machine, engine, new_id)


def bring(here: Path, there: Path) -> None:
    fresh = there.with_name("coming")
    fresh.write_bytes(here.read_bytes())
    fresh.chmod(0o600)
    fresh.rename(there)


def enter(engine: Engine, process: Process, key_id: str) -> None:
    key_use.enter(engine.database, KeyRing.load(process.key_file), key_id)


async def joined(*processes: Process) -> None:
    # As on PostgreSQL, where nobody is alone: on SQLite the second would take the first for dead.
    for process in processes:
        await process.watch.join()
        state = await process.watch._state()
        key_use.say(process.watch._engine.database, process.watch._process, process.vault.ring, state[1], 0)
    for process in processes[:-1]:
        process.watch._said = None
        await process.watch.follow()


async def test_a_key_is_activated_only_when_every_process_knows_it(
    engine: Engine, first: Process, second: Process
) -> None:
    await joined(first, second)
    key_id = key_file.add(first.key_file)
    await first.watch.follow()
    with pytest.raises(KeyRingError, match=r"is not known to second: .*keys forget"):
        enter(engine, first, key_id)
    assert not key_use.is_entered(engine.database, key_id)
    bring(first.key_file, second.key_file)
    await second.watch.follow()
    enter(engine, first, key_id)
    assert first.seals_with == second.seals_with != key_id
    key_file.activate(first.key_file, key_id)
    await first.watch.follow()
    await second.watch.follow()
    assert (first.seals_with == key_id, second.seals_with == key_id) == (True, False)
    sealed = first.vault.seal(b"token", ("a",))
    assert second.vault.open(sealed, ("a",)) == b"token"


async def test_a_process_that_was_killed_counts_until_it_is_forgotten_or_starts_again(
    engine: Engine, first: Process, second: Process, new_id: Callable[[], str]
) -> None:
    await joined(first, second)
    key_id = key_file.add(first.key_file)
    await first.watch.follow()
    with pytest.raises(KeyRingError, match="second"):
        enter(engine, first, key_id)
    assert key_use.forget(engine.database, "second") and not key_use.forget(engine.database, "second")
    enter(engine, first, key_id)
    # It comes back all the same, with the key file of before.
    with pytest.raises(KeyRingError, match=f"uses key '{key_id}', which the key ring does not hold"):
        await second.watch.join()


async def test_a_process_that_stopped_does_not_count(engine: Engine, first: Process, second: Process) -> None:
    await joined(first, second)
    await second.watch.leave()
    key_id = key_file.add(first.key_file)
    await first.watch.follow()
    enter(engine, first, key_id)


async def test_a_key_that_was_made_active_by_hand_is_not_taken_up(
    engine: Engine, first: Process, caplog: pytest.LogCaptureFixture
) -> None:
    await joined(first)
    key_id = key_file.add(first.key_file)
    key_file.activate(first.key_file, key_id)
    for _ in range(3):
        await first.watch.follow()
    assert first.seals_with != key_id
    [told] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert key_id in told.why  # type: ignore[attr-defined]
    enter(engine, first, key_id)
    await first.watch.follow()
    assert first.seals_with == key_id


@pytest.mark.parametrize("damage", ["missing", "torn", "open to others", "without the key in use"])
async def test_a_damaged_key_file_is_told_of_once_and_the_keys_of_before_are_kept(
    engine: Engine, first: Process, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    await joined(first)
    await first.watch.follow()
    sound = first.key_file.read_bytes()
    if damage == "missing":
        first.key_file.unlink()
    elif damage == "torn":
        first.key_file.write_bytes(sound[:40])
    elif damage == "open to others":
        first.key_file.write_bytes(sound + b" ")
        first.key_file.chmod(0o644)
    else:
        first.key_file.unlink()
        KeyRing.create(first.key_file)
    before = first.seals_with
    for _ in range(3):
        await first.watch.follow()
    assert first.seals_with == before
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    first.key_file.unlink(missing_ok=True)
    first.key_file.write_bytes(sound)
    first.key_file.chmod(0o600)
    key_id = key_file.add(first.key_file)
    await first.watch.follow()
    assert key_id in first.vault.ring


async def test_a_key_is_retired_only_when_no_process_can_seal_with_it_any_more(
    engine: Engine, first: Process, second: Process
) -> None:
    await joined(first, second)
    old = first.seals_with
    key_id = key_file.add(first.key_file)
    bring(first.key_file, second.key_file)
    for process in (first, second):
        await process.watch.follow()
    enter(engine, first, key_id)
    key_file.activate(first.key_file, key_id)
    await first.watch.follow()
    with pytest.raises(KeyRingError, match="still used by first, second"):
        key_use.start_retiring(engine.database, old, 1)
    first.seconds += SETTLE_SECONDS + 1
    await first.watch.follow()
    with pytest.raises(KeyRingError, match="still used by second"):
        key_use.start_retiring(engine.database, old, 1)
    bring(first.key_file, second.key_file)
    await second.watch.follow()
    second.seconds += SETTLE_SECONDS - 1
    await second.watch.follow()
    with pytest.raises(KeyRingError, match="still used by second"):
        key_use.start_retiring(engine.database, old, 1)
    second.seconds += 2
    await second.watch.follow()
    key_use.start_retiring(engine.database, old, 1)


async def rotated(engine: Engine, process: Process) -> tuple[str, bytes]:
    """The process seals with a new key alone: the id of the old one, and the file in which that was active."""
    await joined(process)
    old = process.seals_with
    key_id = key_file.add(process.key_file)
    both = process.key_file.read_bytes()
    await process.watch.follow()
    enter(engine, process, key_id)
    key_file.activate(process.key_file, key_id)
    await process.watch.follow()
    process.seconds += SETTLE_SECONDS + 1
    await process.watch.follow()
    return old, both


async def test_a_process_says_that_it_seals_with_a_key_before_it_does(
    engine: Engine, first: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, both = await rotated(engine, first)
    said: list[bool] = []
    use = first.vault.use

    def look_and_use(ring: KeyRing) -> None:
        if ring.active.id == old:
            said.append(old in key_use.users(engine.database)[0].uses.split())
        use(ring)

    monkeypatch.setattr(first.vault, "use", look_and_use)
    first.key_file.write_bytes(both)
    await first.watch.follow()
    assert first.seals_with == old and said == [True]


async def test_a_key_that_is_retired_while_a_file_is_taken_up_that_names_it_seals_nothing(
    engine: Engine, first: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old, both = await rotated(engine, first)
    present, fits = first.seals_with, key_watch.fits

    def fits_and_is_retired(database: Database, ring: KeyRing) -> None:
        fits(database, ring)
        key_use.start_retiring(database, old, 1)

    monkeypatch.setattr(key_watch, "fits", fits_and_is_retired)
    first.key_file.write_bytes(both)
    await first.watch.follow()
    assert first.seals_with == present
    assert key_use.users(engine.database)[0].uses == present
    [told] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert f"key '{old}' is retired" in told.why  # type: ignore[attr-defined]


async def test_a_process_that_stood_still_while_its_key_was_retired_seals_with_another_when_it_goes_on(
    engine: Engine, first: Process, caplog: pytest.LogCaptureFixture
) -> None:
    await joined(first)
    old, new = first.seals_with, key_file.add(first.key_file)
    await first.watch.follow()
    enter(engine, first, new)
    # It stands still: others are through with the old key, and somebody takes it for dead.
    key_use.forget(engine.database, "first")
    key_use.start_retiring(engine.database, old, 1)
    key_use.finish_retiring(engine.database, old)
    assert first.seals_with == old
    await first.watch.follow()
    assert first.seals_with == new
    assert [record.key for record in caplog.records if record.levelno == logging.CRITICAL] == [old]  # type: ignore[attr-defined]


async def test_a_journal_keeps_its_keys_in_use_after_its_process_has_stopped_too(
    engine: Engine, first: Process, second: Process
) -> None:
    await joined(first, second)
    old = second.seals_with
    await second.journal.keep(refreshed())
    await second.watch.leave()
    key_id = key_file.add(first.key_file)
    await first.watch.follow()
    enter(engine, first, key_id)
    key_file.activate(first.key_file, key_id)
    await first.watch.follow()
    first.seconds += SETTLE_SECONDS + 1
    await first.watch.follow()
    with pytest.raises(KeyRingError, match="still used by second"):
        key_use.start_retiring(engine.database, old, 1)


async def test_the_journal_is_rewrapped_by_the_process_whose_it_is(
    engine: Engine, first: Process, new_id: Callable[[], str]
) -> None:
    await joined(first)
    old = first.seals_with
    await first.journal.keep(refreshed(1))
    await first.journal.keep(refreshed(2))
    key_id = key_file.add(first.key_file)
    enter_here = KeyRing.load(first.key_file)
    await first.watch.follow()
    key_use.enter(engine.database, enter_here, key_id)
    key_file.activate(first.key_file, key_id)
    await first.watch.follow()
    assert first.journal.key_ids() == {key_id} != {old}
    ring = KeyRing.load(first.key_file)
    alone = FileJournal(first.folder, Vault(KeyRing({key_id: ring.key(key_id)}, key_id)), new_id)
    assert [entry for _, entry in await alone.entries()] == [refreshed(1), refreshed(2)]


async def test_an_entry_that_is_erased_while_the_journal_is_rewrapped_does_not_come_back(
    engine: Engine, first: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await first.journal.keep(refreshed(1))
    [(name, _)] = await first.journal.entries()
    key_id = key_file.add(first.key_file)
    key_file.activate(first.key_file, key_id)
    first.vault.use(KeyRing.load(first.key_file))
    erasing: list[asyncio.Task[None]] = []
    loop, put = asyncio.get_running_loop(), first.journal._put

    def put_while_it_is_erased(*words: object) -> None:
        loop.call_soon_threadsafe(lambda: erasing.append(loop.create_task(first.journal.erase(name))))
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.1), loop).result()
        put(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(first.journal, "_put", put_while_it_is_erased)
    await asyncio.to_thread(first.journal.rewrap)
    await asyncio.gather(*erasing)
    assert await first.journal.entries() == []


async def test_what_a_killed_rewrap_of_the_journal_left_behind_is_cleared_away(
    first: Process, new_id: Callable[[], str]
) -> None:
    await first.journal.keep(refreshed(1))
    (first.folder / "0193.rewrapped").write_bytes(b"half")
    again = FileJournal(first.folder, first.vault, new_id)
    assert [entry for _, entry in await again.entries()] == [refreshed(1)]
    assert not (first.folder / "0193.rewrapped").exists()


async def test_a_key_file_from_before_a_retirement_is_refused(engine: Engine, first: Process, tmp_path: Path) -> None:
    old, before = first.seals_with, first.key_file.read_bytes()
    key_id = key_file.add(first.key_file)
    middle = first.key_file.read_bytes()
    enter(engine, first, key_id)
    key_file.activate(first.key_file, key_id)
    key_use.start_retiring(engine.database, old, 1)
    key_use.finish_retiring(engine.database, old)
    for stale, told in ((before, "does not hold"), (middle, "is retired; this key file is an old one")):
        first.key_file.write_bytes(stale)
        with pytest.raises(KeyRingError, match=told):
            key_use.join(engine.database, "late", KeyRing.load(first.key_file), (), 0, alone=False)


async def test_wraps_are_counted_and_a_worn_key_is_told_of_once(
    engine: Engine, first: Process, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_use, "WEAR_LIMIT", 50)
    await joined(first)
    for count in (20, 40, 60):
        for _ in range(20):
            first.vault.seal(b"", ("a",))
        await first.watch.follow()
        assert first.watch.wraps == count
    told = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert [(record.message, record.key) for record in told] == [  # type: ignore[attr-defined]
        ("the active key has wrapped very many values; run: keys rotate", first.seals_with)
    ]


async def test_a_process_that_joins_while_a_key_is_activated_either_knows_it_or_is_refused(
    on_postgres: PostgresEngine, tmp_path: Path, new_id: Callable[[], str]
) -> None:
    for attempt in range(20):
        stale = KeyRing.load(tmp_path / "keys.json")
        key_id = key_file.add(tmp_path / "keys.json")
        ring = KeyRing.load(tmp_path / "keys.json")
        name = f"late-{attempt}"
        outcomes = await asyncio.gather(
            on_postgres.write(lambda db, n=name, r=stale: key_use.join(db, n, r, (), 0, alone=False)),  # type: ignore[misc]
            on_postgres.write(lambda db, r=ring, k=key_id: key_use.enter(db, r, k)),  # type: ignore[misc]
            return_exceptions=True,
        )
        assert [isinstance(outcome, KeyRingError) for outcome in outcomes].count(True) == 1, outcomes
        if isinstance(outcomes[1], KeyRingError):
            await on_postgres.write(lambda db, n=name: key_use.forget(db, n))  # type: ignore[misc]
            await on_postgres.write(lambda db, r=ring, k=key_id: key_use.enter(db, r, k))  # type: ignore[misc]
