"""Every kind of tower by name, built from settings or from a model's manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from learn_spark.core.settings.tower import TowerSettings
from learn_spark.core.settings.training import ObjectiveSettings
from learn_spark.model.manifest import Shape
from learn_spark.model.towers.bsarec import BSARec
from learn_spark.model.towers.content import ContentTower
from learn_spark.model.towers.hstu import HSTU
from learn_spark.model.towers.learn_plus import LearnPlus
from learn_spark.model.towers.learn_plus_members import LearnPlusMembers
from learn_spark.model.towers.sasrec import SASRec
from learn_spark.model.towers.tower import Tower

TOWERS: dict[str, type[Tower]] = {
    tower.method: tower for tower in (ContentTower, LearnPlus, LearnPlusMembers, SASRec, HSTU, BSARec)
}


def tower_of_shape(shape: Mapping[str, Any]) -> Tower:
    """A freshly initialised tower from the result of ``shape_of``. Raises ValueError for an unknown kind or other
    arguments.
    """
    arguments = dict(shape)
    kind = arguments.pop("kind", None)
    if kind not in TOWERS:
        raise ValueError(f"unknown tower kind {kind!r}; the kinds are {', '.join(sorted(TOWERS))}")
    try:
        return TOWERS[kind](**arguments)
    except TypeError as error:
        raise ValueError(f"wrong arguments for a {kind} tower: {error}") from None


def shape_of(tower: Tower) -> Shape:
    """Kind and arguments of a tower, as plain values that JSON can represent."""
    return {"kind": tower.method, **tower.to_dict()}


def tower_of_settings(tower: TowerSettings, objective: ObjectiveSettings, *, n_items: int, content_dim: int) -> Tower:
    """The tower that the settings describe, freshly initialised."""
    sizes = {"n_items": n_items, "width": tower.width, "layers": tower.layers, "heads": tower.heads}
    if tower.kind == "learn":
        return ContentTower(
            **sizes,
            content_dim=content_dim,
            ffn=tower.ffn,
            output_dim=tower.output_dim,
            dropout=tower.dropout,
            item_tower=tower.item_tower,
        )
    if tower.kind == "learn-plus":
        plus: dict[str, Any] = {
            **sizes,
            "content_dim": content_dim,
            "max_length": objective.history,
            "ffn": tower.ffn,
            "dropout": tower.dropout,
            "ids": tower.ids,
            "id_dropout": tower.id_dropout,
            "time_gaps": tower.time_gaps,
            "norm": tower.norm,
            "unit_content": tower.unit_content,
            "similarity": tower.similarity,
        }
        return LearnPlus(**plus) if tower.members == 1 else LearnPlusMembers(members=tower.members, **plus)
    arguments: dict[str, Any] = {
        **sizes,
        "dropout": tower.dropout,
        "similarity": tower.similarity,
        "max_length": objective.history,
    }
    if tower.positions is not None:
        arguments["positions"] = tower.positions
    if tower.kind == "sasrec":
        return SASRec(**arguments, ffn=tower.ffn)
    if tower.kind == "bsarec":
        return BSARec(**arguments, ffn=tower.ffn, alpha=tower.alpha, c=tower.c)
    return HSTU(**arguments, dqk=tower.width // tower.heads, dv=tower.width // tower.heads)
