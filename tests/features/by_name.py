"""The process of test_names.py, with a Hive metastore: python -m tests.features.by_name FOLDER ENDPOINT S3.

FOLDER/workspace has the releases of ``Published``, and S3 a copy of it. What it sees goes to FOLDER/seen.json.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import learn_spark as ls
import learn_spark.features as features
from learn_spark.commands.main import run_job
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import load_settings
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.catalog import metastore_settings
from learn_spark.core.tables.contracts import all_tables
from learn_spark.core.tables.session import start_session
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from tests.conftest import SMALL_SPARK
from tests.features.published import DAYS
from tests.world import write_config, write_raw


def command(name: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command, in this process."""
    printed = StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        code = run_job(name, list(arguments))
    return code, printed.getvalue()


def refusal(work: Any) -> str:
    try:
        work()
    except LearnSparkError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


def versions(workspace: Workspace) -> dict[str, int | None]:
    return {table: current_version(workspace.table(table)) for table in all_tables()}


def as_text(rows: list[Any]) -> list[str]:
    return sorted(map(str, rows))


def register_and_read(folder: Path, endpoint: str, s3: str) -> dict[str, Any]:
    """Everything by name and by path."""
    seen: dict[str, Any] = {}
    workspace = Workspace.existing(str(folder / "workspace"))
    raw = write_raw(folder / "raw")
    config = write_config(folder / "shop.yaml", raw=raw, workspace=folder / "workspace", model=folder)
    metastore = folder / "metastore"
    given = ["--config", str(config), "--catalog", "spark_catalog", "--set", f"catalog.metastore={metastore}"]
    other = [*given[:4], "--set", "catalog.metastore=null"]
    before = versions(workspace)
    # The JVM takes what it loads from its first session.
    start_session(SMALL_SPARK, app="first", log_file=folder / "first.log", addresses=[StoragePath(s3)]).stop()
    seen["without a metastore"] = command("register", *other)
    seen["unknown catalog"] = command("register", *given, "--catalog", "main")
    seen["first"] = command("register", *given, "--schema", "learn")
    seen["second"] = command("register", *given, "--schema", "learn")
    seen["commits"] = [name for name, version in versions(workspace).items() if version != before[name]]
    shutil.copytree(folder / "workspace", folder / "moved")
    at_moved = ["--set", f"workspace={folder / 'moved'}"]
    seen["moved"] = command("register", *given, *at_moved, "--schema", "learn")
    seen["moved, another schema"] = command("register", *given, *at_moved, "--schema", "moved")
    there = [f"workspace={s3}", f"storage.endpoint={endpoint}", f"scratch={folder / 'scratch'}"]
    seen["s3"] = command("register", *given, *(part for one in there for part in ("--set", one)), "--schema", "remote")
    seen["metastore away"] = command("register", *given[:4], "--set", "catalog.metastore=thrift://127.0.0.1:1")
    # A run whose metastore is away is complete all the same; the next one registers.
    new = ["--config", str(config), "--set", f"workspace={folder / 'new'}", "--set", "catalog.after_run=true"]
    new += ["--set", "catalog.namespace=daily"]
    seen["run, metastore away"] = command("ingest", *new, "--set", "catalog.metastore=thrift://127.0.0.1:1")
    seen["run"] = command("item_text", *new, "--set", f"catalog.metastore={metastore}")
    seen["run again"] = command("item_text", *new, "--set", f"catalog.metastore={metastore}")

    conf = {**SMALL_SPARK.conf, **metastore_settings(str(metastore))}
    del conf["spark.python.daemon.module"]
    session = start_session(
        SMALL_SPARK.model_copy(update={"conf": conf}),
        app="reader",
        log_file=folder / "reader.log",
        addresses=load_settings(config, there).addresses,
    )
    described = session.sql("DESCRIBE TABLE EXTENDED spark_catalog.learn.user_features").collect()
    seen["comments"] = {row.col_name: row.comment for row in described if row.comment}
    seen["comment"] = next(row.data_type for row in described if row.col_name == "Comment")
    session.sql("CREATE VIEW learn.ad_scores AS SELECT 1 AS one")
    at = [*given[:2], "--schema", "learn"]
    (folder / "workspace" / "tables" / "ad_scores" / "_delta_log").mkdir(parents=True)
    (folder / "workspace" / "tables" / "ad_scores" / "_delta_log" / "00000000000000000000.json").write_text("{}")
    seen["view"] = command("register", *at)
    shutil.rmtree(folder / "workspace" / "tables" / "ad_scores")

    events = session.createDataFrame(
        [("a", "x", day + timedelta(hours=1)) for day in DAYS], "user_id string, item_id string, event_time timestamp"
    )
    by_name, by_path = {"schema": "spark_catalog.learn"}, {"workspace": workspace}
    ways = {
        "read": lambda name, **how: features.read(session, name, **how),
        "as of": lambda name, **how: features.read(session, name, as_of=DAYS[1], **how),
        "changes": lambda name, **how: features.changes(session, name, since="r1", until="r4", **how),
    }
    for way, work in ways.items():
        for table in ("user_features", "item_features"):
            theirs = as_text(work(table, **by_path).collect())
            for schema in ("learn", "spark_catalog.learn", "remote"):
                seen[f"{way} {schema}.{table}"] = (as_text(work(f"{schema}.{table}").collect()), theirs)
    for clock in ("published", "as_of"):
        ours, theirs = (
            features.features_at(session, events, clock=clock, **how).collect() for how in (by_name, by_path)
        )
        seen[f"features_at {clock}"] = (as_text(ours), as_text(theirs))
    version = session.sql("SELECT outputs['user_features'] AS v FROM learn.releases WHERE release_id = 'r2'").first()[0]
    sql = f"SELECT user_id FROM learn.user_features VERSION AS OF {version} ORDER BY user_id"
    seen["sql"] = [row.user_id for row in session.sql(sql).collect()]
    opened = ls.open("spark_catalog.daily", spark=session)
    seen["open by name"] = (str(opened.workspace.place), opened.settings.catalog.namespace)
    seen["refused"] = {
        "no table": refusal(lambda: features.read(session, "learn.nothing")),
        "no schema": refusal(lambda: features.read(session, "nowhere.user_features")),
        "no feature table": refusal(lambda: features.read(session, "learn.releases")),
        "both": refusal(lambda: features.read(session, "learn.user_features", workspace=workspace)),
        "no workspace": refusal(lambda: ls.open("spark_catalog.default", spark=session)),
    }
    session.stop()
    return seen


if __name__ == "__main__":
    place = Path(sys.argv[1])
    os.chdir(place / "here")
    seen_by_name = register_and_read(place, *sys.argv[2:])
    (place / "seen.json").write_text(json.dumps(seen_by_name, indent=1), encoding="utf-8")
