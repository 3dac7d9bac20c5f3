"""The layout number of a workspace, in workspace.json. A version of learn-spark reads one layout only."""

from __future__ import annotations

import json

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.path import StoragePath

LAYOUT = 2  # add 1 if tables, models or releases of older workspaces can no longer be read
MARKER = "workspace.json"


class WorkspaceLayoutError(LearnSparkError):
    """A workspace with another layout than this version reads."""


def check_layout(root: StoragePath) -> None:
    """Mark a new workspace with LAYOUT. Raises WorkspaceLayoutError for a workspace with another layout.

    Layout 1 (version 0.1.0) has no marker.
    """
    marker = root / MARKER
    try:
        text = marker.read_text()
    except FileNotFoundError:
        if has_tables(root):
            raise _other(root, 1) from None
        marker.write_text(json.dumps({"layout": LAYOUT}) + "\n")
        return
    try:
        layout = json.loads(text)["layout"]
    except (ValueError, KeyError, TypeError) as error:
        raise WorkspaceLayoutError(f"{marker} is damaged ({error!r}); its content must be {{'layout': N}}") from None
    if layout != LAYOUT:
        raise _other(root, layout)


def has_tables(root: StoragePath) -> bool:
    """Whether a Delta table lies below ``root``/tables."""
    return any((table / "_delta_log").is_folder() for table in (root / "tables").children())


def _other(root: StoragePath, layout: object) -> WorkspaceLayoutError:
    return WorkspaceLayoutError(
        f"the workspace {root} has layout {layout}, and this version of learn-spark reads layout {LAYOUT}: run all "
        "stages again in a new workspace (--set workspace=FOLDER), or use the version that wrote this one"
    )
