"""What anybody can send to the callback (rows A11, A12, B1 to B3): it changes nothing, shows nothing, leads nowhere."""

import random
import secrets
import statistics
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
from synposter_accounts import InvalidField

from server.accounts.flow import ResultPage
from server.web.pages import PAGES
from tests.e2e.conftest import PROFILE, Whole
from tests.security.conftest import Get, begun
from tests.storage.rows import sql
from tests.web.conftest import CALLBACK, strict

EXPIRED, FAILED = (PAGES[page].body for page in (ResultPage.EXPIRED, ResultPage.FAILED))
TABLES = ("authorization_requests", "events", "accounts", "grants", "revocations")


def written(service: Whole) -> tuple[int, ...]:
    """The rows of each table, and the bytes of the write-ahead log."""
    path = service.app.settings.database.path
    assert path is not None
    rows = [sql(service.app.engine, f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES]
    return (*rows, path.with_name(path.name + "-wal").stat().st_size)


# --- A11 and A12: queries that write nothing


async def test_a11_malformed_answers_of_a_live_state_write_nothing_and_use_nothing_up(service: Whole, get: Get) -> None:
    state = await begun(service)
    before = written(service)
    for query in (
        f"state={state}&state={state}&code=c",
        f"state={state}&code=c&code=c",
        f"state={state}&code=c&iss=&iss=",
        f"state={state}&code=c&response=eyJhbGciOiJub25lIn0",
        f"state[]={state}&code=c",
        f"state={state}%00&code=c",
        f"state={state}&code=%ff%fe",
        f"state={state}&code=" + "c" * 9_000,
    ):
        status, headers, body = await get(f"{CALLBACK}?{query}")
        assert (status, body) == (400, FAILED)
        strict(headers)
    assert written(service) == before
    assert (await get(f"{CALLBACK}?state={state}&code=c"))[0] == 303


@pytest.mark.parametrize(("states", "percent"), [(500, 50), pytest.param(10_000, 99, marks=pytest.mark.long)])
async def test_a12_errors_forged_for_states_that_nobody_began_write_nothing_and_are_quick(
    service: Whole, get: Get, states: int, percent: int
) -> None:
    state = await begun(service)
    before, took = written(service), []
    for _ in range(states):
        start = time.perf_counter()
        status, _, body = await get(f"{CALLBACK}?state={secrets.token_urlsafe(32)}&error=access_denied")
        took.append(time.perf_counter() - start)
        assert (status, body) == (410, EXPIRED)
    assert written(service) == before
    assert statistics.quantiles(took, n=100)[percent - 1] < 0.05
    assert (await get(f"{CALLBACK}?state={state}&code=c"))[0] == 303, "the flow of somebody else goes on"


# --- B1: nothing is reflected

FRAGMENTS = (
    "<svg onload=alert(1)>", "\"><script>alert(1)</script>", "javascript:alert(1)", "{{7*7}}", "${7*7}", "%0d%0aX: y",
    "\u202e\u2028", "'||(select 1)||'", "<!--#exec cmd=ls-->", "</title><img src=x onerror=alert(1)>", "%s%n%x",
    "</style><style>*{color:red}</style>", "&lt;script&gt;", "\\x3csvg", "data:text/html,<b>", "//evil.test", "\ufeff",
)  # fmt: skip


def polyglots(count: int) -> Iterator[str]:
    chance = random.Random(20261124)
    yield from FRAGMENTS
    for _ in range(count - len(FRAGMENTS)):
        yield "".join(chance.choices(FRAGMENTS, k=chance.randint(2, 5)))


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.long)])
async def test_b1_no_parameter_and_no_path_changes_a_byte_of_the_page(service: Whole, get: Get, count: int) -> None:
    for text in polyglots(count):
        for name in ("error_description", "error", "state", "code", "iss", "other"):
            status, headers, body = await get(f"{CALLBACK}?" + urlencode({"state": "s", name: text}, quote_via=quote))
            assert (status, body) == (410, EXPIRED), (name, text)
            strict(headers)
        for path in (f"/oauth/callback/{quote(text, safe='')}?state=s", f"/{quote(text, safe='')}"):
            status, headers, body = await get(path)
            assert (status, body) == (404, b"404\n"), text
            strict(headers)


async def test_b1_a_live_states_error_is_shown_as_the_page_and_nothing_else(service: Whole, get: Get) -> None:
    for text in FRAGMENTS:
        begun = await service.accounts.begin_connect(PROFILE, "twitter")
        state = parse_qs(urlsplit(begun.authorization_url).query)["state"][0]
        query = urlencode({"state": state, "error": text, "error_description": text}, quote_via=quote)
        assert (await get(f"{CALLBACK}?{query}"))[2] == FAILED


# --- B2 and B3: where the browser goes, and what it takes along

EVIL = (
    "//evil.test", "https://{host}.evil.test/your-app", "https://{host}@evil.test/your-app", "javascript:alert(1)",
    "\\\\evil.test", "{url}.", "{url}/", "{url}?", "{url}#", "{url}%0d%0aLocation:%20https://evil.test",
    "{url}\r\nX: y", "{url}/../evil", "HTTP{tail}", "http://{host}/your-\u0430pp", "http://evil.test",
    "data:text/html,x", " {url}", "{url} ",
)  # fmt: skip


@pytest.mark.parametrize("evil", EVIL)
async def test_b2_a_return_url_that_is_not_the_registered_one_to_the_letter_is_refused(
    service: Whole, evil: str
) -> None:
    url = service.return_url
    twin = evil.format(url=url, host=urlsplit(url).netloc, tail=url.removeprefix("http"))
    for field in ("return_url", "redirect_uri"):
        with pytest.raises(InvalidField):
            await service.accounts.begin_connect(PROFILE, "twitter", **{field: twin})  # type: ignore[arg-type]
    assert written(service)[0] == 0


FORWARDED = {
    "Host": "evil.test",
    "Referer": "https://evil.test/",
    "Origin": "https://evil.test",
    "Forwarded": "for=10.0.0.1;host=evil.test;proto=https",
    "X-Forwarded-For": "10.0.0.1",
    "X-Forwarded-Host": "evil.test",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": "/evil",
    "X-Original-URL": "/healthz",
    "X-Rewrite-URL": "/healthz",
    "X-HTTP-Method-Override": "POST",
    "X-Real-IP": "10.0.0.1",
}


async def test_b2_no_header_says_where_the_browser_goes_or_who_came(service: Whole, get: Get) -> None:
    state = await begun(service)
    status, headers, _ = await get(f"{CALLBACK}?state={state}&error=access_denied", **FORWARDED)
    assert status == 303 and headers["Location"].startswith(f"{service.return_url}?connect_id=")
    events = sql(service.app.engine, "SELECT peer, caller, facts, personal FROM events WHERE kind = 'connect_failed'")
    [event] = events.fetchall()
    assert event[0] == "browser" and "10.0.0.1" not in str(event) and "evil" not in str(event)


async def test_b3_neither_code_nor_state_leaves_by_the_url_and_no_answer_may_be_kept_or_referred(
    service: Whole, get: Get
) -> None:
    state = await begun(service)
    answers = [
        await get(f"{CALLBACK}?state={state}&code=code-canary"),
        await get(f"{CALLBACK}?state={state}&code=code-canary"),
        await get(CALLBACK),
        await get("/nothing"),
        await get(CALLBACK, "POST"),
        await get("/healthz"),
    ]
    assert [status for status, _, _ in answers] == [303, 410, 400, 404, 405, 200]
    for _, headers, body in answers:
        strict(headers)
        assert "Set-Cookie" not in headers
        told = str(dict(headers)) + body.decode()
        assert "code-canary" not in told and state not in told
        assert b"http:" not in body and b"https:" not in body and b"src=" not in body, "nothing else is loaded"
