"""Any deliveries of any rows: whatever their grouping, order, repetition and lateness, the tables are those of a slow
twin that sees all files at once.

An example has many orders, each with several states, so that few examples are many cases. More of them, drawn anew each
time: LEARN_SPARK_TEST_DELIVERIES=200 python -m pytest tests/data/sources/test_any_delivery.py
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from learn_spark.core.console import Reporter
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.stages.context import SparkHolder, StageContext
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.sources.ingest import run as ingest
from tests.stored import stored_rows
from tests.world import write_config

EXAMPLES = int(os.environ.get("LEARN_SPARK_TEST_DELIVERIES", "0"))
PRODUCTS, ORDERS = ["A1", "B2", "C3", "D4"], [f"o{number}" for number in range(8)]
TIMES = ["2024-03-01 10:00:00", "2024-03-02 10:00:00", "2024-03-03 10:00:00"]


class Product(NamedTuple):
    """A line of a file of products."""

    sku: str
    name: str
    cost: str
    updated: str


class Order(NamedTuple):
    """A line of a file of orders."""

    order: str
    customer: str
    sku: str
    amount: str
    at: str
    updated: str


products = st.builds(
    Product,
    st.sampled_from([*PRODUCTS, ""]),
    st.sampled_from(["", "lamp", "Lamp", "rug"]),
    st.sampled_from(["1.5", "20", "ten", ""]),
    st.sampled_from(TIMES),
)
orders = st.builds(
    Order,
    st.sampled_from(ORDERS),
    st.sampled_from(["ann", "bob", "bob", "eve", ""]),
    st.sampled_from([*PRODUCTS, "X9"]),
    st.sampled_from(["1", "2", "10", "many", ""]),
    st.sampled_from([*TIMES, "soon"]),
    st.sampled_from([*TIMES, ""]),
)
Files = dict[str, list[Any]]


@dataclass(frozen=True)
class Deliveries:
    """Files by name, and which of them come in each run; a file that came before comes again, as it was."""

    files: Files
    runs: list[list[str]]


@st.composite
def deliveries(draw: st.DrawFn) -> Deliveries:
    """Three files of orders and two of products, and a copy of one; in up to three runs, with repetitions."""
    files: Files = {f"orders-{n}.csv": draw(st.lists(orders, min_size=8, max_size=16)) for n in range(3)}
    files |= {f"products-{n}.csv": draw(st.lists(products, min_size=1, max_size=5)) for n in range(2)}
    copied = draw(st.sampled_from(sorted(files)))
    files[copied.replace(".csv", "-copy.csv")] = files[copied]
    order = draw(st.permutations(sorted(files)))
    # The first run has products and orders: without files of either, ingest ends with an error.
    order = sorted(order, key=lambda name: name not in {next(n for n in order if n.startswith(k)) for k in ("o", "p")})
    cuts = sorted(draw(st.lists(st.integers(2, len(order) - 1), min_size=1, max_size=2, unique=True)))
    runs = [list(order[start:end]) for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True)]
    for number, names in enumerate(runs[1:], 1):
        names += draw(st.lists(st.sampled_from(order[: cuts[number - 1]]), max_size=2, unique=True))
    return Deliveries(files, runs)


def number_of(text: str) -> float | None:
    """A number, or None for what is none."""
    return float(text) if text.replace(".", "", 1).isdigit() else None


def least_first(*values: Any) -> tuple[Any, ...]:
    """A key by which None is less than everything."""
    return tuple((value is not None, value) for value in values)


def twin(files: Files) -> dict[str, Any]:
    """The tables of all files at once, by the words of schemas/*.yaml."""
    items: dict[str, tuple[Any, ...]] = {}
    events: dict[str, tuple[Any, ...]] = {}
    refused: dict[tuple[str, tuple[str, ...], Any], Counter[str]] = {}
    lines = [(name, line) for name, rows in files.items() for line in rows]

    def refuse(table: str, reasons: list[str], name: str, line: Any) -> None:
        refused.setdefault((table, tuple(sorted(reasons)), line), Counter())[name] += 1

    for name, line in lines:
        if isinstance(line, Product):
            if not line.sku:
                refuse("items", ["no item_id"], name, line)
                continue
            row = (datetime.fromisoformat(line.updated), line.name or None, number_of(line.cost))
            items[line.sku] = max(items.get(line.sku, row), row, key=lambda each: least_first(*each))
    for name, line in lines:
        if isinstance(line, Order):
            reasons = ["no user_id"] * (not line.customer) + ["unknown item"] * (line.sku not in items)
            reasons += ["event_time is not a time"] * (line.at == "soon")
            if reasons:
                refuse("interactions", reasons, name, line)
                continue
            changed = datetime.fromisoformat(line.updated) if line.updated else None
            at = datetime.fromisoformat(line.at)
            event = (changed, at, line.customer, line.sku, "purchase", number_of(line.amount))
            events[line.order] = max(events.get(line.order, event), event, key=lambda each: least_first(*each))
    quarantine = {key: (max(found.values()), min(found)) for key, found in refused.items()}
    return {"items": items, "interactions": events, "quarantine": quarantine}


def tables(workspace: str) -> dict[str, Any]:
    """The tables, in the form of the twin's."""
    items = {row.item_id: (row.updated_at, row.title, row.price) for row in stored_rows(workspace, "items")}
    events = {
        row.event_id: (row.updated_at, row.event_time, row.user_id, row.item_id, row.event_type, row.value)
        for row in stored_rows(workspace, "interactions")
    }
    quarantine = {}
    for row in stored_rows(workspace, "quarantine"):
        fields = {name: value or "" for name, value in json.loads(row.raw).items()}
        kind = Product if row.source_table == "items" else Order
        line = kind(*(fields.get(name, "") for name in kind._fields))
        quarantine[row.source_table, tuple(row.reasons), line] = (row.occurrences, row.source_file)
    numbers = {row.item_id: row.item_index for row in stored_rows(workspace, "item_index")}
    assert sorted(numbers) == sorted(items)
    assert sorted(numbers.values()) == list(range(1, len(items) + 1))
    return {"items": items, "interactions": events, "quarantine": quarantine}


def write(folder: Path, name: str, rows: list[Any], seconds: int) -> None:
    """The file, with a time of change that no earlier delivery had."""
    kind = Product if name.startswith("products") else Order
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([kind._fields, *rows])
    os.utime(folder / name, (1_700_000_000 + seconds,) * 2)


class Shop:
    """A workspace that is made anew for each example."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.numbers = folder, count()

    def settings(self) -> Settings:
        """Those of an empty workspace."""
        shutil.rmtree(self.folder, ignore_errors=True)
        raw = self.folder / "raw"
        raw.mkdir(parents=True)
        workspace = self.folder / f"workspace-{next(self.numbers)}"
        path = write_config(self.folder / "shop.yaml", raw=raw, workspace=workspace, model=self.folder)
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        items = {"item_id": "sku", "title": "name", "price": "cost", "updated_at": "updated"}
        events = {"event_id": "order", "user_id": "customer", "item_id": "sku", "value": "amount", "event_time": "at"}
        tree["source"] = {
            "format": "files",
            "path": str(raw),
            "time_unit": "iso",
            "event_type": "purchase",
            "items": {"files": "products*.csv", "columns": items},
            "events": {"files": "orders*.csv", "columns": events | {"updated_at": "updated"}},
        }
        path.write_text(yaml.safe_dump(tree), encoding="utf-8")
        return load_settings(path)

    def ingest(self, chosen: Settings) -> None:
        """The stage alone, without the gates, which refuse some of these tables."""
        holder = SparkHolder(chosen, verbose=False)
        number = f"run-{next(self.numbers)}"
        ingest(StageContext(chosen, Workspace.open(chosen.workspace), number, {}, Reporter(quiet=True), holder, "v"))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Shop:
    """A shop of this file's tests."""
    return Shop(tmp_path_factory.mktemp("shop") / "any")


@settings(
    max_examples=EXAMPLES or 3,
    deadline=None,
    derandomize=not EXAMPLES,
    database=None,
    phases=[Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
    suppress_health_check=list(HealthCheck),
)
@given(deliveries())
def test_any_deliveries_give_the_tables_of_all_files_at_once(shop: Shop, drawn: Deliveries) -> None:
    chosen = shop.settings()
    for number, names in enumerate(drawn.runs):
        for name in names:
            write(shop.folder / "raw", name, drawn.files[name], number)
        shop.ingest(chosen)
    expected, found = twin(drawn.files), tables(chosen.workspace)
    for table, rows in expected.items():
        assert found[table] == rows, table
