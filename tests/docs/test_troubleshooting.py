"""The messages of the troubleshooting page are those of the code and of the contracts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import yaml

from tests.docs.pages import ROOT

HOLE = "…"


def messages() -> list[str]:
    """The first cell of every row of the page's tables."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def text_of(node: ast.AST) -> str:
    """A text with a hole for each part that is known at run time only; of a choice, the first."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else HOLE for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return text_of(node.body) if isinstance(node, ast.IfExp) else ""


def literals() -> Iterator[str]:
    """Every text of the package, and every reason of a row rule."""
    for path in (ROOT / "learn_spark").rglob("*.py"):
        yield from map(text_of, ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    for path in (ROOT / "schemas").glob("*.yaml"):
        for rule in yaml.safe_load(path.read_text(encoding="utf-8")).get("row_rules", []):
            yield rule["reason"]


def test_every_message_is_one_of_the_code() -> None:
    known = [text for text in literals() if 0 < len(text) < 2_000]
    assert len(messages()) > 30
    for message in messages():
        parts = [re.escape(part) for part in message.split(HOLE)]
        fits = re.compile(".*".join(parts), re.DOTALL)
        assert any(fits.search(text) for text in known), message


def test_rows_have_a_cause_and_a_cure_and_the_glossary_is_sorted() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    for row in re.findall(r"^\| `.*\|$", page, re.MULTILINE):
        assert len([cell for cell in row.strip("|").split(" | ") if cell.strip()]) == 3, row
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = [word.lower() for word in re.findall(r"^\| ([^|]+?) \|", glossary, re.MULTILINE)[1:]]
    assert words == sorted(words)
    assert len(words) > 40
