"""The vault and the key ring: what is sealed opens only where it was sealed."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.storage.keyring import KeyRing, KeyRingError
from server.storage.vault import SealBroken, Vault, key_id_of

CONTEXT = ("grants", "token_set", "grant-1", "profile", "twitter", 7)
quick = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def two_keys(folder: Path) -> tuple[KeyRing, KeyRing]:
    """A ring, and the same ring after a second key became the active one."""
    KeyRing.create(folder / "one.json")
    ring = json.loads((folder / "one.json").read_text())
    ring["keys"][0]["state"] = "decrypt_only"
    ring["keys"].append({"id": "k2", "state": "active", "key": base64.b64encode(bytes(range(32))).decode()})
    (folder / "two.json").write_text(json.dumps(ring))
    (folder / "two.json").chmod(0o600)
    return KeyRing.load(folder / "one.json"), KeyRing.load(folder / "two.json")


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
    for one, other in ((("a", "bc"), ("ab", "c")), (("a", 1), ("a", "1")), (("a",), ("a", ""))):
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
    old, new = two_keys(tmp_path)
    sealed = Vault(old).seal(b"token", CONTEXT)
    rewrapped = Vault(new).rewrap(sealed, CONTEXT)
    assert (key_id_of(sealed), key_id_of(rewrapped)) == (old.active.id, "k2")
    inner = len(sealed) - (2 + len(old.active.id) + 12 + 48)
    assert rewrapped[-inner:] == sealed[-inner:]
    assert Vault(new).open(rewrapped, CONTEXT) == Vault(new).open(sealed, CONTEXT) == b"token"
    with pytest.raises(SealBroken):
        Vault(old).open(rewrapped, CONTEXT)


# --- the key file


def test_a_new_key_file_is_private_and_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key_id = KeyRing.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert KeyRing.load(path).active.id == key_id
    before = path.read_bytes()
    with pytest.raises(KeyRingError, match="never overwritten"):
        KeyRing.create(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_key_file_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    KeyRing.create(tmp_path / "keys.json")
    (tmp_path / "keys.json").chmod(mode)
    with pytest.raises(KeyRingError, match="chmod 600"):
        KeyRing.load(tmp_path / "keys.json")


SOUND = {"id": "k1", "state": "active", "key": base64.b64encode(bytes(range(32))).decode()}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not a key file"),
        ("[]", "not a key file"),
        ('{"keys": []}', "exactly one active key; it holds 0"),
        (json.dumps({"keys": [SOUND, {**SOUND, "id": "k2"}]}), "exactly one active key; it holds 2"),
        (json.dumps({"keys": [SOUND, {**SOUND, "state": "decrypt_only"}]}), "a key id twice"),
        (json.dumps({"keys": [{**SOUND, "key": "AAAA"}]}), "'k1' has 3 bytes, not 32"),
        (json.dumps({"keys": [{**SOUND, "key": base64.b64encode(bytes(32)).decode()}]}), "'k1' is one byte repeated"),
        (json.dumps({"keys": [{**SOUND, "key": "not base64!"}]}), "'k1' is not base64"),
        (json.dumps({"keys": [{**SOUND, "state": "lost"}]}), "unknown state"),
    ],
    ids=lambda value: value[:30],
)
def test_an_unsound_key_file_is_refused_without_showing_a_key(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeyRingError) as caught:
        KeyRing.load(path)
    assert told in str(caught.value)
    assert SOUND["key"] not in str(caught.value)


def test_a_missing_key_file_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(KeyRingError, match=r"keys\.json cannot be read"):
        KeyRing.load(tmp_path / "keys.json")


def test_a_check_value_tells_keys_apart_and_is_always_the_same(tmp_path: Path) -> None:
    old, new = two_keys(tmp_path)
    assert old.check_value(old.active.id) == new.check_value(old.active.id) != new.check_value("k2")
    assert old.active.material[:8] not in old.check_value(old.active.id)
