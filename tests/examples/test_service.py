"""The example service, started by uvicorn on a small release, beside what the workspace itself answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import numpy as np
import pyarrow.compute as pc
import pytest

import learn_spark as ls
from learn_spark.core.console import Reporter
from learn_spark.core.ragged import fixed_lists
from learn_spark.core.storage.path import storage_path
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.features.export.folder import export_user_tower
from learn_spark.features.ledger import add_row, ledger
from learn_spark.features.online_store.push import push
from learn_spark.features.pinned_model import PinnedModel
from learn_spark.features.withdrawal import apply, plan_rollback
from learn_spark.model.towers.vectors import item_vectors, user_vectors
from learn_spark.report.explain import explain
from tests.report.planted import plant, release_row
from tests.servers import ROOT, free_port
from tests.shelf import BOOKS, COLD, Shelf, reading

USERS = ("u00", "u03", "u50")
TIMED = "tower={kind: learn-plus, width: 16, layers: 1, heads: 2, ffn: 16, dropout: 0.1, time_gaps: true}"
RELEASE, NEXT = "r1", "r2"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """The workspace of the releases, without one."""
    return Shelf(tmp_path_factory.mktemp("service") / "shelf", reading())


@pytest.fixture(scope="module")
def shop(shelf: Shelf) -> ls.OpenWorkspace:
    """A released LEARN+ that reads times: its features as the tower computes them, its index and its exported tower."""
    return released(shelf, RELEASE)


def released(shelf: Shelf, release: str, *overrides: str) -> ls.OpenWorkspace:
    """Train, release, index and export a tower of these settings."""
    own = (TIMED, *overrides)
    run, _ = shelf.run("train", *own, "training.epochs=1")
    settings, workspace = shelf.settings(*own), shelf.workspace
    pinned = PinnedModel.open(workspace, settings, str(run.model_id))
    pinned.bind()
    tower = pinned.model.vectors()
    rows, index = (Snapshot.open(workspace.table(name)).to_arrow() for name in ("user_histories", "item_index"))
    items, times = (fixed_lists(rows[name]).astype(np.int64) for name in ("item_index", "event_time"))
    lengths = rows["length"].to_numpy().astype(np.int64)
    users = user_vectors(tower, items, lengths, pinned.model.window, times=times)
    ids = {
        "user": rows["user_id"].to_pylist(),
        "item": index.sort_by("item_index")["item_id"].to_pylist(),
    }
    outputs = {}
    for kind, vectors in (("user", users), ("item", item_vectors(tower))):
        common = {"release_id": release, "as_of": datetime.now(UTC), "fingerprint": 0}
        features = [
            common | {f"{kind}_id": one, "embedding": vector.tolist()}
            for one, vector in zip(ids[kind], vectors, strict=True)
        ]
        outputs[f"{kind}_features"] = plant(workspace, f"{kind}_features", features, "overwrite")
    inputs = {table: str(version) for table, version in pinned.versions.items()}
    row = release_row(
        0, release, "released", datetime.now(UTC), outputs=outputs, inputs=inputs, model_id=pinned.model.model_id
    )
    add_row(workspace, row)
    shelf.run("export_index", *own)
    to = storage_path(shelf.config.parent / "towers" / release)
    export_user_tower(PinnedModel.open(workspace, settings), to, "onnx", Reporter(quiet=True))
    return ls.open(shelf.config)


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str

    def get(self, path: str, **query: Any) -> tuple[int, Any]:
        """Status and JSON of a GET."""
        return self._ask(Request(f"{self.url}{path}?{urlencode(query, doseq=True)}"))

    def post(self, body: Any) -> tuple[int, Any]:
        """Status and JSON of a POST of a history; ``body``: what becomes JSON, or bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._ask(Request(f"{self.url}/recommendations", data, {"Content-Type": "application/json"}))

    def _ask(self, request: Request) -> tuple[int, Any]:
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, json.load(error)


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty online store."""
    return str(request.getfixturevalue("redis_url")) if request.param == "redis" else f"sqlite:///{tmp_path}/online.db"


@pytest.fixture
def service(shop: ls.OpenWorkspace, store: str, tmp_path: Path) -> Iterator[Service]:
    """The service, which answers."""
    port, log = free_port(), tmp_path / "service.log"
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(ROOT / "examples/service"), "--port", str(port)]
    places = {"WORKSPACE": str(shop.config), "TOWERS": str(tmp_path / "towers"), "STORE": store}
    environment = os.environ | places | {"PYTHONPATH": str(ROOT)}
    with log.open("wb") as file:
        process = subprocess.Popen([*command, "app:app"], stdout=file, stderr=file, env=environment)
    try:
        for _ in range(1200):
            assert process.poll() is None, log.read_text()
            if "Uvicorn running" in log.read_text():
                break
            time.sleep(0.05)
        yield Service(f"http://127.0.0.1:{port}")
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.terminate()
        process.wait(60)


def test_it_answers_as_the_workspace_from_one_release(
    shop: ls.OpenWorkspace, store: str, service: Service, tmp_path: Path
) -> None:
    # A part that is missing is said until it is there; no restart is needed.
    status, answer = service.get("/health")
    assert (status, "the online store has no release" in answer["detail"]["error"]) == (503, True)
    push(shop.workspace, shop.online(store).store, shop.settings.online)
    status, answer = service.get("/recommendations/u00")
    assert (status, f"towers/{RELEASE} is not an exported user tower" in answer["detail"]["error"]) == (503, True)
    towers = shop.config.parent / "towers"
    (tmp_path / "towers").symlink_to(towers)
    assert service.get("/health") == (200, {"release": RELEASE, "items": BOOKS + COLD})

    tower, released = ls.user_tower(towers / RELEASE), shop.features("user_features")
    for user in USERS:
        history = explain(shop.workspace, user).history
        items, times = [event.item_id for event in history], [event.time for event in history]
        body = {"items": items, "times": [time.isoformat() for time in times]}
        expected = shop.recommend(user, k=6)
        status, known = service.get(f"/recommendations/{user}", k=6, seen=items)
        assert (status, known["release"]) == (200, RELEASE)
        status, fresh = service.post(body | {"k": 6})
        assert (status, fresh["release"]) == (200, RELEASE)
        for answer in (known, fresh):
            scores = [one["score"] for one in answer["recommendations"]]
            assert [one["item"] for one in answer["recommendations"]] == [one.item_id for one in expected]
            assert scores == pytest.approx([one.score for one in expected], abs=1e-4)
        (vector,) = fixed_lists(released.filter(pc.equal(released["user_id"], user))["embedding"])
        assert np.allclose(fresh["vector"], vector, atol=1e-4)
        # A new event moves the vector at once, and its item is recommended no more.
        new, now = expected[0].item_id, datetime(2024, 7, 1, tzinfo=UTC)
        _, moved = service.post({"items": [*items, new], "times": [*body["times"], now.isoformat()]})
        micros = [round(1e6 * time.timestamp()) for time in (*times, now)]
        assert np.allclose(moved["vector"], tower.vectors([[*items, new]], times=[micros])[0], atol=1e-5)
        assert np.abs(np.subtract(moved["vector"], fresh["vector"])).max() > 1e-3
        assert new not in [one["item"] for one in moved["recommendations"]]
    # Without the items that were seen, the score alone decides.
    _, everything = service.get("/recommendations/u00", k=100)
    assert len(everything["recommendations"]) == BOOKS + COLD

    for user in ("nobody", "a/b ü"):
        status, answer = service.get(f"/recommendations/{quote(user)}")
        assert (status, answer["detail"]["release"]) == (404, RELEASE)
        assert f"no user {user!r}" in answer["detail"]["error"]
    days = ["2024-03-01T00:00:00Z", "2024-03-02T01:00:00+01:00"]
    for body, reason in (
        ({"items": ["b01", "lost"], "times": days}, "1 of 2 events have items that are not among the 48 exported ones"),
        ({"items": []}, "has no event"),
        ({"items": ["b01", "b02"]}, "needs times of all events"),
        ({"items": ["b01", "b02"], "times": days[:1]}, "needs times of all events"),
        ({"items": ["b01", "b02"], "times": days[::-1]}, "the times go back"),
    ):
        status, answer = service.post(body)
        assert (status, answer["detail"]["release"]) == (422, RELEASE)
        assert reason in answer["detail"]["error"]
    for wrong in (
        b"{",
        {"item": ["b01"]},
        {"items": "b01"},
        {"items": [1]},
        {"items": ["b01"], "times": ["2024-03-01T00:00:00"]},
        {"items": ["b01"], "times": days[:1], "k": 0},
        {"items": ["b01"] * 10_001},
    ):
        status, answer = service.post(wrong)
        assert (status, [*answer]) == (422, ["detail"]), wrong
    assert service.get("/recommendations/u00", k=101)[0] == 422


@dataclass(frozen=True)
class Answers:
    """The best items of a user and of a history with their scores, by the tables and the tower of one release."""

    known: dict[str, float]
    fresh: dict[str, float]

    @classmethod
    def of(cls, shop: ls.OpenWorkspace, release: str, history: dict[str, Any]) -> Answers:
        """The answers of a release, computed from its tables alone."""
        users, items = shop.features("user_features", release), shop.features("item_features", release)
        (user,) = fixed_lists(users.filter(pc.equal(users["user_id"], USERS[0]))["embedding"])
        times = [round(1e6 * datetime.fromisoformat(one).timestamp()) for one in history["times"]]
        tower = ls.user_tower(shop.config.parent / "towers" / release)
        (fresh,) = tower.vectors([history["items"]], times=[times])
        catalogue, vectors = items["item_id"].to_pylist(), fixed_lists(items["embedding"])

        def best(vector: np.ndarray, hidden: list[str]) -> dict[str, float]:
            order = [row for row in np.argsort(-(vectors @ vector)) if catalogue[row] not in hidden]
            return {catalogue[row]: float(vectors[row] @ vector) for row in order[:6]}

        return cls(best(user, []), best(fresh, history["items"]))


@pytest.mark.parametrize("store", ["redis"], indirect=True)
def test_a_push_switches_all_parts_under_requests_and_a_rollback_switches_them_back(
    shelf: Shelf, shop: ls.OpenWorkspace, service: Service, store: str, tmp_path: Path
) -> None:
    (tmp_path / "towers").symlink_to(shop.config.parent / "towers")
    online, days = shop.online(store).store, ["2024-03-01T00:00:00+00:00", "2024-03-02T00:00:00+00:00"]
    history = {"items": ["b01", "b03"], "times": days}
    given: list[tuple[str, int, Any]] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            given.append(("known", *service.get(f"/recommendations/{USERS[0]}", k=6)))
            given.append(("fresh", *service.post(history | {"k": 6})))

    def wait_for(release: str) -> None:
        """Until both kinds of requests were answered from a release twice more."""
        start = len(given)
        for _ in range(1200):
            told = [kind for kind, _, answer in given[start:] if answer.get("release") == release]
            if min(told.count("known"), told.count("fresh")) >= 2:
                return
            time.sleep(0.05)
        raise AssertionError(f"the service never answered from {release}; its last answer is {given[-1]}")

    push(shelf.workspace, online, shop.settings.online)
    with ThreadPoolExecutor(2) as askers:
        asking = [askers.submit(ask) for _ in range(2)]
        try:
            wait_for(RELEASE)
            expected = {RELEASE: Answers.of(shop, RELEASE, history)}
            released(shelf, NEXT, "training.seed=4")
            expected[NEXT] = Answers.of(shop, NEXT, history)
            wait_for(RELEASE)  # nothing but a push changes what is served
            for release in (NEXT, RELEASE):
                push(shelf.workspace, online, shop.settings.online)
                wait_for(release)
                if release == NEXT:
                    apply(shelf.workspace, plan_rollback(ledger(shelf.workspace)))
        finally:
            ended.set()
        for one in asking:
            one.result(60)

    for kind in ("known", "fresh"):  # else a mixture would not be seen
        assert getattr(expected[RELEASE], kind).keys() != getattr(expected[NEXT], kind).keys()
    for kind, status, answer in given:
        assert status == 200, answer
        best = getattr(expected[answer["release"]], kind)
        scores = {one["item"]: one["score"] for one in answer["recommendations"]}
        assert scores == pytest.approx(best, abs=1e-4), (kind, answer["release"])
