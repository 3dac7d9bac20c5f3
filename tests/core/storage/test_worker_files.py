"""Files for workers on other machines: written once a content, copied once a machine, checked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from learn_spark.core.storage.file_systems import StorageError
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.storage.worker_files import FOLDER, fetch_for_worker, put_for_workers
from tests.servers import requests_of


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "driver" / "model"
    (folder / "logs").mkdir(parents=True)
    for name, text in {"weights.bin": "1234", "config.json": "{}", "notes.md": "of no use"}.items():
        (folder / name).write_text(text)
    return folder


def put(model: Path, place: StoragePath) -> StoragePath:
    return put_for_workers(model, place / "workspace", "model-1", ["*.bin", "*.json"])


def test_workers_read_what_the_driver_put(place: StoragePath, model: Path, tmp_path: Path) -> None:
    there = put(model, place)
    changed = {entry.path: entry.changed for entry in there.files()}
    copy = fetch_for_worker(there, tmp_path / "cache")
    assert {name: (copy / name).read_text() for name in ("weights.bin", "config.json")} == {
        "weights.bin": "1234",
        "config.json": "{}",
    }
    assert not (copy / "notes.md").exists()
    assert put(model, place) == there
    assert {entry.path: entry.changed for entry in there.files()} == changed
    if place.is_local:
        assert copy == there.local
        return
    # Another content is another copy, and a copy that nobody has used for weeks is deleted by the next one.
    assert fetch_for_worker(there, tmp_path / "cache") == copy
    os.utime(copy, (0, 0))
    (model / "weights.bin").write_text("5678")
    other = put_for_workers(model, place / "workspace", "model-2")
    assert (fetch_for_worker(other, tmp_path / "cache") / "weights.bin").read_text() == "5678"
    assert not copy.exists()


def test_a_file_of_many_mib_takes_few_requests(bucket: StoragePath, tmp_path: Path) -> None:
    weights = tmp_path / "model" / "weights.bin"
    weights.parent.mkdir()
    weights.write_bytes(os.urandom(40 << 20))
    there = put_for_workers(weights.parent, bucket / "large", "model-1")
    copy = fetch_for_worker(there, tmp_path / "cache")
    assert (copy / "weights.bin").read_bytes() == weights.read_bytes()
    path = f"{(there / 'weights.bin').inner}"
    assert requests_of(bucket, f"GET /{path}") == 2
    assert requests_of(bucket, f"PUT /{path}") <= 4


def test_a_damaged_file_is_not_used(place: StoragePath, model: Path, tmp_path: Path) -> None:
    there = put(model, place)
    (there / "weights.bin").write_text("1235")
    if not place.is_local:
        with pytest.raises(StorageError, match=r"weights\.bin"):
            fetch_for_worker(there, tmp_path / "cache")
        assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir() and path.name[0] != "."] == []


def test_a_folder_that_all_machines_share_is_read_where_it_is(model: Path, tmp_path: Path) -> None:
    there = put_for_workers(model, storage_path(tmp_path / "driver"), "model-1")
    assert there == str(model)
    assert fetch_for_worker(there) == model
    assert not (tmp_path / "driver" / FOLDER).exists()
