"""The tutorials, really run: their files, commands and Python, page after page, in one folder and one Spark session."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from learn_spark.commands.main import main
from learn_spark.core.settings import load_settings
from learn_spark.core.stages.registry import all_stages
from learn_spark.core.tables.runs import all_runs
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import ledger
from tests.conftest import SMALL_SPARK
from tests.docs.pages import ROOT, blocks
from tests.encoder.tiny import tiny_model

# A page continues the folder of the pages before it.
MOST_JOBS = 15
ROAD = ("start/own-data.md", "guides/daily-operation.md", "guides/reading-features.md", "start/first-road.md")


class Reader:
    """A reader who follows the pages in ``folder``; their settings get a tiny LLM and the tests' Spark on top."""

    def __init__(self, folder: Path, encoder: Path) -> None:
        self.folder, self.encoder = folder, encoder
        self.output: list[str] = []

    def follow(self, page: str, capture: pytest.CaptureFixture[str]) -> dict[str, Any]:
        """Write the page's files, run its commands and its Python; the names that its Python leaves."""
        names: dict[str, Any] = {"__name__": f"docs.{page}"}
        for block in blocks(page):
            if block.language == "yaml" and block.title:
                extra = {"encoder": {"model": str(self.encoder), "max_tokens": 64}, "spark": SMALL_SPARK.model_dump()}
                (self.folder / block.title).write_text(block.text + yaml.safe_dump(extra), encoding="utf-8")
            elif block.language == "bash" and block.title == "run":
                for command in block.commands():
                    code, printed = self.execute(command.replace("quickstart", "shop.yaml"), capture)
                    assert code == 0, f"{page}, line {block.line}: {command} ended with {code}:\n{printed}"
                    self.output.append(printed)
            elif block.language == "python":
                source = "\n" * (block.line - 1) + block.text
                exec(compile(source, str(ROOT / "docs" / page), "exec"), names)
        return names

    def execute(self, command: str, capture: pytest.CaptureFixture[str]) -> tuple[int, str]:
        """Exit code and output of ``learn-spark ...``, run in this process."""
        program, *arguments = shlex.split(command, comments=True)
        assert program == "learn-spark", command
        before, sys.argv = sys.argv, [program, *arguments]
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.argv = before
        printed = capture.readouterr()
        return code, printed.out + printed.err


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, llm_folder: Path, spark: object) -> Iterator[Reader]:
    """In a folder of its own, with the environment as it was before and after."""
    folder = tmp_path_factory.mktemp("tutorial")
    encoder = tmp_path_factory.mktemp("tiny") / "llm"
    encoder.mkdir()
    environment, here = dict(os.environ), Path.cwd()
    os.chdir(folder)
    with warnings.catch_warnings():
        yield Reader(folder, tiny_model("qwen2", encoder, llm_folder))
    os.chdir(here)
    os.environ.clear()
    os.environ.update(environment)


def test_a_shop_from_its_files_to_a_second_day_and_back(reader: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    names = {page: reader.follow(page, capsys) for page in ROAD}
    shop = Workspace.open(str(reader.folder / "var/shop"))
    # One release from the first road, one a delivery, and the row of the rollback.
    assert [row.status for row in ledger(shop) if row.status in ("released", "withdrawn")] == [
        "released",
        "released",
        "released",
        "withdrawn",
    ]
    runs = all_runs(shop)
    published = [run.counts["rows_out"] for run in runs if run.job == "publish" and run.status == "done"]
    assert published[0] == 24 + 8
    assert published[1] == 2
    # A day of few orders is cheap: after the first load, no stage starts many Spark jobs.
    days = [run for n, run in enumerate(runs) if run.job in {earlier.job for earlier in runs[:n]}]
    jobs = [(run.job, run.counts["spark_jobs"]) for run in days if "spark_jobs" in run.counts]
    assert {"ingest", "item_text", "embed_items", "histories", "publish"} <= {job for job, _ in jobs}
    assert all(0 < number <= MOST_JOBS for _, number in jobs), jobs
    # Eight texts, and the corrected one.
    assert Snapshot.open(shop.table("text_embeddings")).to_arrow().num_rows == 8 + 1
    assert len(names["guides/reading-features.md"]["best"]) == 25
    stages = {stage.name for stage in all_stages()}
    assert set(load_settings(reader.folder / "shop.yaml").pipeline.stages) <= stages


def test_the_smallest_tower_of_the_guide_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    from learn_spark.model.towers import registry

    monkeypatch.setattr(registry, "TOWERS", dict(registry.TOWERS))
    names: dict[str, Any] = {"__name__": "docs.adding_a_tower"}
    code = [block for block in blocks("guides/adding-a-tower.md") if block.language == "python"]
    assert len(code) == 4
    for block in code:
        exec(compile(block.text, "docs/guides/adding-a-tower.md", "exec"), names)
    assert registry.shape_of(names["again"]) == {"kind": "mean", "n_items": 8, "width": 4}


def cluster_commands() -> list[list[str]]:
    """The words of every spark-submit of docs/cluster.md that names a job."""
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return [shlex.split(line) for line in lines if line.startswith("spark-submit") and "jobs/" in line]


def test_the_clusters_commands_name_jobs_and_settings_that_there_are() -> None:
    commands = cluster_commands()
    assert {words[words.index("--master") + 1].partition(":")[0] for words in commands} == {"spark", "yarn", "k8s"}
    for words in commands:
        at = next(n for n, word in enumerate(words) if word.endswith(".py") and "jobs/" in word)
        assert (ROOT / "jobs" / Path(words[at]).name).is_file()
        confs = [words[n + 1] for n, word in enumerate(words[:at]) if word == "--conf"]
        assert confs
        assert all(conf.startswith("spark.") and "=" in conf for conf in confs)
        options = words[at + 1 :]
        overrides = [options[n + 1] for n, word in enumerate(options) if word == "--set"]
        config = Path(options[options.index("--config") + 1]).name.removesuffix(".yaml")
        settings = load_settings(config, overrides)
        assert settings.encoder.gpus == int(any(conf.startswith("spark.executor.resource.gpu.") for conf in confs))
        assert str(settings.workspace) in ("/mnt/shared/learn-spark", "s3://bucket/shop")
