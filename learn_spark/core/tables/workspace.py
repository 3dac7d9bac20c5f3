"""The layout of one workspace: tables, models, indexes, reports at its place, logs and caches in its scratch folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from learn_spark.core.errors import SettingsError
from learn_spark.core.storage.file_systems import StorageError
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.layout import MARKER, check_layout, has_tables

_UNUSABLE = re.compile(r"[%#?*\[\]{}\\^|`\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Workspace:
    """Where a workspace keeps what.

    ``place`` has all that must outlive a machine: a folder, or an address in an object store or in HDFS that the driver
    and all workers reach. ``scratch`` is a folder of this machine for what can be made again; it may be deleted.
    """

    place: StoragePath
    scratch: Path

    @staticmethod
    def open(root: str, scratch: str | None = None) -> Workspace:
        """A workspace at ``root``; made if it is not there.

        Raises WorkspaceLayoutError for one of another layout, SettingsError for a place that cannot be one.
        """
        workspace = Workspace._at(root, scratch)
        try:
            if workspace.place.is_local:
                workspace.place.local.mkdir(parents=True, exist_ok=True)
            with _reaching(workspace.place):
                check_layout(workspace.place)
        except OSError as error:
            raise SettingsError(
                f"workspace: the folder {workspace.place} cannot be made: {error.strerror or error}"
            ) from None
        return workspace

    @staticmethod
    def existing(root: str, scratch: str | None = None) -> Workspace:
        """The workspace at ``root``; nothing is made. Raises as ``open``, and SettingsError if there is none."""
        workspace = Workspace._at(root, scratch)
        with _reaching(workspace.place):
            if not (workspace.place / MARKER).is_file() and not has_tables(workspace.place):
                raise SettingsError(
                    f"there is no workspace in {workspace.place}: it has no {MARKER}; give the settings file of the "
                    "workspace (--config), or its folder (--set workspace=FOLDER)"
                )
            check_layout(workspace.place)
        return workspace

    @staticmethod
    def planned(root: str, scratch: str | None = None) -> Workspace:
        """The workspace at ``root``, for a look at what a run would do: it need not be there, and nothing is made.

        Raises as ``open``, also for an address that does not answer or whose bucket is not there.
        """
        workspace = Workspace._at(root, scratch)
        place = workspace.place
        with _reaching(place):
            if (place / MARKER).is_file():
                return Workspace.existing(root, scratch)
            # A missing folder of a bucket is a workspace that a run makes; a missing bucket is a mistake.
            if place.scheme == "s3" and not place.bucket.exists():
                raise SettingsError(f"workspace: there is no bucket {place.bucket}; make it, or correct the address")
        return workspace

    @staticmethod
    def _at(root: str, scratch: str | None) -> Workspace:
        place = _place(root)
        if scratch is not None:
            folder = Path(scratch).expanduser().resolve()
        elif place.is_local:
            folder = place.local
        else:
            # Several workspaces of one machine share neither logs nor caches.
            digest = hashlib.sha256(place.encode()).hexdigest()[:12]
            folder = Path("~/.cache/learn-spark/workspaces").expanduser().resolve() / f"{place.name}-{digest}"
        return Workspace(place, folder)

    @property
    def root(self) -> Path:
        """The folder of a workspace on this machine. Raises StorageError for an address."""
        return self.place.local

    @property
    def writable_by_all(self) -> bool:
        """Whether every account of this machine may write into the folder, and so decide what is released."""
        try:
            return self.place.is_local and bool(self.place.local.stat().st_mode & 0o002)
        except OSError:
            return False

    def table(self, name: str) -> StoragePath:
        """Path of a table; ContractError if no contract names it."""
        return self.place / "tables" / contract(name).table

    def folder(self, *parts: str) -> Path:
        """A folder below ``scratch``, made if it is not there; refuses to leave it."""
        path = self.scratch.joinpath(*parts).resolve()
        if not path.is_relative_to(self.scratch):
            raise SettingsError(f"{'/'.join(parts)!r} lies outside the workspace's folder {self.scratch}")
        path.mkdir(parents=True, exist_ok=True)
        return path


@contextmanager
def _reaching(place: StoragePath) -> Iterator[None]:
    """Raise SettingsError where the store of an address does not answer or refuses."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # the client of HDFS raises both
        if place.is_local:
            raise
        why = " ".join(str(error).split())[:200]
        raise SettingsError(
            f"workspace: {place} cannot be reached: {why}; check the address, the network and the keys"
        ) from None


def _place(root: str) -> StoragePath:
    """The absolute path of a workspace. Raises SettingsError for names that Spark or Delta misread.

    Paths of tables become addresses on their way through Spark and Delta, whose libraries decode some characters
    differently: rows would be in one folder, and the log of their table in another one.
    """
    try:
        path = storage_path(root)
    except StorageError as error:
        raise SettingsError(f"workspace: {error}") from None
    if unusable := sorted(set(_UNUSABLE.findall(path))):
        raise SettingsError(
            f"workspace: the path {str(path)!r} contains {' '.join(map(repr, unusable))}, which Spark and Delta do not "
            "read as a part of a name; choose a folder without it"
        )
    return path
