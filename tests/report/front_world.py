"""The planted workspace with all that a front page can show, and hostile texts where strangers may write them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from tests.report.planted import FIRST_DAY, plant, release_row
from tests.report.workspace import HOSTILE, N_USERS, Planted

FIRST_ITEMS = 20  # which the first delivery had


class FrontWorld(Planted):
    """A released model and a newer one, two deliveries of items, refused rows, a refused release and an experiment."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        inputs = self._of("user_histories", "item_index", "item_text", "text_embeddings")
        self.newer_id = self._model(seed=8)
        self._run("train", inputs, (), outputs={f"models/{self.newer_id}": "hash"}, parameters=1234)
        inputs["model"] = self.newer_id
        self._evaluation(self._run("evaluate", inputs, (), rows_in=N_USERS, rows_out=2 * N_USERS), self.newer_id, 1.5)
        self._refused()
        self._experiment()

    def _tables(self) -> dict[str, str]:
        first = [{"item_id": f"first-{number}", "title": "Old film"} for number in range(FIRST_ITEMS)]
        self._run("ingest", {}, (), outputs={"items": plant(self.workspace, "items", first)})
        return super()._tables()

    def _release(self, run_id: str) -> None:
        rule = {"measure": "item_ids", "least": 30, "most": 30, "meaning": "items", "severity": "fail"}
        gate = json.dumps([{**rule, "observed": 30.0, "passed": True}])
        as_of = FIRST_DAY + timedelta(days=30)
        ours = {"run_id": run_id, "model_id": self.model_id}
        rows = [
            release_row(1, "r1", "staged", as_of, **ours),
            release_row(2, "r1", "released", as_of, gate_results=gate, **ours),
            release_row(3, "r2", "refused", as_of, run_id="none", note=f"the audit refused it: {HOSTILE}"),
        ]
        plant(self.workspace, "releases", rows)

    def _refused(self) -> None:
        shared = {"source_table": "interactions", "raw": "{}", "source_file": "log.csv", "run_id": self.runs["ingest"]}
        rows = [
            {**shared, "row_id": "0", "reasons": ["no user_id"], "occurrences": 1},
            {**shared, "row_id": "1", "reasons": [HOSTILE, "no user_id"], "occurrences": 2},
        ]
        plant(self.workspace, "quarantine", rows)

    def _experiment(self) -> None:
        effect = {"lift": 0.125, "lift_low": 0.05, "lift_high": 0.2}
        shared = {"treatment": HOSTILE, "plain": effect, "reduced": None, "p_adjusted": 0.0125}
        result = {
            "name": "coupon",
            "control": "control",
            "primary": "conversion_rate",
            "users": {"control": 500, "treated": 510},
            "checks": [{"verdict": "passed"}, {"verdict": "warning"}],
            "whole": [{"metric": name, **shared} for name in ("revenue_per_user", "conversion_rate")],
        }
        reports = self.workspace.place / "reports"
        (reports / "coupon.json").write_text(json.dumps(result))
        (reports / "coupon.html").write_text("a page")
        # Neither is an experiment: one has no page, the other no result.
        (reports / "other.json").write_text(json.dumps(result))
        (reports / "broken.json").write_text("[1")
        (reports / "broken.html").write_text("a page")
