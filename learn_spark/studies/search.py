"""The search over settings: a number of trainings, chosen by validation, and resumed after an interruption.

Optuna proposes settings (tree-structured Parzen estimators) and stores the results. Every trial is an ordinary train
stage, so that a killed trial continues from its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError, SettingsError
from learn_spark.core.settings import Settings, save_settings
from learn_spark.core.settings.load import fingerprint
from learn_spark.core.settings.search import ParameterSettings
from learn_spark.core.stages.code import stage_version
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.storage.locks import lock_or_refuse
from learn_spark.core.table_text import Column
from learn_spark.core.tables.workspace import Workspace
from learn_spark.model.manifest import read_manifest
from learn_spark.model.reranking.fit import RerankerError
from learn_spark.model.training.loop import TrainingError
from learn_spark.pipeline.runner import plan_stage, run_stages

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

METRIC = "NDCG@10"
OF_TRIALS = ("training.trial=true",)


@dataclass(frozen=True)
class SearchResult:
    """The result of a search: its folder, the best trial by validation, and the number of trials with a figure."""

    folder: Path
    values: dict[str, Any]
    model_id: str
    validation: float
    trials: int


def search(
    load: Callable[[Sequence[str]], Settings],
    *,
    console: Reporter,
    trials: int | None = None,
    dry_run: bool = False,
    verbose: bool = False,
) -> SearchResult | None:
    """Train with ``search.trials`` (or ``trials``) combinations of ``search.parameters`` and keep the best by
    validation.

    ``load`` gives the settings with more overrides. The first trial is the unchanged settings, where they lie within
    the parameters' ranges. No trial is trained on the targets that it is judged by, and none sees a test event. Results
    are stored in <workspace>/searches/<key>: study.db (Optuna's), trials.json, and settings.yaml with the best
    settings. The key depends on the code, the settings, the parameters and the versions of the tables: if one of them
    changes, the search is another.

    A training that diverges, and contradictory values, are trials without a figure. Raises SettingsError where
    ``search.parameters`` is empty; LearnSparkError where no trial has a figure, and where the same search is running.
    """
    settings = load(())
    if not settings.search.parameters:
        raise SettingsError("search.parameters is empty: name the settings to search over, such as tower.dropout")
    workspace = Workspace.open(settings.place, settings.scratch)
    target = trials or settings.search.trials
    key = _key(settings, workspace)
    folder = workspace.scratch / "searches" / key if dry_run else workspace.folder("searches", key)
    if dry_run:
        _show_plan(folder, target, console)
        return None
    with lock_or_refuse(folder / ".lock", f"the search in {folder}", "a run of search"):
        return _search(_study(folder), folder, settings, load, target, console, verbose)


def search_folder(settings: Settings) -> Path:
    """The folder of the search of these settings on the current table versions."""
    workspace = Workspace.open(settings.place, settings.scratch)
    return workspace.scratch / "searches" / _key(settings, workspace)


def _search(
    study: Study,
    folder: Path,
    settings: Settings,
    load: Callable[[Sequence[str]], Settings],
    target: int,
    console: Reporter,
    verbose: bool,
) -> SearchResult:
    parameters = settings.search.parameters
    _enqueue_interrupted(study, settings.search.judged_by)
    if not study.trials and (unchanged := _unchanged_values(settings, parameters)) is not None:
        study.enqueue_trial(unchanged)
    while len(_finished(study)) < target:
        _set_sampler(study, settings.search.seed)
        trial = study.ask()
        values = {key: _propose(trial, key, parameter) for key, parameter in parameters.items()}
        listed = ", ".join(f"{key} {_short(value)}" for key, value in values.items())
        console.heading(f"trial {len(_finished(study)) + 1} of {target}: {listed}")
        _train(study, trial, partial(load, [*_overrides(values), *OF_TRIALS]), console, verbose)
    result = _best(study, folder)
    save_settings(load(_overrides(result.values)), folder)
    _show(study, result, console)
    return result


def _show_plan(folder: Path, target: int, console: Reporter) -> None:
    done = _finished(_study(folder)) if (folder / "study.db").is_file() else []
    console.line(f"{len(done)} of {target} trials are finished, in {folder}")
    seconds = [trial.user_attrs["seconds"] for trial in done]
    if seconds and len(done) < target:
        console.line(
            f"about {(target - len(done)) * sum(seconds) / len(seconds):,.0f} s more by the mean of the finished trials"
        )


def _key(settings: Settings, workspace: Workspace) -> str:
    stage = find_stage("train")
    plan = {
        "settings": fingerprint(settings, stage.sections),
        "search": settings.search.model_dump(exclude={"trials"}),
        "inputs": dict(plan_stage(stage, settings, workspace).inputs),
        "code": stage_version(stage),
    }
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]


def _study(folder: Path) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    return optuna.create_study(study_name="search", storage=storage, direction="maximize", load_if_exists=True)


def _set_sampler(study: Study, seed: int) -> None:
    """A sampler that depends only on the seed and the finished trials, so that a resumed search continues unchanged."""
    import optuna

    study.sampler = optuna.samplers.TPESampler(seed=seed + len(_finished(study)))


def _finished(study: Study) -> list[FrozenTrial]:
    """Trials that ended, with a figure or with a failed training."""
    return [trial for trial in study.trials if "seconds" in trial.user_attrs]


def _enqueue_interrupted(study: Study, judged_by: str) -> None:
    from optuna.trial import TrialState

    for trial in study.trials:
        if trial.state != TrialState.RUNNING:
            continue
        if "seconds" in trial.user_attrs and (figures := trial.user_attrs.get(judged_by)):
            study.tell(trial.number, figures[METRIC])  # it had ended, and the study did not know it
            continue
        study.tell(trial.number, state=TrialState.FAIL)
        if "seconds" not in trial.user_attrs and trial.params:
            study.enqueue_trial(trial.params)


def _unchanged_values(settings: Settings, parameters: dict[str, ParameterSettings]) -> dict[str, Any] | None:
    values = {}
    for key, parameter in parameters.items():
        value: Any = settings.model_dump()
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise SettingsError(f"search.parameters names {key}, which is not a setting")
            value = value[part]
        inside = value in parameter.choices if parameter.choices is not None else _between(parameter, value)
        if not inside:
            return None
        values[key] = value
    return values


def _between(parameter: ParameterSettings, value: Any) -> bool:
    assert parameter.low is not None
    assert parameter.high is not None
    return isinstance(value, int | float) and parameter.low <= value <= parameter.high


def _propose(trial: Trial, key: str, parameter: ParameterSettings) -> Any:
    if parameter.choices is not None:
        return trial.suggest_categorical(key, parameter.choices)
    assert parameter.low is not None
    assert parameter.high is not None
    if isinstance(parameter.low, int) and isinstance(parameter.high, int):
        return trial.suggest_int(key, parameter.low, parameter.high, log=parameter.log)
    return trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log)


def _overrides(values: dict[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def _train(study: Study, trial: Trial, load: Callable[[], Settings], console: Reporter, verbose: bool) -> None:
    from optuna.trial import TrialState

    clock = time.monotonic()
    try:
        settings = load()
        (outcome,) = run_stages(["train"], settings, console=console, verbose=verbose)
    except (SettingsError, TrainingError, RerankerError) as error:
        trial.set_user_attr("failure", str(error)[:500])
        trial.set_user_attr("seconds", time.monotonic() - clock)
        study.tell(trial, state=TrialState.FAIL)
        console.say(f"failed: {error}")
        return
    model_id = outcome.run.model_id
    assert model_id is not None
    manifest = read_manifest(Workspace.open(settings.place, settings.scratch).place / "models" / model_id)
    for name, value in {
        "model_id": model_id,
        "epochs": manifest.epochs,
        "best_epoch": manifest.best_epoch,
        "parameters": manifest.parameters,
        "model": manifest.validation,
        "vectors": manifest.released_validation,
        "seconds": time.monotonic() - clock,
    }.items():
        trial.set_user_attr(name, value)
    study.tell(trial, trial.user_attrs[settings.search.judged_by][METRIC])


def _best(study: Study, folder: Path) -> SearchResult:
    figures = [trial for trial in _finished(study) if trial.value is not None]
    if not figures:
        raise LearnSparkError(f"search: none of {len(_finished(study))} trials has a figure; see {folder}")
    best = max(figures, key=lambda trial: (trial.value, -trial.number))
    rows = [{"number": t.number, "values": t.params, METRIC: t.value, **dict(t.user_attrs)} for t in _finished(study)]
    (folder / "trials.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    assert best.value is not None
    return SearchResult(folder, dict(best.params), best.user_attrs["model_id"], best.value, len(figures))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _show(study: Study, result: SearchResult, console: Reporter) -> None:
    finished = sorted(_finished(study), key=lambda t: -1.0 if t.value is None else -t.value)
    names = list(result.values)
    console.table(
        f"Search: {len(finished)} trials by {METRIC} on validation",
        ["trial", *names, Column(METRIC, ".4f"), "epoch", Column("seconds", ",.0f")],
        [
            [
                t.number,
                *(_short(t.params[n]) for n in names),
                "failed" if t.value is None else t.value,
                t.user_attrs.get("best_epoch"),
                t.user_attrs["seconds"],
            ]
            for t in finished
        ],
        name="trials",
    )
    console.line(
        f"best   {result.folder / 'settings.yaml'}  (model {result.model_id}, {METRIC} {result.validation:.4f})"
    )
