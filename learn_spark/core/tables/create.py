"""Creates a Delta table without Spark, which would take much longer, by writing its first commit."""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

from deltalake import Schema

from learn_spark.core.tables.contracts import Contract

FOREVER = "interval 36500 days"


def create_table(path: str, contract: Contract) -> None:
    """Write version 0 of the table at ``path``: columns, NOT NULL and CHECK constraints and properties in one commit.

    Does nothing if another process has written that version. The commit is the one that delta-spark writes
    (actions: github.com/delta-io/delta/blob/master/PROTOCOL.md). ``deltalake.DeltaTable.create`` would leave
    checkConstraints out of the protocol, so that other writers could ignore them.
    """
    log = Path(path) / "_delta_log"
    log.mkdir(parents=True, exist_ok=True)
    temporary = log / f".{uuid.uuid4()}.tmp"
    lines = (json.dumps(action, separators=(",", ":"), ensure_ascii=False) for action in _first_commit(contract))
    temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    try:
        # A link fails if the name exists; a rename would replace the other process's commit.
        os.link(temporary, log / f"{0:020}.json")
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _first_commit(contract: Contract) -> list[dict[str, Any]]:
    now = time.time_ns() // 1_000_000
    properties = table_properties(contract)
    commit = {
        "timestamp": now,
        "operation": "CREATE TABLE",
        "operationParameters": {
            "partitionBy": "[]",
            "clusterBy": "[]",
            "description": None,
            "isManaged": "false",
            "properties": json.dumps(properties),
        },
        "isolationLevel": "Serializable",
        "isBlindAppend": True,
        "operationMetrics": {},
        "engineInfo": "learn-spark",
        "txnId": str(uuid.uuid4()),
    }
    metadata = {
        "id": str(uuid.uuid4()),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": Schema.from_arrow(contract.arrow_schema()).to_json(),
        "partitionColumns": [],
        "configuration": properties,
        "createdTime": now,
    }
    return [{"commitInfo": commit}, {"metaData": metadata}, {"protocol": _protocol(contract)}]


def table_properties(contract: Contract) -> dict[str, str]:
    """The properties of a table of this contract, its CHECK constraints included."""
    properties = {"delta.enableDeletionVectors": "false"}
    properties |= {f"delta.constraints.{name}": condition for name, condition in contract.constraints.items()}
    if contract.change_data_feed:
        properties["delta.enableChangeDataFeed"] = "true"
    if contract.keeps_versions:
        # By default 30 and 7 days, after which a checkpoint or a VACUUM makes older versions unreadable.
        properties["delta.logRetentionDuration"] = FOREVER
        properties["delta.deletedFileRetentionDuration"] = FOREVER
    return properties


def _protocol(contract: Contract) -> dict[str, Any]:
    """The lowest protocol with the features that the table needs, as delta-spark chooses it."""
    if contract.change_data_feed:
        features = ["appendOnly", "invariants", "changeDataFeed"]
        if contract.constraints:
            features.insert(2, "checkConstraints")
        return {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": features}
    return {"minReaderVersion": 1, "minWriterVersion": 3 if contract.constraints else 2}
