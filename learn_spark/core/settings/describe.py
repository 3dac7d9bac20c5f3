"""Descriptions of all settings (type, default, range, effect), derived from the settings classes."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as at
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from learn_spark.core.errors import SettingsError
from learn_spark.core.settings.kinds import Kinds, fields_of, kinds_of
from learn_spark.core.settings.schema import Settings

_PLAIN = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


@dataclass(frozen=True)
class Knob:
    """One setting.

    ``choices``: its allowed values if they are listed. ``range``: its bounds as text. ``kinds``: the kinds of its
    section that have it (empty: all).
    """

    key: str
    type: str
    required: bool
    default: Any
    choices: tuple[str, ...]
    range: str
    kinds: tuple[str, ...]
    effect: str


@dataclass(frozen=True)
class SectionKnobs:
    """A section: its effect, the name of the setting that selects its kind (None: one kind only), and its settings."""

    name: str
    effect: str
    kind_key: str | None
    knobs: tuple[Knob, ...]


def describe(name: str | None = None) -> list[SectionKnobs]:
    """All sections of Settings in order, or the one called ``name``. Raises SettingsError for an unknown section.

    A setting outside of a section (``workspace``) is a section of one setting.
    """
    fields = fields_of(Settings)
    if name is not None and name not in fields:
        raise SettingsError(f"there is no section {name!r} of the settings; there are {', '.join(fields)}")
    return [_section(key, field) for key, field in fields.items() if name in (None, key)]


def _section(name: str, field: FieldInfo) -> SectionKnobs:
    kinds = kinds_of(field)
    below = _of_kinds(f"{name}.", kinds) if kinds is not None else list(_below(name, field.annotation))
    knobs = below or [_knob(name, field)]
    return SectionKnobs(name, _plain_text(field.description), None if kinds is None else kinds.key, tuple(knobs))


def _of_kinds(prefix: str, kinds: Kinds) -> list[Knob]:
    """The distinct settings of all kinds: first the one that selects the kind, then in the order of the classes."""
    effects, merged = [], dict[tuple[str, str], Knob]()
    for model in dict.fromkeys(kinds.classes.values()):
        names = tuple(kind for kind, cls in kinds.classes.items() if cls is model)
        text = _plain_text(fields_of(model)[kinds.key].description)
        effects.append(text if len(names) > 1 else f"{names[0]}: {text}")
        for knob in _of_model(model, prefix):
            if knob.key == prefix + kinds.key:
                continue
            earlier = merged.get((knob.key, knob.effect))
            merged[knob.key, knob.effect] = replace(knob, kinds=(*(earlier.kinds if earlier else ()), *names))
    which = Knob(
        prefix + kinds.key,
        "text",
        kinds.default is None,
        kinds.default,
        tuple(kinds.classes),
        "",
        (),
        " ".join(effects),
    )
    everywhere = len(kinds.classes)
    return [which, *(replace(k, kinds=()) if len(k.kinds) == everywhere else k for k in merged.values())]


def _of_model(model: type[BaseModel], prefix: str) -> Iterator[Knob]:
    for name, field in fields_of(model).items():
        yield _knob(prefix + name, field)
        yield from _below(prefix + name, field.annotation)


def _below(key: str, annotation: Any) -> Iterator[Knob]:
    """The settings below a setting that is a section, a map of sections, or a list of sections."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _of_model(annotation, f"{key}.")
    elif origin in (types.UnionType, Union, Annotated):
        for one in arguments:
            yield from _below(key, one)
    elif origin is dict:
        yield from _below(f"{key}.NAME", arguments[1])
    elif origin is list:
        yield from _below(f"{key}[]", arguments[0])


def _knob(key: str, field: FieldInfo) -> Knob:
    required = field.is_required()
    default = None if required else field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, BaseModel):
        default = default.model_dump()
    name, choices, bounds = _type(field.annotation)
    return Knob(
        key,
        name,
        required,
        default,
        choices,
        ", ".join([*bounds, *_bounds(field.metadata)]),
        (),
        _plain_text(field.description),
    )


def _type(annotation: Any) -> tuple[str, tuple[str, ...], list[str]]:
    """(name, listed values, bounds) of a type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        name, choices, bounds = _type(arguments[0])
        return name, choices, [*bounds, *_bounds(arguments[1:])]
    if origin is Literal:
        return "text", tuple(map(str, arguments)), []
    if origin in (types.UnionType, Union):
        parts = [_type(one) for one in arguments]
        choices = tuple(choice for _, values, _ in parts for choice in values)
        names = list(dict.fromkeys(name for name, _, _ in parts))
        if {"whole number", "number"} <= set(names):
            names.remove("whole number")
        return " or ".join(names), choices, [bound for _, _, bounds in parts for bound in bounds]
    if origin is list:
        name, choices, bounds = _type(arguments[0])
        return f"list of {name}", choices, [f"each {bound}" for bound in bounds]
    if origin is dict:
        return f"map of names to {_type(arguments[1])[0]}", (), []
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section", (), []
    return _PLAIN.get(annotation, "any value"), (), []


def _bounds(metadata: Sequence[Any]) -> list[str]:
    bounds = []
    # Pydantic keeps the bounds of a type inside a union or a list in a FieldInfo.
    for one in [bound for entry in metadata for bound in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]:
        for name, word in _BOUNDS.items():
            if (value := getattr(one, name, None)) is not None:
                bounds.append(f"{word} {value:g}")
        if isinstance(one, at.MinLen):
            bounds.append("not empty" if one.min_length == 1 else f"at least {one.min_length} values")
        if isinstance(one, at.MaxLen):
            bounds.append(f"at most {one.max_length} values")
    return bounds


def _plain_text(text: str | None) -> str:
    return " ".join((text or "").split())
