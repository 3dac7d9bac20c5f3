"""The identity of an evaluation result (model, table versions, protocol, settings), and its rows per user."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from learn_spark.core.settings import Settings
from learn_spark.core.settings.histories import TimeSplitHistoriesSettings
from learn_spark.core.settings.load import fingerprint
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.runs import Run, run_order
from learn_spark.core.tables.workspace import Workspace

STAGE = find_stage("evaluate")
VECTORS_ONLY = "-vectors"  # suffix of the method name where a model with a reranker is ranked without it


@dataclass(frozen=True)
class ResultKey:
    """What identifies a result: the model id, the versions of the tables read, and a hash of the settings."""

    model_id: str
    tables: Mapping[str, str]
    settings_hash: str

    def digest(self) -> str:
        """16 hexadecimal digits that name the result."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @staticmethod
    def of_run(run: Run) -> ResultKey:
        """The key of the result that an evaluate run wrote, or that existed already."""
        return ResultKey(run.inputs["model"], _tables(run.inputs), run.config_hash)

    @staticmethod
    def of_settings(inputs: Mapping[str, str], settings: Settings) -> ResultKey:
        """The key of the result that a run with these ``inputs`` will write."""
        return ResultKey(inputs["model"], _tables(inputs), fingerprint(settings, STAGE.sections))


@dataclass(frozen=True)
class MetricRow:
    """One row of ``evaluations`` (schemas/evaluations.yaml describes the fields)."""

    run_id: str
    model_id: str
    method: str
    split: str
    metric: str
    value: float
    users: int
    catalogue: int
    protocol: str
    tables: Mapping[str, str]
    settings_hash: str | None = None  # an older version's table has no such column


@dataclass(frozen=True)
class SliceRow:
    """One row of ``evaluation_slices`` (schemas/evaluation_slices.yaml describes the fields)."""

    run_id: str
    model_id: str
    method: str
    split: str
    dimension: str
    slice: str
    metric: str
    value: float
    low: float
    high: float
    users: int
    items: int


def metric_rows(workspace: Workspace, where: ds.Expression | None = None) -> list[MetricRow]:
    """The rows of ``evaluations`` that satisfy ``where`` (None: all); none where the table does not exist."""
    return [MetricRow(**row) for row in read_rows(workspace.table("evaluations"), where=where)]


def slice_rows(workspace: Workspace, where: ds.Expression | None = None) -> list[SliceRow]:
    """The rows of ``evaluation_slices`` that satisfy ``where`` (None: all); none where the table does not exist."""
    return [SliceRow(**row) for row in read_rows(workspace.table("evaluation_slices"), where=where)]


def _tables(inputs: Mapping[str, str]) -> dict[str, str]:
    return {table: inputs[table] for table in STAGE.reads if table in inputs}


def protocol_of(settings: Settings) -> str:
    """The split of histories and the ranking of targets, in words; another rule of ranking needs another name here."""
    histories = settings.histories
    split = ""
    if isinstance(histories, TimeSplitHistoriesSettings):
        split = f" at {histories.split_time}{'' if histories.train_after_split else ', no training after it'}"
    masked = "masked" if settings.evaluation.mask_history else "not masked"
    users = settings.evaluation.users
    sample = "" if users is None else f"; at most {users:,} users by hash"
    return f"{histories.protocol}{split}; whole catalogue, history {masked}, ties by half{sample}"


def written_by(workspace: Workspace, key: ResultKey, protocol: str | None = None) -> str | None:
    """The run that wrote the evaluations of ``key`` (by ``protocol``; None: by any); None where no run did."""
    run_ids = {
        row.run_id
        for row in metric_rows(workspace, ds.field("model_id") == key.model_id)
        if row.settings_hash == key.settings_hash and row.tables == key.tables and protocol in (None, row.protocol)
    }
    if len(run_ids) < 2:
        return next(iter(run_ids), None)
    places = run_order(workspace)
    return max(run_ids, key=lambda run_id: (places.get(run_id, -1), run_id))


def user_rows(
    shared: Mapping[str, str],
    user_ids: np.ndarray,
    item_ids: pa.Array,
    labels: Mapping[str, np.ndarray],
    ranks: np.ndarray,
) -> pa.Table:
    """Rows of evaluation_users for T targets of one method: ``shared`` are the columns with one value, ``labels`` [T]
    the slices of the targets by dimension.
    """
    table = contract("evaluation_users")
    columns: dict[str, pa.Array] = {
        **{column: pa.repeat(pa.scalar(value, pa.string()), len(ranks)) for column, value in shared.items()},
        "user_id": pa.array(user_ids, pa.string()),
        "item_id": item_ids.cast(pa.string()),
        **{dimension: pa.array(values, pa.string()) for dimension, values in labels.items()},
        "rank": pa.array(ranks, pa.float64()),
    }
    return pa.table([columns[column] for column in table.names], names=table.names)
