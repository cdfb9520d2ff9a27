"""Changes to a key file: each leaves a sound file, the one before or the one after, and nothing of a retired key."""

import base64
import json
import os
import threading
from pathlib import Path

import pytest

from server.storage import key_file, keyring
from server.storage.keyring import KeyRing, KeyRingError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    KeyRing.create(tmp_path / "keys.json")
    return tmp_path / "keys.json"


def states(path: Path) -> dict[str, str]:
    return {each.id: each.state for each in KeyRing.load(path).facts}


def test_a_new_key_opens_and_seals_nothing_until_it_is_activated(path: Path) -> None:
    first = KeyRing.load(path).active.id
    second = key_file.add(path)
    assert states(path) == {first: "active", second: "decrypt_only"}
    key_file.activate(path, second)
    assert states(path) == {first: "decrypt_only", second: "active"}
    assert KeyRing.load(path).active.id == second
    assert path.stat().st_mode & 0o777 == 0o600


def test_of_a_retired_key_nothing_is_left_but_its_id(path: Path) -> None:
    first = KeyRing.load(path).active
    second = key_file.add(path)
    key_file.activate(path, second)
    key_file.retire(path, first.id)
    assert states(path) == {first.id: "retired", second: "active"}
    assert first.id not in KeyRing.load(path)
    left = b"".join(each.read_bytes() for each in path.parent.iterdir())
    assert base64.b64encode(first.material) not in left


def test_the_active_key_cannot_be_retired(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(KeyRingError, match="exactly one active key"):
        key_file.retire(path, KeyRing.load(path).active.id)
    assert path.read_bytes() == before


def test_a_key_file_that_cannot_be_synced_stays_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(key_file.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        key_file.add(path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_the_fresh_file_is_synced_before_it_takes_the_place_and_its_folder_after(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, Path.rename

    def note_sync(file: int) -> None:
        done.append(Path(f"/proc/self/fd/{file}").readlink().name)
        sync(file)

    def note_rename(fresh: Path, target: Path) -> Path:
        done.append("rename")
        return rename(fresh, target)

    monkeypatch.setattr(keyring.os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", note_rename)
    key_file.add(path)
    assert done == [".keys.json.new", "rename", path.parent.name]


def test_two_changes_at_once_both_count(path: Path) -> None:
    workers = [threading.Thread(target=key_file.add, args=(path,)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(states(path)) == 9


def test_behind_a_symbolic_link_the_file_is_replaced_and_not_the_link(path: Path) -> None:
    link = path.with_name("link.json")
    link.symlink_to(path)
    key_file.add(link)
    assert link.is_symlink() and len(states(path)) == 2


def test_an_unsound_key_file_is_not_touched(path: Path) -> None:
    path.write_text(json.dumps({"keys": []}))
    before = path.read_bytes()
    with pytest.raises(KeyRingError):
        key_file.add(path)
    assert path.read_bytes() == before
