"""The key ring: which key files are taken, which are refused, and that no refusal shows a key."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from server.storage import keyring
from server.storage.keyring import KeyRing, KeyRingError

MATERIAL = base64.b64encode(bytes(range(32))).decode()
SOUND = {"id": "k1", "state": "active", "key": MATERIAL, "create_time": "2026-01-02T03:04:05+00:00"}


def write(folder: Path, text: str) -> Path:
    path = folder / "keys.json"
    path.write_text(text)
    path.chmod(0o600)
    return path


def ring_of(*entries: dict[str, Any]) -> str:
    return json.dumps({"keys": entries})


def two_rings(folder: Path) -> tuple[KeyRing, KeyRing]:
    """A ring, and the same ring after a second key became the active one."""
    KeyRing.create(folder / "one.json")
    [first] = json.loads((folder / "one.json").read_text())["keys"]
    grown = ring_of({**first, "state": "decrypt_only"}, {**SOUND, "id": "k2"})
    return KeyRing.load(folder / "one.json"), KeyRing.load(write(folder, grown))


def test_a_new_key_file_is_private_and_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key_id = KeyRing.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert KeyRing.load(path).active.id == key_id
    before = path.read_bytes()
    with pytest.raises(KeyRingError, match="never overwritten"):
        KeyRing.create(path)
    assert path.read_bytes() == before


def test_a_new_key_file_has_the_documented_shape(tmp_path: Path) -> None:
    key_id = KeyRing.create(tmp_path / "keys.json")
    [entry] = json.loads((tmp_path / "keys.json").read_text())["keys"]
    assert entry.keys() == SOUND.keys()
    assert key_id.startswith("k-") and entry["state"] == "active"
    assert base64.b64decode(entry["key"]) == KeyRing.load(tmp_path / "keys.json").active.material


def test_a_new_key_file_is_synced_and_then_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    sync = os.fsync

    def note(file: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{file}").readlink()))
        sync(file)

    monkeypatch.setattr(keyring.os, "fsync", note)
    KeyRing.create(tmp_path / "keys.json")
    assert synced == [str(tmp_path / "keys.json"), str(tmp_path)]


def test_a_key_file_that_cannot_be_written_whole_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keyring.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        KeyRing.create(tmp_path / "keys.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o610])
def test_a_key_file_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    write(tmp_path, ring_of(SOUND)).chmod(mode)
    with pytest.raises(KeyRingError, match="chmod 600"):
        KeyRing.load(tmp_path / "keys.json")


def test_a_key_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, ring_of(SOUND))
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(keyring.os, "geteuid", lambda: 12345)
    with pytest.raises(KeyRingError, match="belongs to another user"):
        KeyRing.load(path)


def test_what_is_no_regular_file_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    with pytest.raises(KeyRingError, match="not a regular file"):
        KeyRing.load(tmp_path / "pipe")
    with pytest.raises(KeyRingError, match="folder"):
        KeyRing.load(tmp_path / "folder")


def test_a_key_file_may_be_mounted_behind_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(write(tmp_path, ring_of(SOUND)))
    assert KeyRing.load(tmp_path / "link").active.id == "k1"


def test_a_missing_key_file_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(KeyRingError, match=r"keys\.json cannot be read: .*bring it back, .*keys new"):
        KeyRing.load(tmp_path / "keys.json")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not a key file"),
        ("[]", "not a key file"),
        ("[" * 100_000, "not a key file"),
        ('{"keys": [7]}', "not a key file"),
        (ring_of({"id": "k1", "key": MATERIAL}), "not a key file"),
        (ring_of({**SOUND, "key": 7}), "not a key file"),
        (ring_of(), "exactly one active key; it holds 0"),
        (ring_of({**SOUND, "state": "decrypt_only"}), "exactly one active key; it holds 0"),
        (ring_of(SOUND, {**SOUND, "id": "k2"}), "exactly one active key; it holds 2: k1, k2"),
        (ring_of(SOUND, {**SOUND, "state": "decrypt_only"}), "holds the key id 'k1' twice"),
        (ring_of({**SOUND, "key": "AAAA"}), "'k1' has 3 bytes, not 32"),
        (ring_of({**SOUND, "key": base64.b64encode(bytes(32)).decode()}), "'k1' is one byte repeated"),
        (ring_of({**SOUND, "key": "not base64!"}), "'k1' is not base64"),
        (ring_of({**SOUND, "state": MATERIAL}), "'k1' has an unknown state"),
        (ring_of({**SOUND, "id": MATERIAL}), "a key id must be"),
        (ring_of({**SOUND, "id": 5}), "a key id must be"),
        (ring_of({**SOUND, "id": "x" * 41}), "a key id must be"),
        (ring_of({**SOUND, "id": "\ud800"}), "a key id must be"),
    ],
    ids=lambda value: value[:40],
)
def test_an_unsound_key_file_is_refused_by_its_name_without_showing_a_key(tmp_path: Path, text: str, told: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(KeyRingError) as caught:
        KeyRing.load(path)
    assert told in str(caught.value) and str(path) in str(caught.value)
    assert MATERIAL not in str(caught.value)


def test_a_key_and_its_ring_are_shown_without_their_material(tmp_path: Path) -> None:
    ring = KeyRing.load(write(tmp_path, ring_of(SOUND)))
    shown = f"{ring!r} {ring.active!r} {ring.active}"
    assert MATERIAL not in shown and repr(bytes(range(32)))[2:20] not in shown


def test_a_check_value_is_that_of_the_key_and_not_only_of_its_id(tmp_path: Path) -> None:
    other = base64.b64encode(bytes(range(1, 33))).decode()
    values = [
        KeyRing.load(write(tmp_path, ring_of({**SOUND, "key": key}))).check_value("k1") for key in (MATERIAL, other)
    ]
    assert values[0] != values[1]


def test_a_check_value_tells_keys_apart_and_is_always_the_same(tmp_path: Path) -> None:
    old, new = two_rings(tmp_path)
    first = old.active.id
    assert old.check_value(first) == new.check_value(first) != new.check_value("k2")
    assert len(old.check_value(first)) == 16
    assert old.check_value(first) not in old.active.material
