"""The documentation: the site is built without a dead link, the README's links lead somewhere, pictures are current."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """The command of ``make site``, on another configuration and into another folder."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (options,) = re.findall(r"-m (mkdocs build.*)$", makefile, re.M)
    command = [sys.executable, "-m", *options.split(), "--config-file", str(config), "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    built = build(ROOT / "mkdocs.yml", tmp_path / "site")
    assert built.returncode == 0, built.stdout + built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=\"?(https?:[^\"\s>]+)", text)
        loaded += re.findall(r"<link[^>]*rel=\"?(?:stylesheet|preconnect)\"?[^>]*href=\"?(https?:[^\"\s>]+)", text)
        assert loaded == [], page.name


@pytest.mark.parametrize("link", ["nowhere.md", "data.md#no-such-table", "images/nothing.svg"])
def test_a_dead_link_fails_the_build(link: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Start\n\n[there]({link}), [data](data.md)\n")
    (tmp_path / "docs" / "data.md").write_text("# Data\n")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:\n")[0]
    (tmp_path / "mkdocs.yml").write_text(settings)
    built = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert built.returncode == 1
    assert link in built.stderr + built.stdout


def test_the_links_of_readme_and_contributing_lead_to_files() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        missing = [link for link in LINK.findall(text) if not (ROOT / link).exists()]
        assert missing == [], name
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_file_that_the_architecture_names_is_there() -> None:
    for page in ("ARCHITECTURE.md", "contributing/index.md", "contributing/change.md", "guides/adding-a-tower.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        named = re.findall(r"`((?:learn_spark|tests|jobs|scripts|schemas|conf|docs)/[\w./-]*)`", text)
        assert named, page
        # test_mean.py and mean.py are what the guide's reader writes.
        missing = [path for path in named if not (ROOT / path).exists() and "mean" not in path]
        assert missing == [], page
    rooms = re.findall(r"^\| `([\w/]+)`", (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.M)
    folders = {path.parent.relative_to(ROOT / "learn_spark") for path in (ROOT / "learn_spark").rglob("__init__.py")}
    described = {Path(room) for room in rooms}
    assert {folder.parts[0] for folder in folders if folder.parts} <= {room.parts[0] for room in described}
    assert {folder for folder in folders if folder.parts[:1] == ("model",)} <= described


def test_the_pictures_of_the_architecture_are_current(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "scripts/draw_architecture.py", str(tmp_path)], cwd=ROOT, check=True, timeout=60)
    for name in ("rooms.svg", "road.svg"):
        assert (tmp_path / name).read_bytes() == (ROOT / "docs" / "images" / name).read_bytes(), name


def test_each_decision_is_dated_and_listed() -> None:
    index = (ROOT / "docs" / "decisions" / "index.md").read_text(encoding="utf-8")
    records = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text(encoding="utf-8")
        assert re.search(r"^Date: \d{4}-\d\d-\d\d$", text, re.M), record.name
        heads = re.findall(r"^## (.+)$", text, re.M)
        assert heads == ["Context", "Decision", "Consequences"], record.name
        assert f"]({record.name})" in index
