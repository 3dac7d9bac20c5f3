"""The rank_ads stage: the ads ranker with and without the released features, on exposures after their as-of time."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from learn_spark.pipeline.stage import StageContext, StageResult
from learn_spark.ranking.exposures import Exposures, build_exposures, split_by_time
from learn_spark.ranking.metrics import auc, log_loss, user_auc
from learn_spark.ranking.ranker import score, train_ranker
from learn_spark.release.read import read_release, released_arrow
from learn_spark.settings import save_settings
from learn_spark.tables.contracts import contract
from learn_spark.tables.log import append_table

RANKERS = {"base": False, "learn-adaptor": True}


def run(context: StageContext) -> StageResult:
    """Train both rankers on the earlier exposures, score the later ones, write the scores and metrics.json."""
    settings = context.settings.ranking
    release = read_release(context.workspace)
    exposures = build_exposures(
        context.snapshot("interactions").to_arrow(),
        released_arrow(context.workspace, "user_features"),
        released_arrow(context.workspace, "item_features"),
        as_of=release["as_of"],
        positive_value=settings.positive_value,
        buckets=settings.buckets,
    )
    train, test = split_by_time(exposures, settings.train_share)
    metrics = {}
    for name, adaptor in RANKERS.items():
        scores = score(train_ranker(train, settings, adaptor=adaptor), test)
        metrics[name] = {
            "AUC": auc(scores, test.label),
            "UAUC": user_auc(scores, test.label, test.user_id),
            "log loss": log_loss(scores, test.label),
        }
        rows = _rows(context.run_id, name, release, test, scores)
        append_table(context.path("ad_scores"), contract("ad_scores"), rows)
    folder = context.folder("rankings", context.run_id)
    save_settings(context.settings, folder)
    text = json.dumps(
        {"release_id": release["release_id"], "train": len(train), "test": len(test), **metrics}, indent=1
    )
    (folder / "metrics.json").write_text(text, encoding="utf-8")
    context.report.table(
        f"Ads ranker on {len(test):,} later exposures (trained on {len(train):,} earlier ones)",
        ["ranker", *metrics["base"]],
        [[name, *(f"{value:.4f}" for value in found.values())] for name, found in metrics.items()],
    )
    known = int(test.has_user.sum())
    return StageResult(
        rows_in=len(exposures),
        rows_out=len(RANKERS) * len(test),
        counts={"train": len(train), "test": len(test), "test_users_known": known},
        outputs={f"rankings/{context.run_id}": context.run_id},
        notes=(f"{known:,} of {len(test):,} test exposures are of users that the release knows",),
    )


def _rows(run_id: str, ranker: str, release: dict[str, object], test: Exposures, scores: np.ndarray) -> pa.Table:
    count = len(test)
    columns = {
        "run_id": [run_id] * count,
        "ranker": [ranker] * count,
        "release_id": [release["release_id"]] * count,
        "event_id": test.event_id,
        "user_id": test.user_id,
        "item_id": test.item_id,
        "score": scores,
        "label": test.label,
        "as_of": [release["as_of"]] * count,
    }
    return pa.table(columns, schema=contract("ad_scores").arrow_schema())
