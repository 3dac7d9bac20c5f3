"""Recommendations over HTTP from one release, whose id the online store has. README.md has the command."""

from __future__ import annotations

import os
from functools import lru_cache
from threading import Lock
from typing import Annotated, Any, NamedTuple

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, Field

import learn_spark as ls
from learn_spark.core.errors import LearnSparkError
from learn_spark.features.export.manifest import ExportError
from learn_spark.features.faiss_index import load

Ids, Count = Annotated[list[str], Field(max_length=10_000)], Annotated[int, Field(ge=1, le=100)]
workspace = ls.open(os.environ["WORKSPACE"])  # the workspace's folder or its settings file
towers = os.environ["TOWERS"]  # has the folder of learn-spark export for each release, named by its id
store = workspace.online(os.environ.get("STORE"))  # without STORE: online.store of the settings
app, loading = FastAPI(title="learn-spark: recommendations of one release"), Lock()


class Release(NamedTuple):
    """The parts of one release in memory: its exported user tower and its FAISS index."""

    id: str
    tower: Any
    index: Any

    def answer(self, vector: np.ndarray, k: int, seen: list[str]) -> dict[str, Any]:
        """The k items with the highest scores for a user vector [D] that are not in ``seen``."""
        hidden = set(seen)
        scores, ids = self.index.search(vector[None], k + len(hidden))
        found = [{"item": i, "score": float(s)} for i, s in zip(ids[0], scores[0], strict=False) if i not in hidden]
        return {"release": self.id, "recommendations": found[:k]}


@lru_cache(maxsize=2)
def parts(release: str) -> Release:
    """The tower and the index of a release. Raises LearnSparkError for a missing, damaged or foreign one."""
    tower, index = ls.user_tower(f"{towers}/{release}"), workspace.workspace.place / "indexes" / release
    if tower.manifest.release_id != release:
        raise ExportError(f"{tower.folder} is the tower of release {tower.manifest.release_id}, not of {release}")
    return Release(release, tower, load(index, release_id=release))


def read(*users: str) -> tuple[Release, np.ndarray]:
    """The release of the online store, and its vectors [n, D] of users, in one round trip; NaN for unknown users."""
    found = store.vectors(users=users)
    with loading:
        return parts(found.release.release_id), found.users


@app.exception_handler(LearnSparkError)
def unavailable(request: Request, error: LearnSparkError) -> JSONResponse:
    """The store does not answer or has no release, or a part of its release is missing."""
    return JSONResponse({"detail": {"release": None, "error": str(error)}}, 503)


class History(BaseModel):
    """Events of a user, oldest first; ``times`` (with an offset from UTC) where the tower reads them."""

    items: Ids
    times: list[AwareDatetime] | None = None
    k: Count = 10


@app.post("/recommendations")
def of_history(history: History) -> dict[str, Any]:
    """The vector of a history by the release's user tower, and the best items that are not in it."""
    release, times = read()[0], [round(1e6 * time.timestamp()) for time in history.times or []]
    try:
        if times != sorted(times):
            raise ExportError("the times go back; the oldest event is the first")
        vector = release.tower.vectors([history.items], times=[times] if times else None)[0]
    except ExportError as error:
        raise HTTPException(422, {"release": release.id, "error": str(error)}) from None
    return release.answer(vector, history.k, history.items) | {"vector": vector.tolist()}


@app.get("/recommendations/{user:path}")
def of_user(user: str, k: Count = 10, seen: Annotated[Ids, Query()] = []) -> dict[str, Any]:  # noqa: B006
    """The best items for a user's released vector that are not in ``seen``."""
    release, vectors = read(user)
    if np.isnan(vectors).any():
        raise HTTPException(404, {"release": release.id, "error": f"no user {user!r} in it; POST the user's history"})
    return release.answer(vectors[0], k, seen)


@app.get("/health")
def health() -> dict[str, Any]:
    """The release that is served, with all its parts, and its number of items."""
    release = read()[0]
    return {"release": release.id, "items": len(release.index.item_ids)}
