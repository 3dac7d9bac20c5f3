"""Attacks on who reads: text of strangers on terminals, in JSON and in pages; modes of what is written."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from markupsafe import Markup

from learn_spark.core.console import Reporter, strict_json
from learn_spark.core.settings import load_settings, save_settings
from learn_spark.core.storage.files import replace_bytes
from learn_spark.core.storage.path import storage_path
from learn_spark.core.tables.workspace import Workspace
from learn_spark.core.visible import visible
from learn_spark.data.text.templates import template
from learn_spark.report.templates import environment
from learn_spark.report.titles import plain_title

OVERRIDE, ESCAPE, CSI = "\u202e", "\x1b[31m", "\x9b31m"
EVIL = f"a{OVERRIDE}gpj.exe{ESCAPE}red{CSI}\r\nb\ufeff\U000e0041"
ACTS = [OVERRIDE, "\x1b", "\x9b", "\r", "\ufeff", "\U000e0041"]
HTML = '</title><script>alert(1)</script>"><img src=x onerror=alert(1)>'


def test_a_terminal_shows_what_it_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    console = Reporter()
    console.line(EVIL)
    console.say(EVIL)
    console.heading(EVIL)
    console.table("Users", ["user"], [[EVIL], ["[red]plain[/red]"]])
    printed = capsys.readouterr().out
    assert not any(character in printed for character in ACTS)
    assert r"a\u202egpj.exe\x1b[31mred\x9b31m" in printed
    assert "[red]plain[/red]" in printed


def test_json_has_the_same_values_without_a_character_that_acts() -> None:
    text = strict_json({"user": EVIL, EVIL: [EVIL]})
    assert not any(character in text for character in ACTS)
    assert json.loads(text) == {"user": EVIL, EVIL: [EVIL]}


def test_letters_of_all_scripts_and_emoji_stay() -> None:
    for text in ("שלום", "مرحبا", "\u0430pple", "👩\u200d🚀", "tab\tand\nline", "नमस्ते"):
        assert visible(text) == text


def test_an_error_shows_what_it_would_obey(tmp_path: Path) -> None:
    """A name of a file is text of a stranger, too."""
    command = [sys.executable, "-m", "learn_spark.commands.main"]
    code = f"from learn_spark.commands.main import app; app(['init', {str(tmp_path / EVIL)!r}])"
    done = subprocess.run([command[0], "-c", code], capture_output=True, timeout=120)
    assert done.returncode != 0
    error = done.stderr.decode()
    assert "error: " in error
    assert not any(character in error for character in ACTS)


def test_a_page_escapes_html_and_shows_what_acts() -> None:
    page = environment().from_string("<p title='{{ value }}'>{{ value }}{{ drawn }}</p>")
    text = page.render(value=EVIL + HTML + "{{ 7 * 7 }}'", drawn=Markup(f"<b>{OVERRIDE}</b>"))
    assert not any(character in text for character in ACTS)
    assert "<script" not in text
    assert "<img" not in text
    assert "{{ 7 * 7 }}&#39;" in text
    assert r"<b>\u202e</b>" in text


def test_titles_are_one_line_without_marks() -> None:
    assert plain_title(EVIL) == "a gpj.exe [31mred 31m b"


@pytest.mark.parametrize(
    "title", ["{brand}", "{0.__class__}", "%s %(title)s", "${jndi:ldap://x}", "{{ 7 * 7 }}", "'); --"]
)
def test_a_title_is_no_template(title: str) -> None:
    for name in ("shop", "learn-industrial", "amazon", "movie"):
        assert title in template(name).text({"title": title, "brand": "Acme"})


def test_an_undefined_or_hostile_name_reaches_no_file(tmp_path: Path) -> None:
    workspace = Workspace.open(str(tmp_path / "w"))
    for parts in (("..", "x"), ("logs", "..", "..", "x"), ("/etc",)):
        with pytest.raises(Exception, match="lies outside"):
            workspace.folder(*parts)


@pytest.fixture(params=[0o022, 0o077], ids=["022", "077"])
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_files_have_the_mode_of_the_umask(mask: int, tmp_path: Path) -> None:
    """Models, settings and pages of a private account are private, and nothing is open to more than the umask says."""
    workspace = Workspace.open(str(tmp_path / "w"))
    save_settings(load_settings("learn"), workspace.folder("runs", "r1"))
    replace_bytes(workspace.root / "reports" / "index.html", b"x")
    (storage_path(workspace.root) / "models" / "manifest.json").local.parent.mkdir()
    (storage_path(workspace.root) / "models" / "manifest.json").write_text("{}")
    paths = list(workspace.root.rglob("*"))
    assert len(paths) > 5
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) & mask == 0, path


def test_a_workspace_of_everybody_is_noted(tmp_path: Path) -> None:
    workspace = Workspace.open(str(tmp_path / "w"))
    assert not workspace.writable_by_all
    workspace.root.chmod(0o777)
    assert workspace.writable_by_all
