"""A process that stands still past its lease (SIGSTOP), at each step of a refresh, while another one goes on."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from server.accounts.model import Status
from tests.faults.processes import LONG, Fleet, fleet, until
from tests.postgres import fresh_database

LEASE = "2s"
SOON = timedelta(minutes=5)
"""An access token that ends so soon is refreshed again at once when an outcome is unknown."""

LINGER = """
CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF NEW.state = 'sent' THEN PERFORM pg_sleep(0.5); END IF; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER linger AFTER UPDATE ON grants DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION linger();
"""


@contextmanager
def slow_claims(running: Fleet) -> Iterator[None]:
    """Commits of claims take half a second: long enough to stop a process in the middle of one."""
    running.sql(LINGER)
    try:
        yield
    finally:
        running.sql("DROP TRIGGER linger ON grants")


async def stopped_in_a_claim(running: Fleet, number: int, life: timedelta) -> None:
    """Stops a server while the commit of its claim is under way; the commit itself goes through.

    The grant comes after the trigger: the server would claim it before there is one.
    """
    with slow_claims(running):
        await running.seed(1, life=life)
        await until(lambda: running.sql("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"), every=0.01)
        running.pause(number)
    assert running.states() == {"sent": 1}


async def stopped_with_an_answer_held(running: Fleet, number: int, fault: str) -> None:
    """Stops a server whose refresh has reached the platform, which holds its answer."""
    await running.sandbox.fault("token", fault, only="refresh")
    running.start(number)
    await running.sandbox.until_held()
    running.pause(number)


async def until_taken_over(running: Fleet, number: int) -> None:
    await until(lambda: "interrupted" in [line["outcome"] for line in running.lines("refresh", number)])


async def test_stopped_after_its_claim_it_does_not_send_what_another_process_has_sent(
    tmp_path: Path, postgres: str
) -> None:
    async with fleet(tmp_path, servers=2, database_url=fresh_database(postgres), lease=LEASE) as running:
        running.start(0)
        await stopped_in_a_claim(running, 0, SOON)
        running.start(1)
        # The other finds a refresh that may have been sent, and tries it once more, as the token ends soon.
        await until(lambda: running.refreshed() == 1)
        running.go_on(0)
        await until(lambda: running.lines("refresh", 0))
        assert await running.replays() == 0
        assert await running.live_tokens() == running.held_tokens()
        assert running.statuses() == {Status.ACTIVE: 1}


@pytest.mark.long
async def test_stopped_after_its_claim_it_leaves_an_access_token_that_still_lives_in_use(
    tmp_path: Path, postgres: str
) -> None:
    async with fleet(tmp_path, servers=2, database_url=fresh_database(postgres), lease=LEASE) as running:
        running.start(0)
        await stopped_in_a_claim(running, 0, LONG)
        running.start(1)
        await until_taken_over(running, 1)
        running.go_on(0)
        await until(lambda: running.lines("refresh", 0))
        assert max((await running.sends()).values(), default=0) <= 1
        assert await running.live_tokens() == running.held_tokens()
        assert running.statuses() == {Status.ACTIVE: 1}


@pytest.mark.parametrize(
    "answered", ["after_its_lease_ended", pytest.param("before_its_lease_ended", marks=pytest.mark.long)]
)
async def test_an_answer_that_waited_in_the_socket_of_a_stopped_process_is_stored_while_the_other_goes_on(
    tmp_path: Path, postgres: str, answered: str
) -> None:
    async with fleet(tmp_path, servers=2, database_url=fresh_database(postgres), lease=LEASE) as running:
        await running.seed(1, life=LONG)
        await stopped_with_an_answer_held(running, 0, "hold_after")
        if answered == "before_its_lease_ended":
            await running.sandbox.release()
        await running.seed(50)
        running.start(1)
        await until_taken_over(running, 1)
        await until(lambda: running.refreshed() == 50)
        await running.sandbox.release()
        await asyncio.sleep(0.2)  # until it lies in the socket
        running.go_on(0)
        await until(lambda: running.lines("refresh", 0))
        assert running.lines("refresh", 0)[0]["outcome"] == "refreshed"
        assert set((await running.sends()).values()) == {1}
        assert await running.live_tokens() == running.held_tokens()
        assert running.statuses() == {Status.ACTIVE: 51}


async def test_a_refresh_that_the_platform_never_carried_out_is_tried_once_more(tmp_path: Path, postgres: str) -> None:
    async with fleet(tmp_path, servers=2, database_url=fresh_database(postgres), lease=LEASE) as running:
        await running.seed(1, life=SOON)
        await stopped_with_an_answer_held(running, 0, "hold_before")
        running.start(1)
        await until(lambda: running.refreshed() == 1)
        running.go_on(0)
        await until(lambda: running.lines("refresh", 0))
        await running.sandbox.release()
        assert set((await running.sends()).values()) == {2}
        assert await running.replays() == 0
        assert await running.live_tokens() == running.held_tokens()
        assert running.statuses() == {Status.ACTIVE: 1}


@pytest.mark.long
async def test_a_pair_that_came_after_the_one_retry_is_parked_and_the_account_stays_active(
    tmp_path: Path, postgres: str
) -> None:
    async with fleet(tmp_path, servers=2, database_url=fresh_database(postgres), lease=LEASE) as running:
        await running.sandbox.settings(replay="grace", grace_seconds=60)
        await running.seed(1, life=SOON)
        await stopped_with_an_answer_held(running, 0, "hold_after")
        await running.sandbox.release()
        running.start(1)
        await until(lambda: running.refreshed() == 1)
        running.go_on(0)
        await until(lambda: running.lines("refresh", 0))
        assert running.lines("refresh", 0)[0]["outcome"] == "overtaken"
        assert running.sql("SELECT count(*) FROM grants WHERE candidate IS NOT NULL") == [(1,)]
        assert set((await running.sends()).values()) == {2}
        assert await running.live_tokens() == running.held_tokens()
        assert running.statuses() == {Status.ACTIVE: 1}


@pytest.mark.long
async def test_a_single_process_that_stood_still_stores_the_answer_that_waited_for_it(tmp_path: Path) -> None:
    async with fleet(tmp_path, lease=LEASE) as running:
        await running.seed(1, life=LONG)
        await stopped_with_an_answer_held(running, 0, "hold_after")
        await running.sandbox.release()
        await asyncio.sleep(2.5)  # past its lease
        running.go_on(0)
        await until(lambda: running.lines("refresh"))
        await until(lambda: running.states() == {"ready": 1})
        assert sum((await running.sends()).values()) == 1
        assert await running.live_tokens() == running.held_tokens()
        assert running.statuses() == {Status.ACTIVE: 1}
