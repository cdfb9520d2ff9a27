"""Routes match what they name and nothing else; paths are what every parser takes for the same."""

from urllib.parse import quote, urljoin, urlsplit

from hypothesis import given
from hypothesis import strategies as st

from server.accounts.routes import Route, segments_of


def test_a_variable_stands_for_one_segment_and_the_rest_for_itself() -> None:
    route = Route.of("GET /2/users/{id}/tweets")
    for path, matches in (
        ("/2/users/12/tweets", True), ("/2/users/a.b~c-d_e/tweets", True), ("/2/users/12", False),
        ("/2/users/12/tweets/3", False), ("/2/users/12/likes", False), ("/2/Users/12/tweets", False),
    ):  # fmt: skip
        segments = segments_of(path)
        assert segments is not None
        assert route.matches("GET", segments) is matches, path
        assert not route.matches("POST", segments)


@given(st.text(max_size=40).map(lambda text: "/" + text) | st.text(alphabet="/.%\\:@?#;~-_aZ9 \t\n", max_size=20))
def test_whatever_is_taken_for_a_path_stays_on_its_host_and_is_the_same_to_every_parser(path: str) -> None:
    segments = segments_of(path)
    if segments is None:
        return
    assert path == "/" + "/".join(segments)
    assert urljoin("https://api.x.com", path) == f"https://api.x.com{path}"
    assert urlsplit(f"https://api.x.com{path}")[:5] == ("https", "api.x.com", path, "", "")
    assert quote(path, safe="/:~") == path


@given(st.lists(st.from_regex(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,20}", fullmatch=True), min_size=1, max_size=8))
def test_ordinary_paths_are_taken(segments: list[str]) -> None:
    if not any(each.lower().startswith("oauth") for each in segments):
        assert segments_of("/" + "/".join(segments)) == tuple(segments)
