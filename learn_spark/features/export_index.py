"""The export_index stage: a FAISS index of the released item vectors, with item ids, manifest and measured recall."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import save_settings
from learn_spark.core.settings.features import IndexSettings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.storage.folders import new_folder
from learn_spark.core.storage.path import StoragePath
from learn_spark.features.faiss_index import ItemIndex, build, load, save
from learn_spark.features.index_manifest import (
    MANIFEST_FILE,
    IndexFacts,
    IndexManifest,
    ItemIndexError,
    TrainedOn,
    read_manifest,
)
from learn_spark.features.index_recall import measure
from learn_spark.features.index_vectors import ItemVectors, sampled_queries
from learn_spark.features.ledger import LedgerRow
from learn_spark.features.read import read_release

# Settings without influence on the built index: the queries of the measurement, and when to rebuild.
_NOT_PART_OF_INDEX = {"queries", "max_added_share"}


def run(context: StageContext) -> StageResult:
    """Write indexes/<release_id>/: items.faiss (inner product), item_ids.parquet, manifest.json.

    If an earlier index of the same model and settings lacks only new items, they are added to a copy of it; else the
    index is rebuilt. In memory are the index, the ids and a block of vectors; all vectors lie in a mapped file in the
    scratch folder.
    """
    release = read_release(context.workspace)
    version = release.version("item_features")
    with tempfile.TemporaryDirectory(dir=context.folder("cache", "index_vectors")) as mapped:
        return _export(context, release, version, Path(mapped))


def _export(context: StageContext, release: LedgerRow, version: int, mapped: Path) -> StageResult:
    """``run``; vectors are mapped from files in the folder ``mapped``."""
    settings, workspace = context.settings.index, context.workspace
    indexes, name = workspace.place / "indexes", release.release_id
    items = ItemVectors.read(context.path("item_features"), version, mapped / "items.npy")
    base, why = _extensible(context, indexes, items, release, mapped)
    if base is None:
        index, order, added = build(items, settings), np.arange(len(items.ids)), 0
        trained = TrainedOn(release_id=name, features_version=version, vectors=len(items.ids))
        note = f"index rebuilt: {why}"
    else:
        index, order, added = _extend(base, items)
        trained = base.manifest.trained_on
        note = f"{added:,} items added to the index of release {base.manifest.release_id}"
    users = release.version("user_features")
    queries = sampled_queries(context.path("user_features"), users, settings.queries)
    measured = measure(index, items.blocks(order), queries)
    facts = IndexFacts(
        release_id=name,
        model_id=release.model_id,
        kind=settings.kind,
        settings=settings.model_dump(exclude=_NOT_PART_OF_INDEX),
        normalised=items.normalised(context.settings.release.norm_tolerance),
        features_version=version,
        trained_on=trained,
        measured=measured,
        faiss=faiss.__version__,
    )
    with new_folder(indexes, workspace.scratch) as folder:
        written = save(folder.path, index, items.ids.take(pa.array(order)), facts)
        save_settings(context.settings, folder.path)
        if index.ntotal != len(items.ids):
            raise LearnSparkError(
                f"export_index: the index has {index.ntotal:,} vectors, expected {len(items.ids):,}; it was not written"
            )
        folder.appear(name, MANIFEST_FILE, replace=True)
    figures = ", ".join(f"{key} {measured[key]:.4f}" for key in ("recall@10", "recall@100"))
    return StageResult(
        rows_in=len(items.ids),
        rows_out=index.ntotal,
        counts={"items_added": added},
        outputs={f"indexes/{name}": written.checksum},
        notes=(
            note,
            f"{settings.kind}: {figures} against exact search, {measured['queries_per_second']:,.0f} queries/s (exact: "
            f"{measured['flat_queries_per_second']:,.0f}) over {measured['queries']:,} users",
        ),
    )


def _extensible(
    context: StageContext, indexes: StoragePath, items: ItemVectors, release: LedgerRow, mapped: Path
) -> tuple[ItemIndex | None, str]:
    """(the largest earlier index that lacks only new items or None, the reason for None)."""
    if context.forced:
        return None, "--force was given"
    index_settings = context.settings.index.model_dump(exclude=_NOT_PART_OF_INDEX)
    why, candidates = "there is no earlier index of this model and these settings", []
    for folder in (path for path in indexes.children() if not path.name.startswith(".")):
        try:
            manifest = read_manifest(folder)
        except ItemIndexError:
            continue
        if manifest.model_id == release.model_id and manifest.settings == index_settings:
            candidates.append((manifest.items, folder, manifest))
    for _, folder, manifest in sorted(candidates, key=lambda candidate: -candidate[0]):
        old = ItemVectors.read(context.path("item_features"), manifest.features_version, mapped / "old.npy")
        if missing := items.lacks(old):
            why = f"{missing:,} items of the earlier index are no longer released"
        elif not items.has_vectors_of(old):
            why = "vectors of the earlier index changed"
        elif _overgrown(context.settings.index, manifest, len(items.ids)):
            why = "the share of items added since the cells were trained is above index.max_added_share"
        else:
            try:
                return load(folder, cache=context.folder("cache", "indexes")), ""
            except ItemIndexError as fault:
                why = str(fault)
    return None, why


def _overgrown(settings: IndexSettings, manifest: IndexManifest, items: int) -> bool:
    return settings.kind in ("ivf", "ivf_pq") and 1 - manifest.trained_on.vectors / items > settings.max_added_share


def _extend(base: ItemIndex, items: ItemVectors) -> tuple[Any, np.ndarray, int]:
    """(the index with new items appended, the rows of ``items`` by its numbers, number of new items)."""
    indexed = pc.index_in(base.item_ids, items.ids).to_numpy().astype(np.int64)
    new = np.setdiff1d(np.arange(len(items.ids)), indexed)
    for block in items.blocks(new):
        base.index.add(block)
    return base.index, np.concatenate([indexed, new]), len(new)
