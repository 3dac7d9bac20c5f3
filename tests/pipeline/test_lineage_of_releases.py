"""Released features and models are followed through merges of several days to every raw file, and to no other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from learn_spark.core.tables.runs import Run, record
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.lineage import Artifact
from learn_spark.pipeline.provenance import Provenance
from tests.report.planted import plant

START = datetime(2024, 3, 1, tzinfo=UTC)


class Days:
    """A workspace whose tables get a version a day, each merged into the one before or in its place."""

    def __init__(self, folder: Path) -> None:
        self.workspace = Workspace.open(str(folder))
        self._runs = 0

    def run(self, job: str, inputs: dict[str, str], outputs: dict[str, str]) -> None:
        self._runs += 1
        at = START + timedelta(hours=self._runs)
        run_id = f"{self._runs:03}-{job}"
        if job == "ingest":
            file = {"file": f"orders-{inputs['files:/raw']}.csv", "state": "s", "reader": "r", "rows": 5, "refused": 0}
            row = {**file, "error": None, "run_id": run_id, "read_at": at, "good_rows": {"interactions": 5}}
            outputs = {**outputs, "raw_files": plant(self.workspace, "raw_files", [row])}
        record(self.workspace, Run(run_id, job, "done", "c", "v", inputs, outputs, {}, 1.0, at))

    def deliver(self, day: int, mode: Literal["append", "overwrite"] = "append") -> str:
        """Ingest the file of a day, and build histories; their version."""
        interactions = plant(self.workspace, "interactions", [], mode)
        self.run("ingest", {"files:/raw": str(day)}, {"interactions": interactions})
        histories = plant(self.workspace, "user_histories", [])
        self.run("histories", {"interactions": interactions}, {"user_histories": histories})
        return histories

    def train(self, histories: str, model: str) -> None:
        self.run("train", {"user_histories": histories}, {f"models/{model}": model})

    def publish(self, histories: str, model: str) -> str:
        """Release features; the version of user_features."""
        features = plant(self.workspace, "user_features", [])
        self.run("publish", {"user_histories": histories, "model": model}, {"user_features": features})
        return features

    def files(self, name: str, value: str) -> list[str]:
        return sorted({use.file for use in Provenance(self.workspace).raw_files(Artifact(name, value))})


def test_a_release_comes_from_every_file_of_the_days_that_were_merged_into_it(tmp_path: Path) -> None:
    days = Days(tmp_path / "w")
    first = days.deliver(0)
    days.train(first, "m0")
    released = [days.publish(first, "m0")]
    released += [days.publish(days.deliver(day), "m0") for day in (1, 2)]
    assert released == ["0", "1", "2"]
    for day, version in enumerate(released):
        assert days.files("user_features", version) == [f"orders-{one}.csv" for one in range(day + 1)]
    assert days.files("model", "m0") == ["orders-0.csv"]


def test_a_version_that_replaced_all_rows_comes_from_no_earlier_file(tmp_path: Path) -> None:
    days = Days(tmp_path / "w")
    for day in (0, 1):
        days.deliver(day)
    days.deliver(2, "overwrite")
    days.deliver(3)
    assert days.files("interactions", "1") == ["orders-0.csv", "orders-1.csv"]
    assert days.files("interactions", "3") == ["orders-2.csv", "orders-3.csv"]
    # Histories were merged all the time, so that rows of the first days may be in them.
    assert days.files("user_histories", "3") == [f"orders-{day}.csv" for day in range(4)]
