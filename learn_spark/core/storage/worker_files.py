"""Folders of files that processes on other machines read: put at the workspace's place, copied once to each machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from learn_spark.core.storage.file_systems import StorageError
from learn_spark.core.storage.folders import download, upload
from learn_spark.core.storage.locks import wait_for_lock
from learn_spark.core.storage.path import StoragePath, storage_path

FOLDER = "worker_files"
_MANIFEST = "worker_files.json"
_KEPT_DAYS = 14


def put_for_workers(folder: Path, place: StoragePath, key: str, names: Sequence[str] = ("*",)) -> StoragePath:
    """Where processes on other machines find the files directly in ``folder`` whose names match ``names``.

    Without a copy where ``folder`` lies below ``place`` on this machine, because all machines share that folder.
    Otherwise the files are written once below ``place``, under ``key``: it must name their content. The manifest, with
    the SHA-256 of each file, is written last.
    """
    if place.is_local and folder.resolve().is_relative_to(place.local.resolve()):
        return storage_path(folder)
    target = place / FOLDER / key
    if (target / _MANIFEST).is_file():
        return target
    files = {}
    for file in sorted(folder.iterdir()):
        if file.is_file() and any(fnmatch(file.name, name) for name in names):
            with file.open("rb") as content:
                files[file.name] = hashlib.file_digest(content, "sha256").hexdigest()
            upload(file, target / file.name)
    (target / _MANIFEST).write_text(json.dumps(files, indent=1, sort_keys=True))
    return target


def fetch_for_worker(folder: StoragePath, cache: Path | None = None) -> Path:
    """A folder of this machine with the files of ``folder`` (of ``put_for_workers``): itself, or a copy of an address.

    One process of a machine makes the copy in ``cache`` (None: ``machine_cache()``), others wait. Copies that nobody
    has asked for in 14 days are deleted. Raises StorageError where a file differs from the manifest's SHA-256, and
    FileNotFoundError without a manifest.
    """
    if folder.is_local:
        return folder.local
    cache = cache or machine_cache()
    text = (folder / _MANIFEST).read_text()
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    copy = cache / key
    if not copy.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(cache / f".{key}.lock"):
            if not copy.is_dir():
                _delete_unused(cache)
                temporary = cache / f".{key}.new"
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir()
                for name, checksum in json.loads(text).items():
                    download(folder / name, temporary / name)
                    with (temporary / name).open("rb") as content:
                        if hashlib.file_digest(content, "sha256").hexdigest() != checksum:
                            raise StorageError(
                                f"{folder / name} differs from its checksum in {_MANIFEST}: delete {folder}, run again"
                            )
                temporary.rename(copy)
    os.utime(copy)
    return copy


def machine_cache() -> Path:
    """The folder of this machine for copies: LEARN_SPARK_CACHE, ~/.cache/learn-spark/worker_files, or one in the
    folder for temporary files where there is no home that can be written.
    """
    if given := os.environ.get("LEARN_SPARK_CACHE"):
        return Path(given)
    try:
        home = Path("~/.cache/learn-spark").expanduser() / FOLDER
        home.mkdir(parents=True, exist_ok=True)
        if os.access(home, os.W_OK):
            return home
    except (OSError, RuntimeError):
        pass
    return Path(tempfile.gettempdir()) / f"learn-spark-{FOLDER}-{os.getuid()}"


def _delete_unused(cache: Path) -> None:
    """A process that still reads a deleted copy keeps its open files."""
    limit = time.time() - _KEPT_DAYS * 86_400
    for copy in cache.iterdir():
        if copy.is_dir() and not copy.name.startswith(".") and copy.stat().st_mtime < limit:
            shutil.rmtree(copy, ignore_errors=True)
