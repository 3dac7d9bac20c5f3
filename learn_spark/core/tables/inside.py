"""The files that a Delta log names must lie in the table's folder: anybody may have written the log."""

from __future__ import annotations

import re
from urllib.parse import unquote

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.path import StoragePath

_ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]*:/", re.IGNORECASE)


class OutsideError(LearnSparkError):
    """A table whose log names a file outside of the table's folder."""


def file_inside(table: StoragePath, name: str) -> str:
    """The path, in the table's ``file_system``, of a file that its log names: relative and URL-encoded.

    Raises OutsideError for an absolute path, an address, and a path with ``..``. Delta allows these (a shallow clone
    has them), and so whoever writes a log could have another table read, or its files deleted.
    """
    plain = unquote(name)
    if plain.startswith("/") or _ADDRESS.match(plain) or ".." in unquote(plain).split("/"):
        raise _outside(table, name)
    return f"{table.inner}/{plain}"


def require_inside(table: StoragePath, files: list[str]) -> None:
    """Raise OutsideError unless all ``files``, as Spark lists them (URLs), are below the folder of ``table``."""
    below = _plain(table.spark)
    for file in files:
        path = _plain(unquote(file))
        if not path.startswith(f"{below}/") or ".." in path.split("/"):
            raise OutsideError(
                f"the log of {table} names the file {file[:200]}, which is outside of the table's folder"
            )


def _outside(table: StoragePath, file: str) -> OutsideError:
    return OutsideError(f"the log of {table} names the file {file[:200]!r}, which is outside of the table's folder")


def _plain(url: str) -> str:
    """An address without empty parts; file:/x, file:///x and /x are one."""
    scheme, _, rest = url.rpartition(":/")
    return f"{scheme}:/{'/'.join(part for part in rest.split('/') if part)}"
