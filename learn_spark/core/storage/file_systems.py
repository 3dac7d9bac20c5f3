"""Arrow's file systems by the scheme of an address."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from learn_spark.core.errors import LearnSparkError


class StorageError(LearnSparkError):
    """A path that cannot be used, or a store that this installation cannot reach."""


@lru_cache(maxsize=32)
def file_system(scheme: str, authority: str, server: str | None, region: str | None) -> pafs.FileSystem:
    """The file system of a scheme ("": this machine). ``authority``: host:port or bucket; ``server``, ``region``: S3's.

    Raises StorageError for a store whose client is not installed.
    """
    if not scheme:
        return pafs.LocalFileSystem()
    if scheme in ("s3", "s3a"):
        at = urlsplit(server) if server else None
        return pafs.S3FileSystem(
            region=region, scheme=at.scheme if at else "https", endpoint_override=at.netloc if at else None
        )
    if scheme == "gs":
        return pafs.GcsFileSystem()
    if scheme == "hdfs":
        return _hdfs(authority)
    return _through_fsspec(scheme, authority)


def _hdfs(authority: str) -> pafs.FileSystem:
    try:
        from hdfs_native.fsspec import HdfsFileSystem
    except ImportError:
        raise StorageError(
            "hdfs:// needs the package hdfs-native, which is not installed: learn-spark setup --hdfs installs it"
        ) from None

    class WithTimes(HdfsFileSystem):
        """It names the time of a change as Arrow reads it."""

        def _convert_file_status(self, file_status: Any) -> dict[str, Any]:
            info: dict[str, Any] = super()._convert_file_status(file_status)
            return info | {"mtime": info["modification_time"] / 1000}

    host, _, port = authority.partition(":")
    # By default a client tries a name node that does not answer for minutes.
    system = WithTimes(host=host, port=int(port) if port else None, **{"dfs.client.failover.max.attempts": "3"})
    return pafs.PyFileSystem(pafs.FSSpecHandler(system))


def _through_fsspec(scheme: str, authority: str) -> pafs.FileSystem:
    try:
        import fsspec

        account = authority.partition("@")[2].partition(".")[0]
        system = fsspec.filesystem(scheme, **({"account_name": account} if account else {}))
    except (ImportError, ValueError) as error:
        raise StorageError(f"{scheme}:// needs the package adlfs: {error}") from None
    return pafs.PyFileSystem(pafs.FSSpecHandler(system))
