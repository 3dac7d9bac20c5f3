"""The space in which towers read embeddings: raw, centred or whitened, fitted on items with a training event."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from pandas.util import hash_array

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_depending, read_rows
from learn_spark.core.tables.workspace import Workspace

SpaceKind = Literal["raw", "centred", "whitened"]
CHUNK_ROWS = 8_192
FIT_ROWS = 200_000  # the covariance of 576 columns needs no more
SMALLEST_SHARE = 1e-12


@dataclass(frozen=True, eq=False)
class EmbeddingSpace:
    """``(vectors - mean) @ matrix``, with ``mean`` [hidden] and ``matrix`` [hidden, dims] in float64 (None: no matrix).

    The space was fitted on ``rows`` distinct vectors; ``fitted_on`` is the hash of their set. ``ridge`` is 0 where it
    is not used.
    """

    kind: SpaceKind
    mean: np.ndarray
    matrix: np.ndarray | None
    ridge: float
    rows: int
    fitted_on: str

    @property
    def dims(self) -> int:
        """Width of a vector in the space."""
        return len(self.mean) if self.matrix is None else int(self.matrix.shape[1])

    def key(self, encoder_key: str) -> str:
        """space_key of embedding_spaces: SHA-256 over the encoder, the transformation and the fitted vectors."""
        parts = [encoder_key, self.kind, self.ridge, self.dims, self.fitted_on]
        if self.kind == "whitened" and self.dims == len(self.mean) and not self._is_zca:
            parts.append("principal")  # as wide as the vectors, by ``dims``
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def _is_zca(self) -> bool:
        """Whether the matrix is symmetric and positive definite: of all that whiten, ZCA's alone is."""
        matrix = self.matrix
        assert matrix is not None
        if np.abs(matrix - matrix.T).max() > 1e-6 * np.abs(matrix).max():
            return False
        try:
            np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            return False
        return True

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Transform ``vectors`` [..., hidden] to [..., dims] float32. Raises ValueError for another width."""
        if vectors.shape[-1] != len(self.mean):
            raise ValueError(f"expected vectors [..., {len(self.mean)}], got {list(vectors.shape)}")
        if self.kind == "raw":
            return np.asarray(vectors, np.float32)
        centred = vectors - self.mean
        return (centred if self.matrix is None else centred @ self.matrix).astype(np.float32)


def fit_embedding_space(
    vectors: np.ndarray,
    kind: SpaceKind,
    *,
    ridge: float = 0.0,
    dims: int | None = None,
    rows: np.ndarray | None = None,
) -> EmbeddingSpace:
    """The space of ``vectors`` [n, hidden], fitted on the distinct ones among ``rows`` (positions; None: all).

    Pass the rows of items with a training event (splits.split.training_events): an item that appears only after the
    split must not influence the space. Of more than FIT_ROWS rows, those with the lowest hashes of their positions are
    used. Equal texts count once, and the order of rows changes no bit. ``centred``
    subtracts the mean. ``whitened`` makes the covariance the identity by the ZCA matrix V diag(1 / sqrt(eigenvalue))
    V', in which the signs of eigenvectors cancel. Raw text embeddings lie in a narrow cone (WhitenRec, arXiv
    2402.10602); LEARN uses them raw. ``ridge`` times the mean eigenvalue is added to every eigenvalue, so that
    directions of mere noise are not amplified. With ``dims`` only the ``dims`` directions of largest variance remain,
    one per column (PCA whitening; the largest entry of a direction is positive).

    Raises ValueError for a negative ridge, values that are not finite, fewer than 2 distinct rows (1 for centred), rows
    in a subspace where the ridge is 0, and ``dims`` that are too many or that the kind does not take.
    """
    _check(vectors, ridge, least_rows=0 if kind == "raw" else 1)
    hidden = int(vectors.shape[1])
    if dims is not None and (kind != "whitened" or not 1 <= dims <= hidden):
        raise ValueError(
            f"dims {dims} must be 1 to {hidden} for a whitened space and None for others; this space is {kind}"
        )
    if kind == "raw":
        return EmbeddingSpace("raw", np.zeros(hidden), None, 0.0, 0, hashlib.sha256(b"").hexdigest())
    order, fitted_on = _distinct(vectors, rows)
    if kind == "centred":
        return EmbeddingSpace("centred", _mean(vectors, order), None, 0.0, len(order), fitted_on)
    if len(order) < 2:
        raise ValueError(f"whitening needs at least 2 distinct vectors, got {len(order)}")
    mean, values, directions = _principal(vectors, order, ridge, dims)
    if dims is None:
        matrix = (directions / np.sqrt(values)) @ directions.T
    else:
        top = directions[:, ::-1][:, :dims]
        signs = np.sign(np.take_along_axis(top, np.abs(top).argmax(0)[None], axis=0))
        matrix = top * signs / np.sqrt(values[::-1][:dims])
    return EmbeddingSpace("whitened", mean, matrix, ridge, len(order), fitted_on)


def register_embedding_space(
    workspace: Workspace, space: EmbeddingSpace, encoder_key: str, inputs: Mapping[str, str]
) -> str:
    """Register the space in embedding_spaces once, with the table versions it came from; returns its space_key."""
    path, key = workspace.table("embedding_spaces"), space.key(encoder_key)
    row = {
        "space_key": key,
        "encoder_key": encoder_key,
        "kind": space.kind,
        "ridge": space.ridge,
        "fitted_on": space.fitted_on,
        "rows": space.rows,
        "inputs": dict(inputs),
        "hidden": len(space.mean),
        "dims": space.dims,
        "mean": space.mean.tolist(),
        "matrix": None if space.matrix is None else space.matrix.ravel().tolist(),
        "written_at": datetime.now(UTC),
    }
    append_depending(
        path,
        contract("embedding_spaces"),
        lambda: [] if any(registered["space_key"] == key for registered in read_rows(path, ["space_key"])) else [row],
    )
    return key


def read_embedding_space(workspace: Workspace, space_key: str) -> EmbeddingSpace:
    """The space registered under ``space_key``, bit-identical. Raises LearnSparkError where there is none."""
    for row in read_rows(workspace.table("embedding_spaces")):
        if row["space_key"] == space_key:
            matrix = None
            if row["matrix"] is not None:
                matrix = np.asarray(row["matrix"]).reshape(row["hidden"], row["dims"])
            return EmbeddingSpace(
                row["kind"], np.asarray(row["mean"]), matrix, row["ridge"], row["rows"], row["fitted_on"]
            )
    raise LearnSparkError(
        f"embedding_spaces in {workspace.place} has no space {space_key}: the model that names it was trained "
        "elsewhere, or the row was removed; train again"
    )


def _check(vectors: np.ndarray, ridge: float, *, least_rows: int) -> None:
    if vectors.ndim != 2 or vectors.shape[0] < least_rows or vectors.shape[1] < 1:
        raise ValueError(f"a space needs [n >= {least_rows}, d >= 1] embeddings, got {list(vectors.shape)}")
    if not ridge >= 0.0:
        raise ValueError(f"ridge {ridge} must be at least 0")


def _distinct(vectors: np.ndarray, rows: np.ndarray | None) -> tuple[np.ndarray, str]:
    """Positions of the distinct vectors among ``rows``, in the order of their hashes, and the hash of their set."""
    first: dict[bytes, int] = {}
    every = np.arange(len(vectors)) if rows is None else np.unique(rows)
    if len(every) > FIT_ROWS:
        hashes = hash_array(every.astype(np.uint64))
        every = every[np.sort(np.argpartition(hashes, FIT_ROWS)[:FIT_ROWS])]
    for row in every:
        first.setdefault(hashlib.sha256(np.ascontiguousarray(vectors[row]).tobytes()).digest(), int(row))
    digests = sorted(first)
    return np.asarray([first[digest] for digest in digests], np.int64), hashlib.sha256(b"".join(digests)).hexdigest()


def _chunks(vectors: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), CHUNK_ROWS):
        yield vectors[rows[start : start + CHUNK_ROWS]].astype(np.float64)


def _mean(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    if not len(rows):
        raise ValueError(
            f"a space needs at least 1 of {len(vectors)} vectors to be fitted on, but no item has a training event"
        )
    total = np.zeros(vectors.shape[1])
    for chunk in _chunks(vectors, rows):
        total += chunk.sum(axis=0)
    mean = total / len(rows)
    if not np.isfinite(mean).all():
        raise ValueError(
            f"{int((~np.isfinite(mean)).sum())} of {len(mean)} embedding columns have values that are not finite"
        )
    return mean


def _principal(
    vectors: np.ndarray, rows: np.ndarray, ridge: float, dims: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean [d], eigenvalues of the covariance with the ridge added [d], ascending, and eigenvectors in columns.

    Raises ValueError where one of the largest ``dims`` eigenvalues (None: of all) is negligible against the largest.
    """
    mean = _mean(vectors, rows)
    scatter = np.zeros((len(mean), len(mean)))
    for chunk in _chunks(vectors, rows):
        centred = chunk - mean
        scatter += centred.T @ centred
    values, directions = np.linalg.eigh(scatter / len(rows))
    values = np.maximum(values, 0.0) + ridge * max(values.mean(), 0.0)
    smallest = values[0 if dims is None else -dims]
    if smallest <= SMALLEST_SHARE * values[-1]:
        raise ValueError(
            f"the smallest eigenvalue {smallest:.3g} is negligible against the largest {values[-1]:.3g} "
            f"({len(rows)} rows, {len(mean)} columns, ridge {ridge}); raise the ridge"
        )
    return mean, values, directions
