"""The files of experiments in a workspace, without the imports of a page."""

from __future__ import annotations

from learn_spark.core.storage.path import Entry
from learn_spark.core.tables.workspace import Workspace


def experiment_files(workspace: Workspace) -> list[Entry]:
    """The results of experiments, by name: JSON files with a page of their name."""
    files = {entry.path.name: entry for entry in (workspace.place / "reports").files(recursive=False)}
    return [
        entry
        for name, entry in sorted(files.items())
        if name.endswith(".json") and f"{name.removesuffix('.json')}.html" in files
    ]
