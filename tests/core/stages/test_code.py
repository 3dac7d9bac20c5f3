"""The version of a stage's code: which stages a change to a file reruns, in a copy of the package."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import learn_spark
from learn_spark.core.stages import code
from learn_spark.core.stages.code import Source, stage_version
from learn_spark.core.stages.registry import all_stages, find_stage
from learn_spark.pipeline.runner import plan_stage
from tests.shelf import Shelf, reading

STAGES = {stage.name for stage in all_stages()}
OF_VECTORS = ("learn_spark.features.worker", "learn_spark.features.entities", "learn_spark.model.content")
Rerun = Callable[[str, Callable[[str], str]], set[str]]


def copy_package(folder: Path) -> Path:
    package = folder / "learn_spark"
    shutil.copytree(Path(learn_spark.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    return package


def versions(package: Path) -> dict[str, str]:
    """Name of a stage (or "vectors") -> version of its code."""
    source = Source(package)
    of_stages = {stage.name: stage_version(stage, source) for stage in all_stages()}
    return of_stages | {"vectors": source.version(*OF_VECTORS)}


@pytest.fixture(scope="module")
def rerun(tmp_path_factory: pytest.TempPathFactory) -> Rerun:
    """The stages whose version an edit of a file changes; the edit is undone."""
    package = copy_package(tmp_path_factory.mktemp("copy"))
    before = versions(package)

    def of_edit(file: str, edit: Callable[[str], str]) -> set[str]:
        path = package / file
        text = path.read_bytes()
        edited = edit(text.decode()).encode()
        assert edited != text
        path.write_bytes(edited)
        after = versions(package)
        path.write_bytes(text)
        return {name for name in before if before[name] != after[name]}

    return of_edit


def with_code(text: str) -> str:
    return f"{text}\n\ndef added() -> int:\n    return 1\n"


def test_a_style_sheet_reruns_the_report_alone(rerun: Rerun) -> None:
    assert rerun("report/style.css.jinja", lambda text: text.replace("color", "colour", 1)) == {"report"}


def test_docstrings_comments_and_layout_rerun_nothing(rerun: Rerun) -> None:
    assert rerun("model/towers/learn.py", lambda text: text.replace('"""', '"""Other words. ', 1)) == set()
    assert rerun("core/tables/delta.py", lambda text: f"# a comment\n\n\n{text}") == set()


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("report/scores.py", {"report"}),
        ("evaluation/labels.py", {"report"}),
        ("pipeline/lineage.py", {"report"}),
        ("model/towers/learn.py", {"train", "evaluate", "publish", "report", "vectors"}),
        ("model/objectives/softmax.py", {"train"}),
        ("evaluation/bands.py", {"evaluate", "report"}),
        ("features/worker.py", {"publish", "vectors"}),
        ("features/audit.py", {"publish"}),
        ("features/faiss_index.py", {"export_index"}),
        ("data/sources/movielens.py", {"ingest"}),
        ("data/histories/rows.py", {"histories"}),
        ("encoder/engine.py", {"embed_items"}),
        ("ads/rankers/network.py", {"rank_ads"}),
        ("model/content.py", {"train", "evaluate", "publish", "vectors"}),
        ("core/tables/snapshot.py", STAGES | {"vectors"}),
        ("core/console.py", set()),
        ("__init__.py", set()),
        ("commands/main.py", set()),
        ("pipeline/retain.py", set()),
    ],
)
def test_a_changed_module_reruns_the_stages_that_import_it(rerun: Rerun, file: str, stages: set[str]) -> None:
    assert rerun(file, with_code) == stages


def test_of_settings_only_what_derives_values_counts(rerun: Rerun) -> None:
    field = 'field_of_my_own: int = 3\n    """Nothing."""\n    '
    assert rerun("core/settings/training.py", lambda text: text.replace("seed: ", f"{field}seed: ", 1)) == set()
    assert "train" in rerun("core/settings/tower.py", lambda text: text.replace("return ", "return not ", 1))


def test_imports_inside_functions_count_and_those_for_types_do_not(tmp_path: Path) -> None:
    package = tmp_path / "learn_spark"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "entry.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from learn_spark.types_only import T\n"
        "def run():\n    from learn_spark import inner\n    return inner\n"
    )
    (package / "inner.py").write_text("import learn_spark.deep\n")
    (package / "deep.py").write_text("import learn_spark.entry\n")
    (package / "types_only.py").write_text("T = int\n")
    names = Source(package).closure("learn_spark.entry")
    assert names == ("learn_spark.deep", "learn_spark.entry", "learn_spark.inner")
    with pytest.raises(ValueError, match=r"learn_spark\.nowhere"):
        Source(package).closure("learn_spark.nowhere")


def test_only_what_changed_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the plan of a run: a changed style sheet lets training rest, a changed tower does not."""
    copy = copy_package(tmp_path)
    monkeypatch.setattr(code, "installed", lambda: Source(copy))

    def reason() -> str:
        code.code_version.cache_clear()
        return plan_stage(find_stage("train"), shelf.settings("training.epochs=1"), shelf.workspace).reason

    code.code_version.cache_clear()
    shelf = Shelf(tmp_path / "shelf", reading())
    shelf.run("train", "training.epochs=1")
    assert reason() == "nothing changed"
    (copy / "report" / "style.css.jinja").write_text("body { color: red }")
    assert reason() == "nothing changed"
    path = copy / "model" / "towers" / "learn.py"
    path.write_text(with_code(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert reason() == "its code changed"
    code.code_version.cache_clear()
