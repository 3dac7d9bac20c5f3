"""What a workspace holds, by content: two roads over the same deliveries must agree on it.

Left out is what differs between any two runs: ids of runs and of what is named after them (the fingerprint of a row has
the model's), times of writing (the state of a raw file has one), and versions of tables. Of tables that keep rows of
every run (evaluations, scores), those of the newest finished run count, because readers of these tables begin at that
run; rows of a killed run stay there unread.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.runs import Run, all_runs
from learn_spark.core.tables.snapshot import Snapshot, current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import ledger, states
from learn_spark.features.read import read_release, released_arrow

WHOLE = (
    *("items", "interactions", "quarantine", "raw_files", "item_text", "text_embeddings", "encoders"),
    *("user_histories", "embedding_spaces", "exposures"),
)
OF_A_RUN = {"evaluations": "evaluate", "evaluation_slices": "evaluate", "evaluation_users": "evaluate"} | {
    "ad_scores": "rank_ads",
    "ad_metrics": "rank_ads",
}
NOT_COMPARED = frozenset(
    [
        "run_id",
        "read_at",
        "written_at",
        "refused_at",
        "first_used_at",
        "release_id",
        "fingerprint",
        "state",
        "ranker_id",
        "model_id",
        "tables",
        "settings_hash",
    ]
)
VECTORS = ("user_features", "item_features")
# Of a folder of a model or an index: files of numbers, by their bytes.
NUMBERS = (".safetensors", ".faiss", ".parquet", ".npy", ".txt")


def content(workspace: Workspace) -> dict[str, list[str]]:
    """{part of the workspace: its rows or files as texts, sorted}."""
    runs = {run.job: run for run in all_runs(workspace) if run.status == "done"}
    found = {table: _rows(table, _table(workspace, table)) for table in WHOLE if _exists(workspace, table)}
    # The numbers of items depend on the order of their arrival; that each item has one of its own does not.
    numbers = _table(workspace, "item_index")
    for column in numbers.column_names:
        found[f"item_index: {column}"] = sorted(map(str, numbers[column].to_pylist()))
    for table, job in OF_A_RUN.items():
        if job in runs and _exists(workspace, table):
            rows = _table(workspace, table)
            written = _writer(rows, runs[job], workspace)
            found[table] = _rows(table, rows.filter(pc.equal(rows["run_id"], written)))
    for table in VECTORS:
        found[f"released {table}"] = _rows(table, released_arrow(workspace, table))
    release = read_release(workspace)
    found["releases"] = [f"{state.status} as of {state.as_of}" for state in states(ledger(workspace)).values()]
    assert release.model_id is not None
    found["released model"] = _files(workspace.place / "models" / release.model_id)
    found["index"] = _files(workspace.place / "indexes" / release.release_id)
    for job, prefix in (("train", "models/"), ("rank_ads", "rankings/")):
        if job in runs:
            found[f"output of {job}"] = _files(_only_output(workspace, runs[job], prefix))
    return found


def differences(ours: Mapping[str, list[str]], theirs: Mapping[str, list[str]]) -> list[str]:
    """A sentence for each part that differs, with the first lines that only one of them has."""
    found = []
    for part in sorted({*ours, *theirs}):
        left, right = ours.get(part, []), theirs.get(part, [])
        if left == right:
            continue
        missing, extra = _without(left, right), _without(right, left)
        found.append(
            f"{part}: {len(left)} and {len(right)} entries; {len(missing)} are missing, such as "
            f"{missing[:1]}; {len(extra)} are too many, such as {extra[:1]}"
        )
    return found


def _without(left: Iterable[str], right: Iterable[str]) -> list[str]:
    """The entries of ``left`` that ``right`` has fewer times."""
    return sorted((Counter(left) - Counter(right)).elements())


def _exists(workspace: Workspace, table: str) -> bool:
    return current_version(workspace.table(table)) is not None


def _table(workspace: Workspace, table: str) -> pa.Table:
    return Snapshot.open(workspace.table(table)).to_arrow()


def _rows(table: str, rows: pa.Table) -> list[str]:
    columns = [name for name in contract(table).names if name not in NOT_COMPARED and name in rows.column_names]
    return sorted(map(str, rows.select(columns).to_pylist()))


def _writer(rows: pa.Table, run: Run, workspace: Workspace) -> str:
    """The run that wrote the rows which ``run`` stands for: itself, or a killed one whose whole result it found."""
    ids = set(rows["run_id"].to_pylist())
    if run.run_id in ids or run.job != "evaluate":
        return run.run_id
    from learn_spark.evaluation.results import ResultKey, written_by

    return written_by(workspace, ResultKey.of_run(run)) or run.run_id


def _only_output(workspace: Workspace, run: Run, prefix: str) -> StoragePath:
    (name,) = (output for output in run.outputs if output.startswith(prefix))
    return workspace.place / name


def _files(folder: StoragePath) -> list[str]:
    """The names of a folder's files of numbers, each with the hash of its bytes."""
    return sorted(
        f"{entry.path[len(folder) + 1 :]} {hashlib.sha256(entry.path.read_bytes()).hexdigest()[:16]}"
        for entry in folder.files()
        if entry.path.name.endswith(NUMBERS)
    )
