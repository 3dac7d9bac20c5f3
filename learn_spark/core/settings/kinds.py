"""Sections of several kinds (``tower.kind``, ``histories.protocol``): the settings of each kind, and the settings that
are dropped if a file or a ``--set`` changes the kind.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Kinds:
    """The kinds of one section: the settings class of each value of its setting ``key``.

    ``default``: the kind if ``key`` is not given (None: it is required).
    """

    key: str
    default: str | None
    classes: Mapping[str, type[BaseModel]]

    def of(self, section: Mapping[str, Any]) -> Any:
        """The kind of ``section``."""
        return section.get(self.key, self.default)

    def fields(self, kind: Any) -> Mapping[str, FieldInfo] | None:
        """The settings of ``kind`` by name; None if there is no such kind."""
        model = self.classes.get(kind) if isinstance(kind, str) else None
        return None if model is None else fields_of(model)

    def having(self, setting: str) -> list[str]:
        """The kinds that have ``setting``."""
        return [kind for kind, cls in self.classes.items() if setting in fields_of(cls)]


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The settings of a section by their names in YAML."""
    return {field.alias or attribute: field for attribute, field in model.model_fields.items()}


def models_of(field: FieldInfo) -> list[type[BaseModel]]:
    """The settings classes of a setting: one per kind, one for a section without kinds, none for a value."""
    types = [field.annotation, *get_args(field.annotation)]
    return [one for one in types if isinstance(one, type) and issubclass(one, BaseModel)]


def parts_of(key: str, model: type[BaseModel]) -> list[str]:
    """The dotted ``key`` as the keys of nested mappings.

    A setting that maps names to values is the end of the path, because its names may contain dots: the name
    ``spark.sql.x`` of ``spark.conf.spark.sql.x``, and ``interactions.age_days`` of
    ``quality.rules.interactions.age_days.most``.
    """
    parts, rest, models = [], key.split("."), [model]
    while rest:
        parts.append(rest.pop(0))
        field = next((fields_of(one)[parts[-1]] for one in models if parts[-1] in fields_of(one)), None)
        if field is None:
            break
        if rest and get_origin(field.annotation) is dict:
            inner = [one for one in _leaves(field.annotation) if issubclass(one, BaseModel)]
            names = {name for one in inner for name in fields_of(one)}
            end = [rest.pop()] if len(rest) > 1 and rest[-1] in names else []
            return [*parts, ".".join(rest), *end]
        models = models_of(field)
    return parts + rest


def _leaves(annotation: Any) -> list[type]:
    """The classes inside an annotation such as dict[str, A | B]."""
    inner = get_args(annotation)
    return (
        [leaf for one in inner for leaf in _leaves(one)]
        if inner
        else [annotation]
        if isinstance(annotation, type)
        else []
    )


def kinds_of(field: FieldInfo) -> Kinds | None:
    """The kinds of a section; None if it has one only."""
    if not isinstance(field.discriminator, str):
        return None
    classes: dict[str, type[BaseModel]] = {}
    key = field.discriminator
    for model in models_of(field):
        tag = model.model_fields[field.discriminator]
        key = tag.alias or field.discriminator
        classes |= dict.fromkeys(get_args(tag.annotation), model)
    default = field.get_default(call_default_factory=True, validated_data={})
    kind = getattr(default, field.discriminator) if isinstance(default, BaseModel) else None
    return Kinds(key, kind, classes)


@cache
def sections_with_kinds(model: type[BaseModel]) -> Mapping[str, Kinds]:
    """The sections of ``model`` that have several kinds."""
    return {name: kinds for name, field in fields_of(model).items() if (kinds := kinds_of(field))}


def drop_settings_of_other_kinds(
    base: Mapping[str, Any], over: Mapping[str, Any], model: type[BaseModel], *, keep: Collection[str] = ()
) -> dict[str, Any]:
    """``base`` prepared for a merge of ``over`` into it.

    If ``over`` changes the kind of a section, settings of that section that the new kind does not have are removed,
    except those in ``keep`` (such as ``tower.ids``).
    """
    kept = dict(base)
    for name, kinds in sections_with_kinds(model).items():
        below, above = base.get(name), over.get(name)
        if not isinstance(below, Mapping) or not isinstance(above, Mapping) or kinds.key not in above:
            continue
        fields = kinds.fields(above[kinds.key])
        if fields is not None and kinds.of(below) != above[kinds.key]:
            named = {key.split(".")[1] for key in keep if key.startswith(f"{name}.")}
            kept[name] = {setting: value for setting, value in below.items() if setting in {*fields, *named}}
    return kept


def with_kinds_named(tree: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """``tree`` with the default kind in sections that name none, and without nulls for settings of other kinds."""
    named = dict(tree)
    for name, kinds in sections_with_kinds(model).items():
        section = named.get(name)
        if not isinstance(section, Mapping):
            continue
        section = dict(section)
        if kinds.default is not None:
            section.setdefault(kinds.key, kinds.default)
        fields = kinds.fields(section.get(kinds.key)) or {}
        for setting in [s for s, value in section.items() if value is None and s not in fields and kinds.having(s)]:
            del section[setting]
        named[name] = section
    return named


def all_keys(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    """The distinct dotted names of all settings of ``model``, of every kind, sections included."""
    seen = set()
    for name, field in fields_of(model).items():
        yield prefix + name
        for inner in models_of(field):
            for key in all_keys(inner, f"{prefix}{name}."):
                if key not in seen:
                    seen.add(key)
                    yield key
