"""Every command that opens a workspace gives signs of life while it works."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from learn_spark.commands.app import Opened, run_in_workspace
from tests.world import write_config, write_raw


def test_a_silent_command_is_spoken_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_raw(tmp_path / "raw")
    config = write_config(tmp_path / "small.yaml", raw=raw, workspace=tmp_path / "workspace", model=tmp_path)
    lines: list[str] = []

    def work(opened: Opened) -> None:
        said = threading.Event()

        def write(line: str) -> None:
            lines.append(line)
            said.set()

        monkeypatch.setattr(opened.console.ticker, "_write", write)
        opened.console.at("thinking")
        assert said.wait(60)

    assert run_in_workspace(str(config), [], False, work) == 0
    assert "thinking" in lines[0]
