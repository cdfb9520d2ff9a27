"""What `backup`, `restore` and `restored` do, and what operators decide about suspect grants."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from server.commands.in_bulk import Progress, counted
from server.commands.operate import columns, operator
from server.config import Settings
from server.storage import backup
from server.storage.engine import DatabaseUnusable, Engine, SqliteEngine
from server.storage.keyring import KeyRing
from server.storage.migrate import migrate
from server.storage.restored import Suspects
from server.storage.served import ServedMark

AT_ONCE = 2000
POLL_SECONDS = 0.2


def back_up(settings: Settings, file: Path) -> Iterator[int]:
    """Writes a backup; meanwhile, how many bytes of it there are. Raises BackupFailed, OSError."""
    with backup.coming(file) as unfinished:
        path = settings.database.path
        failures: list[Exception] = []

        def work() -> None:
            try:
                if path is None:
                    backup.dump_postgres(settings.database.url, unfinished)
                else:
                    backup.copy_sqlite(path, unfinished)
            except Exception as error:
                failures.append(error)

        worker = threading.Thread(target=work)
        worker.start()
        while worker.is_alive():
            worker.join(POLL_SECONDS)
            yield unfinished.stat().st_size
        if failures:
            raise failures[0]


def size_of(settings: Settings) -> int:
    """About how many bytes a backup has. Raises DatabaseUnusable."""
    from server.parts import open_engine  # noqa: PLC0415 (imports the whole server)

    path = settings.database.path
    engine = open_engine(settings, alone=False)
    try:
        if path is not None:
            return path.stat().st_size
        return int(engine.database.execute_sql("SELECT pg_database_size(current_database())").fetchone()[0])
    finally:
        engine.close()


def place(settings: Settings, file: Path) -> Iterator[str]:
    """Brings a backup to where the settings say, and to the schema of this version; what there is to tell, at once.

    A SQLite backup takes its place when it is whole, migrated and fits the keys, and what was there is moved aside; a
    PostgreSQL database must be empty. Either says of itself that it is a backup. Raises DatabaseUnusable,
    KeyRingError, SchemaMismatch, OSError.
    """
    ring = KeyRing.load(settings.keys.file)
    path = settings.database.path
    if path is None:
        applied = place_postgres(settings, ring, file)
    else:
        with backup.beside_sqlite(file, path) as copy:
            applied = migrated(SqliteEngine(copy, alone=False), ring)
            for aside in backup.swap_sqlite(copy, path):
                yield f"what was at {path} is at {aside} now"
    yield f"{file} is in place"
    yield from (f"applied {name}" for name in applied)


def place_postgres(settings: Settings, ring: KeyRing, file: Path) -> list[str]:
    from server.parts import open_engine  # noqa: PLC0415

    engine = open_engine(settings)
    if engine.database.get_tables():
        engine.close()
        raise backup.BackupFailed("the database is not empty; make another, and name it in the settings")
    backup.place_postgres(file, settings.database.url)
    return migrated(engine, ring)


def migrated(engine: Engine, ring: KeyRing) -> list[str]:
    """The migrations that it needed, and then is closed."""
    try:
        return migrate(engine.database, ring)
    finally:
        engine.close()


async def put_to_use(settings: Settings, *, moved: bool, unmarked: bool, bar: Callable[[int], Progress]) -> list[str]:
    """Makes every grant suspect that may have been refreshed since, unless nobody has served the database meanwhile.

    It may be stopped, and run again: until it has ended no server serves the database. Raises DatabaseUnusable where
    nothing shows that the database was restored, unless `unmarked`.
    """
    from server.parts import DEFINITIONS, opened_store  # noqa: PLC0415
    from server.platforms.definition import Rotation  # noqa: PLC0415

    multiple_use = [name for name, each in DEFINITIONS.items() if each.rotation is Rotation.NONE]
    async with opened_store(settings, alone=True) as store:
        mark = ServedMark(settings.journal_folder, store)
        if not (unmarked or await mark.sign_of_restore()):
            raise DatabaseUnusable(NO_SIGN)
        total = 0 if moved else await store.count_unspent(multiple_use)
        if total:
            await in_batches(lambda: store.suspect(multiple_use, limit=AT_ONCE), bar(total))
        await store.put_to_use(operator=operator(), suspects=total, known_us=mark.known())
    if not total:
        return ["put to use; nothing is suspect"]
    return [f"put to use; {counted(total, 'grant')} suspect: access tokens are served, and nothing is sent", *NEXT]


NO_SIGN = (
    "nothing shows that this database was restored: it is no backup, and has not gone back. If it was all the same (a "
    "point in time, on another machine), stop its servers and add --unmarked"
)
NEXT = ["Start the servers. What to do about suspect grants: grants suspect"]


async def suspects(settings: Settings) -> list[str]:
    from server.parts import store_beside  # noqa: PLC0415

    async with store_beside(settings) as store:
        found = await store.suspects()
    if not found:
        return ["no grant is suspect"]
    rows = [("PLATFORM", "ACCESS TOKEN LIVES", "ACCESS TOKEN HAS ENDED")]
    rows += [(platform, str(living), str(ended)) for platform, living, ended in found]
    return list(columns(rows))


async def count_suspects(settings: Settings, which: Suspects) -> int:
    from server.parts import store_beside  # noqa: PLC0415

    async with store_beside(settings) as store:
        return await store.count_suspects(which)


async def try_suspects(settings: Settings, which: Suspects, bar: Callable[[int], Progress]) -> int:
    from server.parts import store_beside  # noqa: PLC0415

    async with store_beside(settings) as store:
        if not (total := await store.count_suspects(which)):
            return 0
        return await in_batches(lambda: store.try_suspects(which, operator=operator(), limit=AT_ONCE), bar(total))


async def give_up_suspects(settings: Settings, which: Suspects, bar: Callable[[int], Progress]) -> int:
    from server.parts import store_beside  # noqa: PLC0415

    async with store_beside(settings) as store:
        if not (total := await store.count_suspects(which)):
            return 0
        return await in_batches(
            lambda: store.give_up_suspects(which, operator=operator(), limit=AT_ONCE // 10), bar(total)
        )


async def in_batches(work: Callable[[], Awaitable[int]], progress: Progress) -> int:
    """Short transactions, so that a running server is not held up; how many grants it came to."""
    done = 0
    while some := await work():
        done += some
        progress(some)
    return done
