"""A path on this machine, in an object store or in HDFS, in the forms that Spark, deltalake and Arrow read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from learn_spark.core.storage.file_systems import StorageError, file_system
from learn_spark.core.storage.files import replace_bytes
from learn_spark.core.storage.streams import buffered

# Schemes of addresses -> the scheme that Spark's connectors register.
SCHEMES = {"s3": "s3a", "s3a": "s3a", "hdfs": "hdfs", "gs": "gs", "abfs": "abfs", "abfss": "abfss"}
_ADDRESS = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
# FileSystems of Hadoop and of Arrow both resolve s3 regions by requests unless one is given.
REGION_OF_OTHER_SERVERS = "us-east-1"


@dataclass(frozen=True)
class S3Access:
    """How S3 is reached. Keys are no part of it: the environment, a profile or the machine's role gives them.

    ``endpoint``: URL of a server other than AWS; None: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else AWS.
    ``region``: None: AWS_REGION or AWS_DEFAULT_REGION. ``path_style``: bucket in the path and not in the host; None:
    for other servers than AWS.
    """

    endpoint: str | None = None
    region: str | None = None
    path_style: bool | None = None

    @property
    def server(self) -> str | None:
        """The endpoint of these settings or of the environment; None: AWS."""
        return self.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None

    @property
    def region_name(self) -> str | None:
        """The region of these settings or of the environment; None: the client asks AWS for it."""
        given = self.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        return given or (REGION_OF_OTHER_SERVERS if self.server else None)

    @property
    def bucket_in_path(self) -> bool:
        """Whether requests have the bucket in their path."""
        return bool(self.server) if self.path_style is None else self.path_style


@dataclass(frozen=True)
class Entry:
    """A file: its path, bytes, and time of the last change in nanoseconds since 1970."""

    path: StoragePath
    size: int
    changed_ns: int

    @property
    def changed(self) -> float:
        """Time of the last change in seconds since 1970."""
        return self.changed_ns / 1e9


class StoragePath(str):
    """A path (/data/shop) or URL (s3://bucket/shop, hdfs://host:8020/shop), with what reaching it needs.

    As text it is what settings, logs of runs and messages show.
    """

    s3: S3Access

    def __new__(cls, text: str, s3: S3Access | None = None) -> StoragePath:
        path = super().__new__(cls, text)
        path.s3 = s3 if s3 is not None else getattr(text, "s3", None) or S3Access()
        return path

    def __reduce__(self) -> tuple[Any, ...]:
        # What this process read from its environment is resolved: another machine may have another one.
        return StoragePath, (str(self), S3Access(self.s3.server, self.s3.region_name, self.s3.bucket_in_path))

    def __truediv__(self, part: str) -> StoragePath:
        return StoragePath(f"{self.rstrip('/')}/{part.strip('/')}", self.s3)

    @property
    def scheme(self) -> str:
        """s3, hdfs, ...; empty for a path of this machine."""
        found = _ADDRESS.match(self)
        return found[1].lower() if found else ""

    @property
    def is_local(self) -> bool:
        """Whether it is a path of this machine."""
        return not self.scheme

    @property
    def name(self) -> str:
        """The last part."""
        return self.rstrip("/").rsplit("/", 1)[-1]

    @property
    def suffix(self) -> str:
        """The last ending of the name, such as .gz; empty without one."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> StoragePath:
        """The path without its last part."""
        return StoragePath(self.rstrip("/").rsplit("/", 1)[0], self.s3)

    @property
    def bucket(self) -> StoragePath:
        """The address of the bucket or host itself, without what follows."""
        scheme, _, rest = self.partition("://")
        return StoragePath(f"{scheme}://{rest.partition('/')[0]}", self.s3)

    @property
    def local(self) -> Path:
        """The path on this machine. Raises StorageError for an address."""
        if not self.is_local:
            raise StorageError(f"{self} is an address, and this needs a folder of this machine")
        return Path(self)

    @property
    def spark(self) -> str:
        """The URL that Spark reads: with ``file:`` for this machine, so that fs.defaultFS never decides."""
        if self.is_local:
            return f"file:{self}"
        return f"{SCHEMES[self.scheme]}{self[len(self.scheme) :]}"

    @property
    def delta_options(self) -> dict[str, str]:
        """The ``storage_options`` of deltalake; keys come from the environment."""
        if self.scheme not in ("s3", "s3a"):
            return {}
        options = {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": str(not self.s3.bucket_in_path).lower()}
        if self.s3.region_name:
            options["AWS_REGION"] = self.s3.region_name
        if self.s3.server:
            options |= {
                "AWS_ENDPOINT_URL": self.s3.server,
                "AWS_ALLOW_HTTP": str(self.s3.server.startswith("http:")).lower(),
            }
        return options

    @property
    def file_system(self) -> pafs.FileSystem:
        """Arrow's file system; ``inner`` is the path in it. Raises StorageError for a store that is not installed."""
        authority = self.partition("://")[2].partition("/")[0]
        return file_system(self.scheme, authority, self.s3.server, self.s3.region_name)

    @property
    def inner(self) -> str:
        """The path in ``file_system``."""
        if self.is_local:
            return str(self)
        authority, _, below = self.partition("://")[2].partition("/")
        return f"/{below}" if self.scheme == "hdfs" else f"{authority.partition('@')[0]}/{below}".rstrip("/")

    def exists(self) -> bool:
        """Whether there is a file or folder."""
        return bool(self._info().type != pafs.FileType.NotFound)

    def is_file(self) -> bool:
        """Whether it is a file."""
        return bool(self._info().type == pafs.FileType.File)

    def is_folder(self) -> bool:
        """Whether it is a folder; in an object store: whether a file lies below it."""
        return bool(self._info().type == pafs.FileType.Directory)

    def changed(self) -> float | None:
        """Time of the file's last change by the clock of its store, in seconds since 1970; None without the file."""
        info = self._info()
        return None if info.type == pafs.FileType.NotFound else (info.mtime_ns or 0) / 1e9

    def open(self, buffer: int = 1 << 20) -> BinaryIO:
        """The file's bytes, to read and to seek; at an address, ``buffer`` bytes a request.

        Raises FileNotFoundError, and OSError of the store.
        """
        if self.is_local:
            return open(self, "rb")
        return buffered(self.file_system.open_input_file(self.inner), buffer)

    def content_tag(self) -> str | None:
        """What the store itself says of a file's content (ETag), by one request; None where it says nothing.

        Raises FileNotFoundError, and OSError of the store.
        """
        if self.is_local or self.scheme == "hdfs":
            return None
        with self.file_system.open_input_stream(self.inner, compression=None) as file:
            facts: dict[str, bytes] = file.metadata() or {}
        tag = next((value for name, value in facts.items() if name.lower() == "etag"), b"")
        return tag.decode().strip('"') or None

    def read_bytes(self) -> bytes:
        """The content of the file. Raises FileNotFoundError, and OSError of the store."""
        with self.file_system.open_input_file(self.inner) as file:
            return bytes(file.read())

    def read_text(self) -> str:
        """The content of the file in UTF-8. Raises as ``read_bytes``, and UnicodeDecodeError."""
        return self.read_bytes().decode("utf-8")

    def write_bytes(self, content: bytes) -> None:
        """Write the file, so that readers see the old content or the new one and never a part."""
        if self.is_local:
            replace_bytes(Path(self), content)
            return
        if self.scheme in ("s3", "s3a", "gs"):  # an object appears when its upload is complete
            # By default Arrow would pack what a name such as x.gz gets.
            with self.file_system.open_output_stream(self.inner, compression=None) as file:
                file.write(content)
            return
        self.file_system.create_dir(self.parent.inner, recursive=True)
        temporary = self.parent / f".{self.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
        with self.file_system.open_output_stream(temporary.inner, compression=None) as file:
            file.write(content)
        if self.scheme == "hdfs":
            self.file_system.handler.fs.mv(temporary.inner, self.inner, overwrite=True)
            return
        if self.is_file():
            self.file_system.delete_file(self.inner)
        self.file_system.move(temporary.inner, self.inner)

    def write_text(self, content: str) -> None:
        """Write the file in UTF-8, as ``write_bytes``."""
        self.write_bytes(content.encode("utf-8"))

    def children(self) -> list[StoragePath]:
        """Files and folders directly below, by name; none where there is no such folder."""
        return [self / name for name in self.names()]

    def names(self) -> list[str]:
        """Names of the files and folders directly below, sorted; none where there is no such folder."""
        if self.is_local:
            try:
                return sorted(os.listdir(self))
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(info.base_name for info in self._below(recursive=False))

    def parquet_files(self) -> list[str]:
        """Paths in ``file_system`` of the Parquet files directly below, sorted."""
        return [(self / name).inner for name in self.names() if name.endswith(".parquet")]

    def files(self, *, recursive: bool = True) -> Iterator[Entry]:
        """All files below, or those directly below, in no defined order."""
        for info in self._below(recursive=recursive):
            if info.type == pafs.FileType.File:
                below = info.path[len(self.inner.rstrip("/")) :]
                yield Entry(self / below, info.size or 0, info.mtime_ns or 0)

    def entry(self) -> Entry | None:
        """The file; None where there is none."""
        info = self._info()
        return Entry(self, info.size or 0, info.mtime_ns or 0) if info.type == pafs.FileType.File else None

    def remove(self) -> None:
        """Delete the file, or the folder with all below; nothing where there is none."""
        kind = self._info().type
        if kind == pafs.FileType.File:
            self.file_system.delete_file(self.inner)
        elif kind == pafs.FileType.Directory:
            self.file_system.delete_dir(self.inner)

    def _below(self, *, recursive: bool) -> list[pafs.FileInfo]:
        selector = pafs.FileSelector(self.inner, recursive=recursive, allow_not_found=True)
        try:
            return list(self.file_system.get_file_info(selector))
        except NotADirectoryError:
            return []

    def _info(self) -> pafs.FileInfo:
        return self.file_system.get_file_info(self.inner)


def storage_path(text: str | Path, s3: S3Access | None = None) -> StoragePath:
    """The absolute form of a path or address, with ``s3`` (None: that of ``text``, if it is a StoragePath).

    Raises StorageError for an unknown scheme, and for an address with a password in it.
    """
    path = StoragePath(text if isinstance(text, str) else str(text), s3)
    if path.is_local:
        return StoragePath(str(Path(path.removeprefix("file:")).expanduser().resolve()), path.s3)
    if path.scheme not in SCHEMES:
        raise StorageError(f"{text} has the unknown scheme {path.scheme}; known are {', '.join(sorted(SCHEMES))}")
    if ":" in (user := path.partition("://")[2].partition("/")[0].rpartition("@")[0]):
        raise StorageError(f"{path.replace(f'{user}@', '', 1)} has a password in it: the environment gives the keys")
    if not urlsplit(path).netloc:
        raise StorageError(f"{text} names no {'host' if path.scheme == 'hdfs' else 'bucket'}")
    normal = "s3" if path.scheme == "s3a" else path.scheme
    return StoragePath(f"{normal}{str(path)[len(path.scheme) :]}".rstrip("/"), path.s3)
