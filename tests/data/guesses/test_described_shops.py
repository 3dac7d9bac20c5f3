"""Shops whose settings init wrote: what ingest reads with them, and that the preview was right."""

from __future__ import annotations

import bz2
import json
import os
import random
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from learn_spark.commands.main import main
from learn_spark.core.settings import load_settings
from learn_spark.core.settings.source import FilesSourceSettings
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace

PRODUCTS, ORDERS = 300, 1_500
FIRST = datetime(2024, 3, 1, 8)
chance = random.Random(5)
# (order, customer, product, time, quantity): two lines an order, so that the order's number alone is no key.
LINES = [
    (n // 2, f"c{chance.randrange(120)}", n % PRODUCTS, FIRST + timedelta(minutes=7 * n), chance.randint(1, 3))
    for n in range(ORDERS)
]


def german_csv(folder: Path) -> None:
    """Semicolons, cp1252-free German words, decimal commas, days first, a file a week, and guests without a number."""
    rows = [f"{1000 + n};Leuchte {n} für {n % 7};{'Küche' if n % 2 else 'Garten'};1.{n:03},90" for n in range(PRODUCTS)]
    (folder / "artikel.csv").write_text("\n".join(["Artikelnummer;Bezeichnung;Warengruppe;Preis", *rows]) + "\n")
    head = "Bestellnr;Kundennr;Artikelnummer;Bestelldatum;Menge"
    (folder / "bestellungen").mkdir()
    for week in range(3):
        lines = [
            f"{order};{'' if n % 50 == 0 else user};{1000 + item};{at:%d.%m.%Y %H:%M};{pieces}"
            for n, (order, user, item, at, pieces) in enumerate(LINES)
            if n % 3 == week
        ]
        (folder / "bestellungen" / f"2024-W{week}.csv").write_text("\n".join([head, *lines]) + "\n")


def json_lines(folder: Path) -> None:
    """Objects and lists, and times in milliseconds."""
    items = [
        {"sku": f"A{n}", "name": f"Lamp {n}", "tags": ["new", f"t{n % 5}"], "price": n + 0.5} for n in range(PRODUCTS)
    ]
    events = [
        {"id": n, "customer": {"id": user}, "sku": f"A{item}", "action": "buy", "ts": int(at.timestamp() * 1000)}
        for n, (_, user, item, at, _) in enumerate(LINES)
    ]
    for name, records in (("catalogue", items), ("events", events)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def parquet(folder: Path) -> None:
    """Typed columns with pandas' nanoseconds, and corrections of a tenth of the lines, with the time of the change."""
    items = [(n, f"Lamp {n}", f"brand {n % 9}") for n in range(PRODUCTS)]
    pd.DataFrame(items, columns=["item_id", "title", "brand"]).to_parquet(folder / "items.parquet", index=False)
    lines = [(n, user, item, at, pieces, at) for n, (_, user, item, at, pieces) in enumerate(LINES)]
    corrected = [(n, user, item, at, 9, at + timedelta(days=1)) for n, user, item, at, _, _ in lines[::10]]
    for name, rows in (("log-1", lines), ("log-2", corrected)):
        frame = pd.DataFrame(rows, columns=["line_id", "user_id", "item_id", "ordered_at", "quantity", "updated_at"])
        frame.to_parquet(folder / f"{name}.parquet", index=False)


def old_export(folder: Path) -> None:
    """cp1252, packed by bzip2, quoted by apostrophes with escapes, and a day in the name of each folder."""
    head = "sku\tname\trayon\n"
    items = [f"R{n}\t'Chaise n° {n}, l\\'ancienne\tdorée'\tcafé {n % 3}" for n in range(PRODUCTS)]
    text = head + "".join(f"{line}\n" for line in items)
    (folder / "produits.csv.bz2").write_bytes(bz2.compress(text.encode("cp1252")))
    by_day: dict[str, list[str]] = {}
    for n, (_, user, item, at, _) in enumerate(LINES):
        by_day.setdefault(f"{at:%Y-%m-%d}", []).append(f"{n};{user};R{item}")
    for day, lines in by_day.items():
        (folder / "ventes" / f"dt={day}").mkdir(parents=True)
        (folder / "ventes" / f"dt={day}" / "a.csv").write_text("\n".join(["line_id;client;sku", *lines]) + "\n")


@pytest.fixture
def init(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Any]:
    """Run ``learn-spark init`` in ``tmp_path``; (exit code, output, errors)."""
    for name, value in os.environ.items():
        monkeypatch.setenv(name, value)  # commands set variables, which are undone so
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["learn-spark", "init", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run


@pytest.mark.parametrize("make", [german_csv, json_lines, parquet, old_export])
def test_ingest_reads_what_init_described(
    make: Callable[[Path], None], tmp_path: Path, init: Callable[..., Any], run: Callable[..., Any], spark: object
) -> None:
    (tmp_path / "shop").mkdir()
    make(tmp_path / "shop")
    code, out, _ = init("shop", "--json")
    assert code == 0
    described = json.loads(out)
    settings = load_settings(tmp_path / described["settings"])
    assert isinstance(settings.source, FilesSourceSettings)
    assert settings.text.template == "shop"
    assert not settings.evaluation.mask_history
    ingest, _ = run(settings, "ingest", "item_text")
    guests = 30 if make is german_csv else 0
    assert ingest.run.counts["items"] == PRODUCTS
    assert ingest.run.counts["interactions"] == ORDERS - guests
    assert ingest.run.counts["refused"] == 0
    assert ingest.run.counts["duplicates"] == (ORDERS // 10 if make is parquet else 0)
    workspace = Workspace.open(settings.workspace)
    texts = Snapshot.open(workspace.table("item_text")).to_arrow(["item_id", "text"]).to_pylist()
    prompts = {row["item_id"]: row["text"] for row in texts}
    assert len(described["prompts"]) == 3
    for prompt in described["prompts"]:
        assert prompts[prompt["item_id"]] == prompt["prompt"]
    events = Snapshot.open(workspace.table("interactions")).to_arrow().to_pylist()
    by_key = {
        (event["user_id"], event["item_id"], event["event_time"].strftime("%Y-%m-%d %H:%M:%S")) for event in events
    }
    for event in described["first_events"]:
        time = event["event_time"].partition(".")[0]
        assert (event["user_id"], event["item_id"], time) in by_key
    values = sorted(event["value"] for event in events if event["value"] is not None)
    if make is old_export:
        written = (tmp_path / described["settings"]).read_text()
        for line in ("encoding: cp1252", 'quote: "\'"', r'escape: "\\"', r'separator: "\t"', "event_time: dt"):
            assert line in written
        titles = Snapshot.open(workspace.table("items")).to_arrow(["title"])["title"].to_pylist()
        assert sorted(titles)[0] == "Chaise n° 0, l'ancienne\tdorée"
        assert {event["event_time"].strftime("%H:%M") for event in events} == {"00:00"}
    elif make is parquet:
        assert values.count(9.0) == ORDERS // 10
        assert {event["event_type"] for event in events} == {"event"}
    elif make is german_csv:
        assert len(values) == ORDERS - guests
        prices = Snapshot.open(workspace.table("items")).to_arrow(["price"])["price"].to_pylist()
        assert sorted(prices)[:2] == [1000.9, 1001.9]
        assert {event["event_type"] for event in events} == {"purchase"}
    else:
        assert {event["event_type"] for event in events} == {"buy"}


def test_a_settings_file_is_not_replaced_and_errors_are_one_sentence(tmp_path: Path, init: Callable[..., Any]) -> None:
    (tmp_path / "my shop").mkdir()
    german_csv(tmp_path / "my shop")
    code, out, _ = init("my shop", "--output", "conf/own.yaml", "--workspace", "w")
    assert code == 0
    for word in ("Leuchte 0 für 0", "Kundennr", "by name", "conf/own.yaml"):
        assert word in out
    written = tmp_path / "conf" / "own.yaml"
    settings = load_settings(written)
    assert (settings.workspace, settings.source.path) == (str(tmp_path / "w"), str(tmp_path / "my shop"))
    written.write_text("mine")
    assert init("my shop", "--output", "conf/own.yaml")[0] == 2
    assert written.read_text() == "mine"
    assert init("my shop", "--output", "conf/own.yaml", "--force")[0] == 0
    assert load_settings(written).tower.kind == "learn-plus"
    # The settings may have the name of the preset that they extend.
    assert init("my shop", "--output", "shop.yaml")[0] == 0
    assert load_settings(tmp_path / "shop.yaml").source.path == str(tmp_path / "my shop")
    (tmp_path / "none").mkdir()
    wrong = ["my shop", "-o", "x.yaml", "--column", "events.user_id=who"]
    for arguments in (["none"], ["nowhere"], ["s3://bucket/shop"], wrong):
        code, _, errors = init(*arguments)
        assert (code, errors.count("Traceback"), errors.startswith("error: ")) == (2, 0, True), arguments
    assert sorted(path.name for path in tmp_path.glob("*.yaml")) == ["shop.yaml"]
