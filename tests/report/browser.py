"""The page in a real browser: what Chromium lays out and paints, measured in frames of several widths."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
)
MEASURE = (Path(__file__).parent / "measure.js").read_text(encoding="utf-8")


def chromium() -> str:
    """The browser of this machine: $CHROMIUM or one on PATH; AssertionError that says how to get one."""
    named = os.environ.get("CHROMIUM")
    found = [path for name in ([named] if named else NAMES) if name and (path := shutil.which(name))]
    assert found, (
        f"no browser found ({named or ', '.join(NAMES)}); the report's tests open it in Chromium. Install one "
        "(Debian: apt-get install chromium), or name one: CHROMIUM=/path/to/chrome"
    )
    return found[0]


def measure(page: str, folder: Path, *, widths: tuple[int, ...], dark: bool) -> dict[int, dict[str, Any]]:
    """What ``measure.js`` finds in the page, by the width of the window in CSS pixels."""
    frames = "".join(
        f'<iframe data-width="{width}" style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(page)}">'
        "</iframe>"
        for width in widths
    )
    name = "dark" if dark else "light"
    around = folder / f"{name}.html"
    around.write_text(
        f'<!doctype html><meta charset="utf-8">{frames}<script>{MEASURE}</script><pre id="found"></pre>',
        encoding="utf-8",
    )
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [
        chromium(),
        *FLAGS,
        scheme,
        f"--user-data-dir={folder / name}",
        "--window-size=1400,1000",
        "--dump-dom",
        around.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    result = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.S)
    assert result, f"the browser gave no result (exit code {done.returncode}):\n{done.stderr[-3000:]}"
    return {int(width): found for width, found in json.loads(html.unescape(result[1])).items()}
