"""The frozen embeddings as one matrix: each at its item's index, built once, complete, in little memory."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.snapshot import Snapshot, SnapshotError
from learn_spark.model.feed.item_matrix import item_matrix, item_matrix_path
from learn_spark.model.feed.matrix_rows import MissingEmbeddingsError


def key_of(text: int) -> str:
    return f"{text:064x}"


def write(path: Path, *tables: pa.Table) -> Snapshot:
    """One file of a Delta table for each Arrow table."""
    for table in tables:
        write_deltalake(str(path), table, mode="append")
    return Snapshot.open(str(path))


def vectors_table(encoder: str, texts: np.ndarray, vectors: np.ndarray) -> pa.Table:
    flat = pa.array(vectors.ravel().astype(np.float32))
    lists = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]).cast(pa.list_(pa.float32()))
    keys = [key_of(text) for text in texts]
    return pa.table({"encoder_key": [encoder] * len(texts), "text_key": keys, "embedding": lists})


def items(folder: Path, text_of_item: np.ndarray) -> tuple[Snapshot, Snapshot]:
    """item_index and item_text: item n has the index n + 1 and the text ``text_of_item[n]``."""
    ids = [f"item {n}" for n in range(len(text_of_item))]
    index = pa.table({"item_id": ids, "item_index": np.arange(1, len(ids) + 1, dtype=np.int32)})
    texts = {"item_id": ids, "template_version": ["t/1"] * len(ids), "text_key": [key_of(t) for t in text_of_item]}
    shuffled = np.random.default_rng(1).permutation(len(ids))
    return write(folder / "item_index", index), write(folder / "item_text", pa.table(texts).take(shuffled))


def build(tables: tuple[Snapshot, Snapshot, Snapshot], cache: Path, **settings: Any) -> Path:
    return item_matrix_path(*tables, **{"template_version": "t/1", "encoder_key": "mine", "cache": cache, **settings})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Snapshot, Snapshot, Snapshot]:
    """3,000 items over 2,500 texts, in three files of embeddings; another encoder's and unused texts among them."""
    folder = tmp_path_factory.mktemp("small")
    generator = np.random.default_rng(0)
    index, text = items(folder, generator.integers(0, 2500, 3000))
    vectors = generator.normal(size=(3000, 6))
    parts = [vectors_table("mine", part, vectors[part]) for part in np.array_split(generator.permutation(3000), 2)]
    mixed = pa.concat_tables([vectors_table("others", np.arange(40), np.ones((40, 6))), parts[1]])
    return (
        index,
        text,
        write(folder / "text_embeddings", parts[0], mixed, vectors_table("z", np.arange(9), vectors[:9])),
    )


def slowly(tables: tuple[Snapshot, Snapshot, Snapshot]) -> np.ndarray:
    index, text, embeddings = (snapshot.to_arrow().to_pylist() for snapshot in tables)
    key = {row["item_id"]: row["text_key"] for row in text}
    vector = {row["text_key"]: row["embedding"] for row in embeddings if row["encoder_key"] == "mine"}
    matrix = np.zeros((max(row["item_index"] for row in index) + 1, 6), np.float32)
    for row in index:
        matrix[row["item_index"]] = vector[key[row["item_id"]]]
    return matrix


@dataclass
class Doubled:
    """A space of half the width that records its calls."""

    name: str = "doubled"
    rows: list[int] = field(default_factory=list)

    def key(self, encoder_key: str) -> str:
        return f"{self.name} of {encoder_key}"

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        self.rows.append(len(vectors))
        return 2 * vectors[:, :3]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_it_is_the_join_of_three_tables(small: tuple[Snapshot, Snapshot, Snapshot], tmp_path: Path, dtype: Any) -> None:
    expected = slowly(small)
    matrix = item_matrix(build(small, tmp_path, dtype=dtype))
    assert isinstance(matrix, np.memmap)
    np.testing.assert_array_equal(matrix, expected.astype(dtype), strict=True)
    space = Doubled()
    spaced = item_matrix(build(small, tmp_path, dtype=dtype, space=space))
    np.testing.assert_array_equal(spaced, (2 * expected[:, :3]).astype(dtype), strict=True)
    # Each text once, though some are shared by items, and a few thousand at a time.
    assert sum(space.rows) == len(set(small[1].to_arrow()["text_key"].to_pylist()))
    assert max(space.rows) <= 2048


def test_the_path_depends_on_all_inputs(small: tuple[Snapshot, Snapshot, Snapshot], tmp_path: Path) -> None:
    first = build(small, tmp_path)
    made = first.stat().st_mtime_ns
    index, text, embeddings = small
    more = Snapshot(embeddings.path, embeddings.version + 1, embeddings.files, embeddings.file_rows)
    assert build((index, text, more), tmp_path) == first
    assert first.stat().st_mtime_ns == made
    others = {
        build(small, tmp_path, dtype="float16"),
        build(small, tmp_path, space=Doubled()),
        build(small, tmp_path, space=Doubled("another")),
        build((write(tmp_path / "copy of item_index", index.to_arrow()), text, embeddings), tmp_path),
    }
    assert len(others | {first}) == 5


def test_memory_is_that_of_the_ids_not_of_the_vectors(tmp_path: Path) -> None:
    rows, width = 60_000, 256
    index, text = items(tmp_path, np.random.default_rng(0).permutation(rows))
    parts = []
    for part in np.array_split(np.arange(rows), 12):
        vectors = np.repeat(part[:, None].astype(np.float32), width, axis=1)
        parts.append(vectors_table("mine", part, vectors))
    tables = (index, text, write(tmp_path / "text_embeddings", *parts))
    del parts, vectors
    gc.collect()
    before, arrow = pa.total_allocated_bytes(), []

    class Watched(Doubled):
        def apply(self, vectors: np.ndarray) -> np.ndarray:
            arrow.append(pa.total_allocated_bytes() - before)
            return vectors

    tracemalloc.start()
    try:
        path = build(tables, tmp_path / "cache", space=Watched())
        peak = tracemalloc.get_traced_memory()[1] + max(arrow)
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > rows * width * 4
    assert peak < 0.6 * rows * width * 4
    matrix = item_matrix(path)
    text_of_item = [int(key, 16) for key in text.to_arrow().sort_by("item_id")["text_key"].to_pylist()]
    by_id = np.argsort([f"item {n}" for n in range(rows)])
    assert matrix[1:][by_id, -1].tolist() == text_of_item


def test_of_two_builders_at_once_one_builds(small: tuple[Snapshot, Snapshot, Snapshot], tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Doubled):
        def apply(self, vectors: np.ndarray) -> np.ndarray:
            begun.set()
            assert go_on.wait(30)
            return super().apply(vectors)

    spaces = Slow(), Slow()
    paths: list[Path] = []
    builders = [threading.Thread(target=lambda s=s: paths.append(build(small, tmp_path, space=s))) for s in spaces]
    for builder in builders:
        builder.start()
    assert begun.wait(30)
    go_on.set()
    for builder in builders:
        builder.join()
    assert paths[0] == paths[1]
    assert sorted(bool(space.rows) for space in spaces) == [False, True]
    np.testing.assert_array_equal(item_matrix(paths[0]), 2 * slowly(small)[:, :3])


KILLED = """
import os, pathlib, sys
from learn_spark.model.feed.item_matrix import item_matrix_path
from learn_spark.core.tables.snapshot import Snapshot

class Kills:
    def key(self, encoder_key):
        return "doubled of mine"
    def apply(self, vectors):
        os._exit(9)

*tables, cache = sys.argv[1:]
settings = {"template_version": "t/1", "encoder_key": "mine", "space": Kills()}
item_matrix_path(*map(Snapshot.open, tables), cache=pathlib.Path(cache), **settings)
"""


def test_a_killed_builder_is_cleaned_up_after(small: tuple[Snapshot, Snapshot, Snapshot], tmp_path: Path) -> None:
    arguments = [*(snapshot.path for snapshot in small), str(tmp_path)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, cwd=os.getcwd())
    assert killed.returncode == 9
    assert len(list(tmp_path.glob(".*.new.*"))) == 1
    path = build(small, tmp_path, space=Doubled())
    np.testing.assert_array_equal(item_matrix(path), 2 * slowly(small)[:, :3])
    assert not list(tmp_path.glob(".*.new.*"))
    assert sorted(file.name for file in path.parent.iterdir()) == ["embeddings.npy", "matrix.json"]


def test_values_beyond_half_precision_and_broken_tables_are_refused(tmp_path: Path) -> None:
    index, text = items(tmp_path, np.arange(2))
    large = write(tmp_path / "large", vectors_table("mine", np.arange(2), np.array([[1.0, 2.0], [3.0, -70000.0]])))
    with pytest.raises(
        LearnSparkError, match=r"has the value 70000, but float16 ends at 65504; set embedding_space.dtype: float32"
    ):
        build((index, text, large), tmp_path / "cache", dtype="float16")
    assert item_matrix(build((index, text, large), tmp_path / "cache"))[2].tolist() == [3.0, -70000.0]
    with pytest.raises(SnapshotError, match=r"has 2 rows, but the Delta log of .* records 3"):
        build((index, text, Snapshot(large.path, 0, large.files, (3,))), tmp_path / "other")
    # Which of the two files is read first depends on their random names.
    uneven = [vectors_table("mine", np.array([n]), np.ones((1, n + 1))) for n in range(2)]
    with pytest.raises(
        MissingEmbeddingsError, match=r"have (1 to 1 values in .*, expected 2|2 to 2 values in .*, expected 1)"
    ):
        build((index, text, write(tmp_path / "uneven", *uneven)), tmp_path / "other")
    assert not list((tmp_path / "other").glob("*.npy"))
    none = write(
        tmp_path / "none", pa.table({"item_id": pa.array([], pa.string()), "item_index": pa.array([], pa.int32())})
    )
    with pytest.raises(MissingEmbeddingsError, match="has no items; run ingest"):
        build((none, text, large), tmp_path / "other")


def test_items_without_a_text_or_an_embedding_are_counted_and_named(tmp_path: Path) -> None:
    index, text = items(tmp_path, np.array([0, 1, 0, 2]))
    vectors = np.array([[1.0, 2.0], [3.0, 4.0]])
    embeddings = write(
        tmp_path / "text_embeddings",
        vectors_table("mine", np.arange(2), vectors),
        vectors_table("yours", np.arange(3), np.ones((3, 5))),
    )
    cache = tmp_path / "cache"
    with pytest.raises(MissingEmbeddingsError, match=r"1 of 4 items have no embedding .*\(for example item 3\)"):
        build((index, text, embeddings), cache)
    with pytest.raises(MissingEmbeddingsError, match=r"4 of 4 items .*\(for example item 0, item 1, item 2\)"):
        build((index, text, embeddings), cache, template_version="t/2")
    with pytest.raises(MissingEmbeddingsError, match="4 of 4 items"):
        build((index, text, embeddings), cache, encoder_key="nobody")
    more = write(tmp_path / "item_index", pa.table({"item_id": ["new"], "item_index": pa.array([7], pa.int32())}))
    with pytest.raises(MissingEmbeddingsError, match=r"2 of 5 items .*item 3.*new|2 of 5 items .*new.*item 3"):
        build((more, text, embeddings), cache)
    assert not [path for path in cache.iterdir() if path.suffix != ".lock"]
    # A text more, and an index beyond a gap: rows that no item has are zero.
    added = pa.table({"item_id": ["new"], "template_version": ["t/1"], "text_key": [key_of(1)]})
    text = write(tmp_path / "item_text", added)
    embeddings = write(tmp_path / "text_embeddings", vectors_table("mine", np.array([2]), np.array([[5.0, 6.0]])))
    matrix = item_matrix(build((more, text, embeddings), cache))
    assert matrix.tolist() == [[0, 0], [1, 2], [3, 4], [1, 2], [5, 6], [0, 0], [0, 0], [3, 4]]
