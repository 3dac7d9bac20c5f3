"""Text of strangers on a terminal or a page: characters that move, colour, hide or turn other text are shown."""

from __future__ import annotations

import re

# Control characters but tab and line feed, line and paragraph separators, the marks of bidirectional text (Unicode
# Standard Annex 9: an override shows exe.gpj as jpg.exe), the invisible byte order mark, and tags.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""``text`` with escapes such as ``\u202e`` for the characters that act and are not seen.

    Letters that look like others stay: ids are compared by code points, and every script has its readers.
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible_json(text: str) -> str:
    r"""JSON of the same values, in which these characters are ``\uXXXX``."""
    return _UNSEEN.sub(lambda found: _utf16(found[0]), text)


def _utf16(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))
