"""Settings of tracking: an MLflow server, and a receiver of OpenLineage events. No result depends on them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from learn_spark.core.settings.base import Count, Rate, Section


class MlflowSettings(Section):
    """The MLflow server of training.tracking mlflow (docs/tracking.md). Credentials are never settings: its client
    reads them from the environment (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN)."""

    uri: Annotated[str, Field(pattern=r"^https?://[^@/]+(/[^@]*)?$")] | None = None
    """URL of the server, such as http://mlflow:5000; null: MLFLOW_TRACKING_URI."""
    experiment: Annotated[str, Field(min_length=1)] = "learn-spark"
    """The experiment that gets one run a model; it is made if it is not there."""
    model: Annotated[str, Field(pattern=r"^[^/:]+$")] = "learn-spark"
    """The registered model that gets one version a release. Each workspace needs its own."""
    seconds_between_points: Rate = 10.0
    """Seconds between two transmissions of the points of a curve."""
    timeout_seconds: Count = 10
    """Seconds without an answer after which a request fails; it is not repeated."""
    wait_seconds: Count = 300
    """The most seconds that a stage waits at its end for what is not sent yet, such as the model folder."""


class OpenLineageSettings(Section):
    """Events of OpenLineage for every run of a stage: START, then COMPLETE, FAIL or ABORT (docs/tracking.md). With
    neither url nor file there are none. An API key is never a setting: OPENLINEAGE_API_KEY has it."""

    url: Annotated[str, Field(pattern=r"^https?://[^@/]+(/[^@]*)?$")] | None = None
    """URL of the receiver, such as http://marquez:5000."""
    endpoint: str = "api/v1/lineage"
    """Path at the receiver that takes events."""
    file: str | None = None
    """File of this machine to which events are appended, one JSON object a line; relative to the current folder."""
    namespace: Annotated[str, Field(min_length=1)] = "learn-spark"
    """Namespace of the jobs, which are named by the stages. Each workspace needs its own."""
    timeout_seconds: Count = 5
    """Seconds without an answer after which a request fails; it is not repeated."""
