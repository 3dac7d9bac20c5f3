"""The folder of raw files: a path, an address, or a folder inside an installed package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.file_systems import StorageError
from learn_spark.core.storage.path import S3Access, StoragePath, storage_path


class LocationError(LearnSparkError):
    """A path or package that does not exist."""


def source_folder(location: str, s3: S3Access) -> StoragePath:
    """The folder of raw files: an address, a path, or ``package:NAME/inside``.

    ``s3``: the settings of object stores. Raises LocationError for a folder of this machine that is not there, and for
    an unknown kind of address. Addresses are not looked at here.
    """
    path = StoragePath(location, s3)
    try:
        return storage_path(path if path.scheme else resolve(location), s3)
    except StorageError as error:
        raise LocationError(f"source.path: {error}") from None


@contextmanager
def naming_the_store(folder: StoragePath) -> Iterator[None]:
    """Raise LocationError, which names the address, where its store does not answer or refuses."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # the client of HDFS raises both
        if folder.is_local:
            raise
        why = " ".join(str(error).split())[:200]
        raise LocationError(f"{folder} cannot be read: {why}; check the address, the network and the keys") from None


def resolve(location: str) -> Path:
    """The path of ``location``: a path, or ``package:NAME/inside``. The package is located without importing it."""
    if not location.startswith("package:"):
        path = Path(location).expanduser()
    else:
        name, _, inside = location.removeprefix("package:").partition("/")
        spec = find_spec(name) if name.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise LocationError(f"{location}: the package {name!r} is not installed; make setup installs it")
        root = Path(next(iter(spec.submodule_search_locations))).resolve()
        path = (root / inside).resolve()
        if not path.is_relative_to(root):
            raise LocationError(f"{location} is outside the package {name!r}")
    if not path.exists():
        raise LocationError(f"{location}: there is no {path}")
    return path
