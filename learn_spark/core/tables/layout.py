"""The layout of a workspace, a number in its workspace.json: tables of another layout cannot be read."""

from __future__ import annotations

import json
import os
from pathlib import Path

from learn_spark.core.errors import LearnSparkError

LAYOUT = 2  # add 1 where an older workspace's tables, models or releases can no longer be read
MARKER = "workspace.json"


class WorkspaceLayoutError(LearnSparkError):
    """A workspace that was written in another layout than this version's."""


def check_layout(root: Path) -> None:
    """Mark a new workspace with LAYOUT; raise WorkspaceLayoutError for one that has tables of another layout.

    Layout 1, which version 0.1.0 wrote, has no marker.
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
        "stages again in a new workspace (--set workspace=FOLDER), or read this one with the version that wrote it"
    )
