"""Publishing: a refused release is never read, vectors are those of the tower, a rollback adds a row."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession

import learn_spark as ls
from learn_spark.core.console import Reporter
from learn_spark.core.errors import GateError, LearnSparkError
from learn_spark.core.ragged import fixed_lists
from learn_spark.core.settings import Settings
from learn_spark.core.storage.path import storage_path
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.encoder.embedding_space import read_embedding_space
from learn_spark.features.export.folder import export_user_tower
from learn_spark.features.ledger import LedgerRow
from learn_spark.features.new_items import NewItems
from learn_spark.features.pinned_model import PinnedModel
from learn_spark.features.read import NoReleaseError, current_release, read_release, released_arrow, released_features
from learn_spark.features.withdrawal import roll_back
from learn_spark.model.store import load_model
from learn_spark.model.trained import newest_model
from tests.report.planted import FIRST_DAY, release_row
from tests.servers import mlflow_server

SHORT = ("training.epochs=1", "training.passes_per_epoch=1")
RANKED = (
    "ranking.clock=as_of",
    "ranking.variants=[base, learn-adaptor, gbdt-learn]",
    "ranking.seeds=[1]",
    "ranking.train_share=0.5",
    "ranking.validation_share=0.3",
    "ranking.epochs=1",
    "ranking.threads=1",
    "ranking.bootstrap_samples=5",
)
UP_TO_TRAIN = ("item_text", "embed_items", "train")


def test_the_current_release_follows_the_newest_rows() -> None:
    def current(*rows: tuple[str, str]) -> str:
        return str(current_release([release_row(i, r, s, FIRST_DAY) for i, (r, s) in enumerate(rows)]).release_id)

    assert current(("a", "staged"), ("a", "released")) == "a"
    assert current(("a", "staged"), ("a", "released"), ("b", "staged")) == "a"
    assert current(("a", "released"), ("a", "staged")) == "a"
    assert current(("a", "released"), ("b", "staged"), ("b", "withdrawn")) == "a"
    assert current(("a", "released"), ("b", "released")) == "b"
    # a rollback is a new row: b is withdrawn, or a released once more
    assert current(("a", "released"), ("b", "released"), ("b", "withdrawn")) == "a"
    assert current(("a", "released"), ("b", "released"), ("a", "released")) == "a"
    for rows in ([], [("a", "staged")], [("a", "released"), ("a", "withdrawn")]):
        with pytest.raises(NoReleaseError, match="no release is in force"):
            current(*rows)


def _check_registered(url: str, release: LedgerRow) -> None:
    """The MLflow server has the release as the only version of the registered model, made of the model's run."""
    from mlflow import MlflowClient

    client = MlflowClient(url, url)
    (version,) = client.search_model_versions("name = 'learn-spark'")
    aliases = client.get_registered_model("learn-spark").aliases
    assert set(aliases) == {f"release-{release.release_id}", "in-force"}
    assert version.tags["learn_spark.release_id"] == release.release_id
    assert version.tags["learn_spark.status"] == "released"
    tags = client.get_run(version.run_id).data.tags
    assert tags["learn_spark.model_id"] == release.model_id


def test_publishing_a_real_model(
    spark: SparkSession,
    small_settings: Callable[..., Settings],
    run: Callable[..., Any],
    prepared: Callable[..., None],
    tmp_path: Path,
) -> None:
    settings = small_settings(*SHORT)
    prepared("ingest", "histories")
    run(settings, *UP_TO_TRAIN)
    workspace = Workspace.open(settings.workspace)
    with pytest.raises(GateError, match="validation_ndcg10"):
        run(
            small_settings(*SHORT, "release.min_validation_ndcg10=0.999"),
            "publish",
        )
    with pytest.raises(NoReleaseError):
        read_release(workspace)
    with mlflow_server(tmp_path) as url:
        tracked = small_settings(*SHORT, "training.tracking=[mlflow]", f"mlflow.uri={url}", "mlflow.timeout_seconds=30")
        (outcome,) = run(tracked, "publish")
        release = read_release(workspace)
        _check_registered(url, release)
    assert not outcome.up_to_date
    assert [r["passed"] for r in json.loads(release.gate_results)].count(False) == 0

    # The vectors that the workers wrote are those of the tower.
    model = load_model(workspace.root / "models" / newest_model(workspace).model_id)
    space = read_embedding_space(workspace, model.manifest.space_key)
    cached = (workspace.root / "cache").glob("item_matrix/*/matrix.json")
    described = {path.parent: json.loads(path.read_text()) for path in cached}
    (raw,) = (np.load(f / "embeddings.npy") for f, matrix in described.items() if matrix["space_key"] is None)
    content = space.apply(raw)
    content[0] = 0
    model.tower.bind(content)  # type: ignore[operator]
    index = {r["item_id"]: r["item_index"] for r in Snapshot.open(workspace.table("item_index")).to_arrow().to_pylist()}
    items = released_arrow(workspace, "item_features")
    with torch.inference_mode():
        expected = model.tower.items(torch.tensor([index[i] for i in items["item_id"].to_pylist()])).numpy()
    assert np.allclose(fixed_lists(items["embedding"]), expected, atol=1e-5)
    histories = {r["user_id"]: r for r in Snapshot.open(workspace.table("user_histories")).to_arrow().to_pylist()}
    for user in released_features(spark, workspace, "user_features").collect():
        history = histories[user.user_id]
        # All events up to now, the test event too: this is for serving.
        window = history["item_index"][max(0, history["length"] - model.window) : history["length"]]
        with torch.inference_mode():
            vector = model.tower.user(torch.tensor(window)[None])[0, -1].numpy()
        assert np.allclose(user.embedding, vector, atol=1e-5)
        assert user.as_of.replace(tzinfo=UTC) == release.as_of

    # So are those of an exported tower, for every user, and of a new item with the text of an item.
    exported = export_user_tower(
        PinnedModel.open(workspace, settings), storage_path(tmp_path / "served"), "onnx", Reporter(quiet=True)
    )
    assert (exported.release_id, exported.checked.of_release is not None) == (release.release_id, True)
    users = released_arrow(workspace, "user_features")
    read = [histories[user] for user in users["user_id"].to_pylist()]
    ids = {number: item for item, number in index.items()}
    given = [[ids[number] for number in row["item_index"][: row["length"]]] for row in read]
    served = ls.user_tower(tmp_path / "served")
    assert np.allclose(served.vectors(given), fixed_lists(users["embedding"]), atol=1e-4)
    texts = {r["item_id"]: r["text"] for r in Snapshot.open(workspace.table("item_text")).to_arrow().to_pylist()}
    new = NewItems(workspace, settings)
    named = items["item_id"].to_pylist()
    by_text = new.vectors([texts[item] for item in named])
    assert np.allclose(by_text, fixed_lists(items["embedding"]), atol=1e-5)
    (film,) = (r for r in Snapshot.open(workspace.table("items")).to_arrow().to_pylist() if r["item_id"] == "1")
    fields = {name: film[name] for name in ("title", "category", "attributes")}
    assert np.allclose(new.vectors([fields])[0], by_text[named.index("1")], atol=1e-5)
    # A history with an item that is newer than the export.
    newer = served.vectors([[*given[0][:-1], "new"]], new_items={"new": new.content([texts[given[0][-1]]])[0]})
    assert np.allclose(newer, served.vectors(given[:1]), atol=1e-5)

    # The same release written again is the same release.
    run(settings, "publish", force=True)
    assert read_release(workspace).release_id == release.release_id
    assert released_arrow(workspace, "item_features").num_rows == items.num_rows
    # Another past is another release, and a ranker may then use what came after it.
    split_time = "1997-11-23"
    past = small_settings(*SHORT, f"histories.as_of={split_time}")
    with pytest.raises(
        LearnSparkError, match=r"no model was trained as of .* or earlier: learn-spark train --set histories.as_of"
    ):
        run(past, "publish")
    assert read_release(workspace).release_id == release.release_id
    run(past, "histories", "train", "publish")
    assert read_release(workspace).as_of == datetime(1997, 11, 23, tzinfo=UTC)
    newest = max(max(r["event_time"]) for r in Snapshot.open(workspace.table("user_histories")).to_arrow().to_pylist())
    assert newest < datetime(1997, 11, 23, tzinfo=UTC).timestamp() * 1e6
    run(settings, "histories")
    with pytest.raises(LearnSparkError, match="user_histories has later events"):
        run(past, "publish")
    run(past, "histories")
    _, ranked = run(
        small_settings(*SHORT, f"histories.as_of={split_time}", *RANKED, f"exposures.since={split_time}"),
        "exposures",
        "rank_ads",
    )
    (withdrawn,), in_force = roll_back(workspace)
    assert (withdrawn.as_of, in_force and in_force.release_id) == (
        datetime(1997, 11, 23, tzinfo=UTC),
        release.release_id,
    )
    assert read_release(workspace).release_id == release.release_id
    assert np.allclose(
        fixed_lists(released_arrow(workspace, "item_features")["embedding"]).sum(), expected.sum(), atol=1e-2
    )
    scores_of = withdrawn.release_id
    scores = Snapshot.open(workspace.table("ad_scores")).to_arrow()
    assert scores.num_rows == ranked.run.counts["rows_out"] == 3 * ranked.run.counts["test"]
    assert set(scores["release_id"].to_pylist()) == {scores_of}
    assert roll_back(workspace, allow_none=True)[1] is None
    with pytest.raises(NoReleaseError):
        roll_back(workspace)
