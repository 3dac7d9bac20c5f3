"""--dry-run: what a run would refuse is an error at once, and its numbers are those of the files. No Spark."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from learn_spark.commands.main import main
from learn_spark.data.sources.headers import names_in

SHOP = """extends: conf/shop.yaml
workspace: w
source:
  format: files
  path: raw
  time_unit: iso
  items: {files: items*.csv, columns: {item_id: sku, title: name}}
  events: {files: log.*, columns: {user_id: u, item_id: sku, event_time: t, event_type: "'purchase'"}}
"""


@pytest.fixture
def dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple]:
    """Run ``learn-spark run shop.yaml --dry-run`` on five products and ten orders; (exit code, output, errors)."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "items1.csv").write_text("sku,name\nA1,Lamp\nA2,Rug\nA3,Pot\n")
    (raw / "items2.csv").write_text("sku,name\nA4,Pan\nA5,Cup")
    (raw / "log.csv").write_text(
        "u,sku,t\n" + "".join(f"c{n % 3},A{n % 5 + 1},2024-01-{n + 1:02}\n" for n in range(10))
    )
    (tmp_path / "shop.yaml").write_text(SHOP)
    for name, value in os.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str, command: str = "run") -> tuple[int, str, str]:
        options = [part for override in overrides for part in ("--set", override)]
        monkeypatch.setattr(sys, "argv", ["learn-spark", command, "--config", "shop.yaml", "--dry-run", *options])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run


def test_in_a_new_workspace_the_numbers_are_those_of_the_files(dry_run: Callable[..., tuple], tmp_path: Path) -> None:
    code, out, _ = dry_run()
    assert code == 0
    assert "2 new files of items (0.0 MB, up to 5 rows), 1 new files of events (0.0 MB, up to 10 rows)" in out
    assert "encodes up to 5 texts of new and changed items" in out
    assert "encodes 0 texts" not in out
    log = [{"u": "c1", "sku": "A1", "t": "2024-01-01"}] * 7
    (tmp_path / "raw" / "log.csv").unlink()
    (tmp_path / "raw" / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
    assert "up to 7 rows" in dry_run("source.events.format=json-lines")[1]
    pq.write_table(pa.Table.from_pylist(log[:4]), tmp_path / "raw" / "log.parquet")
    assert "up to 4 rows" in dry_run("source.events.format=parquet", "source.events.files=log.parquet")[1]
    # A known format does not give the number of its rows.
    (tmp_path / "raw" / "ml-100k.item").write_text("item_id:token\n1\n")
    (tmp_path / "raw" / "ml-100k.inter").write_text("user_id:token\n1\n")
    out = dry_run("source={format: movielens-100k, path: raw}")[1]
    assert "encodes the texts of new and changed items" in out


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["text.template=films"], ["text.template", "films", "shop"]),
        (["encoder.model=nobody/model"], ["nobody/model", "encoder.revision"]),
        (["encoder.model=./no-folder"], ["no-folder"]),
        (["encoder.revision=abc"], ["encoder.revision is abc"]),
        (["source.items.columns.title=titel"], ["items1.csv", "titel", "sku, name"]),
        (["source.events.columns.value=qty"], ["log.csv", "no column qty"]),
        (["source.events.files=orders/*.csv"], ["orders/*.csv"]),
        (["source.path=nowhere"], ["nowhere"]),
        (["source.events.format=parquet"], ["log.csv", "Parquet"]),
        (["quality.rules.interactions.age.most=2"], ["interactions.age"]),
        (["pipeline.stages=[histories, train]"], ["histories", "interactions, item_index"]),
    ],
)
def test_what_a_run_would_refuse_is_an_error_at_once(
    dry_run: Callable[..., tuple], overrides: list[str], named: list[str]
) -> None:
    code, _, errors = dry_run(*overrides)
    assert code in (1, 2)
    assert errors.startswith("error: ")
    assert "Traceback" not in errors
    for word in named:
        assert word in errors


def test_a_wrong_template_and_an_unpinned_model_end_a_run_before_its_first_stage(
    dry_run: Callable[..., tuple], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in ("text.template=films", "encoder.model=nobody/model"):
        monkeypatch.setattr(sys, "argv", ["learn-spark", "run", "shop.yaml", "--set", wrong])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code in (1, 2)
    assert not (tmp_path / "w" / "tables").exists()


def test_an_unreadable_file_is_named_and_a_column_of_an_expression_too(
    dry_run: Callable[..., tuple], tmp_path: Path
) -> None:
    (tmp_path / "raw" / "items3.csv").write_text("")
    assert dry_run()[0] == 1
    code, out, _ = dry_run("source.unreadable=skip", "source.events.where=qty > 0 and u is not null")
    assert code == 0
    assert "would be skipped: items3.csv: it is empty" in out
    assert "source.events: where: no file has a column qty" in out


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("sku", ["sku"]),
        ("'purchase'", []),
        ("try_cast(qty as double) * try_cast(`unit price` as decimal(10, 2))", ["unit price", "qty"]),
        ("concat(order_id, '-', sku)", ["order_id", "sku"]),
        ("case when kind in ('a', 'b') then price else null end", ["kind", "price"]),
        ("product['id']", ["product"]),
        ("array_join(transform(tags, x -> upper(x)), ', ')", ["tags"]),
        ("item.id", ["item.id"]),
        ("timestamp'2024-01-01' < bought and bought > current_timestamp() - interval 3 days", ["bought"]),
    ],
)
def test_the_columns_of_an_expression(sql: str, names: list[str]) -> None:
    assert names_in(sql) == names
