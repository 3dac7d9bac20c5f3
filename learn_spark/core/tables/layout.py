"""The layout number of a workspace, in workspace.json. A version of learn-spark reads one layout only."""

from __future__ import annotations

import json
import os
from pathlib import Path

from learn_spark.core.errors import LearnSparkError

LAYOUT = 2  # add 1 if tables, models or releases of older workspaces can no longer be read
MARKER = "workspace.json"


class WorkspaceLayoutError(LearnSparkError):
    """A workspace with another layout than this version reads."""


def check_layout(root: Path) -> None:
    """Mark a new workspace with LAYOUT. Raises WorkspaceLayoutError for a workspace with another layout.

    Layout 1 (version 0.1.0) has no marker.
    """
    marker = root / MARKER
    if not marker.is_file():
        if any(root.glob("tables/*/_delta_log")):
            raise _other(root, 1)
        temporary = root / f".{MARKER}.{os.getpid()}.tmp"
        temporary.write_text(json.dumps({"layout": LAYOUT}) + "\n", encoding="utf-8")
        temporary.replace(marker)
        return
    try:
        layout = json.loads(marker.read_text(encoding="utf-8"))["layout"]
    except (ValueError, KeyError, TypeError) as error:
        raise WorkspaceLayoutError(f"{marker} is damaged ({error!r}); its content must be {{'layout': N}}") from None
    if layout != LAYOUT:
        raise _other(root, layout)


def _other(root: Path, layout: object) -> WorkspaceLayoutError:
    return WorkspaceLayoutError(
        f"the workspace {root} has layout {layout}, and this version of learn-spark reads layout {LAYOUT}: run all "
        "stages again in a new workspace (--set workspace=FOLDER), or use the version that wrote this one"
    )
