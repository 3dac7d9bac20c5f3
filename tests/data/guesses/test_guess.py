"""What init guesses about many small folders: files, layout, columns by name and by content, and times."""

from __future__ import annotations

import bz2
import gzip
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from learn_spark.core.errors import SettingsError
from learn_spark.data.guesses import preview
from learn_spark.data.guesses.guess import Guess, guess
from learn_spark.data.guesses.look import look
from learn_spark.data.guesses.mapping import number
from learn_spark.data.guesses.profiles import Profile

Files = Mapping[str, str | bytes]


@dataclass(frozen=True)
class Case:
    """Files, and what is expected of the guess: expressions of fields, and properties of items' and events' files."""

    files: Files
    items: Mapping[str, str]
    events: Mapping[str, str]
    time_unit: str = "iso"
    more: Mapping[str, object] = field(default_factory=dict)


def table(header: str, rows: list[tuple[object, ...]], separator: str = ",", end: str = "\n") -> str:
    lines = [header.replace(",", separator), *(separator.join(map(str, row)) for row in rows)]
    return end.join(lines) + end


N = range(12)
LAMPS = [(f"A{n}", f"Lamp number {n}", ["Light", "Garden"][n % 2]) for n in N]
ORDERS = [(f"c{n % 5}", f"A{n}", f"2024-03-{n + 1:02}T10:00:00") for n in N]
SHOP = {"items.csv": table("sku,name,department", LAMPS), "orders.csv": table("customer,sku,ordered_at", ORDERS)}
GERMAN = {
    "Artikelstamm.csv": table(
        "Artikelnummer,Bezeichnung,Warengruppe,Preis",
        [(f"4711-{n}", f"Bürste {n} groß", "Küche", f"1.0{n:02},90") for n in N],
        ";",
        "\r\n",
    ).encode("cp1252"),
    "Bestellungen_2024-01.csv": table(
        "Bestellnr,Kundennr,Artikelnummer,Bestelldatum,Menge,geändert am",
        [(n, n % 4, f"4711-{n}", f"{n + 12}.11.2024 09:0{n % 10}", 2, f"{n + 13}.11.2024 10:00") for n in N],
        ";",
        "\r\n",
    ).encode("cp1252"),
}
FRENCH = {
    "produits.csv": table(
        "réf,libellé,rayon,prix ttc", [(f"R{n}", f"Chaise n° {n}", "Salon", f"{n},50 €") for n in N], ";"
    ),
    "commandes/mars.csv": table(
        "n° commande,code client,réf,date de commande,quantité",
        [(f"C{n // 2}", f"K{n % 5}", f"R{n}", f"{n + 10:02}/03/2024", 1) for n in N],
        ";",
    ),
}
JSON_LINES = {
    "catalogue.jsonl": "\n".join(
        json.dumps({"asin": f"B{n}", "title": f"Book {n}", "tags": ["red", f"t{n}"], "price": 9.5}) for n in N
    ),
    "events.jsonl": "\n".join(
        json.dumps(
            {
                "visitor": {"id": n % 4},
                "product": {"id": f"B{n}"},
                "action": ["view", "cart"][n % 2],
                "ts": 1_700_000_000_000 + n,
            }
        )
        for n in N
    ),
}
CASES = {
    "plain": Case(
        SHOP,
        {"item_id": "sku", "title": "name", "category": "department"},
        {"user_id": "customer", "item_id": "sku", "event_time": "ordered_at"},
        more={"event_type": "purchase", "events.pattern": "orders.csv", "overlap": 1.0},
    ),
    "German": Case(
        GERMAN,
        {
            "item_id": "Artikelnummer",
            "title": "Bezeichnung",
            "category": "Warengruppe",
            "price": "try_cast(replace(replace(Preis, '.', ''), ',', '.') as double)",
        },
        {
            "event_id": "Bestellnr",
            "user_id": "Kundennr",
            "item_id": "Artikelnummer",
            "value": "Menge",
            "event_time": "Bestelldatum",
            "updated_at": "geändert am",
        },
        more={"items.encoding": "cp1252", "items.separator": ";", "events.pattern": "Bestellungen_*.csv"},
    ),
    "French": Case(
        FRENCH,
        {
            "item_id": "réf",
            "title": "libellé",
            "category": "rayon",
            "price": "try_cast(replace(regexp_replace(`prix ttc`, '[^0-9,-]', ''), ',', '.') as double)",
        },
        {
            "event_id": "concat(`n° commande`, '-', `réf`)",
            "user_id": "code client",
            "item_id": "réf",
            "value": "quantité",
            "event_time": "date de commande",
        },
        more={"event_type": "purchase", "items.encoding": "utf-8", "events.pattern": "commandes/*.csv"},
    ),
    "by content": Case(
        {
            "x.csv": table("a,b", [(f"{n}x", f"a lamp of colour {n}") for n in N]),
            "y.csv": table("p,q,r", [(f"k{n % 4}", f"{n}x", f"2024-01-{n + 1:02}") for n in N]),
        },
        {"item_id": "a", "title": "b"},
        {"user_id": "p", "item_id": "q", "event_time": "r"},
        more={"event_type": "event"},
    ),
    "UTF-16 with tabs": Case(
        {
            "items.txt": table("sku,name", [(f"A{n}", f"Größe {n}") for n in N], "\t").encode("utf-16"),
            "log.txt": table("uid,sku,timestamp", [(n % 3, f"A{n}", 1_700_000_000 + n) for n in N], "\t").encode(
                "utf-16"
            ),
        },
        {"item_id": "sku", "title": "name"},
        {"user_id": "uid", "item_id": "sku", "event_time": "timestamp"},
        "s",
        {"items.encoding": "utf-16", "events.separator": "\t"},
    ),
    "a line before the header": Case(
        {
            "items.csv": "sep=;\r\n" + table("sku,name", [(f"A{n}", f"Lamp, size {n}") for n in N], ";"),
            "orders.csv": SHOP["orders.csv"],
        },
        {"item_id": "sku", "title": "name"},
        {"user_id": "customer", "item_id": "sku", "event_time": "ordered_at"},
        more={"items.separator": ";", "events.separator": ","},
    ),
    "objects and lists": Case(
        JSON_LINES,
        {"item_id": "asin", "title": "title", "price": "price", "keywords": "array_join(tags, ', ')"},
        {"user_id": "visitor['id']", "item_id": "product['id']", "event_type": "action", "event_time": "ts"},
        "ms",
        {"items.format": "json-lines"},
    ),
    "one file of both": Case(
        {
            "online.csv": table(
                "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID",
                [
                    (
                        536 + n // 3,
                        f"85{n % 6}",
                        f"HEART HOLDER {n % 6}",
                        6,
                        f"12/{n + 10}/2010 8:26",
                        2.55,
                        17850 + n % 4,
                    )
                    for n in N
                ],
            )
        },
        {"item_id": "StockCode", "title": "Description", "price": "UnitPrice"},
        {
            "event_id": "concat(InvoiceNo, '-', StockCode)",
            "user_id": "CustomerID",
            "item_id": "StockCode",
            "value": "Quantity",
            "event_time": "InvoiceDate",
        },
    ),
    "daily files, compressed, in folders": Case(
        {
            "products.csv": SHOP["items.csv"],
            **{
                f"log/2024/03-0{day}/part-{day}.csv.gz": gzip.compress(
                    table("u,sku,t", [(f"u{n}", f"A{n}", 1_700_000_000 + n) for n in N]).encode()
                )
                for day in (1, 2, 3)
            },
        },
        {"item_id": "sku", "title": "name", "category": "department"},
        {"user_id": "u", "item_id": "sku", "event_time": "t"},
        "s",
        {"events.pattern": "log/2024/*/part*.csv.gz", "events.number": 3},
    ),
    "line breaks and escapes": Case(
        {
            "items.csv": "sku,name,kind\n" + "".join(f'A{n},"Lamp \\"round\\",\nlarge {n}",{"xy"[n % 2]}\n' for n in N),
            "orders.csv": SHOP["orders.csv"],
        },
        {"item_id": "sku", "title": "name", "category": "kind"},
        {"user_id": "customer", "item_id": "sku", "event_time": "ordered_at"},
        more={"items.multiline": True, "items.escape": "\\", "events.multiline": False},
    ),
    "inches, and a note in quotes further down": Case(
        {
            "items.csv": table(
                "sku,name", [(f"A{n}", [f'Pan {n}"', f'{n}" pan', f'"best" pan {n}'][n % 3]) for n in N]
            ),
            "orders.csv": table(
                "customer,sku,ordered_at", [*ORDERS, ('"c1"', '"A1"', "2024-03-01T10:00:00")], end="\r"
            ),
        },
        {"item_id": "sku", "title": "name"},
        {"user_id": "customer", "item_id": "sku", "event_time": "ordered_at"},
        more={"items.quote": "", "items.multiline": False, "events.quote": '"'},
    ),
    "inches in apostrophes": Case(
        {
            "items.csv": table("sku,name", [(f"A{n}", f"'Pan, {n}\"'") for n in N]),
            "orders.csv": SHOP["orders.csv"],
        },
        {"item_id": "sku", "title": "name"},
        {"user_id": "customer", "item_id": "sku", "event_time": "ordered_at"},
        more={"items.quote": "'"},
    ),
    "corrections and guests": Case(
        {
            "products.csv": SHOP["items.csv"],
            "orders-1.csv": table(
                "order_id,customer,sku,qty,ordered_at,updated_at",
                [
                    (n, "" if n == 3 else f"c{n % 4}", f"A{n}", 1, "2024-01-01 10:00:00", "2024-01-01 10:00:00")
                    for n in N
                ],
            ),
            "orders-2.csv": table(
                "order_id,customer,sku,qty,ordered_at,updated_at",
                [(n, f"c{n % 4}", f"A{n}", 2, "2024-01-01 10:00:00", "2024-01-02 10:00:00") for n in (1, 2, 5, 6, 7)],
            ),
        },
        {"item_id": "sku", "title": "name", "category": "department"},
        {
            "event_id": "order_id",
            "user_id": "customer",
            "item_id": "sku",
            "value": "qty",
            "event_time": "ordered_at",
            "updated_at": "updated_at",
        },
        more={"where": "customer is not null", "events.pattern": "orders*.csv"},
    ),
    "two units of time": Case(
        {
            "items.csv": table("item_id,title,updated_at", [(n, f"Film {n}", 1_700_000_000 + n) for n in N]),
            "ratings.csv": table(
                "user_id,item_id,rating,timestamp", [(n % 4, n, 4.5, f"2024-01-01T10:{n:02}:00Z") for n in N]
            ),
        },
        {
            "item_id": "item_id",
            "title": "title",
            "updated_at": "timestamp_seconds(cast(try_cast(updated_at as double) as bigint))",
        },
        {"user_id": "user_id", "item_id": "item_id", "value": "rating", "event_time": "timestamp"},
        more={"event_type": "rating"},
    ),
    "CR alone, blank lines and an index without a name": Case(
        {
            "items.csv": table(",sku,name", [(n, f"A{n}", f"Lamp {n}") for n in N], end="\r"),
            "orders.csv": "\n\n" + SHOP["orders.csv"],
        },
        {"item_id": "sku", "title": "name"},
        {"user_id": "customer", "item_id": "sku", "event_time": "ordered_at"},
    ),
    "days as numbers, names cut short": Case(
        {
            "articles.csv": table(
                "article_id,prod_name,colour_group_name,department_name,detail_desc",
                [(108_775_015 + n, f"Strap top {n}", "Black", f"Jersey {n % 3}", f"With straps {n}") for n in N],
            ),
            "log/dt=1/sales.csv": table(
                "day,customer_id,article_id", [(20240101 + n, f"0a{n % 4}", 108_775_015 + n) for n in N]
            ),
            "log/dt=2/sales.csv": table(
                "day,customer_id,article_id", [(20240101 + n, f"0a{n % 4}", 108_775_015 + n) for n in N]
            ),
        },
        {
            "item_id": "article_id",
            "title": "prod_name",
            "category": "department_name",
            "attributes": "concat_ws(', ', colour_group_name, detail_desc)",
        },
        {
            "user_id": "customer_id",
            "item_id": "article_id",
            "event_time": "day",
        },
        more={"events.pattern": "log/dt=*/sales.csv"},
    ),
    "a day in the folder's name, packed by bzip2": Case(
        {
            "items.csv.bz2": bz2.compress(SHOP["items.csv"].encode()),
            # No ORC and no bzip2, but headers that begin as those do.
            "authors.csv": table("ORCID,BZh", [(f"0000-{n}", "x") for n in N]),
            **{
                f"orders/dt=2024-03-{n + 1:02}/a.csv": table("customer,sku", [(f"c{m % 4}", f"A{m}") for m in N])
                for n in range(4)
            },
        },
        {"item_id": "sku", "title": "name", "category": "department"},
        {"user_id": "customer", "item_id": "sku", "event_time": "dt"},
        more={"items.pattern": "items.csv.bz2", "passed_over": {}, "events.pattern": "orders/dt=*/a.csv"},
    ),
    "two tables whose names differ in a digit": Case(
        {"export1.csv": SHOP["items.csv"], "export2.csv": SHOP["orders.csv"]},
        {"item_id": "sku", "title": "name", "category": "department"},
        {"user_id": "customer", "item_id": "sku", "event_time": "ordered_at"},
        more={"items.pattern": "export1.csv", "events.pattern": "export2.csv", "passed_over": {}},
    ),
    "optional fields on one day": Case(
        {
            "catalogue.jsonl": JSON_LINES["catalogue.jsonl"],
            **{
                f"events-2024-03-0{day}.jsonl": "\n".join(
                    json.dumps(
                        {"user": n % 4, "product": f"B{n}", "ts": 1_700_000_000_000 + n}
                        | (dict.fromkeys(("shop", "till", "voucher", "channel", "coupon"), "x") if day == 2 else {})
                    )
                    for n in N
                )
                for day in (1, 2, 3)
            },
        },
        {"item_id": "asin", "title": "title", "price": "price", "keywords": "array_join(tags, ', ')"},
        {"user_id": "user", "item_id": "product", "event_time": "ts"},
        time_unit="ms",
        more={"events.pattern": "events*.jsonl", "events.number": 3, "passed_over": {}},
    ),
    "a column more from one day on": Case(
        {
            "items.csv": SHOP["items.csv"],
            "orders-2024-03-01.csv": SHOP["orders.csv"],
            "orders-2024-03-02.csv": table(
                "customer,sku,ordered_at,channel,shop,till,voucher", [(*order, *"webx") for order in ORDERS]
            ),
            "orders-2024-03-03.csv": table(
                "customer,sku,ordered_at,channel,shop", [(*order, *"we") for order in ORDERS]
            ),
        },
        {"item_id": "sku", "title": "name", "category": "department"},
        {"user_id": "customer", "item_id": "sku", "event_time": "ordered_at"},
        more={"events.pattern": "orders*.csv", "events.number": 3, "passed_over": {}},
    ),
    "several details": Case(
        {
            "items.csv": table(
                "id,name,brand,colour,size,price", [(n, f"Shirt {n}", "Acme", "red", "XL", "EUR 9.90") for n in N]
            ),
            "clicks.csv": table("user,item,clicked_at", [(f"u{n % 4}", n, f"2024-01-01 10:{n:02}:00") for n in N]),
        },
        {
            "item_id": "id",
            "title": "name",
            "brand": "brand",
            "price": "try_cast(regexp_replace(price, '(?i)(kr|fr)[.]|[^0-9.-]', '') as double)",
            "attributes": "concat_ws(', ', colour, size)",
        },
        {"user_id": "user", "item_id": "item", "event_time": "clicked_at"},
        more={"event_type": "click"},
    ),
}


def write(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def properties(found: Guess) -> dict[str, object]:
    values: dict[str, object] = {"event_type": found.event_type, "overlap": found.overlap, "where": found.events.where}
    values["passed_over"] = dict(found.passed_over)
    for name, one in (("items", found.items), ("events", found.events)):
        layout = one.files.layout
        values |= {f"{name}.{key}": getattr(layout, key) for key in ("encoding", "separator", "quote", "escape")}
        values |= {f"{name}.pattern": one.files.pattern, f"{name}.format": one.files.format}
        values |= {f"{name}.multiline": one.files.multiline, f"{name}.number": len(one.files.files)}
    return values


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_folder_is_described(case: Case, tmp_path: Path) -> None:
    found = guess(look(write(tmp_path, case.files)))
    assert {one.field: one.sql for one in found.items.fields} == case.items
    assert {one.field: one.sql for one in found.events.fields} == case.events
    assert found.time_unit == case.time_unit
    assert {key: properties(found)[key] for key in case.more} == case.more
    # The preview reads what Spark will: every event has a time, a user and an item, and prompts differ.
    for event in preview.events(found):
        assert datetime.fromisoformat(event["event_time"] or "") > datetime(2000, 1, 1)
        assert event["user_id"]
        assert event["item_id"]
    assert len({prompt for _, prompt in preview.prompts(found)}) == 3


def test_typed_files_and_tables(tmp_path: Path) -> None:
    items = {"sku": list(N), "name": [f"Lamp {n}" for n in N], "tags": [["a", "b"]] * 12, "blob": [b"x"] * 12}
    pq.write_table(pa.table(items), tmp_path / "products.parquet")
    moments = pa.array([datetime(2024, 1, n + 1, tzinfo=UTC) for n in N], pa.timestamp("ns", "UTC"))
    log = pa.table(
        {"customer": [float(n % 5) for n in N], "sku": list(N), "bought": moments.cast(pa.timestamp("us", "UTC"))}
    )
    write_deltalake(str(tmp_path / "sales"), log)
    found = guess(look(tmp_path))
    assert {one.field: one.sql for one in found.items.fields} == {
        "item_id": "sku",
        "title": "name",
        "keywords": "array_join(tags, ', ')",
    }
    assert {one.field: one.sql for one in found.events.fields} == {
        "user_id": "customer",
        "item_id": "sku",
        "event_time": "bought",
    }
    formats = properties(found)
    assert (formats["items.format"], formats["events.format"], formats["events.pattern"]) == (
        "parquet",
        "delta",
        "sales",
    )
    assert [event["event_time"] for event in preview.events(found, 1)] == ["2024-01-01 00:00:00"]


def test_what_the_user_says_goes_first(tmp_path: Path) -> None:
    write(tmp_path, {**SHOP, "archive.csv": SHOP["items.csv"].replace("name", "old name")})
    found = guess(
        look(tmp_path), items="archive.csv", given={"items.title": "department", "events.user_id": "customer"}
    )
    assert found.items.files.pattern == "archive.csv"
    chosen = {one.field: (one.sql, one.basis) for one in (*found.items.fields, *found.events.fields)}
    assert chosen["title"] == ("department", "given")
    assert chosen["user_id"] == ("customer", "given")
    for given in ({"items.title": "none"}, {"title": "name"}, {"events.event_time": "sku"}):
        with pytest.raises(SettingsError, match="--column"):
            guess(look(tmp_path), given=given)
    with pytest.raises(SettingsError, match=r"archive\.csv, items\.csv, orders\.csv"):
        guess(look(tmp_path), events="sales.csv")


PASSED_OVER = {
    "book.xlsx": (b"PK\x03\x04 zipped", "Excel"),
    "data.txt": (bz2.compress(b"a,b\n1,2\n"), "name it data.txt.bz2"),
    "data.csv.xz": (b"\xfd7zXZ\x00 packed", "packed by xz"),
    "data.csv": (gzip.compress(b"a,b\n1,2\n"), "name it data.csv.gz"),
    "broken.csv.gz": (gzip.compress(b"a,b\n" + bytes(range(256)) * 400)[:-300], "cannot be read"),
    "plain.csv.gz": (b"a,b\n1,2\n", "not packed so"),
    "empty.csv": (b"", "empty"),
    "blank.csv": (b"\xef\xbb\xbf\r\n \r\n", "empty"),
    "array.json": (b'[{"a": 1}]', "JSON array"),
    "pretty.json": (b'{\n "a": 1\n}\n', "one object a line"),
    "page.html": (b"<html></html>", "XML or HTML"),
    "no-header.csv": (b"c1,A1,2024-01-01\nc2,A2,2024-01-02\n", "header"),
    "twice.csv": (b"SKU,sku,name\n1,2,3\n", "sku twice"),
    "words.txt": (b"one line\nanother line\n", "no table"),
    "binary.bin": (bytes(range(256)) * 20, "neither text nor Parquet"),
    "not.parquet": (b"not parquet at all", "not Parquet"),
    "cut.parquet": (b"PAR1 cut off", "cannot be read as Parquet"),
}


def test_what_is_no_table_is_passed_over_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path, {**SHOP, **{f"odd/{name}": content for name, (content, _) in PASSED_OVER.items()}})
    write(
        tmp_path,
        {"_SUCCESS": "", "._items.csv": "x", ".items.csv.crc": "x", "readme.md": "# hello", "_tmp/a.csv": "a,b\n"},
    )
    found = guess(look(tmp_path))
    assert {one.files.pattern for one in (found.items, found.events)} == {"items.csv", "orders.csv"}
    assert found.passed_over.keys() == {f"odd/{name}" for name in PASSED_OVER}
    for name, (_, why) in PASSED_OVER.items():
        assert why in found.passed_over[f"odd/{name}"], name


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({}, "it is empty"),
        ({"a.xlsx": b"PK\x03\x04"}, "a.xlsx: it is a ZIP"),
        ({"items.csv": SHOP["items.csv"]}, r"events need a time[^$]*items.csv: sku \(id\), name \(text\)"),
        ({"a.csv": "x,y,z\n"}, "no table with rows"),
        ({"items.csv": SHOP["items.csv"], "log.csv": table("sku,at", [(a, b) for _, a, b in ORDERS])}, r"at \(time\)"),
        (
            {"items.csv": SHOP["items.csv"], "l.csv": table("x,y,at", [(f"k{n}", f"z{n}", "2024-01-01") for n in N])},
            "fit",
        ),
    ],
)
def test_a_folder_without_a_shop_is_refused_with_what_it_has(files: Files, named: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=named):
        guess(look(write(tmp_path, files)))


def test_links_loops_and_pipes(tmp_path: Path) -> None:
    real, shop = tmp_path / "real", tmp_path / "shop"
    write(real, {"orders.csv": SHOP["orders.csv"]})
    write(shop, {"items.csv": SHOP["items.csv"]})
    (shop / "orders").symlink_to(real)
    (real / "again").symlink_to(shop)
    os.mkfifo(shop / "pipe.csv")
    (shop / "gone.csv").symlink_to(tmp_path / "nowhere")
    found = guess(look(shop))
    assert (found.items.files.pattern, found.events.files.pattern) == ("items.csv", "orders/*.csv")
    linked = tmp_path / "linked.csv"
    linked.symlink_to(write(tmp_path / "both", CASES["one file of both"].files) / "online.csv")
    assert guess(look(linked)).items.files.pattern == "linked.csv"


def test_a_missing_folder_and_one_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no folder"):
        look(tmp_path / "none")
    write(tmp_path, CASES["one file of both"].files)
    assert guess(look(tmp_path / "online.csv")).folder == tmp_path


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (("1,299", "899", "12,499"), ["1299", "899", "12499"]),
        (("12 €", "1.299 €"), ["12", "1299"]),
        (("12,5", "1299,90", "7"), ["12.5", "1299.90", "7"]),
        (("$1,299", "$12.50"), ["1299", "12.50"]),
        (("Fr. 12.50", "Fr. 9.90"), ["12.50", "9.90"]),
        (("12.50 kr.", "1,299.00 kr."), ["12.50", "1299.00"]),
        (("1299", "12.5"), ["1299", "12.5"]),
        (("1.299", "899"), ["1.299", "899"]),
        # Whole prices say nothing of the mark of decimals, and a few with decimals say it.
        (("$12", "$15", "$899"), ["12", "15", "899"]),
        (("$12",) * 99 + ("$12.50",), ["12"] * 99 + ["12.50"]),
        (("$1,299", "$12"), ["1299", "12"]),
    ],
)
def test_numbers_in_the_forms_of_shops(values: tuple[str, ...], numbers: list[str], tmp_path: Path) -> None:
    form = Profile("price", len(values), values).number_form
    assert form is not None
    lines = [f'{n},name {n},"{value}"' for n, value in enumerate(values)]
    (contents,) = look(write(tmp_path, {"items.csv": "\n".join(["id,title,price", *lines]) + "\n"})).files
    mapped = number("price", "price", form, contents, "by name")
    assert [mapped.read({"price": value}) for value in values] == numbers


def test_names_with_brackets_are_read_as_they_are(tmp_path: Path) -> None:
    files = CASES["plain"].files
    renamed = {f"shop [EN]/{name.replace('.', ' [2024].')}": content for name, content in files.items()}
    found = guess(look(write(tmp_path, renamed)))
    for one in (found.items, found.events):
        matched = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob(one.files.pattern)}
        assert matched == {file.name for file in one.files.files}
        assert "[[]" in one.files.pattern
