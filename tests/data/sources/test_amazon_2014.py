"""Amazon reviews of 2014: products as Python literals, reviews as JSON lines or as bare ratings."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from learn_spark.core.settings.source import KnownSourceSettings
from learn_spark.data.sources import amazon_2014
from learn_spark.data.sources.amazon_2014 import Amazon2014, literal_to_json
from learn_spark.data.sources.formats import source_of
from learn_spark.data.sources.location import LocationError
from learn_spark.data.sources.source import EVENT_COLUMNS, ITEM_COLUMNS, ROW_COLUMNS, UnreadableFileError

META = (
    rb"""{'asin': '0205616461', 'description': "Nature's \"own\" cream.\nFor the\tskin &amp; hair", """
    rb"""'title': 'Bio-Active L\'Or\xe9al 37&#34;', 'price': 43.27, 'imUrl': 'http://ecx/I/4.jpg', """
    rb"""'related': {'also_viewed': ['B005BSTUVC']}, 'salesRank': {'Beauty': 461765}, 'brand': 'L\u2019Or', """
    rb"""'categories': [['Beauty', 'Skin Care', 'Face'], ['Gifts']]}""" + b"\n"
    rb"""{'asin': 'B0000', 'title': 'Caf\u00e9 """ + "Crème".encode() + rb"""', 'categories': [['Beauty']]}""" + b"\n"
    rb"""{'asin': 'B0001', 'imUrl': None, 'categories': []}""" + b"\n"
    rb"""{"asin": "B0002", "title": "Strict \"JSON\"", "price": 5.98, "categories": [["Beauty", "Bath"]]}""" + b"\n"
    rb"""{'asin': 'B0003', 'title': __import__('os').getcwd()}""" + b"\n"
    rb"""{'asin': 'B0004', 'title': 'cut off""" + b"\n"
    rb"""['asin', 'B0005']""" + b"\n"
    b"{'asin': 'B0006', 'title': 'bad \xff byte'}\n"
)  # fmt: skip
REVIEWS = (
    b'{"reviewerID": "A1YJEY40YUW4SE", "asin": "7806397051", "reviewerName": "Andrea", "helpful": [3, 4], '
    b'"reviewText": "Very oily and creamy.", "overall": 1.0, "summary": "Don\'t", "unixReviewTime": 1391040000, '
    b'"reviewTime": "01 30, 2014"}\n'
    b'{"reviewerID": "A60XNB876KYML", "asin": "7806397051", "overall": 3.0, "unixReviewTime": 1397779200}\n'
    b'{"reviewerID": "A3G6XNM240RMWA", "asin": "7806\n'
    b'{"asin": "7806397051", "overall": "x", "unixReviewTime": 1}\n'
)
RATINGS = b"A39HTATAQ9V7YF,0205616461,5.0,1369699200\nA3JM6GV9MNOF9X,0558925278,3.0,1355443200\nA1Z513UWSAAO0F,05,5.0\n"


def write(folder: Path, **files: bytes) -> Path:
    """``meta_Beauty__json`` stands for meta_Beauty.json; what ends in gz is compressed."""
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return folder


def rows(frame: DataFrame) -> list[dict[str, Any]]:
    assert {kind for name, kind in frame.dtypes if name != "malformed"} == {"string"}
    return [row.asDict() for row in frame.collect()]


def test_products_are_python_literals_and_never_evaluated(spark: SparkSession, tmp_path: Path) -> None:
    folder = write(tmp_path, meta_Beauty__json__gz=META, ratings_Beauty__csv=RATINGS)
    reader = Amazon2014()
    files = reader.files(folder)
    frame = reader.items(spark, folder, files)
    assert tuple(frame.columns) == (*ITEM_COLUMNS, *ROW_COLUMNS)
    items = rows(frame)
    names = ("item_id", "title", "category", "brand", "price", "keywords", "attributes", "updated_at")
    assert [tuple(row[name] for name in names) for row in items if not row["malformed"]] == [
        (
            "0205616461",
            "Bio-Active L'Oréal 37&#34;",
            "Beauty > Skin Care > Face",
            "L\u2019Or",
            "43.27",
            None,
            'Nature\'s "own" cream.\nFor the\tskin &amp; hair',
            None,
        ),
        ("B0000", "Café Crème", "Beauty", None, None, None, None, None),
        ("B0001", None, None, None, None, None, None, None),
        ("B0002", 'Strict "JSON"', "Beauty > Bath", None, "5.98", None, None, None),
        ("B0006", "bad � byte", None, None, None, None, None, None),
    ]
    raw = json.loads(items[0]["raw"])
    assert raw["related"] == {"also_viewed": ["B005BSTUVC"]}
    assert raw["title"] == "Bio-Active L'Oréal 37&#34;"
    assert [json.loads(row["raw"]) for row in items if row["malformed"]][:2] == [
        {"line": "{'asin': 'B0003', 'title': __import__('os').getcwd()}"},
        {"line": "{'asin': 'B0004', 'title': 'cut off"},
    ]
    assert [row["malformed"] for row in items] == [False, False, False, False, True, True, True, False]
    assert {row["source_file"] for row in items} == {"meta_Beauty.json.gz"}


def test_reviews_and_ratings_of_several_categories(spark: SparkSession, tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        meta_Beauty__json__gz=META,
        meta_Baby__json=META,
        reviews_Beauty_5__json__gz=REVIEWS,
        ratings_Baby__csv=RATINGS,
    )
    reader = source_of(KnownSourceSettings(format="amazon-2014", path=str(folder)))
    assert isinstance(reader, Amazon2014)
    files = reader.files(folder)
    assert [(file.name, set(file.kinds)) for file in files] == [
        ("meta_Baby.json", {"items"}),
        ("meta_Beauty.json.gz", {"items"}),
        ("ratings_Baby.csv", {"events"}),
        ("reviews_Beauty_5.json.gz", {"events"}),
    ]
    frame = reader.events(spark, folder, files)
    assert tuple(frame.columns) == (*EVENT_COLUMNS, *ROW_COLUMNS)
    events = rows(frame)
    names = ("user_id", "item_id", "event_type", "value", "event_time", "source_file", "event_id")
    assert [tuple(row[name] for name in names) for row in events if not row["malformed"]] == [
        ("A39HTATAQ9V7YF", "0205616461", "review", "5.0", "1369699200", "ratings_Baby.csv", None),
        ("A3JM6GV9MNOF9X", "0558925278", "review", "3.0", "1355443200", "ratings_Baby.csv", None),
        ("A1YJEY40YUW4SE", "7806397051", "review", "1", "1391040000", "reviews_Beauty_5.json.gz", None),
        ("A60XNB876KYML", "7806397051", "review", "3", "1397779200", "reviews_Beauty_5.json.gz", None),
        (None, "7806397051", "review", "x", "1", "reviews_Beauty_5.json.gz", None),
    ]
    assert [json.loads(row["raw"]) for row in events if row["malformed"]] == [
        {"line": "A1Z513UWSAAO0F,05,5.0"},
        {"line": '{"reviewerID": "A3G6XNM240RMWA", "asin": "7806'},
    ]
    assert reader.time_unit == "s"
    only = rows(reader.events(spark, folder, files[-1:]))
    assert {row["source_file"] for row in only} == {"reviews_Beauty_5.json.gz"}
    assert {row["source_file"] for row in rows(reader.items(spark, folder, files))} == {
        "meta_Baby.json",
        "meta_Beauty.json.gz",
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ratings_Beauty.csv", "reviews_Beauty.json.gz"),
        ("ratings_Beauty.csv", "reviews_Beauty_5.json.gz"),
        ("reviews_Beauty.json", "reviews_Beauty_5.json"),
        ("reviews_Beauty.json", "reviews_Beauty.json.gz"),
        ("meta_Beauty.json", "meta_Beauty.json.gz"),
    ],
)
def test_a_category_must_not_be_there_twice(tmp_path: Path, one: str, other: str) -> None:
    write(tmp_path, meta_Baby__json=META, reviews_Baby__json=REVIEWS)
    (tmp_path / one).write_bytes(b"x")
    Amazon2014().files(tmp_path)
    (tmp_path / other).write_bytes(b"x")
    with pytest.raises(LocationError, match=f"{one} and {other} .* category Beauty; keep one of them"):
        Amazon2014().files(tmp_path)


def test_products_and_reviews_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(LocationError, match=r"no meta_\*\.json"):
        Amazon2014().files(tmp_path)
    write(tmp_path, meta_Baby__json=META)
    with pytest.raises(LocationError, match=r"no ratings_\*\.csv"):
        Amazon2014().files(tmp_path)


def test_a_broken_archive_is_named(spark: SparkSession, tmp_path: Path) -> None:
    folder = write(tmp_path, meta_Baby__json=META, reviews_Baby__json=REVIEWS)
    (folder / "meta_Beauty.json.gz").write_bytes(META)
    reader = Amazon2014()
    with pytest.raises(UnreadableFileError, match=r"meta_Beauty\.json\.gz: its name ends in \.gz"):
        reader.items(spark, folder, reader.files(folder))


@pytest.mark.parametrize(
    "line",
    [
        "{'a': " + "[" * 50_000 + "]" * 50_000 + "}",
        '{"a": ' + "[" * 50_000 + "]" * 50_000 + "}",
        "{'a': " + "-" * 50_000 + "1}",
        "{'a': 1" + "+1" * 50_000 + "}",
        "{'a': " + "9" * 5_000 + "}",
        "{'a': 1e999}",
        '{"a": NaN}',
        "{'a': {1, 2}}",
        "{'a': b'x'}",
        "{'a': ...}",
        "{[]: 1}",
        "{(1, 2): 1}",
        "{'a': 'x\x00'}",
        "{'a': x}",
        "{'a': open('/etc/passwd')}",
        "",
    ],
    ids=lambda line: line[:20],
)
def test_what_is_no_plain_literal_is_malformed(line: str) -> None:
    assert literal_to_json(line) is None


def test_a_line_of_any_length_is_judged_by_its_length_first(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "{'a': 'xyz'}"
    monkeypatch.setattr(amazon_2014, "LONGEST_LINE", len(line))
    assert literal_to_json(line) == '{"a": "xyz"}'
    assert literal_to_json(line + " ") is None


def test_surrogates_become_text() -> None:
    assert literal_to_json(r"{'a': '\ud83d\ude00 \ud83d'}") == '{"a": "\N{GRINNING FACE} �"}'
    assert literal_to_json(r"{'a': u'\x41', 'b': ('x', None, True)}") == '{"a": "A", "b": ["x", null, true]}'
