"""The whole road by spark-submit; its first stages by the installed command, its last in this process: all agree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from learn_spark.commands.main import run_job
from learn_spark.core.console import Reporter
from learn_spark.core.ragged import fixed_lists
from learn_spark.core.settings import load_settings
from learn_spark.core.stages.registry import all_stages
from learn_spark.core.tables.layout import MARKER
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.runs import Run, all_runs
from learn_spark.core.tables.snapshot import Snapshot, current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.read import read_release, released_arrow
from learn_spark.pipeline.runner import run_stages
from tests.world import ITEMS, QUICK_JVM, USERS, event_lines, item_lines, write_config, write_raw

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SUBMIT = (BIN / "spark-submit", "--driver-java-options", QUICK_JVM)
FIRST = ["ingest", "item_text", "histories"]
LAST_ITEM = f"{ITEMS}\tÜber 東京 🗼 story\t1995\tWestern"


@dataclass(frozen=True)
class World:
    """A configuration, its workspace, and what its run printed."""

    config: Path
    workspace: Workspace
    said: str


def execute(*command: object, code: int = 0, errors: bool = False, umask: int = -1, **variables: str) -> str:
    """Run a command in a shell that knows nothing of the environment; what it printed, standard error if asked for.

    (spark-submit passes its Python's standard error on as standard output.)
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYSPARK", "SPARK", "VIRTUAL_ENV"))}
    environment |= {"PATH": "/usr/local/bin:/usr/bin:/bin", **variables}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=600,
        umask=umask,
    )
    assert done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout if code == 0 and not errors else done.stdout + done.stderr


def model_of(run: Run) -> str:
    """The folder of the model that a run of train wrote."""
    (folder,) = (output for output in run.outputs if output.startswith("models/"))
    return folder


def make_world(folder: Path, llm_folder: Path) -> tuple[Path, Workspace]:
    raw = write_raw(folder.parent / "raw-é", items=[*item_lines()[:-1], LAST_ITEM])
    config = write_config(folder / "small.yaml", raw=raw, workspace=folder / "workspace", model=llm_folder)
    return config, Workspace.open(str(folder / "workspace"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("road")


@pytest.fixture(scope="module")
def by_command(base: Path) -> World:
    """Spark's own stages, which load no model: FIRST, in a locale without UTF-8."""
    (base / "command-é").mkdir()
    config, workspace = make_world(base / "command-é", base)
    stages = f"pipeline.stages={FIRST}"
    return World(config, workspace, execute(BIN / "learn-spark", "run", config, "--set", stages, LC_ALL="C"))


@pytest.fixture(scope="module")
def by_submit(base: Path, llm_folder: Path) -> World:
    """All stages, with SmolLM2, in a locale without UTF-8, and with a umask that keeps others out."""
    (base / "submit-é").mkdir()
    config, workspace = make_world(base / "submit-é", llm_folder)
    said = execute(*SUBMIT, "jobs/pipeline.py", "--config", config, umask=0o027, LC_ALL="C")
    return World(config, workspace, said)


@pytest.fixture(scope="module")
def trained_again(by_submit: World, base: Path, llm_folder: Path, spark: object) -> World:
    """A copy of that workspace, trained and published once more in this process."""
    (base / "again").mkdir()
    config, workspace = make_world(base / "again", llm_folder)
    shutil.copytree(by_submit.workspace.root, workspace.root, dirs_exist_ok=True)
    run_stages(["train", "publish"], load_settings(config), console=Reporter(quiet=True), force=True)
    return World(config, workspace, "")


def test_a_run_ends_with_stages_metrics_and_places(by_command: World, by_submit: World) -> None:
    for printed, stages in (
        (by_command.said, FIRST),
        (by_submit.said, load_settings(by_submit.config).pipeline.stages),
    ):
        for stage in stages:
            assert re.search(rf"^{stage} +done +[\d,]+ +[\d,]+ +\d+ +[\d.]+$", printed, re.M), stage
        assert "WARN" not in printed
        assert "Traceback" not in printed
    assert f"tables  {by_command.workspace.root}/tables" in re.sub(" +", "  ", by_command.said)
    items = Snapshot.open(by_command.workspace.table("items")).to_arrow(["item_id", "title"]).to_pylist()
    assert {"item_id": str(ITEMS), "title": "Über 東京 🗼 story"} in items
    said = by_submit.said
    for method in ("popularity", "item-to-item Markov", "frozen embeddings, untrained", "LEARN"):
        assert re.search(rf"^{method}( +[01]\.\d{{4}}){{4}}$", said, re.M), method
    for word in ("HR@10", "NDCG@10", "HR@50", "NDCG@50"):
        assert word in said
    places = dict(re.findall(r"^(tables|model|index|report) +(/\S+)$", said, re.M))
    assert set(places) == {"tables", "model", "index", "report"}
    assert all(Path(place).exists() for place in places.values())


def test_all_files_have_the_modes_of_the_umask(by_submit: World) -> None:
    places = list(by_submit.workspace.root.rglob("*"))
    # The test itself opened the workspace, so that its marker is from before the run.
    others = [place for place in places if place.is_file() and place.stat().st_mode & 0o777 != 0o640]
    assert [place.name for place in others] == [MARKER]
    folders = [place for place in places if place.is_dir()]
    assert {oct(place.stat().st_mode & 0o777) for place in folders} == {"0o750"}


def test_a_second_run_does_nothing_and_a_changed_setting_does_what_hangs_on_it(by_submit: World) -> None:
    tables = {t for stage in all_stages() for t in stage.writes}
    before = {t: current_version(by_submit.workspace.table(t)) for t in tables}
    again = execute(BIN / "python", "-X", "importtime", BIN / "learn-spark", "run", by_submit.config, errors=True)
    stages = load_settings(by_submit.config).pipeline.stages
    assert len(re.findall(r"^\w+ +up to date +", again, re.M)) == len(stages)
    assert {t: current_version(by_submit.workspace.table(t)) for t in tables} == before
    imported = set(re.findall(r"^import time:.*\| +(\S+)$", again, re.M))
    assert "learn_spark.pipeline.runner" in imported
    assert not {"pyspark", "torch", "great_expectations", "altair"} & imported
    plan = execute(BIN / "learn-spark", "run", by_submit.config, "--dry-run", "--set", "histories.min_value=2")
    assert "histories: would run, because its settings changed" in plan
    assert "embed_items: up to date" in plan
    assert "train: would run, because user_histories may change" in plan
    assert {t: current_version(by_submit.workspace.table(t)) for t in tables} == before
    assert "never run" in execute(BIN / "learn-spark", "status", "--config", by_submit.config)


def test_every_way_gives_the_same(by_command: World, by_submit: World, trained_again: World) -> None:
    for table, key in (
        ("items", "item_id"),
        ("item_index", "item_id"),
        ("interactions", "event_id"),
        ("item_text", "item_id"),
        ("user_histories", "user_id"),
    ):
        ours, theirs = (
            Snapshot.open(world.workspace.table(table)).to_arrow().sort_by(key) for world in (by_command, by_submit)
        )
        assert ours.num_rows > 0
        assert ours.equals(theirs), table
    worlds = (by_submit, trained_again)
    runs = [{run.job: run for run in all_runs(world.workspace)} for world in worlds]
    assert runs[0]["train"].run_id != runs[1]["train"].run_id
    weights = [
        load_file(world.workspace.root / model_of(jobs["train"]) / "model.safetensors")
        for world, jobs in zip(worlds, runs, strict=True)
    ]
    for name, tensor in weights[0].items():
        assert np.allclose(tensor, weights[1][name], atol=1e-4), name
    for table, key in (("user_features", "user_id"), ("item_features", "item_id")):
        ours, theirs = (released_arrow(w.workspace, table).sort_by(key) for w in worlds)
        assert ours[key].to_pylist() == theirs[key].to_pylist()
        assert np.allclose(fixed_lists(ours["embedding"]), fixed_lists(theirs["embedding"]), atol=1e-3)


def test_every_row_is_accounted_for_and_the_lineage_joins_up(by_submit: World) -> None:
    runs = {run.job: run for run in all_runs(by_submit.workspace)}
    events = len(event_lines())
    assert runs["ingest"].counts["rows_in"] == events + ITEMS
    assert runs["histories"].counts["rows_in"] == events
    assert runs["histories"].counts["rows_out"] == runs["train"].counts["rows_in"] == USERS
    assert runs["publish"].counts["rows_out"] == USERS + ITEMS
    for job, source, table in (
        ("item_text", "ingest", "items"),
        ("embed_items", "item_text", "item_text"),
        ("histories", "ingest", "interactions"),
        ("train", "histories", "user_histories"),
        ("train", "embed_items", "text_embeddings"),
        ("evaluate", "histories", "user_histories"),
        ("export_index", "publish", "item_features"),
    ):
        assert runs[job].inputs[table] == runs[source].outputs[table]
    assert f"models/{runs['publish'].inputs['model']}" in runs["train"].outputs
    for run in runs.values():
        assert (by_submit.workspace.root / "runs" / run.run_id / "settings.yaml").is_file()


def test_the_release_the_index_and_the_evaluation_agree(by_submit: World) -> None:
    release = read_release(by_submit.workspace)
    folder = by_submit.workspace.root / "indexes" / release.release_id
    index = faiss.read_index(str(folder / "items.faiss"))
    ids = pq.read_table(folder / "item_ids.parquet")["item_id"].to_pylist()
    items = released_arrow(by_submit.workspace, "item_features").sort_by("item_id")
    assert ids == items["item_id"].to_pylist()
    vectors = fixed_lists(items["embedding"])
    found = index.search(np.ascontiguousarray(vectors[:5]), 1)[1][:, 0]
    assert all(np.allclose(vectors[f], vectors[i], atol=1e-5) for i, f in enumerate(found))
    users = released_arrow(by_submit.workspace, "user_features")
    assert sorted(users["user_id"].to_pylist()) == sorted(str(n) for n in range(1, USERS + 1))
    last = max(int(line.split("\t")[3]) for line in event_lines())
    assert release.as_of.timestamp() == pytest.approx(last, abs=1e-3)
    assert release.as_of.timestamp() > last
    rows = read_rows(by_submit.workspace.table("evaluations"))
    assert {(r["method"], r["split"]) for r in rows} == {
        (m, c) for m in ("popularity", "markov", "frozen", "learn") for c in ("validation", "test")
    }
    validation = {r["metric"]: r["value"] for r in rows if (r["method"], r["split"]) == ("learn", "validation")}
    assert validation["NDCG@10"] == pytest.approx(release.metrics["NDCG@10"], abs=1e-9)


def test_the_report_is_one_page_that_needs_no_network(by_submit: World) -> None:
    page = (by_submit.workspace.root / "reports" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)\s*=\s*"(?!#)|https?://|@import|<script', page)
    for word in ("Ranking on the test split", "item-to-item Markov", "The release", "NDCG@10 on validation"):
        assert word in page
    drawn = re.findall(r'aria-labelledby="([\w-]+)-title"', page)
    assert {"metric-test-ndcg-10", "curve-0", "curve-1", "popularity"} <= set(drawn)
    release = read_release(by_submit.workspace)
    assert release.release_id in page


def test_exit_codes_and_one_sentence_for_each_fault(
    by_submit: World, spark: object, capsys: pytest.CaptureFixture[str]
) -> None:
    config = by_submit.config
    submit = (*SUBMIT, "jobs/histories.py", "--config", config)
    assert "did you mean histories.max_length?" in execute(*submit, "--set", "histories.max_lenght=9", code=2)
    command = (BIN / "learn-spark",)
    assert "there is no settings file" in execute(*command, "ingest", "--config", "nothing", code=2)
    said = execute(*command, "rank_ads", "--config", config, code=1)
    assert "rank_ads reads the table exposures, which does not exist; learn-spark exposures writes it" in said
    assert "Traceback" not in said
    released = read_release(by_submit.workspace)
    # Publishing takes a session, of which this process has one: what jobs/publish.py does.
    capsys.readouterr()
    assert run_job("publish", ["--config", str(config), "--set", "release.min_validation_ndcg10=0.999"]) == 3
    printed = capsys.readouterr()
    said = printed.out + printed.err
    assert re.search(r"Quality gate 'release \w+' failed: validation_ndcg10 = [\d.e-]+, expected >= 0\.999", said)
    assert "Java" not in said
    assert read_release(by_submit.workspace) == released
    assert [run.status for run in all_runs(by_submit.workspace) if run.job == "publish"] == ["done", "refused"]
