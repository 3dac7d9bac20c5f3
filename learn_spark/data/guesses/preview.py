"""What the guessed settings would read: prompts of some items, and some events."""

from __future__ import annotations

from learn_spark.data.guesses.guess import Guess
from learn_spark.data.text.cleaning import clean_text
from learn_spark.data.text.templates import template

MAX_CHARACTERS = 8_000
FALLBACK = "No description."


def prompts(guess: Guess, number: int = 3, name: str = "shop") -> list[tuple[str, str]]:
    """(item_id, prompt) of the first ``number`` different items."""
    chosen = template(name)
    found: dict[str, str] = {}
    key = guess.items.field("item_id")
    assert key is not None
    for row in guess.items.files.rows:
        item = key.read(row)
        if item is None or item in found:
            continue
        values = {one.field: clean_text(one.read(row), MAX_CHARACTERS) for one in guess.items.fields}
        found[item] = chosen.text(values) or FALLBACK
        if len(found) == number:
            break
    return list(found.items())


def events(guess: Guess, number: int = 5) -> list[dict[str, str | None]]:
    """The first ``number`` events that would be read, field by field."""
    user = guess.events.field("user_id")
    assert user is not None
    rows = [row for row in guess.events.files.rows if guess.events.where is None or user.read(row) is not None]
    constant = {} if guess.events.field("event_type") else {"event_type": guess.event_type}
    return [{**{one.field: one.read(row) for one in guess.events.fields}, **constant} for row in rows[:number]]
