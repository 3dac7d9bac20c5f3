"""The model card of an exported user tower: what it is, its inputs and outputs, and what it is worth."""

from __future__ import annotations

from learn_spark.core.parts import VERSION
from learn_spark.evaluation.labels import shown_metrics
from learn_spark.features.export.manifest import ITEMS_FILE, MANIFEST_FILE, TEST_FILE, ExportManifest
from learn_spark.model.manifest import ModelManifest


def model_card(export: ExportManifest, model: ModelManifest) -> str:
    """The card as Markdown."""
    of = f"release {export.release_id}" if export.release_id else "no release: the model was named by its id"
    return f"""# User tower {export.model_id}

A {export.method} tower, exported by learn-spark {VERSION}. It maps the events of a user to the vector that learn-spark
{"releases" if export.release_id else "would release"} for that user ({of}). The inner product with an item's vector of
the same model is the score by which items are ranked.

| | |
|---|---|
| graph | `{export.graph}` ({", ".join(f"{name} {version}" for name, version in export.written_by.items())}) |
| vectors | {export.output_dim} numbers, {"of length 1" if export.normalised else "of any length"} |
| content and popularity blended in | {"yes" if export.blended else "no"} |
| items | {export.n_items:,}; `{ITEMS_FILE}` lists ids by item_index |
| events read | the last {export.window} |
| tables | {", ".join(f"{table} {version}" for table, version in export.versions.items())} |
| compared with the tower | {_checked(export)} |

## Inputs

{_inputs(export)}

## Outputs

| name | shape | |
|---|---|---|
| vectors | [batch, {export.output_dim}] float32 | the user after the last event; NaN where no event could be read |
| events | [batch] int64 | the number of events that were read, at most {export.window} |
| unknown | [batch] int64 | the number of indices outside the catalogue, which were left out |

`{TEST_FILE}` has inputs (`input_*`) and outputs (`output_*`) of drawn histories; `{MANIFEST_FILE}` has all
facts and the SHA-256 of every file.

## Training

Trained {f"on events before {export.trained_as_of}" if export.trained_as_of else "on all events"} by the
rule {model.training_rule}, seed {model.seed},
{model.best_epoch} of {model.epochs} epochs, {model.parameters:,} parameters,
frozen LLM {model.encoder_key[:12]}, template {model.template_version}.

{_figures(model)}

## Limits

The vectors of users without any event, and of events with items that are neither in the catalogue nor in new_items, do
not exist. Item vectors are not in this folder: they are item_features of the release. A newly trained model needs a new
export, because vectors of two models cannot be compared.
"""


def _checked(export: ExportManifest) -> str:
    checked = export.checked
    text = f"{checked.users} users, largest difference {checked.largest_difference:.1e}"
    return text if checked.of_release is None else f"{text}; with their released vectors {checked.of_release:.1e}"


def _inputs(export: ExportManifest) -> str:
    rows = [
        (
            "items",
            "[batch, length] int64",
            f"item_index of events, oldest first; 0 is padding, anywhere; {export.n_items} + m is row m of new_items"
            if export.content_dim
            else "item_index of events, oldest first; 0 is padding, anywhere",
        )
    ]
    if export.content_dim:
        rows.append(
            (
                "new_items",
                f"[new, {export.content_dim}] float32",
                "content of items that are newer than this folder, in the model's embedding space; 0 rows for none",
            )
        )
    if export.needs_times:
        rows.append(("times", "[batch, length] int64", "times of the events in microseconds since 1970, UTC"))
    return "| name | shape | |\n|---|---|---|\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _figures(model: ModelManifest) -> str:
    figures = "\n".join(f"| {name} | {value:.4f} |" for name, value in shown_metrics(model.released_validation).items())
    users = "" if model.validation_users is None else f", {model.validation_users:,} users"
    return f"| validation targets of the selection{users} | |\n|---|---|\n{figures}"
