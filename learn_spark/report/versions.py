"""What ran on which versions: the code of the runs, the encoder, the tower, and the libraries of this environment."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.workspace import Workspace
from learn_spark.model.manifest import MANIFEST, ModelManifest, read_manifest
from learn_spark.report.road import Road

LIBRARIES = (
    "pyspark",
    "delta-spark",
    "deltalake",
    "petastorm",
    "pyarrow",
    "numpy",
    "torch",
    "transformers",
    "faiss-cpu",
    "great-expectations",
)


def manifest_of(workspace: Workspace, model_id: str | None) -> ModelManifest | None:
    """The model's manifest; None where there is no such model (any more)."""
    folder = workspace.place / "models" / (model_id or "")
    return read_manifest(folder) if model_id and (folder / MANIFEST).is_file() else None


def versions_of(workspace: Workspace, road: Road, manifest: ModelManifest | None) -> list[tuple[str, str]]:
    """(component, version): the package, the code version of each run's stage in one line, the encoder, and the
    libraries of the environment that writes the page.
    """
    codes = {run.job: run.code_version for run in road.runs}
    found = [
        *_installed("learn-spark"),
        ("Code of each stage", ", ".join(f"{job} {code}" for job, code in codes.items())),
    ]
    if manifest is not None:
        key = manifest.encoder_key
        for row in read_rows(workspace.table("encoders")):
            if row["encoder_key"] == key:
                found.append(("Frozen LLM", f"{row['model']}, revision {row['revision'][:16]}"))
                detail = f"{row['pooling']} pooling, {row['max_tokens']} tokens at most, {row['precision']}"
                found.append(("Read as", detail + (f", prefix {row['prefix']!r}" if row["prefix"] else "")))
        found.append(("Prompt template", manifest.template_version))
        found.append(("Training rule", manifest.training_rule))
    found.append(("Python", platform.python_version()))
    return found + _installed(*LIBRARIES)


def _installed(*libraries: str) -> list[tuple[str, str]]:
    """(library, version) of those that are installed as packages."""
    found = []
    for library in libraries:
        try:
            found.append((library, version(library)))
        except PackageNotFoundError:
            continue
    return found
