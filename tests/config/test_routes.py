"""What a caller's routes must be, so that nobody acts who was not told what for."""

from pathlib import Path
from typing import Any

import pytest

from server import config
from server.accounts.routes import Route
from server.parts import load_settings
from tests.config.test_config import EVERYWHERE, KEY, NO_RIGHTS, write

ACTING = {"api_keys_sha256": [KEY], "permissions": ["act"], **EVERYWHERE}


def load(folder: Path, caller: dict[str, Any], **platform: Any) -> config.Settings:
    (folder / "secret").write_text("client-secret-canary\n")
    (folder / "secret").chmod(0o600)
    settings = {
        "server": {"public_url": "https://accounts.example.com"},
        "database": {"url": "sqlite:///accounts.db"},
        "keys": {"file": "keys.json"},
        "platforms": {"twitter": {"client_id": "id", "client_secret_file": "secret", **platform}},
        "callers": {"web": caller},
    }
    return load_settings(write(folder, settings))


def problems(folder: Path, caller: dict[str, Any], **platform: Any) -> list[str]:
    with pytest.raises(config.ConfigError) as caught:
        load(folder, caller, **platform)
    return caught.value.problems


def test_a_callers_routes_are_kept_by_platform(tmp_path: Path) -> None:
    routes = ["twitter POST /2/tweets", "linkedin DELETE /rest/posts/{urn}", "twitter GET /2/users/{id}"]
    caller = load(tmp_path, {**ACTING, "routes": routes}).callers["web"].to_caller("web")
    assert caller.routes == {
        "twitter": (Route.of("POST /2/tweets"), Route.of("GET /2/users/{id}")),
        "linkedin": (Route.of("DELETE /rest/posts/{urn}"),),
    }


def test_who_may_act_needs_routes_and_who_has_routes_may_act(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, ACTING)
    assert problem.startswith("callers.web.routes: required with the permission act")
    [problem] = problems(tmp_path, {**ACTING, "permissions": ["read"], "routes": ["twitter GET /2/users/{id}"]})
    assert problem.startswith("callers.web.routes: of no use without the permission act")


def test_routes_are_of_platforms_that_exist_and_that_the_caller_sees(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, {**ACTING, "routes": ["friendster GET /friends"]})
    assert problem.startswith("callers.web.routes: no such platform: friendster")
    [problem] = problems(tmp_path, {**ACTING, "platforms": ["twitter"], "routes": ["linkedin GET /v2/userinfo"]})
    assert problem == "callers.web.routes: linkedin is none of the caller's platforms"


def test_a_change_that_the_platforms_definition_does_not_know_is_named_at_the_start(tmp_path: Path) -> None:
    unknown = ["twitter POST /2/nobody", "twitter DELETE /2/{any}/{id}/x/y/z", "linkedin PATCH /rest/posts/{urn}"]
    assert problems(tmp_path, {**ACTING, "routes": ["twitter POST /2/tweets", "twitter GET /2/nobody", *unknown]}) == [
        f"callers.web.routes: {route} is not in its definition, which says the scopes" for route in unknown
    ]
    for known in ("twitter DELETE /2/{any}/{id}", "twitter PUT /2/lists/12", "linkedin POST /{a}/{b}"):
        load(tmp_path, {**ACTING, "routes": [known]})


@pytest.mark.parametrize(
    "route",
    [
        "", "twitter", "twitter GET", "GET /2/users", "twitter get /2/users", "twitter  GET /2/users", "twitter GET /",
        "twitter * /2/users", "twitter GET /2/*", "twitter GET /2/**", "twitter GET 2/users", "twitter GET //evil.test",
        "twitter GET https://evil.test/x", "twitter GET /2/users/", "twitter GET /2/../x", "twitter GET /2/{}",
        "twitter GET /2/{id", "twitter GET /2/x{id}", "twitter GET /2/{Id}", "twitter GET /2/a%2fb",
        "twitter POST /2/oauth2/token", "twitter POST /oauth/{anything}", "twitter GET /2/a?b=c",
        "twitter CONNECT /2", "twitter GET /2/users ",
    ],
)  # fmt: skip
def test_what_is_no_route_is_refused(tmp_path: Path, route: str) -> None:
    [problem] = problems(tmp_path, {**ACTING, "routes": [route]})
    assert problem.startswith("callers.web.routes.0: a route is text such as")


@pytest.mark.parametrize("base", ["https://api.x.com/2", "https://api.x.com/?a", "https://api.x.com:443/x"])
def test_the_base_of_an_api_is_scheme_host_and_port_alone(tmp_path: Path, base: str) -> None:
    [problem] = problems(tmp_path, {"api_keys_sha256": [KEY], **NO_RIGHTS}, api_base=base)
    assert problem == "platforms.twitter.api_base: scheme, host and port only"
    load(tmp_path, {"api_keys_sha256": [KEY], **NO_RIGHTS}, api_base="https://api.x.com")
