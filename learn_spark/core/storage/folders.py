"""Folders of files that appear whole, on this machine by a rename, in an object store by writing one file last."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from learn_spark.core.storage.file_systems import StorageError
from learn_spark.core.storage.locks import wait_for_lock
from learn_spark.core.storage.path import StoragePath

# Bytes of a request. By default Arrow reads a file of 538 MB, a small LLM, by 514 requests.
_COPIED_AT_ONCE = 32 << 20


@dataclass(frozen=True)
class NewFolder:
    """A folder that is being filled; ``path`` is on this machine, ``parent`` is where it will appear."""

    path: Path
    parent: StoragePath

    def appear(self, name: str, last: str, *, replace: bool = False) -> StoragePath:
        """Make the folder visible as ``parent``/``name``; the new path.

        ``last`` is the file that readers demand: until it is there, the folder does not exist for them. A folder of
        that name that has it stays, unless ``replace``.
        """
        target = self.parent / name
        if (target / last).is_file() and not replace:
            return target
        for file in self._files():
            _sync(file)
        if target.is_local:
            target.remove()
            self.path.rename(target.local)
            _sync(target.local.parent)
            return target
        (target / last).remove()
        target.remove()
        for file in sorted(self._files(), key=lambda file: file.relative_to(self.path).as_posix() == last):
            upload(file, target / file.relative_to(self.path).as_posix())
        return target

    def _files(self) -> list[Path]:
        return sorted(file for file in self.path.rglob("*") if file.is_file())


@contextmanager
def new_folder(parent: StoragePath, scratch: Path) -> Iterator[NewFolder]:
    """A new folder to fill and to make visible; what did not appear at the end of the block is deleted.

    It is made in ``parent``, so that a rename suffices, or in ``scratch`` where ``parent`` is an address.
    """
    beside = parent.local if parent.is_local else scratch / "new"
    folder = beside / f".new.{os.getpid()}.{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    try:
        yield NewFolder(folder, parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def local_copy(folder: StoragePath, last: str, cache: Path) -> Path:
    """A folder of this machine with the files of ``folder``: itself, or a copy in ``cache``.

    The copy is made once a machine and content: it is named by path and the content of ``last``, the file that was
    written last. Raises FileNotFoundError where ``folder`` has no ``last``.
    """
    if folder.is_local:
        return folder.local
    content = (folder / last).read_bytes()
    key = hashlib.sha256(f"{folder}\n".encode() + content).hexdigest()[:32]
    # The name stays, because models and indexes are named by their folder.
    copy = cache / key / folder.name
    if not (copy / last).is_file():
        with wait_for_lock(cache / f".{key}.lock"):
            if not (copy / last).is_file():
                shutil.rmtree(cache / key, ignore_errors=True)
                temporary = cache / f".{key}.{os.getpid()}"
                shutil.rmtree(temporary, ignore_errors=True)
                for entry in folder.files():
                    download(entry.path, temporary / folder.name / entry.path[len(folder) + 1 :])
                if (temporary / folder.name / last).read_bytes() != content:
                    raise StorageError(f"{folder} was replaced while it was read; run again")
                temporary.rename(cache / key)
    return copy


def upload(file: Path, target: StoragePath) -> None:
    """Copy a file of this machine to ``target``."""
    if target.scheme in ("", "hdfs"):
        target.file_system.create_dir(target.parent.inner, recursive=True)
    pafs.copy_files(
        str(file),
        target.inner,
        source_filesystem=pafs.LocalFileSystem(),
        destination_filesystem=target.file_system,
        chunk_size=_COPIED_AT_ONCE,
    )


def download(source: StoragePath, target: Path) -> None:
    """Copy a file to this machine; its folder is made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    pafs.copy_files(
        source.inner,
        str(target),
        source_filesystem=source.file_system,
        destination_filesystem=pafs.LocalFileSystem(),
        chunk_size=_COPIED_AT_ONCE,
    )


def _sync(path: Path) -> None:
    """Write a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
