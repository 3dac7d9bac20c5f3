"""The export_index stage: the released item vectors as an exact FAISS index, with the item ids beside it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from learn_spark.errors import LearnSparkError
from learn_spark.pipeline.stage import StageContext, StageResult
from learn_spark.release.read import read_release, released_arrow
from learn_spark.retrieval.cuts import fixed_lists
from learn_spark.settings import save_settings


def run(context: StageContext) -> StageResult:
    """Write indexes/<release_id>/: items.faiss (inner product of unit vectors), item_ids.parquet, manifest."""
    import faiss

    release = read_release(context.workspace)
    features = released_arrow(context.workspace, "item_features").sort_by("item_id")
    vectors = np.ascontiguousarray(fixed_lists(features["embedding"]), dtype=np.float32)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    indexes = context.folder("indexes")
    temporary = indexes / f".new.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        faiss.write_index(index, str(temporary / "items.faiss"))
        pq.write_table(pa.table({"item_id": features["item_id"]}), temporary / "item_ids.parquet")
        digest = hashlib.sha256((temporary / "items.faiss").read_bytes()).hexdigest()
        manifest = {"release_id": release["release_id"], "items": index.ntotal, "dim": index.d, "sha256": digest}
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        save_settings(context.settings, temporary)
        if index.ntotal != features.num_rows:
            raise LearnSparkError(f"export_index: {features.num_rows:,} vectors in, {index.ntotal:,} in the index")
        final = indexes / release["release_id"]
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return StageResult(
        rows_in=features.num_rows,
        rows_out=index.ntotal,
        outputs={f"indexes/{release['release_id']}": digest},
    )
