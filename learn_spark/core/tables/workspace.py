"""The folder layout of one workspace: tables, models, indexes, reports, logs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from learn_spark.core.errors import SettingsError
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.layout import check_layout

_REMOTE = re.compile(r"^[a-z][a-z0-9+.-]*://")


@dataclass(frozen=True)
class Workspace:
    """Where a workspace keeps what. ``root`` is a folder that the driver and all workers see."""

    root: Path

    @staticmethod
    def open(root: str) -> Workspace:
        """A workspace at ``root``; made if it is not there. WorkspaceLayoutError for one of another layout."""
        if _REMOTE.match(root):
            raise SettingsError(f"workspace: {root!r} must be a folder that driver and workers share, not an address")
        path = Path(root).expanduser().resolve()
        try:
            path.mkdir(parents=True, exist_ok=True)
            check_layout(path)
        except OSError as error:
            raise SettingsError(f"workspace: the folder {path} cannot be made: {error.strerror}") from None
        return Workspace(path)

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
