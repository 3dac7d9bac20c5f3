"""Loads settings from conf/*.yaml with ``--set key=value`` overrides, and reports errors in either."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from learn_spark.core.errors import SettingsError
from learn_spark.core.resources import resource_folder
from learn_spark.core.settings.experiment import ExperimentSettings
from learn_spark.core.settings.explain import explain
from learn_spark.core.settings.kinds import drop_settings_of_other_kinds, parts_of, with_kinds_named
from learn_spark.core.settings.renamed import as_tree, refuse_old_keys
from learn_spark.core.settings.schema import Settings
from learn_spark.core.settings.secrets import hidden
from learn_spark.core.settings.study import StudySettings
from learn_spark.core.settings.yaml_text import parse_yaml, read_yaml
from learn_spark.core.storage.path import StoragePath, storage_path

_Model = TypeVar("_Model", bound=BaseModel)
# Settings inside sections that results depend on, on which no result depends: no stage runs again for them.
WITHOUT_INFLUENCE = {"training": ("tracking",)}


def find_config(name: str) -> Path:
    """The settings file at the path ``name``, or the preset of that name in conf/. Raises SettingsError."""
    path = Path(name)
    if path.is_file():
        return path
    bundled = resource_folder("conf")
    if re.fullmatch(r"[\w.-]+", name):
        candidate = bundled / (name if name.endswith(".yaml") else f"{name}.yaml")
        if candidate.is_file():
            return candidate
    presets = sorted(p.stem for p in bundled.glob("*.yaml"))
    raise SettingsError(
        f"there is no settings file {name!r}; give the path of a YAML file, or a preset: {', '.join(presets)}"
    )


def _read_tree(path: Path, model: type[BaseModel], above: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in above:
        raise SettingsError(f"{path} extends itself; for the preset of this name write extends: conf/{path.name}")
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise SettingsError(f"{path} must contain settings as 'key: value', not {type(tree).__name__}")
    refuse_old_keys(tree, str(path))
    named = tree.pop("extends", None)
    if named is None:
        return tree
    bases = named if isinstance(named, list) else [named]
    merged: dict[str, Any] = {}
    for base in bases:
        sibling, preset = path.parent / str(base), resource_folder("conf") / str(base).removeprefix("conf/")
        base_path = sibling if sibling.is_file() else preset
        if not base_path.is_file():
            raise SettingsError(f"{path} extends {base}, but there is no file {sibling}, and no preset {base} in conf/")
        merged = _upon(merged, _read_tree(base_path, model, (*above, path.resolve())), model)
    return _upon(merged, tree, model)


def _upon(base: Mapping[str, Any], over: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """``over`` merged into ``base``, key by key.

    If it changes the kind of a section, settings of ``base`` that the new kind does not have are dropped; those in
    ``over`` are kept, and validated later.
    """
    return _merge(drop_settings_of_other_kinds(base, over, model), over)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged


def _parse_override(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.[\w.-]+)*", key):
        raise SettingsError(f"--set {override!r} is not of the form key=value (for example training.epochs=5)")
    value = parse_yaml(text, f"--set {key}") if text else None
    if isinstance(value, str) and " #" in text and text[0] not in "'\"":
        value = text  # YAML would drop what follows " #" as a comment, such as the end of a folder's name
    refuse_old_keys(as_tree(key, value), f"--set {key}")
    return key, value


def _apply_override(tree: dict[str, Any], key: str, value: Any, model: type[BaseModel]) -> None:
    parts = parts_of(key, model)
    node = tree
    for part in parts[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise SettingsError(f"--set {key}: {part!r} is a value, not a section")
    if isinstance(node.get(parts[-1]), Mapping) and value is not None and not isinstance(value, Mapping):
        raise SettingsError(f"--set {key}: {parts[-1]!r} is a section; set a key inside it")
    node[parts[-1]] = value


def load_settings(config: str | Path, overrides: Iterable[str] = ()) -> Settings:
    """The settings of ``config`` (a path, or a name in conf/) with ``key=value`` overrides.

    Raises SettingsError for an unknown key (with the nearest valid one), a wrong type, or a contradiction.
    """
    path = find_config(str(config))
    return _validated(Settings, _read_tree(path, Settings), overrides, str(path))


def load_experiment(described: str | Path | Mapping[str, Any], overrides: Iterable[str] = ()) -> ExperimentSettings:
    """The settings of an experiment, from a YAML file or a mapping, with ``key=value`` overrides.

    Raises SettingsError as ``load_settings``.
    """
    if isinstance(described, Mapping):
        return _validated(ExperimentSettings, _merge({}, described), overrides, "the experiment")
    return _validated(ExperimentSettings, _read_tree(Path(described), ExperimentSettings), overrides, str(described))


def load_study(plan: str | Path, overrides: Iterable[str] = ()) -> StudySettings:
    """A study's plan, with ``key=value`` overrides of the plan's keys. Raises SettingsError as ``load_settings``."""
    path = Path(plan)
    if not path.is_file():
        raise SettingsError(f"there is no study plan {plan}; give the path of a YAML file (docs/studies.md)")
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise SettingsError(f"{path} must hold a study plan as 'key: value', not {type(tree).__name__}")
    return _validated(StudySettings, tree, overrides, str(path))


def _validated(model: type[_Model], tree: dict[str, Any], overrides: Iterable[str], where: str) -> _Model:
    given: list[str] = []
    for override in overrides:
        key, value = _parse_override(override)
        # Settings given by an earlier override are kept, so that one of another kind is an error and not ignored.
        tree = drop_settings_of_other_kinds(tree, as_tree(key, value), model, keep=given)
        _apply_override(tree, key, value, model)
        given.append(key)
    try:
        return model.model_validate(with_kinds_named(tree, model))
    except ValidationError as error:
        raise SettingsError(f"settings of {where} are wrong:\n{explain(error, model)}") from None


def redacted(settings: Settings) -> dict[str, Any]:
    """The settings as plain values, with ``***`` for secrets (``secrets.hidden``)."""
    result: dict[str, Any] = hidden(settings.model_dump())
    return result


def save_settings(settings: Settings, folder: Path | StoragePath) -> Path | StoragePath:
    """Write the resolved settings to ``folder``/settings.yaml, atomically, with secrets redacted; the path."""
    path = folder / "settings.yaml"
    storage_path(path).write_text(yaml.safe_dump(redacted(settings), sort_keys=False, allow_unicode=True))
    return path


def fingerprint(settings: Settings, sections: Iterable[str]) -> str:
    """SHA-256 of the ``section_values``; equal fingerprints mean equal settings of a stage."""
    return hashlib.sha256(json.dumps(section_values(settings, sections), sort_keys=True).encode()).hexdigest()


def section_values(settings: Settings, sections: Iterable[str]) -> dict[str, Any]:
    """The values of the named sections, and of single keys such as ``evaluation.ks``, as plain values.

    Without the settings on which no result depends (``WITHOUT_INFLUENCE``).
    """
    tree = settings.model_dump()
    for name, keys in WITHOUT_INFLUENCE.items():
        tree[name] = {key: value for key, value in tree[name].items() if key not in keys}
    values: dict[str, Any] = {}
    for name in sorted(sections):
        section, _, key = name.partition(".")
        if key:
            values.setdefault(section, {})[key] = tree[section][key]
        else:
            values[section] = tree[section]
    return values
