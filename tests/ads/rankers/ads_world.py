"""A workspace to rank in: exposures, interactions and releases planted as real Delta tables by Spark."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from learn_spark.ads.inputs.numbering import batches
from learn_spark.ads.inputs.rows import OF_TEST, RowFiles, write_rows
from learn_spark.ads.inputs.shown import Shown, shown_exposures
from learn_spark.ads.inputs.vocabulary import Lookup, Vocabulary, lookups_of, write_vocabularies
from learn_spark.ads.rankers.input_files import vector_file
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.storage.path import storage_path
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_rows
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from tests.report.planted import plant, release_row
from tests.world import write_config

START = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday
Vectors = Mapping[str, Sequence[float]]


def at(seconds: float) -> datetime:
    """So many seconds after START."""
    return START + timedelta(seconds=seconds)


def exposure(event: str, user: str, item: str, seconds: float, converted: bool = False, **more: Any) -> dict[str, Any]:
    """A row of exposures; ``more`` are its other columns."""
    return {
        "event_id": event,
        "user_id": user,
        "item_id": item,
        "event_time": at(seconds),
        "arm": None,
        "position": None,
        "context": {},
        "converted": converted,
        "revenue": None,
        "weight": 1.0,
        "request_id": None,
        **more,
    }


@dataclass(frozen=True)
class Coded:
    """Rows of the test as Spark wrote them, and the vectors that they name."""

    rows: pa.Table
    files: RowFiles
    vectors: np.ndarray


class AdsWorld:
    """The workspace; ``release`` publishes vectors, ``exposures`` and ``events`` replace or add rows."""

    def __init__(self, folder: Path, spark: SparkSession) -> None:
        self.spark, self.folder = spark, folder
        self.workspace = Workspace.open(str(folder / "workspace"))
        self.config = write_config(folder / "c.yaml", raw=folder, workspace=self.workspace.root, model=folder / "llm")
        self._rows = 0

    def settings(self, *overrides: str) -> Settings:
        """Settings of a small ranking by the clock of the data."""
        small = ("ranking.clock=as_of", "ranking.bootstrap_samples=20", "ranking.batch_size=128")
        return load_settings(self.config, (*small, *overrides))

    def exposures(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace the exposures, by Spark."""
        table = contract("exposures")
        frame = self.spark.createDataFrame(
            [tuple(row[name] for name in table.names) for row in rows], table.spark_schema()
        )
        delta.overwrite(frame, self.workspace.table("exposures"), table)

    def shown(self, context: Sequence[str] = (), since: int | None = None, lag_hours: float | None = None) -> Shown:
        """The exposures that were shown."""
        frame = delta.read(self.spark, self.workspace.table("exposures"))
        return shown_exposures(frame, "exposures", context, since, lag_hours)

    def lookups(self, shown: Shown, train: str = "true", least: int = 1) -> dict[str, Lookup]:
        """The vocabularies of the exposures that satisfy ``train``."""
        folder = storage_path(tempfile.mkdtemp(dir=self.folder))
        return lookups_of(shown, F.expr(train), least, folder / "values", small=True)

    def coded(
        self,
        *overrides: str,
        context: Sequence[str] = (),
        vocabularies: Mapping[str, Vocabulary] | None = None,
        with_features: bool = True,
        small: bool = True,
        where: str = "true",
        lag_hours: float | None = None,
    ) -> Coded:
        """All exposures that satisfy ``where`` as rows of the test, with the vocabularies of all exposures."""
        folder, shown = storage_path(tempfile.mkdtemp(dir=self.folder)), self.shown(context, lag_hours=lag_hours)
        shown = replace(shown, frame=shown.frame.where(where))
        vocabularies = self.lookups(shown) if vocabularies is None else vocabularies
        write_vocabularies(vocabularies, folder / "vocabularies.parquet")
        files = write_rows(
            shown,
            {"test": F.lit(True)},
            vocabularies,
            folder / "vocabularies.parquet",
            delta.read(self.spark, self.workspace.table("interactions")),
            self.workspace,
            folder,
            self.settings(*overrides).ranking,
            with_features=with_features,
            small=small,
        )
        rows = pa.Table.from_batches(batches(files.parts["test"], [*files.columns, *OF_TEST], 1 << 16))
        return Coded(rows, files, vector_file(files.vectors, folder.local / "vectors.bin"))

    def events(self, rows: Sequence[tuple[str, str, float]]) -> None:
        """Interactions (user, item, seconds), and the items they name."""
        interactions = [
            {
                "event_id": f"e{number}",
                "user_id": user,
                "item_id": item,
                "event_type": "purchase",
                "event_time": at(seconds),
                "event_date": at(seconds).date(),
            }
            for number, (user, item, seconds) in enumerate(rows)
        ]
        plant(self.workspace, "interactions", interactions, mode="overwrite")
        plant(
            self.workspace, "items", [{"item_id": item} for item in sorted({row[1] for row in rows})], mode="overwrite"
        )

    def release(
        self,
        name: str,
        as_of: float,
        users: Vectors,
        items: Vectors,
        *,
        published: float | None = None,
        model: str = "m",
    ) -> None:
        """A release that knows nothing at or after ``as_of`` seconds; published then, or at ``published``."""
        self._rows += 1
        outputs = {}
        for table, vectors in (("user_features", users), ("item_features", items)):
            rows = [(entity, [*map(float, vector)], name, at(as_of), 1) for entity, vector in vectors.items()]
            frame = self.spark.createDataFrame(rows, contract(table).spark_schema())
            delta.overwrite(frame, self.workspace.table(table), contract(table))
            outputs[table] = str(current_version(self.workspace.table(table)))
        row = release_row(
            self._rows,
            name,
            "released",
            at(as_of),
            outputs=outputs,
            model_id=model,
            written_at=at(as_of if published is None else published),
        )
        append_rows(self.workspace.table("releases"), contract("releases"), [asdict(row)])


def tastes(count: int, dims: int, seed: int) -> np.ndarray:
    """Unit vectors [count, dims] drawn at random."""
    drawn = np.random.default_rng(seed).normal(size=(count, dims))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
