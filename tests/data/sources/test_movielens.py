"""MovieLens in both of its layouts, byte for byte as GroupLens writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from learn_spark.core.settings.source import KnownSourceSettings
from learn_spark.data.sources.formats import source_of
from learn_spark.data.sources.location import LocationError
from learn_spark.data.sources.movielens import MovieLens
from learn_spark.data.sources.source import EVENT_COLUMNS, ITEM_COLUMNS, ROW_COLUMNS, UnreadableFileError

# 0xE9 is e acute in ISO-8859-1, and no UTF-8.
MOVIES_1M = (
    b"1::Toy Story (1995)::Animation|Children's|Comedy\n"
    b"73::Mis\xe9rables, Les (1995)::Drama|Musical\n"
    b"9::Alien:: The:: Director's Cut (1979)::Horror|Sci-Fi\n"
    b"10::A film of no year::Film-Noir\n"
    b"11::no genres in this line\n"
    b"12 Sudden Death (1995) Action\n"
    b"13::Colon::: a film:::Drama\n"
)
RATINGS_1M = (
    b"1::73::5::978300760\n1::1::3::978302109\n2::1::4\n2::1::4::978299000::9\nx::::4::978299001\n\n"
    + b"a" * 300_000
    + b"\n"
)
MOVIES_10M = "1::Misérables, Les (1995)::Drama\n2::Shōgun (1980)::Drama|War\n".encode()
MOVIES_25M = (
    "movieId,title,genres\r\n"
    "1,Toy Story (1995),Adventure|Animation|Children|Comedy|Fantasy\r\n"
    '11,"American President, The (1995)",Comedy|Drama|Romance\r\n'
    '7,"""Great Performances"" Cats (1998)",Musical\r\n'
    "8,Babylon 5,Sci-Fi\r\n"
    "9,Nina Takes a Lover (1994) ,(no genres listed)\r\n"
    "10,Fawlty Towers (1975\u20131979),Comedy\r\n"
    "12,Balto (1995),Animation,left over\r\n"
).encode()
RATINGS_25M = (
    b"userId,movieId,rating,timestamp\r\n1,11,0.5,1147880044\r\n1,7,5.0,1147868817\r\n2,8\r\n3,8,x,1147868817\r\n"
)


def folder_of(tmp_path: Path, **files: bytes) -> Path:
    for name, content in files.items():
        (tmp_path / name.replace("_", ".")).write_bytes(content)
    return tmp_path


def rows(frame: DataFrame) -> list[dict[str, Any]]:
    assert {kind for name, kind in frame.dtypes if name != "malformed"} == {"string"}
    return [row.asDict() for row in frame.collect()]


def test_1m_is_latin_1_and_two_colons_may_stand_in_a_title(spark: SparkSession, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, movies_dat=MOVIES_1M, ratings_dat=RATINGS_1M)
    (folder / "users.dat").write_bytes(b"1::F::1::10::48067\n")
    reader = MovieLens()
    files = reader.files(folder)
    assert [(file.name, set(file.kinds)) for file in files] == [
        ("movies.dat", {"items"}),
        ("ratings.dat", {"events"}),
    ]
    frame = reader.items(spark, folder, files[:1])
    assert tuple(frame.columns) == (*ITEM_COLUMNS, *ROW_COLUMNS)
    items = rows(frame)
    films = [
        (row["item_id"], row["title"], row["category"], row["attributes"]) for row in items if not row["malformed"]
    ]
    assert films == [
        ("1", "Toy Story", "Animation Children's Comedy", "1995"),
        ("73", "Misérables, Les", "Drama Musical", "1995"),
        ("9", "Alien:: The:: Director's Cut", "Horror Sci-Fi", "1979"),
        ("10", "A film of no year", "Film-Noir", None),
        ("13", "Colon::: a film:", "Drama", None),
    ]
    assert json.loads(items[1]["raw"]) == {
        "movieId": "73",
        "title": "Misérables, Les (1995)",
        "genres": "Drama|Musical",
    }
    assert [json.loads(row["raw"]) for row in items if row["malformed"]] == [
        {"line": "11::no genres in this line"},
        {"line": "12 Sudden Death (1995) Action"},
    ]
    assert {row["source_file"] for row in items} == {"movies.dat"}


def test_1m_ratings_with_too_few_or_many_fields_are_kept(spark: SparkSession, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, movies_dat=MOVIES_1M, ratings_dat=RATINGS_1M)
    reader = MovieLens()
    frame = reader.events(spark, folder, reader.files(folder))
    assert tuple(frame.columns) == (*EVENT_COLUMNS, *ROW_COLUMNS)
    events = rows(frame)
    names = ("event_id", "user_id", "item_id", "event_type", "value", "event_time", "updated_at")
    assert [tuple(row[name] for name in names) for row in events if not row["malformed"]] == [
        (None, "1", "73", "rating", "5", "978300760", None),
        (None, "1", "1", "rating", "3", "978302109", None),
        # An empty field is a field: that it must not be empty is for the row rules to say.
        (None, "x", None, "rating", "4", "978299001", None),
    ]
    assert [json.loads(row["raw"]) for row in events if row["malformed"]] == [
        {"line": "2::1::4"},
        {"line": "2::1::4::978299000::9"},
        {"line": "a" * 300_000},
    ]
    assert reader.time_unit == "s"


def test_10m_is_utf_8(spark: SparkSession, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, movies_dat=MOVIES_10M, ratings_dat=b"1::122::4.5::838985046\n")
    reader = MovieLens()
    files = reader.files(folder)
    assert [row["title"] for row in rows(reader.items(spark, folder, files))] == ["Misérables, Les", "Shōgun"]
    assert rows(reader.events(spark, folder, files))[0]["value"] == "4.5"


def test_a_letter_cut_in_two_by_the_chunk_is_utf_8_still(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learn_spark.data.sources.movielens._CHUNK_BYTES", 7)
    assert MOVIES_10M[6:8] == "é".encode()
    folder = folder_of(tmp_path, movies_dat=MOVIES_10M, ratings_dat=b"1::1::4::1\n")
    reader = MovieLens()
    assert rows(reader.items(spark, folder, reader.files(folder)))[0]["title"] == "Misérables, Les"


def test_25m_has_headers_and_quotes(spark: SparkSession, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, movies_csv=MOVIES_25M, ratings_csv=RATINGS_25M)
    reader = source_of(KnownSourceSettings(format="movielens", path=str(folder)))
    assert isinstance(reader, MovieLens)
    files = reader.files(folder)
    items = rows(reader.items(spark, folder, files))
    films = [
        (row["item_id"], row["title"], row["category"], row["attributes"]) for row in items if not row["malformed"]
    ]
    assert films == [
        ("1", "Toy Story", "Adventure Animation Children Comedy Fantasy", "1995"),
        ("11", "American President, The", "Comedy Drama Romance", "1995"),
        ("7", '"Great Performances" Cats', "Musical", "1998"),
        ("8", "Babylon 5", "Sci-Fi", None),
        ("9", "Nina Takes a Lover", None, "1994"),
        ("10", "Fawlty Towers (1975\u20131979)", "Comedy", None),
    ]
    assert [json.loads(row["raw"]) for row in items if row["malformed"]] == [
        {"line": "12,Balto (1995),Animation,left over"}
    ]
    events = rows(reader.events(spark, folder, files))
    assert [(row["user_id"], row["item_id"], row["value"], row["event_time"], row["malformed"]) for row in events] == [
        ("1", "11", "0.5", "1147880044", False),
        ("1", "7", "5.0", "1147868817", False),
        ("2", "8", None, None, True),
        ("3", "8", "x", "1147868817", False),
    ]
    assert {row["source_file"] for row in events} == {"ratings.csv"}


def test_the_layout_must_be_one_and_whole(tmp_path: Path) -> None:
    with pytest.raises(LocationError, match=r"no movies\.dat and no movies\.csv"):
        MovieLens().files(tmp_path)
    folder_of(tmp_path, movies_dat=MOVIES_1M)
    with pytest.raises(LocationError, match=r"no ratings\.dat"):
        MovieLens().files(tmp_path)
    folder_of(tmp_path, movies_csv=MOVIES_25M, ratings_csv=RATINGS_25M)
    with pytest.raises(LocationError, match="keep one of the two"):
        MovieLens().files(tmp_path)


def test_a_file_that_is_not_of_the_format_is_named(spark: SparkSession, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, movies_csv=b"movieId,name\n1,x\n", ratings_csv=RATINGS_25M)
    reader = MovieLens()
    with pytest.raises(UnreadableFileError, match=r"movies\.csv: no column title, genres"):
        reader.items(spark, folder, reader.files(folder))
    other = tmp_path / "other"
    other.mkdir()
    folder_of(other, movies_dat=b"", ratings_dat=RATINGS_1M)
    with pytest.raises(UnreadableFileError, match=r"movies\.dat: it is empty"):
        reader.items(spark, other, reader.files(other))
