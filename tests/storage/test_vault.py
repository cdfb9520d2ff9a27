"""The vault: what is sealed opens only where it was sealed."""

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.storage.keyring import KeyRing
from server.storage.vault import NoVault, SealBroken, Vault, key_id_of
from tests.storage.test_keyring import two_rings

CONTEXT = ("grants", "token_set", "grant-1", "profile", "twitter", 7)
quick = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(plaintext=st.binary(max_size=2000))
def test_a_sealed_value_opens_where_it_was_sealed(vault: Vault, plaintext: bytes) -> None:
    sealed = vault.seal(plaintext, CONTEXT)
    assert vault.open(sealed, CONTEXT) == plaintext
    assert len(plaintext) < 8 or plaintext not in sealed


@pytest.mark.parametrize("place", range(len(CONTEXT)))
def test_a_value_moved_elsewhere_does_not_open(vault: Vault, place: int) -> None:
    moved = list(CONTEXT)
    moved[place] = 8 if place == 5 else "elsewhere"
    with pytest.raises(SealBroken):
        vault.open(vault.seal(b"token", CONTEXT), tuple(moved))


def test_contexts_that_read_alike_are_not_alike(vault: Vault) -> None:
    for one, other in ((("a", "bc"), ("ab", "c")), (("a", 1), ("a", "1")), (("a",), ("a", "")), (("a", "b"), ("asb",))):
        with pytest.raises(SealBroken):
            vault.open(vault.seal(b"token", one), other)


def test_each_flipped_bit_and_each_cut_is_noticed(vault: Vault) -> None:
    sealed = vault.seal(b"a token", CONTEXT)
    for place in range(len(sealed) * 8):
        broken = bytearray(sealed)
        broken[place // 8] ^= 1 << place % 8
        with pytest.raises(SealBroken):
            vault.open(bytes(broken), CONTEXT)
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            vault.open(sealed[:length], CONTEXT)


@quick
@given(blob=st.binary(max_size=400))
def test_nothing_else_than_a_seal_opens_and_nothing_else_is_raised(vault: Vault, blob: bytes) -> None:
    for attempt in (vault.open, vault.rewrap):
        with pytest.raises(SealBroken):
            attempt(blob, CONTEXT)


def test_two_seals_of_one_value_have_nothing_in_common(vault: Vault) -> None:
    head = 2 + len(key_id_of(vault.seal(b"", CONTEXT)))
    tails = {vault.seal(b"token", CONTEXT)[head:] for _ in range(1000)}
    assert len(tails) == len({tail[:12] for tail in tails}) == len({tail[12:60] for tail in tails}) == 1000


def test_a_rewrap_changes_the_key_and_never_the_value_within(tmp_path: Path) -> None:
    old, new = two_rings(tmp_path)
    sealed = Vault(old).seal(b"token", CONTEXT)
    rewrapped = Vault(new).rewrap(sealed, CONTEXT)
    assert (key_id_of(sealed), key_id_of(rewrapped)) == (old.active.id, "k2")
    inner = len(sealed) - (2 + len(old.active.id) + 12 + 48)
    assert rewrapped[-inner:] == sealed[-inner:]
    assert Vault(new).open(rewrapped, CONTEXT) == Vault(new).open(sealed, CONTEXT) == b"token"
    with pytest.raises(SealBroken):
        Vault(old).open(rewrapped, CONTEXT)


def test_a_rewrap_needs_no_look_at_the_value(tmp_path: Path) -> None:
    old, new = two_rings(tmp_path)
    sealed = bytearray(Vault(old).seal(b"token", CONTEXT))
    sealed[-1] ^= 1
    rewrapped = Vault(new).rewrap(bytes(sealed), CONTEXT)
    assert key_id_of(rewrapped) == "k2"
    with pytest.raises(SealBroken):
        Vault(new).open(rewrapped, CONTEXT)


def test_a_value_is_not_rewrapped_for_another_place(tmp_path: Path) -> None:
    old, new = two_rings(tmp_path)
    with pytest.raises(SealBroken):
        Vault(new).rewrap(Vault(old).seal(b"token", CONTEXT), (*CONTEXT[:-1], 8))


def test_the_text_of_a_broken_seal_tells_nothing(vault: Vault) -> None:
    sealed = vault.seal(b"token", CONTEXT)
    texts = set()
    for broken in (b"", sealed[:-1], b"\x02" + sealed[1:], bytes((1, 2)) + b"k9" + bytes(200)):
        with pytest.raises(SealBroken) as caught:
            vault.open(broken, CONTEXT)
        texts.add((str(caught.value), caught.value.__cause__))
    assert texts == {("a sealed value does not open", None)}


def test_another_ring_is_used_from_the_next_value_on(tmp_path: Path) -> None:
    old, new = two_rings(tmp_path)
    vault = Vault(old)
    sealed = vault.seal(b"token", CONTEXT)
    vault.use(new)
    assert key_id_of(vault.seal(b"token", CONTEXT)) == "k2"
    assert vault.open(sealed, CONTEXT) == b"token"


def test_a_value_of_a_key_that_the_ring_has_no_more_does_not_open(tmp_path: Path) -> None:
    _, new = two_rings(tmp_path)
    vault = Vault(new)
    sealed = vault.seal(b"token", CONTEXT)
    vault.use(KeyRing.load(tmp_path / "one.json"))
    with pytest.raises(SealBroken):
        vault.open(sealed, CONTEXT)


def test_each_wrap_and_each_value_that_does_not_open_is_counted(tmp_path: Path) -> None:
    old, new = two_rings(tmp_path)
    vault = Vault(old)
    sealed = [vault.seal(b"token", CONTEXT) for _ in range(3)]
    vault.use(new)
    vault.rewrap(sealed[0], CONTEXT)
    assert vault.take_wraps() == {old.active.id: 3, "k2": 1}
    assert vault.take_wraps() == {}
    for broken in (b"", sealed[0][:-1], sealed[0] + b"x"):
        with pytest.raises(SealBroken):
            vault.open(broken, CONTEXT)
    assert vault.broken == 3


def test_wraps_of_several_threads_are_all_counted(vault: Vault) -> None:
    def seal() -> None:
        for _ in range(2000):
            vault.seal(b"", CONTEXT)

    workers = [threading.Thread(target=seal) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert vault.take_wraps().total() == 8000


def test_without_keys_nothing_is_sealed_or_opened(vault: Vault) -> None:
    sealed = vault.seal(b"token", CONTEXT)
    for work in (lambda: NoVault().seal(b"token", CONTEXT), lambda: NoVault().open(sealed, CONTEXT)):
        with pytest.raises(SealBroken):
            work()
