"""The whole road on clusters whose machines share no folder: standalone, and YARN with the driver in the cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from learn_spark.core.connectors import s3_jar_paths
from learn_spark.core.install import jar_paths
from learn_spark.core.settings import Settings
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.runs import all_runs
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.read import released_arrow
from learn_spark.pipeline.runner import Outcome
from tests.encoder.standalone import BIN, REPOSITORY, Cluster
from tests.servers import yarn_server

BOTH = {
    "spark.cores.max": "2",
    "spark.scheduler.minRegisteredResourcesRatio": "1.0",
    "spark.scheduler.maxRegisteredResourcesWaitingTime": "120s",
}
TWO_PROCESSES = ("training.epochs=1", "training.processes=2", "training.threads=1")


def code_of_the_project(folder: Path) -> Path:
    """The project as a zip file for --py-files: its wheel."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    copy = folder / "project"
    for name in ("learn_spark", "conf", "schemas", "scripts"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy / name)
    subprocess.run([*command, str(copy)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel.rename(folder / "learn_spark.zip")


def put_raw_files(folder: Path, place: StoragePath) -> StoragePath:
    """``place``, with the files of a folder."""
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    return place


def test_a_cluster_without_a_shared_folder(
    small_settings: Callable[..., Settings],
    run: Callable[..., list[Outcome]],
    tmp_path: Path,
    tiny_llm: Path,
    bucket: StoragePath,
) -> None:
    settings = small_settings(*TWO_PROCESSES)
    stages = [stage for stage in settings.pipeline.stages if stage != "report"]
    run(settings, *stages)
    here = Workspace.existing(settings.place, settings.scratch)

    code, scratch, place = code_of_the_project(tmp_path / "wheel"), tmp_path / "scratch", bucket / "cluster"
    scratch.mkdir()
    raw = put_raw_files(tmp_path / "raw", bucket / "raw")
    jars = [*jar_paths(), *s3_jar_paths()]
    sources = [REPOSITORY / name for name in ("learn_spark", "schemas")]
    cluster = Cluster.start(tmp_path)
    try:
        for address in ("0", "1"):
            cluster.add_worker(address, hidden=[*sources, scratch, tiny_llm, tmp_path / "raw", tmp_path / "workspace"])
        cluster.wait(2)
        overrides = [f"workspace={place}", f"source.path={raw}", f"scratch={scratch}"]
        overrides += [f"storage.endpoint={bucket.s3.server}"]
        overrides += [
            *TWO_PROCESSES,
            "training.launcher=spark",
            "evaluation.runner=spark",
            f"pipeline.stages=[{','.join(stages)}]",
        ]
        program = cluster.submit(
            REPOSITORY / "tests" / "pipeline" / "cluster_job.py",
            *("--config", str(tmp_path / "small.yaml")),
            *(part for override in overrides for part in ("--set", override)),
            conf={**BOTH, "spark.submit.pyFiles": str(code), "spark.jars": ",".join(map(str, jars))},
        )
        output, _ = program.communicate(timeout=600)
        assert program.returncode == 0, output
    finally:
        cluster.stop()

    there = Workspace.existing(place, str(scratch))
    assert [one.job for one in all_runs(there) if one.status == "done"] == stages
    for table, key in (("user_features", "user_id"), ("item_features", "item_id")):
        ours, theirs = (released_arrow(one, table).sort_by(key) for one in (here, there))  # type: ignore[arg-type]
        assert ours[key].equals(theirs[key])
        vectors = [np.stack(one["embedding"].to_numpy()) for one in (ours, theirs)]
        np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)
    # Methods that only count have the same ranks, although each user was ranked in a worker.
    ranks = [
        {
            (row["split"], row["method"], row["user_id"], row["item_id"]): row["rank"]
            for row in read_rows(one.table("evaluation_users"))
            if row["method"] in ("popularity", "markov")
        }
        for one in (here, there)
    ]
    assert len(ranks[0]) > 50
    assert ranks[0] == ranks[1]
    # Each machine copied the encoder's files and the item matrix once.
    for address in ("0", "1"):
        copies = [copy for copy in cluster.cache(address).iterdir() if copy.is_dir()]
        for file in ("embeddings.npy", "config.json"):
            assert sum((copy / file).is_file() for copy in copies) == 1, file
    # The arrays of the contenders were for one evaluation alone.
    assert not [name for name in (place / "worker_files").names() if name.startswith("evaluation-")]


def test_the_driver_runs_in_a_cluster_of_yarn(
    small_settings: Callable[..., Settings], run: Callable[..., list[Outcome]], tmp_path: Path, bucket: StoragePath
) -> None:
    """The driver has the settings file and the project's zip file, and nothing else of this machine's checkout."""
    stages = ["ingest", "item_text", "embed_items", "histories"]
    settings = small_settings()
    run(settings, *stages)
    place, work = bucket / "yarn", tmp_path / "driver"
    work.mkdir()
    code = code_of_the_project(tmp_path / "wheel")
    shutil.copy(tmp_path / "small.yaml", work)
    raw = put_raw_files(tmp_path / "raw", bucket / "raw")
    overrides = [f"workspace={place}", f"source.path={raw}", "scratch=./scratch"]
    overrides += [f"storage.endpoint={bucket.s3.server}"]
    keys = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    conf = {
        "spark.jars": ",".join(map(str, [*jar_paths(), *s3_jar_paths()])),
        "spark.executor.memory": "512m",
        "spark.executor.instances": "1",
        "spark.executorEnv.LEARN_SPARK_CACHE": str(tmp_path / "cache"),
        "spark.yarn.appMasterEnv.HOME": str(work),
        **{f"spark.yarn.appMasterEnv.{name}": value for name, value in keys.items()},
        **{f"spark.executorEnv.{name}": value for name, value in keys.items()},
    }
    with yarn_server(tmp_path) as hadoop:
        command = [str(BIN / "spark-submit"), "--master", "yarn", "--deploy-mode", "cluster", "--driver-memory", "1g"]
        command += [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]
        command += ["--py-files", str(code), "--files", "small.yaml", str(REPOSITORY / "jobs" / "pipeline.py")]
        command += ["--config", "small.yaml", "--set", f"pipeline.stages=[{','.join(stages)}]"]
        command += [part for override in overrides for part in ("--set", override)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYSPARK_GATEWAY")}
        environment |= {"HADOOP_CONF_DIR": str(hadoop), "PYTHONPATH": ""}
        done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True, timeout=600)
        logs = "".join(path.read_text(errors="replace")[-5000:] for path in (tmp_path / "yarn").rglob("stdout"))
        assert done.returncode == 0, logs + done.stderr[-5000:]
    here, there = Workspace.existing(settings.place, settings.scratch), Workspace.existing(place, str(tmp_path / "s"))
    assert [one.job for one in all_runs(there)] == stages
    for table, key, column in (
        ("text_embeddings", "text_key", "embedding"),
        ("user_histories", "user_id", "item_index"),
    ):
        ours, theirs = ({row[key]: row[column] for row in read_rows(one.table(table))} for one in (here, there))
        assert len(ours) > 30
        assert ours.keys() == theirs.keys()
        np.testing.assert_allclose(list(ours.values()), [theirs[name] for name in ours], atol=1e-5)
    assert len([copy for copy in (tmp_path / "cache").iterdir() if copy.is_dir()]) == 1
