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
    folder = workspace.root / "models" / (model_id or "")
    return read_manifest(folder) if model_id and (folder / MANIFEST).is_file() else None


def versions_of(workspace: Workspace, road: Road, manifest: ModelManifest | None) -> list[tuple[str, str]]:
    """(what, which version), from our own code outwards. Libraries are those that write the page."""
    codes: dict[str, list[str]] = {}
    for run in road.runs:
        codes.setdefault(run.code_version, []).append(run.job)
    found = [
        (f"learn-spark ({', '.join(jobs)})" if len(codes) > 1 else "learn-spark", code) for code, jobs in codes.items()
    ]
    if manifest is not None:
        key = manifest.encoder_key
        for row in read_rows(workspace.table("encoders")):
            if row["encoder_key"] == key:
                found.append(("Frozen LLM", f"{row['model']}, revision {row['revision'][:16]}"))
                detail = f"{row['pooling']} pooling, {row['max_tokens']} tokens at most, {row['precision']}"
                found.append(("Read as", detail + (f", prefix {row['prefix']!r}" if row["prefix"] else "")))
        found.append(("Prompt template", manifest.template_version))
    found.append(("Python", platform.python_version()))
    for library in LIBRARIES:
        try:
            found.append((library, version(library)))
        except PackageNotFoundError:
            continue
    return found
