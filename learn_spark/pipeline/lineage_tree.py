"""Lineage on the console and as JSON: what an artifact is made from, up to the raw files, and everything made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from learn_spark.core.console import Reporter
from learn_spark.core.errors import SettingsError
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.lineage import Artifact, parse
from learn_spark.pipeline.provenance import Provenance, Step

SHOWN_FILES = 5


def show_lineage(workspace: Workspace, text: str, console: Reporter) -> None:
    """Print two trees: the sources up to the raw files, and all direct and indirect readers.

    In JSON one object: ``made_from`` (a step a run), ``raw_files`` (all of them), ``read_by``.
    """
    what, provenance = _found(workspace, text)
    console.answer(_all_as_json(provenance, what))
    console.heading(f"{what}: made from")
    for depth, step, again in _upwards(provenance, what):
        indent = "  " * depth
        if step.run is None:
            console.line(f"{indent}{step.wrote}, written by no run of this workspace")
            continue
        status = "" if step.run.status == "done" else f", {step.run.status}"
        console.line(f"{indent}{step.wrote}, by {step.run.job} ({step.run.run_id}{status}){', as above' * again}")
        if again:
            continue
        for file in step.files[:SHOWN_FILES]:
            console.line(f"{indent}    {file.file} ({file.rows:,} rows, {file.refused:,} refused)")
        if len(step.files) > SHOWN_FILES:
            console.line(f"{indent}    and {len(step.files) - SHOWN_FILES:,} more files")
        for folder in step.folders:
            console.line(f"{indent}  raw files {folder}")
    files = sorted({file.file for file in provenance.raw_files(what)})
    if files:
        more = f" and {len(files) - SHOWN_FILES:,} more (--json lists all)" if len(files) > SHOWN_FILES else ""
        console.line(f"  in all from {len(files):,} raw files: {', '.join(files[:SHOWN_FILES])}{more}")
    console.heading(f"{what}: read by")
    lines = [
        f"{'  ' * depth}{run.job} ({run.run_id}) -> {', '.join(map(str, made)) or 'nothing new'}{', as above' * again}"
        for depth, run, made, again in _downwards(provenance, what)
    ]
    for line in lines or ["  nothing yet"]:
        console.line(line)


def _all_as_json(provenance: Provenance, what: Artifact) -> Mapping[str, Any]:
    return {
        "artifact": str(what),
        "made_from": [_as_json(step) for _, step, again in _upwards(provenance, what) if not again],
        "raw_files": [asdict(file) for file in provenance.raw_files(what)],
        "read_by": [
            {"run": run.run_id, "job": run.job, "wrote": [str(one) for one in made]}
            for _, run, made, again in _downwards(provenance, what)
            if not again
        ],
    }


def _found(workspace: Workspace, text: str) -> tuple[Artifact, Provenance]:
    """The artifact and the provenance of its workspace. Raises SettingsError for a model that no run wrote."""
    what, provenance = parse(text, workspace), Provenance(workspace)
    if what.name == "model" and provenance.lineage.maker(what) is None:
        raise SettingsError(f"no run of {workspace.place} wrote a model {what.value!r}; learn-spark models lists all")
    return what, provenance


def _as_json(step: Step) -> dict[str, Any]:
    run = step.run
    return {
        "artifact": str(step.wrote),
        "run": None if run is None else run.run_id,
        "job": None if run is None else run.job,
        "status": None if run is None else run.status,
        "inputs": [str(one) for one in step.inputs],
        "raw_files": [asdict(file) for file in step.files],
    }


def _upwards(provenance: Provenance, what: Artifact) -> Iterator[tuple[int, Step, bool]]:
    """(depth, step, whether it was given before) of the tree of sources, depth first."""
    seen: set[Artifact] = set()

    def up(artifact: Artifact, depth: int) -> Iterator[tuple[int, Step, bool]]:
        for place, step in enumerate(provenance.steps(artifact)):
            again = step.wrote in seen
            # An earlier step is a source of the first one: it was merged into.
            deep = depth + (place > 0)
            yield deep, step, again
            if again:
                return
            seen.add(step.wrote)
            for source in step.inputs:
                yield from up(source, deep + 1)

    return up(what, 1)


def _downwards(provenance: Provenance, what: Artifact) -> Iterator[tuple[int, Any, list[Artifact], bool]]:
    """(depth, run, what it wrote, whether it was given before) of the tree of readers, depth first."""
    seen: set[str] = set()

    def down(artifact: Artifact, depth: int) -> Iterator[tuple[int, Any, list[Artifact], bool]]:
        for run, made in provenance.derived(artifact):
            again = run.run_id in seen
            yield depth, run, made, again
            if again:
                continue
            seen.add(run.run_id)
            for other in made:
                yield from down(other, depth + 1)

    return down(what, 1)
