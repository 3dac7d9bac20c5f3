"""Attacks by tables: logs of Delta that lead elsewhere, and pickles where Petastorm looks for its schema."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from learn_spark.core.storage.path import storage_path
from learn_spark.core.tables.inside import OutsideError, require_inside
from learn_spark.core.tables.snapshot import Snapshot, open_version, rows_of
from learn_spark.core.tables.versions import snapshots_of
from learn_spark.data.guesses.look import look
from learn_spark.model.feed.row_groups import RowGroup, read_row_groups
from tests.hostile.test_hostile_files import Planted


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table with one file, and beside it another table's file."""
    write_deltalake(tmp_path / "table", pa.table({"a": ["own"]}))
    pq.write_table(pa.table({"a": ["secret"]}), tmp_path / "outside.parquet")
    return tmp_path / "table"


def name_in_log(table: Path, path: str) -> None:
    size = (table.parent / "outside.parquet").stat().st_size
    added = {"path": path, "partitionValues": {}, "size": size, "modificationTime": 1, "dataChange": True}
    commit = json.dumps({"add": {**added, "stats": '{"numRecords": 1}'}})
    (table / "_delta_log" / f"{1:020d}.json").write_text(f"{commit}\n")


@pytest.mark.parametrize(
    "path",
    [
        "../outside.parquet",
        "%2E%2E/outside.parquet",
        "%252e%252e/outside.parquet",
        "x/../../outside.parquet",
        "{folder}/outside.parquet",
        "file://{folder}/outside.parquet",
        "s3://bucket/outside.parquet",
        "HDFS:/outside.parquet",
    ],
)
def test_a_log_that_names_a_file_elsewhere_is_refused(path: str, table: Path) -> None:
    name_in_log(table, path.format(folder=table.parent))
    place = storage_path(table)
    for read in (
        lambda: Snapshot.open(place),
        lambda: rows_of(open_version(place), place),
        lambda: snapshots_of(place, [0, 1]),
    ):
        with pytest.raises(OutsideError, match="outside of the table's folder"):
            read()
    assert "names the file" in look(table.parent).passed_over["table"]


def test_files_inside_are_read_whatever_their_names(table: Path) -> None:
    for name in ("a b.parquet", "x:y=1%2F2..parquet", "..z.parquet"):
        pq.write_table(pa.table({"a": [name]}), table / name)
        name_in_log(table, name.replace("%", "%25").replace(" ", "%20"))
        assert {row["a"] for row in rows_of(open_version(table), str(table)).to_pylist()} == {"own", name}


def test_spark_lists_files_by_url() -> None:
    place = storage_path("/data/table of x")
    require_inside(place, ["file:///data/table%20of%20x/part-1.parquet", "file:/data/table%20of%20x/dt=1/part.parquet"])
    require_inside(storage_path("s3://b/t"), ["s3a://b/t/part-1.parquet"])
    for file in ("file:///data/other/x.parquet", "s3a://data/table of x/y.parquet", "file:/data/table%20of%20xy/z"):
        with pytest.raises(OutsideError):
            require_inside(place, [file])


@pytest.mark.filterwarnings("ignore")
def test_a_pickle_in_petastorms_metadata_is_not_loaded(tmp_path: Path) -> None:
    """Petastorm unpickles its schema from _common_metadata, and its filter of names lets ``eval`` pass. It is given
    files, and never the folder."""
    from petastorm import make_batch_reader

    marker, folder = tmp_path / "executed", tmp_path / "table"
    folder.mkdir()
    planted = pickle.dumps(Planted(marker))
    keys = (b"dataset-toolkit.unischema.v1", b"dataset-toolkit.num_row_groups_per_file.v1")
    rows = pa.table({"a": [1, 2]}).replace_schema_metadata(dict.fromkeys(keys, planted))
    pq.write_table(rows, folder / "part.parquet")
    for name in ("_common_metadata", "_metadata"):
        pq.write_metadata(rows.schema, folder / name)
    ((_, columns),) = read_row_groups([RowGroup(str(folder / "part.parquet"), 0)], ["a"])
    assert columns["a"].tolist() == [1, 2]
    assert not marker.exists()
    # The trap works: given the folder, Petastorm executes it.
    with pytest.raises(Exception):  # noqa: B017  of whatever kind
        make_batch_reader(f"file://{folder}", reader_pool_type="dummy")
    assert marker.exists()
