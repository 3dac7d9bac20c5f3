"""Users ranked in Spark's Python workers, one block at a time."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from learn_spark.core.causes import cause_of
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.storage.worker_files import fetch_for_worker
from learn_spark.data.splits.sample import UserSample
from learn_spark.data.splits.split import with_target, with_validation
from learn_spark.data.splits.training_view import COLUMNS, Until
from learn_spark.evaluation.blocks import RankedUsers, RankingPlan, block_count, block_of, join_blocks, rank_block
from learn_spark.evaluation.contenders import Contender
from learn_spark.evaluation.inputs import ContenderInputs

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

RANKED = "ranked binary"


@dataclass(frozen=True)
class RankingSpec:
    """What a worker needs besides the rows.

    ``files``: the folder of ContenderInputs; ``matrix``: that of the item matrix, None for a tower without content;
    ``model_folder`` with its ``before_refit`` weights or the final ones; ``sample``: the users that are ranked.
    """

    plan: RankingPlan
    sample: UserSample
    until: Until
    files: StoragePath
    model_folder: StoragePath
    before_refit: bool
    cross_fitted: bool
    matrix: StoragePath | None
    threads: int


_loaded: dict[StoragePath, tuple[Contender, ...]] = {}


def _contenders(spec: RankingSpec) -> tuple[Contender, ...]:
    if spec.files not in _loaded:
        import torch

        from learn_spark.model.feed.item_matrix import FILE, item_matrix
        from learn_spark.model.store import load_model
        from learn_spark.model.towers.bound import BoundTower

        torch.set_num_threads(spec.threads)
        model = load_model(spec.model_folder, before_refit=spec.before_refit)
        if isinstance(model.tower, BoundTower) and spec.matrix is not None:
            model.tower.bind(item_matrix(fetch_for_worker(spec.matrix) / FILE))
        inputs = ContenderInputs.load(fetch_for_worker(spec.files))
        _loaded.clear()
        _loaded[spec.files] = inputs.contenders(model, cross_fitted=spec.cross_fitted)
    return _loaded[spec.files]


def rank_on_spark(histories: DataFrame, users: int, spec: RankingSpec) -> RankedUsers:
    """``blocks.rank_table`` of the ``users`` users of user_histories that ``spec`` chooses, in Spark's workers.

    The driver receives ranks and lists, not histories. Raises LearnSparkError with the cause where a task failed as
    often as Spark lets it.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import functions as F

    blocks = block_count(users)
    rows = histories.select(*COLUMNS)
    schema = f"{', '.join(f'{field.name} {field.dataType.simpleString()}' for field in rows.schema)}, block bigint"
    chosen = rows.mapInArrow(_chosen(spec, blocks), schema)
    tasks = min(blocks, 4 * histories.sparkSession.sparkContext.defaultParallelism)
    in_blocks = chosen.repartition(tasks, F.col("block")).sortWithinPartitions("block")
    try:
        ranked = in_blocks.mapInArrow(_ranked(spec), RANKED).collect()
    except (Py4JError, PySparkException) as error:
        raise LearnSparkError(f"evaluate: a task of Spark that ranks users failed: {cause_of(error)}") from error
    return join_blocks(pickle.loads(row.ranked) for row in ranked)


def _chosen(spec: RankingSpec, blocks: int) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for ``mapInArrow``: the rows of users that are ranked, with their block."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = spec.sample.rows(with_target(pa.Table.from_batches([batch]), spec.plan.split))
            number = pa.array(block_of(rows["user_id"].to_pylist(), blocks), pa.int64())
            yield from rows.append_column("block", number).to_batches()

    return run


def _ranked(spec: RankingSpec) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for ``mapInArrow`` over rows in the order of their block: one RankedUsers a block, pickled."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in _by_block(batches):
            counted = rows if spec.until == "train_length" else with_validation(rows)
            done = rank_block(counted, spec.plan, _contenders(spec))
            yield pa.RecordBatch.from_arrays([pa.array([pickle.dumps(done)], pa.binary())], ["ranked"])

    return run


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
