"""The folder layout of one workspace: tables, models, indexes, reports, logs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from learn_spark.core.errors import SettingsError
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.layout import MARKER, check_layout

_UNUSABLE = re.compile(r"[%#?*\[\]{}\\^|`\x00-\x1f\x7f]")
_REMOTE = re.compile(r"^[a-z][a-z0-9+.-]*://")


@dataclass(frozen=True)
class Workspace:
    """Where a workspace keeps what. ``root`` is a folder that the driver and all workers see."""

    root: Path

    @staticmethod
    def open(root: str) -> Workspace:
        """A workspace at ``root``; made if it is not there.

        Raises WorkspaceLayoutError for one of another layout, SettingsError for a folder that cannot be one.
        """
        path = _folder(root)
        try:
            path.mkdir(parents=True, exist_ok=True)
            check_layout(path)
        except OSError as error:
            raise SettingsError(f"workspace: the folder {path} cannot be made: {error.strerror}") from None
        return Workspace(path)

    @staticmethod
    def existing(root: str) -> Workspace:
        """The workspace at ``root``; nothing is made. Raises as ``open``, and SettingsError if there is none."""
        path = _folder(root)
        if not (path / MARKER).is_file() and not any(path.glob("tables/*/_delta_log")):
            raise SettingsError(
                f"there is no workspace in {path}: it has no {MARKER}; give the settings file of the workspace "
                "(--config), or its folder (--set workspace=FOLDER)"
            )
        check_layout(path)
        return Workspace(path)

    @staticmethod
    def planned(root: str) -> Workspace:
        """The workspace at ``root``, for a look at what a run would do: it need not be there, and nothing is made."""
        path = _folder(root)
        return Workspace.existing(root) if (path / MARKER).is_file() else Workspace(path)

    def table(self, name: str) -> str:
        """Path of a table; ContractError if no contract names it."""
        return str(self.root / "tables" / contract(name).table)

    def has_table(self, name: str) -> bool:
        """Whether the table has been created."""
        return (Path(self.table(name)) / "_delta_log").is_dir()

    def folder(self, *parts: str) -> Path:
        """A folder below the root, made if it is not there; refuses to leave the root."""
        path = self.root.joinpath(*parts).resolve()
        if not path.is_relative_to(self.root):
            raise SettingsError(f"{'/'.join(parts)!r} lies outside the workspace {self.root}")
        path.mkdir(parents=True, exist_ok=True)
        return path


def _folder(root: str) -> Path:
    """The absolute path of a workspace. Raises SettingsError for an address, and for names that Spark or Delta misread.

    Paths of tables become addresses on their way through Spark and Delta, whose libraries decode some characters
    differently: rows would be in one folder, and the log of their table in another one.
    """
    if _REMOTE.match(root):
        raise SettingsError(f"workspace: {root!r} must be a folder that driver and workers share, not an address")
    path = Path(root).expanduser().resolve()
    if unusable := sorted(set(_UNUSABLE.findall(str(path)))):
        raise SettingsError(
            f"workspace: the path {str(path)!r} contains {' '.join(map(repr, unusable))}, which Spark and Delta do not "
            "read as a part of a name; choose a folder without it"
        )
    return path
