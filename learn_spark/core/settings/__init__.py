"""Typed settings: conf/*.yaml with ``--set`` overrides; unknown keys are errors."""

from learn_spark.core.settings.load import load_experiment, load_settings, save_settings
from learn_spark.core.settings.schema import Settings

__all__ = ["Settings", "load_experiment", "load_settings", "save_settings"]
