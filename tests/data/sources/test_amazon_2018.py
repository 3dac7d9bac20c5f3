"""Amazon reviews of 2018: products with pieces of web pages in their fields, reviews as JSON lines."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from learn_spark.core.settings.source import KnownSourceSettings
from learn_spark.data.sources.amazon_2018 import Amazon2018
from learn_spark.data.sources.formats import source_of
from learn_spark.data.sources.location import LocationError
from learn_spark.data.sources.source import EVENT_COLUMNS, ITEM_COLUMNS, ROW_COLUMNS, UnreadableFileError

META = (
    rb"""{"category": ["Beauty", "Hair Care", "</span></span></span>", "<b>100% Cotton</b>", "I <3 Hair"], """
    rb""""tech1": "", "description": ["Loud 'N Clear&trade;", "", "Hear it."], "fit": "", """
    rb""""title": "Loud 'N Clear &amp; \u00e9l\u00e8ve", """
    rb""""also_buy": [], "tech2": "", "brand": "by\n    \n    Idea Village\n  ", "feature": ["a", "b"], """
    rb""""rank": "2,938,573 in Beauty", "also_view": [], "main_cat": "All Beauty", "similar_item": "", """
    rb""""date": "", "price": "$1,234.50", "asin": "6546546450", "imageURL": []}""" + b"\n"
    rb"""{"category": [], "description": [], "title": "", "brand": "", "price": "", "asin": "B0"}""" + b"\n"
    rb"""{"asin": "B1", "description": ["last"], "price": 12.5}""" + b"\n"
    rb"""{"asin": "B2", "title": "cut"""
    b"\n"
    rb"""["asin", "B3"]"""
    b"\n"
)  # fmt: skip
REVIEWS = (
    b'{"overall": 1.0, "verified": true, "reviewTime": "02 19, 2015", "reviewerID": "A1V6B6TNIC10QE", "asin": '
    b'"0143026860", "style": {"Size:": " Small"}, "reviewerName": "theodore j bigham", '
    b'"reviewText": "great \\ud83d\\ude00", "summary": "One Star", "unixReviewTime": 1424304000}\n'
    b'{"overall": 4.0, "reviewerID": "A2F5GHSXFQ0W6J", "asin": "0143026860", "unixReviewTime": 1418860800}\n'
    b'{"overall": 4.0, "reviewerID": "A2F5GHSXFQ0W6J", "asin": "0143026860", "unixReviewTime": 1418860800}\n'
    b'{"overall": 4.0, "reviewerID": "A2\n'
    b'{"overall": [], "asin": "\xff", "unixReviewTime": null}\n'
    b'{"a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}\n"
)
SCRIPT = (
    "var aPageStart = (new Date()).getTime();\nvar ue_t0=ue_t0||+new Date();\nwindow.ue_ihb = (window.ue_ihb || 0) + 1;"
)
STYLE = ".a-box-inner{background-color:#fff}#alohaBuyBoxWidget .selected{background-color:#fffbf3;border-color:#e77600}"


def folder_of(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder


def rows(frame: DataFrame) -> list[dict[str, Any]]:
    assert {kind for name, kind in frame.dtypes if name != "malformed"} == {"string"}
    return [row.asDict() for row in frame.collect()]


def one_field(spark: SparkSession, folder: Path, field: str, values: list[Any]) -> list[dict[str, Any]]:
    lines = "".join(json.dumps({"asin": f"B{n}", field: value}) + "\n" for n, value in enumerate(values))
    folder_of(folder, {"meta_X.json": lines.encode(), "X.json": REVIEWS})
    reader = Amazon2018()
    actual = rows(reader.items(spark, folder, reader.files(folder)))
    assert [row["item_id"] for row in actual] == [f"B{n}" for n in range(len(values))]
    # What was on the page is all there still.
    assert [json.loads(row["raw"])[field] for row in actual] == values
    return actual


def test_products_and_reviews(spark: SparkSession, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"meta_All_Beauty.json.gz": META, "All_Beauty_5.json.gz": REVIEWS})
    reader = source_of(KnownSourceSettings(format="amazon-2018", path=str(folder)))
    assert isinstance(reader, Amazon2018)
    files = reader.files(folder)
    assert [(file.name, set(file.kinds)) for file in files] == [
        ("meta_All_Beauty.json.gz", {"items"}),
        ("All_Beauty_5.json.gz", {"events"}),
    ]
    frame = reader.items(spark, folder, files)
    assert tuple(frame.columns) == (*ITEM_COLUMNS, *ROW_COLUMNS)
    items = rows(frame)
    names = ("item_id", "title", "category", "brand", "price", "keywords", "attributes", "updated_at")
    assert [tuple(row[name] for name in names) for row in items if not row["malformed"]] == [
        (
            "6546546450",
            "Loud 'N Clear &amp; élève",
            "Beauty > Hair Care > I <3 Hair",
            "Idea Village",
            "1234.50",
            None,
            "Loud 'N Clear&trade; Hear it.",
            None,
        ),
        ("B0", None, None, None, None, None, None, None),
        ("B1", None, None, None, "12.5", None, "last", None),
    ]
    assert [json.loads(row["raw"]) for row in items if row["malformed"]] == [
        {"line": '{"asin": "B2", "title": "cut'},
        {"line": '["asin", "B3"]'},
    ]
    frame = reader.events(spark, folder, files)
    assert tuple(frame.columns) == (*EVENT_COLUMNS, *ROW_COLUMNS)
    events = rows(frame)
    names = ("event_id", "user_id", "item_id", "event_type", "value", "event_time", "updated_at")
    assert [tuple(row[name] for name in names) for row in events[:3]] == [
        (None, "A1V6B6TNIC10QE", "0143026860", "review", "1", "1424304000", None),
        (None, "A2F5GHSXFQ0W6J", "0143026860", "review", "4", "1418860800", None),
        # The same review twice: both are handed on.
        (None, "A2F5GHSXFQ0W6J", "0143026860", "review", "4", "1418860800", None),
    ]
    assert [row["malformed"] for row in events] == [False, False, False, True, False, True]
    assert json.loads(events[3]["raw"]) == {"line": '{"overall": 4.0, "reviewerID": "A2'}
    assert events[4]["item_id"] == "�"
    assert events[4]["event_time"] is None
    assert {row["source_file"] for row in events} == {"All_Beauty_5.json.gz"}
    assert reader.time_unit == "s"


def test_titles_that_are_scripts_or_html_are_none(spark: SparkSession, tmp_path: Path) -> None:
    values = [
        SCRIPT,
        "A name and then <script type='text/javascript'>P.now()</script>",
        '  <span id="productTitle" class="a-size-large">' + " word" * 20 + "</span>",
        "<b>Bold</b> soap",
        "<3 " + "so long a title about love " * 5,
        "Variety <Pack> of 3",
    ]
    actual = one_field(spark, tmp_path, "title", values)
    assert [row["title"] for row in actual] == [None, None, None, *(value.strip() for value in values[3:])]


def test_prices(spark: SparkSession, tmp_path: Path) -> None:
    prices = {
        "$12.98": "12.98",
        " $ 5 ": "5",
        "$1,234.50": "1234.50",
        "$1,234,567.89": "1234567.89",
        "$10.99 - $24.50": "10.99",
        "$24.50 - $9.99": "9.99",
        "$1,299.00 - $2,000.00": "1299.00",
        "$.99": ".99",
        "7.25": "7.25",
        STYLE: None,
        SCRIPT: None,
        "from $5.99": None,
        "$12,34.50": None,
        "$-3.00": None,
        "$": None,
        "$5.99 $6.99": None,
        # A regular expression would run out of stack over it.
        "$1" + ",000" * 50_000: None,
    }
    actual = one_field(spark, tmp_path, "price", list(prices))
    assert [row["price"] for row in actual] == list(prices.values())


def test_brands(spark: SparkSession, tmp_path: Path) -> None:
    brands = {
        "by\n    \n    Foo": "Foo",
        "\n  by Foo Bar\n": "Foo Bar",
        "by": None,
        "by\n   ": None,
        "byMall": "byMall",
        "By Terry": "By Terry",
        "Passby co": "Passby co",
        "\tNyx ": "Nyx",
    }
    actual = one_field(spark, tmp_path, "brand", list(brands))
    assert [row["brand"] for row in actual] == list(brands.values())


def test_categories_and_descriptions(spark: SparkSession, tmp_path: Path) -> None:
    categories = [
        ["A", "B &amp; C"],
        ["A", 'Wrapped <span class="x', "<!-- note -->", "B"],
        ["<br>"],
        "A",
        None,
    ]
    actual = one_field(spark, tmp_path, "category", categories)
    assert [row["category"] for row in actual] == ["A > B &amp; C", "A > B", None, None, None]
    actual = one_field(spark, tmp_path, "description", [["one", "<p>two</p>"], [], [""], ""])
    assert [row["attributes"] for row in actual] == ["one <p>two</p>", None, None, None]


@pytest.mark.parametrize(
    ("one", "other"),
    [("Beauty.json.gz", "Beauty_5.json.gz"), ("Beauty.json", "Beauty_5.json.gz"), ("Beauty.json", "Beauty.json.gz")],
)
def test_a_category_must_not_be_there_twice(tmp_path: Path, one: str, other: str) -> None:
    folder_of(tmp_path, {"meta_Movies_and_TV.json": META, "Movies_and_TV.json": REVIEWS, one: REVIEWS})
    assert len(Amazon2018().files(tmp_path)) == 3
    folder_of(tmp_path, {other: REVIEWS})
    with pytest.raises(LocationError, match="both have the category Beauty; keep one of them"):
        Amazon2018().files(tmp_path)


def test_products_and_reviews_must_be_there(tmp_path: Path) -> None:
    folder_of(tmp_path, {"Beauty.json": REVIEWS})
    with pytest.raises(LocationError, match=r"no meta_\*\.json"):
        Amazon2018().files(tmp_path)
    (tmp_path / "Beauty.json").rename(tmp_path / "meta_Beauty.json")
    with pytest.raises(LocationError, match="has products but no reviews"):
        Amazon2018().files(tmp_path)


def test_an_empty_file_is_named(spark: SparkSession, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"meta_A.json": META, "A.json": REVIEWS, "B.json.gz": b""})
    reader = Amazon2018()
    with pytest.raises(UnreadableFileError, match=r"B\.json\.gz: it is empty"):
        reader.events(spark, folder, reader.files(folder))
