"""What an erasure looks for in files: ids however they are escaped, and rankers that a killed run left."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.erasure.files import files_to_delete, names_of, vocabularies_with

IDS = pa.chunked_array([["a@b.com", "user-17", "cust_17", "jörg@b.de", "7f9c-12ab"]])


@pytest.mark.parametrize("user", IDS.to_pylist())
def test_an_id_is_found_in_json_and_in_json_inside_json(user: str) -> None:
    """As ab-report writes rows that it refused: the raw row is JSON in a field of JSON."""
    named, raw = names_of(IDS), json.dumps({"user_id": user, "arm": "x"})
    for text in (user, raw, json.dumps({"raw": raw}), json.dumps({"raw": raw}, ensure_ascii=False), f"of {user}."):
        assert named(text), text
    others = json.dumps({"user_id": f"{user}x", "arm": f"x{user}", "path": "C:\\users\\17", "end": "\\"})
    assert not named(others)
    assert not named(json.dumps({"raw": others}))


def test_rankers_without_a_manifest_are_deleted_as_a_whole(tmp_path: Path) -> None:
    workspace = Workspace.open(str(tmp_path / "w"))
    vocabulary = pa.table({"field": ["user_id"], "value": ["a@b.com"]})
    for name in (".new.1234.abcd", "saved"):
        folder = tmp_path / "w" / "rankings" / name
        folder.mkdir(parents=True)
        pq.write_table(vocabulary, folder / "vocabularies.parquet")
    (tmp_path / "w" / "rankings" / "saved" / "manifest.json").write_text("{}")
    deleted = [(one.path.name, one.kind) for one in files_to_delete(workspace, names_of(IDS))]
    assert deleted == [(".new.1234.abcd", "cache")]
    assert [one.path.parent.name for one in vocabularies_with(workspace, IDS)] == ["saved"]
