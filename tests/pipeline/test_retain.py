"""Retention deletes the objects that it lists, and everything that may still be read stays readable."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pyspark.sql import SparkSession

import learn_spark.features
from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import load_settings
from learn_spark.core.storage.locks import LockedError
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.create import create_table
from learn_spark.core.tables.log_files import commits_to_read, oldest_version
from learn_spark.core.tables.runs import Run, new_run_id, record
from learn_spark.core.tables.snapshot import Snapshot, SnapshotError, current_version, open_table
from learn_spark.core.tables.workspace import Workspace
from learn_spark.encoder.identity import identify
from learn_spark.features.ledger import NoReleaseError
from learn_spark.pipeline.locks import writing
from learn_spark.pipeline.retain import retain
from tests.features.published import DAYS, Published
from tests.report.planted import plant
from tests.world import write_config

OLD = time.time() - 30 * 86_400


def folder(path: Path, *, old: bool) -> Path:
    path.mkdir(parents=True)
    (path / "manifest.json").write_text('{"encoder_key": "e"}')
    if old:
        os.utime(path / "manifest.json", (OLD, OLD))
    return path


def files(path: str) -> set[str]:
    return {file.name for file in Path(path).glob("*.parquet")}


def test_retention_deletes_the_listed_objects_and_nothing_that_is_read(
    spark: SparkSession, published_copy: Callable[[Path], Published], tmp_path: Path
) -> None:
    published = published_copy(tmp_path)
    workspace, root = published.workspace, published.workspace.root
    llm = folder(tmp_path / "llm", old=False)
    (llm / "model.safetensors").write_bytes(b"weights")
    config = write_config(tmp_path / "c.yaml", raw=tmp_path, workspace=root, model=llm)
    settings = load_settings(config, ["retention.quarantine_days=30"])
    # r4 is in force; r3 was withdrawn long ago. All are of the model m; the newest training wrote another.
    removable = [
        folder(root / name, old=True) for name in ("indexes/r1", "models/old", "models/unfinished/a", "staged/x")
    ]
    kept = [folder(root / name, old=True) for name in ("indexes/r4", "models/m", "models/trained")]
    kept += [folder(root / name, old=False) for name in ("models/young", "models/unfinished/b", "staged/y")]
    record(
        workspace,
        Run("t", "train", "done", "c", "v", {"user_histories": "0"}, {"models/trained": "h"}, {}, 1.0, DAYS[0]),
    )
    keys = (identify(settings.encoder).key, "e", "stale")
    for key in keys:
        row = {"encoder_key": key, "text_key": "t", "embedding": [1.0], "n_tokens": 1}
        plant(workspace, "text_embeddings", [row])
    # Settings of the newest training stay; those of a run that nothing comes from go, and so do old refused rows.
    records = [root / "reports/gone.html", root / "runs/gone/settings.yaml", root / "runs/t/settings.yaml"]
    for one in records:
        one.parent.mkdir(parents=True, exist_ok=True)
        one.write_text("text")
        os.utime(one, (OLD - 300 * 86_400, OLD - 300 * 86_400))
    refused = {"row_id": "a", "source_table": "items", "raw": "{}", "reasons": ["r"], "occurrences": 1}
    old_refused = refused | {"row_id": "b", "run_id": new_run_id(DAYS[0])}
    rows = [refused | {"run_id": new_run_id()}, old_refused]
    delta.append(
        spark.createDataFrame(rows, contract("quarantine").spark_schema()),
        workspace.table("quarantine"),
        contract("quarantine"),
    )
    path = workspace.table("user_features")
    of_r1 = {Path(file).name for file in Snapshot.open(path, published.rows[0].version("user_features")).files}
    versions = {name: current_version(workspace.table(name)) for name in ("user_features", "item_features")}
    before, vectors = files(path), {name: published.read(release=name) for name in ("r2", "r4")}

    def run(*, delete: bool) -> set[tuple[str, str]]:
        plan = retain(settings, releases=2, days=0 if delete else 7, delete=delete, console=Reporter(quiet=True))
        return {(one.kind, one.name) for one in plan.removable}

    with writing(workspace, ("interactions",), "a run of ingest"), pytest.raises(LockedError, match="ingest"):
        run(delete=True)
    shown = {("release", "r1"), ("release", "r3"), ("embeddings", "stale")}
    shown |= {("folder", str(one.relative_to(root))) for one in removable}
    shown |= {("record", str(one)) for one in (records[0], records[1].parent)}
    first = run(delete=False)
    (limit,) = (name for kind, name in first if kind == "quarantine")
    assert first == shown | {("quarantine", limit)}
    assert limit > new_run_id(DAYS[0])
    assert files(path) == before
    assert all(one.is_dir() for one in (*removable, *kept))
    assert set(published.read(release="r1")) == {"a", "b", "c"}

    for one in kept[3:]:
        # Modified now: without days of grace they would be deleted too.
        os.utime(one / "manifest.json", (time.time() + 3600, time.time() + 3600))
    deleted = run(delete=True)
    assert shown <= deleted
    assert [one.exists() for one in records] == [False, False, True]
    quarantine = Snapshot.open(workspace.table("quarantine")).to_arrow()
    assert quarantine["row_id"].to_pylist() == ["a"]
    assert ("files", "user_features") in deleted
    assert not any(one.exists() for one in removable)
    assert all(one.is_dir() for one in kept)
    assert set(Snapshot.open(workspace.table("text_embeddings")).to_arrow()["encoder_key"].to_pylist()) == set(keys[:2])
    # Stages that read a table run again at a new version, which a table whose rows stayed does not have.
    assert {name: current_version(workspace.table(name)) for name in versions} == versions
    # r1's file is deleted; kept releases are read as before, and so are their changes.
    assert of_r1 & before
    assert not of_r1 & files(path)
    assert {name: published.read(release=name) for name in ("r2", "r4")} == vectors
    changed = learn_spark.features.changes(spark, "user_features", "r2", workspace=workspace).collect()
    assert {row.user_id: row.change for row in changed} == {"a": "update", "b": "update", "c": "insert", "d": "update"}
    with pytest.raises(NoReleaseError, match="release r1 was expired"):
        published.read(release="r1")
    with pytest.raises(LearnSparkError, match="changes since r1: the release expired"):
        learn_spark.features.changes(spark, "user_features", "r1", workspace=workspace)
    assert run(delete=False) == set()


def test_retention_writes_many_small_files_of_deliveries_as_few(tmp_path: Path) -> None:
    """A file a day, as daily deliveries leave them; the version before stays readable."""
    workspace = Workspace.open(str(tmp_path / "workspace"))
    config = write_config(tmp_path / "c.yaml", raw=tmp_path, workspace=workspace.root, model=tmp_path)
    path = workspace.table("item_index")

    def deliver(days: range) -> list[dict[str, object]]:
        for day in days:
            plant(workspace, "item_index", [{"item_id": f"i{day}", "item_index": day + 1}])
        retain(load_settings(config), releases=2, days=7, delete=True, console=Reporter(quiet=True))
        return Snapshot.open(path).to_arrow().sort_by("item_index").to_pylist()

    expected = [{"item_id": f"i{day}", "item_index": day + 1} for day in range(33)]
    assert deliver(range(32)) == expected[:32]
    assert (len(Snapshot.open(path).files), current_version(path)) == (32, 31)  # too few to read them all again
    assert deliver(range(32, 33)) == expected
    assert (len(Snapshot.open(path).files), current_version(path)) == (1, 33)
    assert Snapshot.open(path, 32).to_arrow().num_rows == 33


def test_retention_compacts_the_log_tables(tmp_path: Path) -> None:
    """Files that other writers left, one an append: few files and a checkpoint after, and the same rows."""
    workspace = Workspace.open(str(tmp_path / "workspace"))
    row = {"state": "s", "reader": "r", "rows": 1, "refused": 0, "run_id": "a", "read_at": DAYS[0]}
    for number in range(13):
        plant(workspace, "raw_files", [row | {"file": f"f{number}"}])
    config = write_config(tmp_path / "c.yaml", raw=tmp_path, workspace=workspace.root, model=tmp_path)
    path = workspace.table("raw_files")
    log, before = Path(path) / "_delta_log", Snapshot.open(path)

    def run(*, delete: bool) -> None:
        retain(load_settings(config), releases=2, days=7, delete=delete, console=Reporter(quiet=True))

    run(delete=False)
    assert len(Snapshot.open(path).files) == 13
    run(delete=True)
    after = Snapshot.open(path)
    assert (len(before.files), len(after.files)) == (13, 1)
    assert after.to_arrow().sort_by("file").equals(before.to_arrow().sort_by("file"))
    assert [file.name for file in log.glob("*.checkpoint.parquet")] == [f"{after.version:020}.checkpoint.parquet"]
    assert (log / "_last_checkpoint").exists()
    run(delete=True)
    assert Snapshot.open(path).version == after.version
    # Commits of 40 days ago: what the checkpoint has in it goes, and the table is read as before.
    for file in log.glob("*.json"):
        os.utime(file, (time.time() - 40 * 86_400, time.time() - 40 * 86_400))
    run(delete=True)
    assert {int(file.stem) for file in log.glob("*.json")} <= {after.version}
    assert Snapshot.open(path).to_arrow().equals(after.to_arrow())


def test_retention_ends_a_long_log_with_a_checkpoint(tmp_path: Path) -> None:
    """A table of an earlier version of learn-spark, of which deltalake writes a checkpoint every 100 commits."""
    workspace = Workspace.open(str(tmp_path / "workspace"))
    config = write_config(tmp_path / "c.yaml", raw=tmp_path, workspace=workspace.root, model=tmp_path)
    path = workspace.table("items")
    schema = pa.schema([("item_id", pa.string()), ("title", pa.string())])

    def append(name: str) -> None:
        write_deltalake(path, pa.table({"item_id": [name], "title": ["t"]}, schema), mode="append")

    for number in range(10):
        append(f"i{number}")
    settings = load_settings(config)
    retain(settings, releases=2, days=7, delete=True, console=Reporter(quiet=True))
    assert commits_to_read(path) == 10  # too few
    append("i10")
    retain(settings, releases=2, days=7, delete=False, console=Reporter(quiet=True))
    assert commits_to_read(path) == 11
    retain(settings, releases=2, days=7, delete=True, console=Reporter(quiet=True))
    assert (commits_to_read(path), current_version(path)) == (0, 10)
    assert Snapshot.open(path).to_arrow().num_rows == 11
    # Tables of today have one every 10 commits.
    create_table(workspace.table("item_index"), contract("item_index"))
    for number in range(25):
        plant(workspace, "item_index", [{"item_id": f"i{number}", "item_index": number + 1}])
    assert commits_to_read(workspace.table("item_index")) < 10


def test_versions_whose_commits_are_gone_are_not_kept(tmp_path: Path) -> None:
    """The newest run of a stage, and a release, may be older than the log of what they read."""
    workspace = Workspace.open(str(tmp_path / "workspace"))
    config = write_config(tmp_path / "c.yaml", raw=tmp_path, workspace=workspace.root, model=tmp_path)
    path = workspace.table("item_index")
    for number in range(6):
        plant(workspace, "item_index", [{"item_id": f"i{number}", "item_index": number + 1}])
        if number in (2, 4):
            open_table(path).create_checkpoint()
    removed = Snapshot.open(path, 0).files[0]
    open_table(path).delete("item_id = 'i0'")
    log = Path(path) / "_delta_log"
    for inputs in ({"item_index": "1"}, {"item_index": "4"}):
        record(workspace, Run(f"t{inputs}", "train", "done", "c", "v", inputs, {}, {}, 1.0, DAYS[0]))
    assert oldest_version(path) == 0
    for version in (0, 1):
        (log / f"{version:020}.json").unlink()
    assert oldest_version(path) == 2
    with pytest.raises(SnapshotError):
        Snapshot.open(path, 1)
    assert Snapshot.open(path, 2).rows == 3
    (log / f"{2:020}.json").unlink()
    (log / f"{3:020}.json").unlink()
    assert oldest_version(path) == 4
    assert Snapshot.open(path, 4).rows == 5
    assert oldest_version(workspace.table("items")) is None

    def run() -> None:
        retain(load_settings(config), releases=2, days=0, delete=True, console=Reporter(quiet=True))

    run()
    assert Snapshot.open(path, 4).to_arrow().num_rows == 5  # the newest run's
    assert Path(removed).name in files(path)
    record(workspace, Run("u", "train", "done", "c", "v", {"item_index": "1"}, {}, {}, 1.0, DAYS[1]))
    run()
    assert Path(removed).name not in files(path)
    assert Snapshot.open(path).to_arrow().num_rows == 5
