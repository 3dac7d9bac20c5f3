"""Users ranked and measured in Spark's Python workers, one block at a time."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import pyarrow as pa

from learn_spark.core.causes import cause_of
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.storage.worker_files import fetch_for_worker
from learn_spark.core.tables.contracts import contract
from learn_spark.data.splits.sample import UserSample
from learn_spark.data.splits.split import with_target, with_validation
from learn_spark.data.splits.training_view import COLUMNS, Until
from learn_spark.evaluation.blocks import RankedUsers, RankingPlan, block_count, block_of, rank_block
from learn_spark.evaluation.contenders import Contender
from learn_spark.evaluation.inputs import ContenderInputs
from learn_spark.evaluation.measures import CatalogueFacts, Measured, MeasuringPlan, measure, nothing_measured

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_MEASURED = "measured"  # the column of the last row of a task, with what it measured; its other columns are null


@dataclass(frozen=True)
class RankingSpec:
    """What a worker needs besides the rows.

    ``files``: the folder of ContenderInputs and CatalogueFacts; ``matrix``: that of the item matrix, None for a tower
    without content; ``model_folder`` with its ``before_refit`` weights or the final ones; ``sample``: the users that
    are ranked.
    """

    plan: RankingPlan
    measuring: MeasuringPlan
    sample: UserSample
    until: Until
    files: StoragePath
    model_folder: StoragePath
    before_refit: bool
    cross_fitted: bool
    matrix: StoragePath | None
    threads: int


_loaded: dict[StoragePath, tuple[tuple[Contender, ...], CatalogueFacts]] = {}


def _load(spec: RankingSpec) -> tuple[tuple[Contender, ...], CatalogueFacts]:
    if spec.files not in _loaded:
        import torch

        from learn_spark.model.feed.item_matrix import FILE, item_matrix
        from learn_spark.model.store import load_model
        from learn_spark.model.towers.bound import BoundTower

        torch.set_num_threads(spec.threads)
        model = load_model(spec.model_folder, before_refit=spec.before_refit)
        if isinstance(model.tower, BoundTower) and spec.matrix is not None:
            model.tower.bind(item_matrix(fetch_for_worker(spec.matrix) / FILE))
        folder = fetch_for_worker(spec.files)
        contenders = ContenderInputs.load(folder).contenders(model, cross_fitted=spec.cross_fitted)
        _loaded.clear()
        _loaded[spec.files] = contenders, CatalogueFacts.load(folder)
    return _loaded[spec.files]


@dataclass(frozen=True)
class RankedOnSpark:
    """The rows of evaluation_users of a split, kept on the workers' disks until ``release``."""

    _kept: DataFrame

    @property
    def rows(self) -> DataFrame:
        """The rows, in the columns of evaluation_users."""
        return self._kept.where(self._kept[_MEASURED].isNull()).drop(_MEASURED)

    def release(self) -> None:
        """Delete the rows from the workers' disks."""
        self._kept.unpersist()


def rank_on_spark(histories: DataFrame, users: int, spec: RankingSpec) -> tuple[Measured, RankedOnSpark]:
    """The ``users`` users of user_histories that ``spec`` chooses, ranked and measured in Spark's workers.

    The driver receives sums and lists, not users. Raises LearnSparkError with the cause where a task failed as often as
    Spark lets it.
    """
    from py4j.protocol import Py4JError
    from pyspark import StorageLevel
    from pyspark.errors import PySparkException
    from pyspark.sql import functions as F
    from pyspark.sql.types import BinaryType, StructField, StructType

    blocks = block_count(users)
    rows = histories.select(*COLUMNS)
    schema = f"{', '.join(f'{field.name} {field.dataType.simpleString()}' for field in rows.schema)}, block bigint"
    chosen = rows.mapInArrow(_chosen(spec, blocks), schema)
    tasks = min(blocks, 4 * histories.sparkSession.sparkContext.defaultParallelism)
    in_blocks = chosen.repartition(tasks, F.col("block")).sortWithinPartitions("block")
    columns = StructType([StructField(f.name, f.dataType) for f in contract("evaluation_users").spark_schema()])
    ranked = in_blocks.mapInArrow(_ranked(spec), columns.add(_MEASURED, BinaryType()))
    kept = ranked.persist(StorageLevel.DISK_ONLY)
    try:
        # Joined in two steps, so that the driver receives few parts however many tasks there are.
        parts = kept.where(F.col(_MEASURED).isNotNull()).select(_MEASURED)
        joined = parts.repartition(max(1, round(tasks**0.5))).mapInArrow(_joined, parts.schema).collect()
    except (Py4JError, PySparkException) as error:
        kept.unpersist()
        raise LearnSparkError(f"evaluate: a task of Spark that ranks users failed: {cause_of(error)}") from error
    measured = nothing_measured(spec.measuring)
    for row in joined:
        measured.merge(pickle.loads(row[_MEASURED]))
    return measured, RankedOnSpark(kept)


def _chosen(spec: RankingSpec, blocks: int) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for ``mapInArrow``: the rows of users that are ranked, with their block."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = spec.sample.rows(with_target(pa.Table.from_batches([batch]), spec.plan.split))
            number = pa.array(block_of(rows["user_id"].to_pylist(), blocks), pa.int64())
            yield from rows.append_column("block", number).to_batches()

    return run


def _ranked(spec: RankingSpec) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for ``mapInArrow`` over rows in the order of their block: rows of evaluation_users, then a row with
    what was measured, pickled.
    """

    def ranked(batches: Iterable[pa.RecordBatch]) -> Iterator[RankedUsers]:
        for rows in _by_block(batches):
            counted = rows if spec.until == "train_length" else with_validation(rows)
            yield rank_block(counted, spec.plan, _load(spec)[0])

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        measured, blocks = nothing_measured(spec.measuring), ranked(batches)
        first = next(blocks, None)
        if first is None:
            return
        for table in measure(chain([first], blocks), spec.measuring, _load(spec)[1], measured):
            yield from table.append_column(_MEASURED, pa.nulls(len(table), pa.binary())).to_batches()
        schema = contract("evaluation_users").arrow_schema()
        last = [pa.nulls(1, field.type) for field in schema] + [pa.array([pickle.dumps(measured)], pa.binary())]
        yield pa.RecordBatch.from_arrays(last, [*schema.names, _MEASURED])

    return run


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """A function for ``mapInArrow``: one row with what all rows measured."""
    measured: Measured | None = None
    for batch in batches:
        for part in map(pickle.loads, batch[_MEASURED].to_pylist()):
            if measured is None:
                measured = part
            else:
                measured.merge(part)
    if measured is not None:
        yield pa.RecordBatch.from_arrays([pa.array([pickle.dumps(measured)], pa.binary())], [_MEASURED])


def _by_block(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    current: int | None = None
    for batch in batches:
        rows = pa.Table.from_batches([batch])
        for number in rows["block"].unique().to_pylist():
            if number != current and waiting:
                yield pa.concat_tables(waiting)
                waiting = []
            current = number
            waiting.append(rows.filter(pa.array(rows["block"].to_numpy() == number)).drop_columns(["block"]))
    if waiting:
        yield pa.concat_tables(waiting)
