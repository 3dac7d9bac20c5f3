"""The encoders table: the model and settings behind each encoder_key."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_depending, read_rows
from learn_spark.core.tables.workspace import Workspace
from learn_spark.encoder.identity import EncoderIdentity


def register_encoder(workspace: Workspace, identity: EncoderIdentity) -> None:
    """Register the model and settings of a key, once."""
    path = workspace.table("encoders")
    row = {
        "encoder_key": identity.key,
        "model": identity.model,
        "revision": identity.revision,
        "architecture": _architecture(identity),
        "pooling": identity.pooling,
        "prefix": identity.prefix,
        "max_tokens": identity.max_tokens,
        "normalise": identity.normalise,
        "precision": identity.precision,
        "first_used_at": datetime.now(UTC),
    }
    append_depending(
        path,
        contract("encoders"),
        lambda: (
            []
            if any(registered["encoder_key"] == identity.key for registered in read_rows(path, ["encoder_key"]))
            else [row]
        ),
    )


def _architecture(identity: EncoderIdentity) -> str | None:
    config = identity.path / "config.json"
    if not config.is_file():
        return None
    architectures = json.loads(config.read_text(encoding="utf-8")).get("architectures") or [None]
    return str(architectures[0]) if architectures[0] else None
