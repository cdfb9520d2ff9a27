"""Data, rows H1 and H2: whatever a text says, it is only ever a text; in the database, in lists and in the log."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import timedelta

import pytest

from server.accounts.events import EventFilter
from server.accounts.model import AccountFilter, Identity
from server.platforms import oauth
from server.platforms.fields import LONGEST_SHOWN
from server.platforms.http import HttpReply
from server.platforms.twitter import TWITTER
from server.storage.restored import Suspects
from server.storage.store import Store
from server.telemetry import set_up_logging
from tests.platforms.test_oauth import NOW
from tests.storage.make import claim, connected

CORPUS = [
    "' OR '1'='1",
    "' OR 1=1 --",
    "'; DROP TABLE accounts; --",
    '" OR ""="',
    "1; ATTACH DATABASE '/tmp/x' AS x; --",
    "' UNION SELECT sealed FROM secrets --",
    "'||(SELECT value FROM counters LIMIT 1)||'",
    "\\'; SELECT pg_sleep(60); --",
    "%",
    "_",
    "acme%",
    "a_me/1",
    "ACME/1",
    "*",
    "?",
    ":name",
    "%s",
    "%(name)s",
    "$1",
    "{0}",
    "/* */",
    "\u02bc OR 1=1",
    "name\u202egnp.exe",
]
WHOLE = AccountFilter()


async def ids(store: Store, which: AccountFilter, after: str = "") -> list[str]:
    return [account.id for account in (await store.list_accounts(which, after=after, size=500)).accounts]


async def test_h1_a_text_in_any_place_finds_what_equals_it_and_nothing_else(store: Store) -> None:
    plain = await connected(store, profile_id="acme/1")
    for number, text in enumerate(CORPUS):
        mine = await connected(store, profile_id=text, user=text, handle=text)
        assert (mine.profile_id, mine.platform_user_id, mine.handle) == (text, text, text)
        assert await ids(store, AccountFilter(profile_id=text)) == [mine.id]
        assert await ids(store, AccountFilter(profile_prefixes=(text,))) == [mine.id]
        assert await ids(store, AccountFilter(platforms=frozenset({text}))) == []
        assert len(await ids(store, WHOLE)) == number + 2
        for which in (
            EventFilter(caller=text), EventFilter(kind=text), EventFilter(account_id=text),
            EventFilter(platforms=frozenset({text})),
        ):  # fmt: skip
            assert (await store.list_events(which, after="", size=10)).events == ()
        found = await store.list_events(EventFilter(profile_id=text), after="", size=10)
        assert {event.profile_id for event in found.events} == {text}
        assert await store.account(text) is None
        assert await claim(store, platform=text) == []
        assert (
            await store.claim_grants([text], owner=text, lease=timedelta(minutes=1), min_interval=None, caller="") == []
        )
        assert await store.count_suspects(Suspects(platform=text, grant_ids=(text,))) == 0
    assert await store.account(plain.id) == plain


async def test_h1_what_a_platform_said_before_is_only_a_text_afterwards(store: Store) -> None:
    account = await connected(store, profile_id="acme/1")
    for text in CORPUS:
        identity = Identity(account.platform_user_id, text, text, text)
        await store.update_identity(account.grant_id, identity, due_time=await store.now())
        renamed = await store.account(account.id)
        assert renamed is not None
        assert (renamed.handle, renamed.display_name, renamed.avatar_url) == (text, text, text)
    told = [
        event.facts["handle"]
        for event in await store.events_of(account.id, limit=100)
        if "earlier_handle" in event.facts
    ]
    assert told == CORPUS
    assert (await store.verify_chain()).broken is None


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("ada\x00\x07\x1b[31m", "ada[31m"),
        ("a\ud800b", "ab"),
        ('ada\n{"level": "critical", "event": "forged"}', 'ada{"level": "critical", "event": "forged"}'),
        ("txt\u202egnp", "txt\u202egnp"),
        ("\U0001f469\u200d\U0001f467", "\U0001f469\u200d\U0001f467"),
        ("x" * 1_000_000, "x" * LONGEST_SHOWN),
    ],
    ids=["control characters", "a lone surrogate", "a line of a log", "a right-to-left override", "a joiner", "1 MB"],
)
async def test_h2_a_handle_is_stored_as_a_text_that_every_message_can_hold(store: Store, said: str, shown: str) -> None:
    body = json.dumps({"data": {"id": "1", "username": said, "name": said}}).encode()
    [identity] = oauth.read_identity(TWITTER, HttpReply(200, body, {}), NOW)
    assert identity.handle == shown
    account = await connected(store, profile_id="acme/1", handle=identity.handle)
    assert account.handle == shown


@pytest.fixture(params=["json", "console"])
def lines(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    set_up_logging(request.param, "debug", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def test_h2_an_event_is_one_line_of_the_log_whatever_is_in_it(lines: io.StringIO) -> None:
    forged = 'why\n{"event": "forged", "level": "critical"}\r\x1b[2J\x00'
    logging.getLogger("tests").warning("said", extra={"why": forged, "handle": forged})
    assert lines.getvalue().count("\n") == 1 and lines.getvalue().endswith("\n")
    assert "\r" not in lines.getvalue() and "\x1b" not in lines.getvalue()
