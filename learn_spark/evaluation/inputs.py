"""What the contenders of a split are made of: arrays in the driver's memory, which Spark's workers map from files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from learn_spark.evaluation.baselines.markov import markov_of_pairs
from learn_spark.evaluation.baselines.popularity import popularity_of_counts
from learn_spark.evaluation.contenders import (
    Contender,
    counted,
    frozen,
    released_towers,
    reranked,
    reranked_towers,
    trained,
)
from learn_spark.evaluation.statistics import Statistics
from learn_spark.model.reranking.co_visitation import Transitions
from learn_spark.model.store import Model
from learn_spark.model.towers.vectors import item_vectors, unit_rows

UNIT_ROWS = 1 << 16  # normalised at once
_CSR = ("data", "indices", "indptr")


def unit_content(matrix: np.ndarray, folder: Path) -> np.ndarray:
    """``unit_rows`` of the content ``matrix`` [N + 1, C], in a file in ``folder`` that is mapped into memory."""
    file = folder / "unit.npy"
    unit = np.lib.format.open_memmap(file, mode="w+", dtype=matrix.dtype, shape=matrix.shape)
    for start in range(0, len(matrix), UNIT_ROWS):
        unit[start : start + UNIT_ROWS] = unit_rows(matrix[start : start + UNIT_ROWS])
    unit.flush()
    return np.load(file, mmap_mode="r", allow_pickle=False)


@dataclass(frozen=True)
class ContenderInputs:
    """The arrays of the contenders over N items.

    ``counts`` [N] training events; ``pairs`` and ``pair_counts`` [P] as of ``PairCounts.merged``; ``unit`` [N + 1, C]
    unit content; ``catalogues``: item vectors [N, D] of each of the model's ``released_towers``; ``transitions`` and
    ``reranked``, item vectors of each of its ``reranked_towers``, where the model has a reranker that is evaluated.
    """

    counts: np.ndarray
    pairs: np.ndarray
    pair_counts: np.ndarray
    unit: np.ndarray
    catalogues: tuple[np.ndarray, ...]
    transitions: Transitions | None = None
    reranked: tuple[np.ndarray, ...] = ()

    @staticmethod
    def of(
        model: Model,
        statistics: Statistics,
        unit: np.ndarray,
        training: Iterable[tuple[np.ndarray, np.ndarray]] | None,
        *,
        cross_fitted: bool,
    ) -> ContenderInputs:
        """The inputs for a model with its content bound; ``training`` are the ``training_events`` in which co-visits
        are counted, None without the reranker.
        """
        transitions: Transitions | None = None
        vectors: tuple[np.ndarray, ...] = ()
        if training is not None and model.reranker is not None:
            reach, decay = model.reranker.reach, model.reranker.decay
            transitions = Transitions.of_parts(training, model.tower.n_items, reach=reach, decay=decay)
            vectors = tuple(item_vectors(tower) for tower in reranked_towers(model, cross_fitted=cross_fitted))
        towers = released_towers(model, cross_fitted=cross_fitted)
        catalogues = tuple(item_vectors(tower) for tower in towers)
        return ContenderInputs(statistics.counts, *statistics.pairs.merged(), unit, catalogues, transitions, vectors)

    def contenders(self, model: Model, *, cross_fitted: bool) -> tuple[Contender, ...]:
        """Popularity, Markov, the untrained content, the model with its reranker if it is evaluated, and without."""
        by_model = [trained(model, cross_fitted=cross_fitted, catalogues=self.catalogues)]
        if self.transitions is not None:
            by_model.insert(0, reranked(model, self.transitions, self.reranked, cross_fitted=cross_fitted))
        return (
            counted("popularity", popularity_of_counts(self.counts)),
            counted("markov", markov_of_pairs(self.pairs, self.pair_counts, self.counts)),
            frozen(self.unit, model.window),
            *by_model,
        )

    def save(self, folder: Path) -> None:
        """Write the arrays into ``folder``, one file each."""
        arrays = {name: getattr(self, name) for name in ("counts", "pairs", "pair_counts", "unit")}
        arrays |= {f"catalogue-{number}": vectors for number, vectors in enumerate(self.catalogues)}
        arrays |= {f"reranked-{number}": vectors for number, vectors in enumerate(self.reranked)}
        if self.transitions is not None:
            arrays["transitions-counts"] = self.transitions.counts
            arrays["transitions-scale"] = np.array([self.transitions.reach, self.transitions.decay])
            for number, matrix in enumerate(self.transitions.channels):
                arrays |= {f"transitions-{number}-{part}": getattr(matrix, part) for part in _CSR}
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)

    @staticmethod
    def load(folder: Path) -> ContenderInputs:
        """The arrays of ``save``, mapped into memory."""

        def read(name: str) -> np.ndarray:
            return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

        catalogues, vectors = (
            tuple(read(file.stem) for file in sorted(folder.glob(f"{name}-*.npy")))
            for name in ("catalogue", "reranked")
        )
        transitions = None
        if vectors:
            counts = read("transitions-counts")
            reach, decay = read("transitions-scale").tolist()
            channels = tuple(
                sparse.csr_matrix(
                    tuple(read(f"transitions-{number}-{part}") for part in _CSR), shape=(len(counts), len(counts))
                )
                for number in range(3)
            )
            transitions = Transitions(channels, counts, int(reach), decay)
        return ContenderInputs(
            read("counts"), read("pairs"), read("pair_counts"), read("unit"), catalogues, transitions, vectors
        )
