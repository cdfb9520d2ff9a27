"""The rewrap: every value ends under the active key, none is opened, none lost; whoever writes in between wins."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from peewee import BlobField

from server.accounts.errors import StoreUnavailable
from server.accounts.grants import Commit
from server.storage import schema
from server.storage.engine import Engine, SqliteEngine
from server.storage.key_use import start_retiring, take_back_retiring, wraps_of
from server.storage.keyring import KeyRing, KeyRingError
from server.storage.postgres import PostgresEngine
from server.storage.rewrap import Rewrapper
from server.storage.sealed import NOT_SEALED, SEALED, count_by_key
from server.storage.store import Store
from server.storage.vault import Vault, key_id_of
from tests.storage.make import claim, connected, refreshed, token_set
from tests.storage.rows import sql
from tests.storage.sealing import HOUR, due, fill, only, opened, rotated, values


class Slept:
    """In the place of asyncio.sleep: notes how long it would have been."""

    def __init__(self) -> None:
        self.seconds = 0.0

    async def __call__(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)


def rewrapper(engine: Any, ring: KeyRing, rate: float = 10_000.0) -> Rewrapper:
    return Rewrapper(engine, Vault(ring), rate=rate, sleep=Slept())


class Between:
    """An engine before whose writes something happens."""

    def __init__(self, engine: Engine, happens: Callable[[], Any]) -> None:
        self.inner = engine
        self.locks_rows = engine.locks_rows
        self.read = engine.read
        self._happens = happens

    async def write(self, work: Any) -> Any:
        await self._happens()
        return await self.inner.write(work)


def test_every_column_of_bytes_is_listed_as_sealed_or_not(engine: Engine) -> None:
    models = {name: model for name, model in vars(schema).items() if name.endswith("Row")}
    columns = {
        field for model in models.values() for field in model._meta.sorted_fields if isinstance(field, BlobField)
    }
    listed = [column.field for column in SEALED] + list(NOT_SEALED)
    assert {str(field) for field in columns} == {str(field) for field in listed} and len(listed) == len(columns)
    for table in engine.database.get_tables():
        bytes_in_it = {c.name for c in engine.database.get_columns(table) if c.data_type.lower() in ("blob", "bytea")}
        assert bytes_in_it == {field.column_name for field in columns if field.model._meta.table_name == table}, table


async def test_every_sealed_column_is_rewrapped_and_opens_as_before(
    store: Store, engine: Engine, tmp_path: Path
) -> None:
    await fill(store)
    assert {column for column, _ in values(engine)} == {column.name for column in SEALED}
    ring = rotated(tmp_path, engine)
    before = opened(engine, Vault(ring))
    report = await rewrapper(engine, ring).run()
    assert (report.rewrapped, report.broken, report.complete) == (len(before), 0, True)
    assert opened(engine, only(ring, ring.active.id)) == before
    assert {key_id for counted in count_by_key(engine.database).values() for key_id in counted} == {ring.active.id}
    again = await rewrapper(engine, ring).run()
    assert (again.rewrapped, again.overtaken) == (0, 0)


async def test_no_value_is_opened_by_a_rewrap(
    store: Store, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store)
    ring = rotated(tmp_path, engine)
    before = values(engine)
    with monkeypatch.context() as patched:
        patched.setattr(Vault, "open", None)
        await rewrapper(engine, ring).run()
    for where, (sealed, _) in values(engine).items():
        inner = len(before[where][0]) - (2 + len(key_id_of(before[where][0])) + 12 + 48)
        assert sealed[-inner:] == before[where][0][-inner:]


async def test_a_refresh_in_between_wins(store: Store, engine: Engine, tmp_path: Path) -> None:
    account = await connected(store)
    [claimed] = await due(store)
    ring = rotated(tmp_path, engine)
    fresh = token_set(2, expire_time=await store.now() + HOUR)
    commits = []

    async def refresh() -> None:
        if not commits:
            commits.append(await store.commit_refresh(refreshed(claimed, fresh, await store.now() + HOUR)))

    report = await rewrapper(Between(engine, refresh), ring).run()
    assert commits == [Commit.STORED] and report.overtaken == 1
    held = Store(engine, only(ring, ring.active.id), lambda: "")
    assert await held.token_set(claimed.id) == fresh
    assert (await store.account(account.id)).last_refresh_time is not None  # type: ignore[union-attr]


async def test_a_value_that_does_not_open_is_told_of_and_stays_and_holds_up_no_other(
    store: Store, engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await connected(store, profile_id="p1")
    await connected(store, profile_id="p2")
    [[broken, sealed]] = sql(engine, "SELECT id, token_set FROM grants WHERE profile_id = 'p1'").fetchall()
    damaged = bytes(sealed)[:30] + bytes((bytes(sealed)[30] ^ 1,)) + bytes(sealed)[31:]
    sql(engine, "UPDATE grants SET token_set = ? WHERE id = ?", [damaged, broken])
    ring = rotated(tmp_path, engine)
    report = await rewrapper(engine, ring).run()
    assert (report.broken, report.complete) == (1, True)
    [[stays]] = sql(engine, "SELECT token_set FROM grants WHERE id = ?", [broken]).fetchall()
    assert bytes(stays) == damaged
    assert count_by_key(engine.database)["grants.token_set"][ring.active.id] == 1
    assert broken in {getattr(record, "row", None) for record in caplog.records}


class Killed(Exception):
    """In the place of SIGKILL."""


class Dying(Between):
    """Lets so many writes through, then dies before the commit or after it."""

    def __init__(self, engine: Engine, happens: Callable[[], Any], lets_through: int, *, after: bool) -> None:
        super().__init__(engine, happens)
        self._left = lets_through
        self._after = after

    async def write(self, work: Any) -> Any:
        self._left -= 1
        if self._left < 0 and not self._after:
            raise Killed
        done = await super().write(work)
        if self._left < 0:
            raise Killed
        return done


@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after it"])
async def test_a_rewrap_that_dies_at_any_write_under_refreshes_loses_nothing(
    store: Store, engine: Engine, tmp_path: Path, after: bool
) -> None:
    """Its form with real processes is in tests/security/test_keys.py."""
    for number in range(12):
        await connected(store, profile_id=f"p{number}")
    newest = {grant_id: 1 for column, grant_id in values(engine) if column == "grants.token_set"}
    turns, numbers = itertools.cycle(sorted(newest)), itertools.count(2)
    for dies_after in range(6):
        active_before = KeyRing.load(tmp_path / "keys.json").active.id
        ring = rotated(tmp_path, engine)
        behind = KeyRing({key_id: ring.key(key_id) for key_id in ring}, active_before)
        # Both processes know the new key, as they must; one of them seals with it already.
        writers = itertools.cycle([Store(engine, Vault(each), store._new_id) for each in (behind, ring)])

        async def refresh_one(writers: Iterator[Store] = writers) -> None:
            grant_id, number, writer = next(turns), next(numbers), next(writers)
            sql(engine, "UPDATE grants SET due_time = 0 WHERE id = ?", [grant_id])
            [claimed] = await claim(writer)
            fresh = token_set(number, expire_time=await store.now() + HOUR)
            assert await writer.commit_refresh(refreshed(claimed, fresh, await store.now() + HOUR)) is Commit.STORED
            newest[grant_id] = number

        with pytest.raises(Killed):
            await rewrapper(Dying(engine, refresh_one, dies_after, after=after), ring, rate=40).run()
        opened(engine, Vault(ring))
    report = await rewrapper(engine, ring).run()
    assert report.complete and report.broken == 0
    held = Store(engine, only(ring, ring.active.id), store._new_id)
    for grant_id, number in newest.items():
        token_set_now = await held.token_set(grant_id)
        assert token_set_now is not None and token_set_now.access_token.reveal() == f"at-canary-{number}"


async def test_the_rate_is_kept_and_it_rests_as_long_as_it_works(store: Store, engine: Engine, tmp_path: Path) -> None:
    for number in range(30):
        await connected(store, profile_id=f"p{number}")
    ring = rotated(tmp_path, engine)
    slept = Slept()
    began = asyncio.get_running_loop().time()
    report = await Rewrapper(engine, Vault(ring), rate=10, sleep=slept).run()
    took = asyncio.get_running_loop().time() - began
    assert report.rewrapped / 10 - took <= slept.seconds <= report.rewrapped / 10 + took
    swift = Slept()
    await Rewrapper(engine, Vault(rotated(tmp_path, engine)), rate=1e9, sleep=swift).run()
    assert swift.seconds > 0


async def test_a_database_that_goes_away_for_a_while_is_waited_for(
    store: Store, engine: Engine, tmp_path: Path
) -> None:
    await connected(store)
    ring = rotated(tmp_path, engine)
    refusals = iter(range(3))

    async def refuse() -> None:
        if next(refusals, None) is not None:
            raise StoreUnavailable("the database does not answer")

    assert (await rewrapper(Between(engine, refuse), ring).run()).complete


async def test_a_rewrap_to_a_key_that_is_retired_meanwhile_stops(store: Store, engine: Engine, tmp_path: Path) -> None:
    await connected(store)
    old = KeyRing.load(tmp_path / "keys.json")
    ring = rotated(tmp_path, engine)
    start_retiring(engine.database, ring.active.id, 1)
    before = values(engine)
    with pytest.raises(KeyRingError, match="retired meanwhile"):
        await rewrapper(engine, ring).run()
    assert values(engine) == before and opened(engine, Vault(old))
    take_back_retiring(engine.database, ring.active.id)
    assert (await rewrapper(engine, ring).run()).complete


async def test_the_wraps_of_a_rewrap_are_counted(store: Store, engine: Engine, tmp_path: Path) -> None:
    await fill(store)
    ring = rotated(tmp_path, engine)
    report = await rewrapper(engine, ring).run()
    assert wraps_of(engine.database, [ring.active.id]) == {ring.active.id: report.rewrapped}


async def test_rows_that_somebody_has_locked_are_left_for_the_next_pass_and_not_waited_for(
    on_postgres: PostgresEngine, vault: Vault, new_id: Callable[[], str], tmp_path: Path
) -> None:
    store = Store(on_postgres, vault, new_id)
    for number in range(3):
        await connected(store, profile_id=f"p{number}")
    ring = rotated(tmp_path, on_postgres)
    database = on_postgres.database
    with database.atomic():
        sql(on_postgres, "SELECT id FROM grants WHERE profile_id = 'p1' FOR UPDATE").fetchall()
        async with asyncio.timeout(4):
            report = await rewrapper(on_postgres, ring).run()
    assert not report.complete
    assert count_by_key(database)["grants.token_set"][ring.active.id] == 2
    assert (await rewrapper(on_postgres, ring).run()).complete


async def test_it_works_on_a_connection_of_its_own_beside_the_server_that_holds_the_file(
    sqlite: SqliteEngine, vault: Vault, new_id: Callable[[], str], tmp_path: Path
) -> None:
    store = Store(sqlite, vault, new_id)
    await fill(store)
    ring = rotated(tmp_path, sqlite)
    beside = SqliteEngine(tmp_path / "accounts.db", alone=False)
    report = await rewrapper(beside, ring).run()
    beside.close()
    assert report.complete and opened(sqlite, only(ring, ring.active.id))
