"""Page tokens are opaque, tamper-evident, and good for the same caller and filter only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synposter.accounts.v1 import account_service_pb2 as pb

from server.accounts.callers import Caller
from server.accounts.errors import InvalidField
from server.accounts.model import Page, Status
from server.rpc.page_tokens import LIFETIME, Listing, PageTokens

KEY = b"k" * 32
CALLER = Caller("publisher")
LISTING = Listing("acme:ada", "twitter", frozenset({Status.ACTIVE, Status.EXPIRED}))
FIRST = "01890a5d-ac96-774b-bcce-b302099a8056"
LAST = "01890a5d-ac96-774b-bcce-b302099a8057"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

texts = st.one_of(st.none(), st.text(alphabet="ab1", min_size=1, max_size=3))
listings = st.builds(Listing, texts, texts, st.frozensets(st.sampled_from(Status)))
askers = st.tuples(st.text(alphabet="ab1", max_size=3), listings)


@given(listings)
def test_a_token_opens_for_the_list_it_was_made_for(listing) -> None:
    assert PageTokens(KEY).read(CALLER, listing, PageTokens(KEY).write(CALLER, listing, LAST)) == LAST


def test_a_token_is_good_for_three_days() -> None:
    token = PageTokens(KEY, lambda: 1_000_000.9).write(CALLER, LISTING, LAST)
    assert PageTokens(KEY, lambda: 1_000_000.0 + LIFETIME - 1).read(CALLER, LISTING, token) == LAST
    with pytest.raises(InvalidField, match="has ended"):
        PageTokens(KEY, lambda: 1_000_000.0 + LIFETIME).read(CALLER, LISTING, token)


@given(askers, askers)
def test_a_token_opens_for_no_other_caller_or_filter(made_for, shown_for) -> None:
    token = PageTokens(KEY).write(Caller(made_for[0]), made_for[1], LAST)
    if made_for == shown_for:
        assert PageTokens(KEY).read(Caller(shown_for[0]), shown_for[1], token) == LAST
    else:
        with pytest.raises(InvalidField, match="page_token"):
            PageTokens(KEY).read(Caller(shown_for[0]), shown_for[1], token)


@pytest.mark.parametrize(
    "other",
    [
        ("a", Listing("bc", "d", frozenset())),
        ("ab", Listing("cd", None, frozenset())),
        ("abcd", Listing(None, None, frozenset())),
    ],
    ids=["the profile is longer", "the platform is in the profile", "all is in the name"],
)
def test_the_same_letters_in_other_fields_are_another_list(other) -> None:
    token = PageTokens(KEY).write(Caller("ab"), Listing("c", "d", frozenset()), LAST)
    with pytest.raises(InvalidField, match="page_token"):
        PageTokens(KEY).read(Caller(other[0]), other[1], token)


@given(st.data())
def test_a_token_with_any_character_changed_does_not_open(data) -> None:
    token = PageTokens(KEY).write(CALLER, LISTING, LAST)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from(ALPHABET + "=+/ \u00e9"))
    changed = token[:place] + other + token[place + 1 :]
    if changed != token:
        with pytest.raises(InvalidField, match="page_token"):
            PageTokens(KEY).read(CALLER, LISTING, changed)


def test_every_last_character_but_the_right_one_is_refused() -> None:
    token = PageTokens(KEY).write(CALLER, LISTING, LAST)
    for other in set(ALPHABET) - {token[-1]}:
        with pytest.raises(InvalidField):
            PageTokens(KEY).read(CALLER, LISTING, token[:-1] + other)


@given(st.text(min_size=1, max_size=300))
def test_no_text_is_a_token(text) -> None:
    with pytest.raises(InvalidField):
        PageTokens(KEY).read(CALLER, LISTING, text)


@pytest.mark.parametrize("wrong", ["A" * 4, "A" * 40, "A" * 100_000, "=", "===="])
def test_short_and_long_texts_are_no_tokens(wrong) -> None:
    with pytest.raises(InvalidField):
        PageTokens(KEY).read(CALLER, LISTING, wrong)


def test_a_token_lengthened_by_what_decoders_ignore_does_not_open() -> None:
    token = PageTokens(KEY).write(CALLER, LISTING, LAST)
    for more in ("=", "==", "\n", "!", "A"):
        with pytest.raises(InvalidField):
            PageTokens(KEY).read(CALLER, LISTING, token + more)


def test_a_token_of_another_key_does_not_open() -> None:
    token = PageTokens(b"x" * 32).write(CALLER, LISTING, LAST)
    with pytest.raises(InvalidField):
        PageTokens(KEY).read(CALLER, LISTING, token)


def test_a_token_shows_nothing_of_the_id_and_is_fit_for_a_url() -> None:
    one, two = (PageTokens(KEY).write(CALLER, LISTING, LAST) for _ in range(2))
    assert one != two
    assert LAST not in one
    assert set(one) <= set(ALPHABET)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(size) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        PageTokens(b"k" * size)


async def test_pages_follow_each_other_over_the_wire_and_only_for_who_asked(edge, tools) -> None:
    edge.use_cases.answers["list"] = Page((tools.account(id=FIRST), tools.account(id=LAST)), more=True)
    first = await edge.call("ListAccounts", pb.ListAccountsRequest(profile_id="acme:ada", page_size=2))
    assert first.next_page_token
    asked = pb.ListAccountsRequest(profile_id="acme:ada", page_size=7, page_token=first.next_page_token)
    edge.use_cases.answers["list"] = Page((), more=False)
    last = await edge.call("ListAccounts", asked)
    assert edge.use_cases.calls[-1][2]["after"] == LAST
    assert last.next_page_token == ""
    edge.use_cases.calls.clear()
    assert (await edge.refusal("ListAccounts", asked, key="other-key")).facts == {"field": "page_token"}
    asked.platform = "twitter"
    assert (await edge.refusal("ListAccounts", asked)).facts == {"field": "page_token"}
    assert edge.use_cases.calls == []
