"""Folders appear whole, at an address by their last file, and copies of them are complete."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from learn_spark.core.storage import folders
from learn_spark.core.storage.folders import local_copy, new_folder
from learn_spark.core.storage.path import StoragePath

LAST = "manifest.json"


def publish(place: StoragePath, scratch: Path, text: str, *, replace: bool = False) -> StoragePath:
    with new_folder(place, scratch) as folder:
        (folder.path / "part").mkdir()
        (folder.path / "part" / "a.txt").write_text(text)
        (folder.path / LAST).write_text(f"{{{text}}}")
        return folder.appear("m1", LAST, replace=replace)


def test_a_folder_appears_with_all_files_and_stays_unless_replaced(place: StoragePath, tmp_path: Path) -> None:
    target = publish(place / "models", tmp_path / "scratch", "one")
    assert target == place / "models" / "m1"
    files = {entry.path[len(target) + 1 :]: entry.path.read_text() for entry in target.files()}
    assert files == {"part/a.txt": "one", LAST: "{one}"}
    assert publish(place / "models", tmp_path / "scratch", "two") == target
    assert (target / LAST).read_text() == "{one}"
    publish(place / "models", tmp_path / "scratch", "two", replace=True)
    assert (target / LAST).read_text() == "{two}"
    assert [child.name for child in (place / "models").children()] == ["m1"]


def test_a_folder_that_is_not_finished_leaves_nothing(place: StoragePath, tmp_path: Path) -> None:
    with suppress(RuntimeError), new_folder(place / "models", tmp_path / "scratch") as folder:
        (folder.path / "a.txt").write_text("half")
        raise RuntimeError("killed")
    assert (place / "models").children() == []


def test_the_last_file_is_written_last(bucket: StoragePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, written = bucket / "last", []
    upload = folders.upload

    def cut_off(file: Path, target: StoragePath) -> None:
        if target.name == LAST:
            raise OSError("the process was killed")
        written.append(target.name)
        upload(file, target)

    monkeypatch.setattr(folders, "upload", cut_off)
    with pytest.raises(OSError, match="killed"):
        publish(place / "models", tmp_path / "scratch", "one")
    assert written == ["a.txt"]
    assert not (place / "models" / "m1" / LAST).exists()
    monkeypatch.undo()
    # The next attempt begins anew, and nothing of the first one is in it.
    publish(place / "models", tmp_path / "scratch", "two")
    assert (place / "models" / "m1" / "part" / "a.txt").read_text() == "two"


def test_a_copy_is_made_once_a_content(place: StoragePath, tmp_path: Path) -> None:
    target, cache = publish(place / "models", tmp_path / "scratch", "one"), tmp_path / "cache"
    copy = local_copy(target, LAST, cache)
    assert copy.name == "m1"
    assert (copy / "part" / "a.txt").read_text() == "one"
    assert local_copy(target, LAST, cache) == copy
    publish(place / "models", tmp_path / "scratch", "two", replace=True)
    again = local_copy(target, LAST, cache)
    assert (again / "part" / "a.txt").read_text() == "two"
    assert (again == copy) == place.is_local
    with pytest.raises(FileNotFoundError):
        (local_copy(place / "models" / "m2", LAST, cache) / LAST).read_text()
