"""The API without I/O, by each platform's definition: what is built, what is passed on, which scopes are needed."""

from datetime import UTC, datetime

import pytest

from server.accounts.calls import AnswerWithheld, ApiCall
from server.accounts.errors import InvalidField
from server.accounts.grants import TokenSet
from server.accounts.model import Secret
from server.accounts.routes import SAFE, segments_of
from server.platforms.api import Origin, build, closed_paths, passed_on, rate_limits, read_answer, stays, terms_of
from server.platforms.catalog import PLATFORMS
from server.platforms.definition import OAuth2Platform
from server.platforms.linkedin import LINKEDIN
from server.platforms.messages import HttpReply
from server.platforms.registration import Registration
from server.platforms.twitter import TWITTER

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
BASE = Origin("https", "api.x.com", None)
each_platform = pytest.mark.parametrize("definition", PLATFORMS, ids=lambda each: each.id)


def call(path: str, method: str = "GET", **more: object) -> ApiCall:
    segments = segments_of(path)
    assert segments is not None
    return ApiCall("an-account", method, segments, **more)  # type: ignore[arg-type]


def url(definition: OAuth2Platform, path: str, **more: object) -> str:
    base = Origin.of(definition.api_base)
    return str(build(definition.api, base, (), call(path, **more)).url)


@each_platform
def test_the_definition_alone_says_where_requests_go(definition: OAuth2Platform) -> None:
    assert url(definition, "/2/users/me") == f"{definition.api_base}/2/users/me"
    assert definition.api_base.startswith("https://")


@each_platform
def test_scopes_of_routes_are_ones_that_can_be_asked_for(definition: OAuth2Platform) -> None:
    needed = {scope for _, scopes in definition.api.scopes for scope in scopes}
    assert needed
    # media.write and the like are asked for by name; what nobody can ask for would close a route for good.
    assert needed <= definition.allowed_scopes


@each_platform
def test_the_headers_of_a_definition_are_in_lower_case_and_none_is_ours(definition: OAuth2Platform) -> None:
    named = definition.api.request_headers | definition.api.response_headers
    assert all(name == name.lower() for name in named)
    ours = {"authorization", "host", "cookie", "content-length", "transfer-encoding", "connection", "x-restli-method"}
    assert not named & (ours | {"set-cookie", "x-http-method-override"})


def test_the_colons_of_a_urn_are_sent_encoded_where_ids_have_them_and_nowhere_else() -> None:
    assert url(LINKEDIN, "/rest/posts/urn:li:share:12") == "https://api.linkedin.com/rest/posts/urn%3Ali%3Ashare%3A12"
    with pytest.raises(InvalidField, match="path"):
        url(TWITTER, "/2/users/a:b")


def test_an_endpoint_of_oauth_is_closed_whatever_it_is_called() -> None:
    overrides = {"token_endpoint": "http://127.0.0.1:1/Get/Token", "revocation_endpoint": "http://127.0.0.1:1/end"}
    closed = closed_paths(Registration("id", Secret("secret"), overrides).endpoints(TWITTER))
    for path in ("/get/token", "/GET/token", "/Get/Token/more", "/end", "/End"):
        with pytest.raises(InvalidField, match="OAuth"):
            build(TWITTER.api, BASE, closed, call(path))
    build(TWITTER.api, BASE, closed, call("/ending"))


@pytest.mark.parametrize(
    ("method", "path", "scopes"),
    [
        ("POST", "/2/tweets", {"tweet.write"}),
        ("POST", "/2/media/upload/initialize", {"media.write"}),
        ("POST", "/2/media/upload/1/append", {"media.write"}),
        ("DELETE", "/2/users/1/likes/2", {"like.write"}),
        ("POST", "/2/users/1/retweets", {"tweet.write"}),
        ("POST", "/2/dm_conversations/with/2/messages", {"dm.write"}),
        ("PUT", "/2/lists/1", {"list.write"}),
        ("GET", "/2/users/12", {"users.read"}),
        ("HEAD", "/2/users/12", {"users.read"}),
        ("GET", "/2/nobody/knows", set()),
    ],
)
def test_a_call_needs_the_scopes_of_the_first_route_that_matches(method: str, path: str, scopes: set[str]) -> None:
    needed = set(terms_of(TWITTER.api, call(path, method)).scopes)
    assert scopes <= needed
    assert bool(needed) is bool(scopes)


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("GET", "/2/users/me", "GET /2/users/me"),
        ("GET", "/2/users/by", "GET /2/users/by"),
        ("GET", "/2/users/12", "GET /2/users/{id}"),
        ("HEAD", "/2/users/12", "GET /2/users/{id}"),
        ("DELETE", "/2/tweets/1", "DELETE /2/tweets/{id}"),
        ("GET", "/2/nobody/knows", "GET /2/nobody/knows"),
    ],
)
def test_a_call_is_counted_under_the_platforms_own_route(method: str, path: str, route: str) -> None:
    assert terms_of(TWITTER.api, call(path, method)).route == route


@each_platform
def test_no_route_of_a_definition_is_hidden_behind_a_wider_one(definition: OAuth2Platform) -> None:
    routes = [route for route, _ in definition.api.scopes]
    for number, route in enumerate(routes):
        sample = tuple(segment.strip("{}") for segment in route.template.split("/")[1:])
        assert [each.template for each in routes[:number] if each.matches(route.method, sample)] == []


@each_platform
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_change_that_the_definition_does_not_know_is_refused_since_nobody_knows_its_scopes(
    definition: OAuth2Platform, method: str
) -> None:
    for path in ("/2/nobody/knows", "/rest/nobodyKnows", "/2/tweets/1/2/3"):
        with pytest.raises(InvalidField, match="path"):
            terms_of(definition.api, call(path, method))


@each_platform
def test_every_change_that_a_definition_knows_needs_a_scope_to_write(definition: OAuth2Platform) -> None:
    changes = {route.template: scopes for route, scopes in definition.api.scopes if route.method not in SAFE}
    assert changes
    assert all(any("write" in scope or scope.startswith("w_") for scope in scopes) for scopes in changes.values())


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("/2/tweets/1", True), ("https://api.x.com/2/tweets/1", True), ("https://api.x.com", True),
        ("HTTPS://API.X.COM/x", True), ("http://api.x.com/x", False), ("https://api.x.com:444/x", False),
        ("https://api.x.com.evil.test/", False), ("https://api.x.com@evil.test/", False), ("//evil.test/x", False),
        ("/\\evil.test/x", False), ("https:/\\evil.test", False), ("https://evil.test\\@api.x.com/", False),
        ("evil.test", False), ("", False), ("javascript:x", False), ("https://api.x.com:x/", False),
    ],
)  # fmt: skip
def test_a_location_is_told_only_if_it_stays_at_the_api(location: str, told: bool) -> None:
    assert stays(BASE, location) is told
    headers = dict(passed_on(TWITTER.api, BASE, {"location": location}))
    assert headers == ({"location": location} if told else {})


def test_a_header_that_no_message_can_hold_is_left_out() -> None:
    odd = {"etag": "\udce9", "content-type": "a\x7f", "retry-after": "5"}
    assert dict(passed_on(TWITTER.api, BASE, odd)) == {"retry-after": "5"}


def test_all_limits_that_x_tells_of_are_read() -> None:
    headers = {}
    for name, left in (("x-rate-limit", "3"), ("x-user-limit-24hour", "2"), ("x-app-limit-24hour", "1")):
        headers |= {f"{name}-limit": "10", f"{name}-remaining": left, f"{name}-reset": "1795521600"}
    found = list(rate_limits(TWITTER.api, headers))
    assert [(each.remaining, each.of_app) for each in found] == [(3, False), (2, False), (1, True)]
    assert {each.reset_time for each in found} == {NOW}
    assert len({each.name for each in found}) == 3, "one would be taken for another"


IN_JSON = [("/", "\\/"), ("+", "\\u002B"), ("+", "\\u002b"), ("=", "\\u003d"), ("=", "\\u003D"), ("/", "\\u002F")]
"""As PHP, .NET, Gson and others write them."""


@pytest.mark.parametrize("token", ["abcdefgh/+=~._-", "AAAAAAAAAAAAAAAAAAAAAMLheAAAAAAA0%2BuSeid%2BULvsea4JtiGRi"])
def test_a_refresh_token_in_an_answer_is_found_as_well(token: str) -> None:
    token_set = TokenSet(Secret("another-token-entirely"), Secret(token), None, ())
    in_json = [token.replace(each, escape) for each, escape in IN_JSON if each in token]
    for body in (token, *in_json):
        with pytest.raises(AnswerWithheld):
            read_answer(TWITTER.api, BASE, HttpReply(200, b'{"x":"' + body.encode() + b'"}'), token_set, lambda: NOW)
    assert read_answer(TWITTER.api, BASE, HttpReply(200, token[:-3].encode()), token_set, lambda: NOW).status == 200
