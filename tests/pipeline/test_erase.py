"""Erased users are in no byte of the workspace, and what stays is read as before."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from learn_spark.core.console import Reporter
from learn_spark.core.errors import SettingsError
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.storage.path import S3Access
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import all_tables, contract
from learn_spark.core.tables.erased import key_of, user_hash
from learn_spark.core.tables.log import append_rows, is_checked_without_spark, read_rows
from learn_spark.core.tables.snapshot import Snapshot, SnapshotError, current_version, open_table
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import NoReleaseError, ledger, release_in_force
from learn_spark.pipeline.erasure.erase import Erasure, erase
from learn_spark.pipeline.erasure.ids import read_ids
from tests.features.published import Published
from tests.pipeline.traces import traces
from tests.report.planted import history_row, plant
from tests.world import write_config

TIME = datetime(2024, 3, 1, 12, tzinfo=UTC)
MAIL, UUID = "anna.b@shop.example", "7d3e-anna-000000001"
ODD = 'Anna "B" \\ O\'Neil, 50%'
GONE = (MAIL, UUID, ODD)
STAYING = ("bob", "carla")
USERS = (*GONE, *STAYING)


def of_contract(table: str, user: str, number: int) -> dict[str, Any]:
    """A row of a table with a column user_id that satisfies its constraints."""
    if table == "user_histories":
        return history_row(user, [1, 2, 3])
    plain = {"long": 1, "int": 1, "double": 1.0, "float": 1.0, "boolean": True, "timestamp": TIME, "date": TIME.date()}
    values: dict[str, Any] = {}
    for column in contract(table).columns:
        values[column.name] = plain.get(column.type, f"{column.name} {number}" if column.type == "string" else None)
    given = {
        "user_id": user,
        "event_id": f"{user}/{table}/{number}",
        "split": "test",
        "score": 0.5,
        "label": 1,
        "context": {"device": "phone"},
    }
    return values | {name: value for name, value in given.items() if name in values}


def settings_of(folder: Path, workspace: Workspace, *overrides: str) -> Settings:
    config = write_config(folder / "c.yaml", raw=folder, workspace=workspace.root, model=folder)
    return load_settings(config, overrides)


def run(settings: Settings, folder: Path, *ids: str, delete: bool = True) -> Erasure:
    """Erase ``ids``, which a file outside of the workspace has."""
    file = folder / "users.txt"
    file.write_text("\n".join(ids) + "\n", encoding="utf-8")
    return erase(settings, str(file), delete=delete, console=Reporter(quiet=True))


def users_in(workspace: Workspace, table: str) -> set[str]:
    return set(Snapshot.open(workspace.table(table)).to_arrow(["user_id"])["user_id"].to_pylist())


class Planted:
    """A workspace with the users in every table that has a user, in older versions, changes, refused rows and files."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        self.spark, self.published = spark, Published(spark, str(folder / "workspace"))
        self.workspace = self.published.workspace
        self.tables = [table for table in all_tables() if "user_id" in contract(table).names]
        items = {"x": [1.0, 1.0]}
        self.published._release("r1", {user: [float(n), 1.0] for n, user in enumerate(USERS)}, items)
        self.published._release("r2", {user: [float(n), 2.0] for n, user in enumerate(USERS[1:])}, items)
        for table in self.tables:
            if table != "user_features":
                self._plant(table)
        histories = str(current_version(self.workspace.table("user_histories")))
        newest = replace(ledger(self.workspace)[-1], sequence=3, inputs={"user_histories": histories})
        append_rows(self.workspace.table("releases"), contract("releases"), [asdict(newest)])
        self._leave_in_the_log("exposures")
        with_users = set(self.files("interactions"))
        plant(self.workspace, "interactions", [of_contract("interactions", "bob", 9)])
        self.of_others = set(self.files("interactions")) - with_users
        plant(self.workspace, "items", [{"item_id": "x"}])
        self._refuse()
        self._texts(folder / "workspace")

    def files(self, table: str) -> tuple[str, ...]:
        return Snapshot.open(self.workspace.table(table)).files

    def _plant(self, table: str) -> None:
        described, path = contract(table), self.workspace.table(table)
        rows = [of_contract(table, user, 0) for user in USERS]
        values = [tuple(row[name] for name in described.names) for row in rows]
        delta.append(self.spark.createDataFrame(values, described.spark_schema()).coalesce(1), path, described)
        if is_checked_without_spark(described):
            plant(self.workspace, table, [of_contract(table, user, 1) for user in USERS])
        # An update writes changes, and its condition into the log.
        column = {"user_histories": "train_end", "evaluation_users": "rank"}.get(table, described.names[-1])
        delta.delta_table(self.spark, path).update(F.col("user_id") == MAIL, {column: column})

    def _leave_in_the_log(self, table: str) -> None:
        """Replace the rows by those of the others, and delete all older files: statistics still have the users."""
        path, described = self.workspace.table(table), contract(table)
        delta.overwrite(delta.read(self.spark, path).where(F.col("user_id").isin(*STAYING)), path, described)
        open_table(path).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)

    def _refuse(self) -> None:
        raws = {
            "described": ({"user_id": MAIL, "item_id": "x"}, "interactions"),
            "broken line": ({"line": f"x\t{UUID}\t5"}, "interactions"),
            "elsewhere": ({"user_id": "bob", "friend": UUID}, "exposures"),
            "kafka": ({"topic": "t", "offset": 3, "value": json.dumps({"user_id": MAIL})}, "interactions"),
            "odd": ({"user_id": ODD, "item_id": "x"}, "interactions"),
            "stays": ({"user_id": "bob", "item_id": "x"}, "interactions"),
            "item": ({"item_id": "bob", "price": "-"}, "items"),
        }
        rows = [
            (
                name,
                table,
                json.dumps(raw),
                ["r"],
                1,
                "f",
                json.dumps({"user_id": MAIL}) if name == "kafka" else None,
                "q",
            )
            for name, (raw, table) in raws.items()
        ]
        table = contract("quarantine")
        delta.append(self.spark.createDataFrame(rows, table.spark_schema()), self.workspace.table("quarantine"), table)

    def _texts(self, root: Path) -> None:
        failed = {
            "run_id": "failed", "job": "histories", "status": "failed", "config_hash": "c", "code_version": "v",
            "inputs": {}, "outputs": {}, "counts": {}, "seconds": 1.0, "started_at": TIME,
        }  # fmt: skip
        messages = (f"a row violates the constraint x: user_id : {MAIL}.", "histories: 3 of 4 events")
        for number, message in enumerate(messages, 1):
            row = failed | {"run_id": f"failed{number}", "message": message, "sequence": number}
            append_rows(self.workspace.table("runs"), contract("runs"), [row])
        for name, text in {
            "reports/index.html": f"<h4>User {UUID}, 3 events</h4>",
            "reports/other.html": "<h4>User bob, 3 events</h4>",
            "logs/spark.log": f"row {MAIL}",
            "logs/last-error.txt": UUID,
            "staged/r9/user_features/part.txt": MAIL,
            "staging/killed/rows/part.txt": UUID,
            "cache/index_vectors/q": MAIL,
            "studies/s/table.csv": "model,ndcg\nlearn,0.1",
            "rankings/r/manifest.json": '{"vocabularies": "hash of before"}',
        }.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        values = [("user_id", user, number) for number, user in enumerate(USERS, 2)] + [("item_id", "x", 2)]
        columns = {name: [value[at] for value in values] for at, name in enumerate(("field", "value", "row"))}
        pq.write_table(pa.table(columns), root / "rankings" / "r" / "vocabularies.parquet")


def test_a_user_in_every_table_is_in_no_byte_of_the_workspace_afterwards(spark: SparkSession, tmp_path: Path) -> None:
    planted = Planted(spark, tmp_path)
    workspace, root = planted.workspace, planted.workspace.root
    settings = settings_of(tmp_path, workspace)
    before = {table: users_in(workspace, table) for table in planted.tables}
    assert {table for table, users in before.items() if MAIL not in users} == {"user_features", "exposures"}
    assert traces(workspace.table("exposures").local, GONE) != []
    listed = run(settings, tmp_path, *GONE, UUID, "", "nobody", delete=False)
    assert {table: users_in(workspace, table) for table in planted.tables} == before
    assert (root / "reports" / "index.html").is_file()
    old = current_version(workspace.table("interactions"))

    done = run(settings, tmp_path, *GONE, UUID, "", "nobody")
    escaped = json.dumps(ODD)[1:-1]
    assert traces(root, [*GONE, escaped, json.dumps(escaped)[1:-1]]) == []
    assert done.found == listed.found
    assert (done.users, done.unknown) == (4, 1)
    rows = dict.fromkeys(planted.tables, 6) | {"user_histories": 3, "user_features": 2, "quarantine": 5}
    del rows["exposures"]
    assert done.found.older == ("exposures",)
    assert done.found.rows == rows
    assert all(users_in(workspace, table) == set(STAYING) for table in planted.tables)
    # A file without rows of the users is not written again.
    assert planted.of_others < set(planted.files("interactions"))
    kept = Snapshot.open(workspace.table("quarantine")).to_arrow()["row_id"].to_pylist()
    assert sorted(kept) == ["item", "stays"]
    assert [row["message"] for row in sorted(read_rows(workspace.table("runs")), key=lambda row: row["sequence"])][
        1:
    ] == ["histories: 3 of 4 events"]
    assert (root / "reports" / "other.html").is_file()
    assert (root / "studies" / "s" / "table.csv").is_file()
    vocabulary = root / "rankings" / "r" / "vocabularies.parquet"
    assert pq.read_table(vocabulary)["value"].to_pylist() == [*STAYING, "x"]
    saved = json.loads((vocabulary.parent / "manifest.json").read_text())
    assert saved["vocabularies"] == hashlib.sha256(vocabulary.read_bytes()).hexdigest()

    # The release in force has the vectors of before, and consumers find it by id; the others have expired.
    newest = release_in_force(ledger(workspace))
    assert newest is not None
    assert newest.release_id == "r2"
    assert newest.inputs == {"user_histories": str(current_version(workspace.table("user_histories")))}
    assert json.loads((root / "tables" / "released.json").read_text())["tables"]["user_features"]["version"] == int(
        newest.outputs["user_features"]
    )
    assert planted.published.read() == planted.published.read(release="r2") == {"bob": [2.0, 2.0], "carla": [3.0, 2.0]}
    with pytest.raises(NoReleaseError, match="r1 was expired"):
        planted.published.read(release="r1")
    with pytest.raises(SnapshotError, match="was deleted when users were erased"):
        Snapshot.open(workspace.table("interactions"), old)
    # Spark reads the tables by their checkpoints, and goes on writing them.
    for table in planted.tables:
        place = workspace.table(table).spark
        assert {row.user_id for row in spark.read.format("delta").load(place).select("user_id").collect()} == set(
            STAYING
        )
    again = spark.createDataFrame([], contract("interactions").spark_schema())
    delta.append(again, workspace.table("interactions"), contract("interactions"))

    audit = {row["status"]: row for row in read_rows(workspace.table("erasures"))}
    assert audit["done"]["deleted"] == {**rows, "runs": 1, "expired releases": 1, "rankers": 1, "pages": 1, "caches": 5}
    hashes = {row["user_hash"] for row in read_rows(workspace.table("erased_users"))}
    assert hashes == {user_hash(key_of(workspace), user) for user in (*GONE, "nobody")}


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("none.txt", None, "no file"),
        ("empty.txt", b"\n \n", "no id"),
        ("empty.csv", b"", "no id"),
        ("other.csv", b"name,x\na,b\n", "no column user_id; its columns are name, x"),
        ("short.csv", b"user_id,x\na,b,c,d\n", "Expected 2 columns, got 4"),
        ("latin.txt", "Zoë\n".encode("latin-1"), "not UTF-8"),
        ("no.parquet", b"text", "cannot be read"),
    ],
)
def test_a_file_without_ids_is_refused(name: str, content: bytes | None, why: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingsError, match=why):
        read_ids(str(tmp_path / name), S3Access())


def test_ids_are_read_from_lines_csv_and_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeff b1\n\nü, 2\n", encoding="utf-8")
    (tmp_path / "a.csv").write_text('n,user_id\n1,007\n2,"x,y"\n', encoding="utf-8")
    pq.write_table(pa.table({"user_id": [7, None, 8]}), tmp_path / "a.parquet")
    read = {file.name: read_ids(str(file), S3Access())["user_id"].to_pylist() for file in tmp_path.iterdir()}
    assert read == {"a.txt": ["b1", "ü, 2"], "a.csv": ["007", "x,y"], "a.parquet": ["7", "8"]}
