"""Converted events among candidates: drawn from earlier events, by popularity or co-visits, once a request."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from learn_spark.core.console import Reporter
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.runner import run_stages
from tests.ads.exposures.journey_world import exposure_settings
from tests.ads.exposures.test_journey_exposures import exposures_of
from tests.report.planted import plant

START = datetime(2024, 5, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def event(name: str, user: str, item: str, hours: float, **more: Any) -> dict[str, Any]:
    time = START + hours * HOUR
    row = {"event_id": name, "user_id": user, "item_id": item, "event_time": time, "event_date": time.date()}
    return {**row, "event_type": "purchase", **more}


def log() -> list[dict[str, Any]]:
    """Three hundred hours of purchases, of i0 half of the time; a basket of two; a return; items that are new."""
    chance = np.random.default_rng(0)
    rows = []
    for n in range(300):
        item = 0 if chance.random() < 0.5 else int(chance.integers(1, 20))
        rows.append(event(f"e{n:03}", f"u{chance.integers(9)}", f"i{item}", n))
    rows += [event("basket-1", "shopper", "i1", 250), event("basket-2", "shopper", "i2", 250)]
    rows += [event("basket-3", "shopper", "i2", 250)]  # a second line of the same item
    rows += [event("back", "u1", "returned", 240, event_type="return")]
    rows += [event(f"new{n}", "u2", "new", 260 + n / 9) for n in range(5)]
    return rows


def made(folder: Path, rows: list[dict[str, Any]], **options: Any) -> tuple[list[dict[str, Any]], Any]:
    origin = {"from": "interactions", "since": (START + 200 * HOUR).isoformat(), "candidates": 5, "pool": 100}
    settings = exposure_settings(folder, {**origin, "event_types": ["purchase"], **options})
    workspace = Workspace.open(settings.workspace)
    plant(workspace, "items", [{"item_id": item} for item in sorted({row["item_id"] for row in rows})])
    plant(workspace, "interactions", rows)
    (outcome,) = run_stages(["exposures"], settings, console=Reporter(quiet=True))
    return exposures_of(settings), outcome.run.counts


@pytest.fixture(scope="module")
def exposures(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Any]:
    return made(tmp_path_factory.mktemp("candidates"), log())


def test_candidates_are_items_of_the_pool_before_each_converted_event(
    exposures: tuple[list[dict[str, Any]], Any],
) -> None:
    rows, counts = exposures
    bought = [each for each in log() if each["event_type"] == "purchase"]
    shown = [each for each in bought if each["event_time"] >= START + 200 * HOUR]
    converted = [row for row in rows if row["converted"]]
    ordered = sorted(bought, key=lambda each: (each["event_time"], each["event_id"]))
    kept = []
    for each in shown:
        pool = [one["item_id"] for one in ordered if one["event_time"] < each["event_time"]][-100:]
        # An item's first event is no exposure: no exposure without a conversion could have come before it.
        if each["item_id"] in pool and each["event_id"] != "basket-3":
            kept.append(each["event_id"])
    assert {row["event_id"] for row in converted} == set(kept)
    assert {"new0", "basket-3"}.isdisjoint(kept)
    assert {"new1", "basket-1", "basket-2"} <= set(kept)
    for row in rows:
        # A planted future: an item whose first event is at the time, or later, is no candidate.
        pool = [each["item_id"] for each in ordered if each["event_time"] < row["event_time"]][-100:]
        own = {each["item_id"] for each in converted if each["request_id"] == row["request_id"]}
        assert row["converted"] or (row["item_id"] in pool and row["item_id"] not in own), row
        assert row["request_id"] == f"{row['user_id']}/{round(row['event_time'].timestamp() * 1e6)}"
    assert any(row["item_id"] == "new" and not row["converted"] for row in rows)
    assert all(
        row["event_time"] > START + 260 * HOUR for row in rows if row["item_id"] == "new" and not row["converted"]
    )
    assert not any(row["item_id"] == "returned" for row in rows)
    # Both events of the basket are one request, in which every item is once.
    basket = [row for row in rows if row["user_id"] == "shopper"]
    assert {row["request_id"] for row in basket} == {basket[0]["request_id"]}
    assert len({row["item_id"] for row in basket}) == len(basket)
    # Half of the events are of i0, which is drawn nearly always where it did not convert.
    times = Counter(row["item_id"] for row in rows if not row["converted"])
    assert times["i0"] > 1.5 * max(count for item, count in times.items() if item != "i0")
    assert counts["rows_in"] == len(log()) + 5 * len(kept)
    assert counts["rows_out"] == len(rows)
    assert counts["outside"] == 200
    assert counts["not_sampled"] == len(log()) - 200 - len(kept)
    assert counts["duplicates"] == 5 * len(kept) - (len(rows) - len(kept))
    # Items that the user bought before or after the request are candidates like others, and are counted.
    candidates = [row for row in rows if not row["converted"]]
    own = {name: counted(each, ordered) for name, each in (("candidates", candidates), ("converted", converted))}
    assert min(*own["candidates"], own["converted"][0]) > 10
    assert (counts["bought_before"], counts["bought_later"]) == own["candidates"]
    assert counts["bought_again"] == own["converted"][0]


def counted(rows: list[dict[str, Any]], events: list[dict[str, Any]]) -> tuple[int, int]:
    """How many of ``rows`` are of an item that their user has one of ``events`` of before the row's time, and after."""
    times: dict[tuple[str, str], list[datetime]] = {}
    for each in events:
        times.setdefault((each["user_id"], each["item_id"]), []).append(each["event_time"])
    own = [(row["event_time"], times.get((row["user_id"], row["item_id"]), [])) for row in rows]
    return (
        sum(any(other < time for other in others) for time, others in own),
        sum(any(other > time for other in others) for time, others in own),
    )


def test_without_repeats_no_row_is_of_an_item_that_the_user_had(
    exposures: tuple[list[dict[str, Any]], Any], tmp_path: Path, spark: SparkSession
) -> None:
    rows, counts = made(tmp_path, log(), repeats=False)
    bought = [each for each in log() if each["event_type"] == "purchase"]
    assert counted(rows, bought)[0] == counts["bought_before"] == counts["bought_again"] == 0
    # Nothing else is left out, and candidates are those of before.
    with_repeats, _ = exposures
    fresh = [row for row in with_repeats if not counted([row], bought)[0]]
    requests = {row["request_id"] for row in rows if row["converted"]}
    events = {row["event_id"].split("/")[0] for row in rows if row["converted"]}
    expected = [row for row in fresh if row["converted"] or row["event_id"].split("/")[0] in events]
    assert {row["event_id"] for row in rows} == {row["event_id"] for row in expected}
    assert 0 < len(requests) < len({row["request_id"] for row in with_repeats if row["converted"]})


@pytest.fixture(scope="module")
def similar(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return made(tmp_path_factory.mktemp("similar"), log(), similar=0.7)[0]


def test_similar_candidates_are_next_to_the_converted_item_in_a_history(similar: list[dict[str, Any]]) -> None:
    bought = [each for each in log() if each["event_type"] == "purchase"]
    ordered = sorted(bought, key=lambda each: (each["event_time"], each["event_id"]))
    histories: dict[str, list[dict[str, Any]]] = {}
    for each in ordered:
        histories.setdefault(each["user_id"], []).append(each)
    near = {"popular": 0, "co-visited": 0}
    by_event = {each["event_id"]: each for each in ordered}
    for row in (row for row in similar if not row["converted"]):
        pool = [each for each in ordered if each["event_time"] < row["event_time"]][-100:]
        assert row["item_id"] in {each["item_id"] for each in pool}
        beside = by_event[row["event_id"].split("/")[0]]["item_id"]
        names = {each["event_id"] for each in pool}
        found = any(
            one["item_id"] == beside and other["item_id"] == row["item_id"] and abs(at - place) <= 10
            for history in histories.values()
            for at, one in enumerate(history)
            if one["event_id"] in names
            for place, other in enumerate(history)
            if place != at and other["event_id"] in names
        )
        near["co-visited" if found else "popular"] += 1
    # Of an item with few events there are few neighbours: popular candidates are mostly none of them.
    assert near["co-visited"] > 2 * near["popular"] > 0


def test_the_future_changes_no_request(similar: list[dict[str, Any]], tmp_path: Path) -> None:
    """Later events, and some at the instants of requests, leave the candidates of earlier requests as they are."""
    future = [event(f"f{n}", "someone", "hot", 280 + n / 10) for n in range(100)]
    future += [event(f"g{n}", f"u{n % 9}", "hot", 280 + n / 10) for n in range(100)]  # beside all users' events
    after, *_ = made(tmp_path, [*log(), *future], similar=0.7)
    until = START + 280 * HOUR

    def before(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        kept = [row for row in rows if row["event_time"] <= until and row["user_id"] != "someone"]
        return sorted((row["event_id"], row["item_id"], row["converted"]) for row in kept)

    assert before(after) == before(similar)
    assert any(row["item_id"] == "hot" and not row["converted"] for row in after)
