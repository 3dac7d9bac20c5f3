"""Which column holds which field of items and of events."""

from __future__ import annotations

from collections.abc import Iterable

from learn_spark.core.errors import SettingsError
from learn_spark.data.guesses import mapping
from learn_spark.data.guesses.contents import Contents
from learn_spark.data.guesses.mapping import Basis, Mapped
from learn_spark.data.guesses.names import name_score
from learn_spark.data.guesses.pairs import Described
from learn_spark.data.guesses.profiles import Profile
from learn_spark.data.guesses.times import TimeColumn

_NAMED = 0.4  # score of a name that is good enough without a look at the content
_USUAL_TYPES = {
    "purchase", "buy", "order", "click", "view", "cart", "add_to_cart", "addtocart", "pv", "fav", "rating", "like",
    "transaction", "remove_from_cart", "impression", "wishlist", "refund", "return", "kauf", "klick", "achat", "clic",
}  # fmt: skip


class Columns:
    """The columns of one table that are still free."""

    def __init__(self, described: Described, given: dict[str, str]) -> None:
        self.contents: Contents = described.files.files[0]
        self._profiles = dict(described.columns)
        self.given = given
        for field, column in given.items():
            if column not in self._profiles:
                raise SettingsError(
                    f"--column {field}={column}: {described.files.pattern} has no column {column}; it has "
                    f"{', '.join(self._profiles)}"
                )
        self._used = set(given.values())

    def of(self, column: str) -> Profile:
        """The profile of a column."""
        return self._profiles[column]

    def use(self, column: str) -> Profile:
        """Take a column out of those that are free."""
        self._used.add(column)
        return self._profiles[column]

    def free(self) -> list[Profile]:
        """The columns that no field has yet, except empty ones."""
        return [p for name, p in self._profiles.items() if name not in self._used and p.values]

    def best(self, field: str, candidates: Iterable[Profile], least: float = _NAMED) -> Profile | None:
        """The candidate whose name fits ``field`` best, taken; None where no name fits. A given column goes first."""
        if field in self.given:
            return self._profiles[self.given[field]]
        scored = [(name_score(field, p.column), p) for p in candidates]
        chosen = max(scored, key=lambda one: one[0], default=None)
        return self.use(chosen[1].column) if chosen is not None and chosen[0] >= least else None

    def basis(self, field: str, column: str, content: bool = False) -> Basis:
        """Why ``column`` holds ``field``."""
        if self.given.get(field) == column:
            return "given"
        named = name_score(field, column) >= _NAMED
        return "by name and content" if named and content else "by name" if named else "by content"


def event_time(columns: Columns) -> tuple[str, TimeColumn]:
    """(column, form) of the time of events. Raises SettingsError for a given column without times."""
    if "event_time" in columns.given:
        name = columns.given["event_time"]
        form = columns.of(name).time
        if form is None:
            raise SettingsError(
                f"--column events.event_time={name}: its values are no times, such as {_first(columns, name)!r}"
            )
        return name, form
    best: tuple[float, Profile, TimeColumn] | None = None
    for profile in columns.free():
        if (form := profile.time) is None:
            continue
        score = name_score("event_time", profile.column) - 1.5 * name_score("updated_at", profile.column)
        score += 0.3 if form.form in ("iso", "format") else 0.0
        if best is None or score > best[0]:
            best = score, profile, form
    if best is None:
        raise SettingsError("the events have no column with times")
    return columns.use(best[1].column).column, best[2]


def updated_at(columns: Columns) -> tuple[str, TimeColumn] | None:
    """(column, form) of the time of the last change, if a column has its name and times."""
    chosen = columns.best("updated_at", [p for p in columns.free() if p.time is not None], least=0.6)
    return None if chosen is None or chosen.time is None else (chosen.column, chosen.time)


def user(columns: Columns) -> Mapped:
    """The column of the user. Raises SettingsError where none can be it."""
    best: tuple[float, Profile] | None = None
    for profile in columns.free():
        if not profile.is_id:
            continue
        score = name_score("user_id", profile.column)
        others = ("event_id", "value", "event_type", "price", "category", "brand", "item_id")
        score -= max(name_score(field, profile.column) for field in others)
        if len(profile.distinct) >= max(2, 0.005 * len(profile.values)) and profile.unique_share < 0.9:
            score += 0.3
        if best is None or score > best[0]:
            best = score, profile
    if "user_id" in columns.given:
        name = columns.given["user_id"]
    elif best is not None and best[0] > 0:
        name = columns.use(best[1].column).column
    else:
        raise SettingsError("the events have no column of users; name it with --column events.user_id=COLUMN")
    return mapping.column("user_id", name, columns.contents, columns.basis("user_id", name))


def event_type(columns: Columns) -> Mapped | None:
    """The column of the type of events: named so, or with values such as purchase and click."""
    few = [p for p in columns.free() if p.is_text and len(p.distinct) <= 20]
    usual = [p for p in few if len({v.lower() for v in p.distinct} & _USUAL_TYPES) >= max(1, len(p.distinct) / 2)]
    chosen = columns.best("event_type", usual, least=0.0) or columns.best("event_type", few)
    if chosen is None:
        return None
    basis = columns.basis("event_type", chosen.column, chosen in usual)
    return mapping.column("event_type", chosen.column, columns.contents, basis)


def event_value(columns: Columns) -> Mapped | None:
    """The number of an event, such as a quantity or a rating."""
    chosen = columns.best("value", [p for p in columns.free() if p.number_form])
    if chosen is None or chosen.number_form is None:
        return None
    return mapping.number(
        "value", chosen.column, chosen.number_form, columns.contents, columns.basis("value", chosen.column, True)
    )


def event_id(columns: Columns, described: Described, item_key: str, updated: str | None) -> tuple[Mapped | None, str]:
    """(the key of events, what to know about it): a column, an order's number with the item, or None.

    Rows that repeat a key and differ in ``updated`` are corrections of one event.
    """
    if "event_id" in columns.given:
        return mapping.column("event_id", columns.given["event_id"], columns.contents, "given"), ""
    named = sorted(
        ((name_score("event_id", p.column), p.column) for p in columns.free() if p.is_id and p.present > 0.99),
        reverse=True,
    )
    for _, name in [one for one in named if one[0] >= _NAMED]:
        for keys in ((name,), (name, item_key)):
            repeated, rows = _repeated(described, keys, updated)
            if repeated > 0.1 * rows:
                continue
            columns.use(name)
            note = f"{repeated:,} of {rows:,} rows repeat it: the newest counts" if repeated else ""
            doubt = f"events.event_id: {note}; if these are no corrections, remove event_id" if repeated else ""
            basis = columns.basis("event_id", name, True)
            if len(keys) == 1:
                return mapping.column("event_id", name, columns.contents, basis, note), doubt
            why = f"{name} alone is no key" + (f"; {note}" if note else "")
            return mapping.key("event_id", keys, columns.contents, basis, why), doubt
    return None, (
        "no column is a key of events: an event that is delivered again with another value or time counts twice"
    )


def _repeated(described: Described, keys: tuple[str, ...], updated: str | None) -> tuple[int, int]:
    """(rows beyond the first of their key and time of change, rows)."""
    names = (*keys, updated) if updated else keys
    rows = [tuple(row.get(name) for name in names) for row in described.files.rows]
    # The same row twice is a repeated delivery, whatever the key.
    whole = {tuple(sorted((k, v or "") for k, v in row.items())) for row in described.files.rows}
    return len(whole) - len(set(rows)), len(whole)


def item_fields(columns: Columns) -> list[Mapped]:
    """Title, category, brand, price, keywords and attributes, as far as there are columns for them."""
    fits = {
        "title": lambda p: p.is_text,
        "category": lambda p: p.is_text or p.column in columns.contents.lists,
        "brand": lambda p: p.is_text,
        "price": lambda p: p.number_form is not None,
        "keywords": lambda p: p.is_text or p.column in columns.contents.lists,
    }
    chosen: dict[str, str] = {field: name for field, name in columns.given.items() if field in fits}
    scored = [
        (name_score(field, p.column), field, p.column) for field, fit in fits.items() for p in columns.free() if fit(p)
    ]
    details = {p.column: name_score("attributes", p.column) for p in columns.free()}
    for score, field, name in sorted(scored, key=lambda one: -one[0]):
        # A column that is named as a detail (description) is the title only where no other is.
        if field not in chosen and name not in chosen.values() and score >= max(_NAMED, details[name] * 0.99):
            chosen[field] = columns.use(name).column
    many = [p.column for p in columns.free() if details.get(p.column, 0.0) >= _NAMED][:4]
    if "title" not in chosen:
        texts = [p for p in columns.free() if p.is_text and (p.column in many or p.unique_share > 0.3)]
        if texts:
            best = max(texts, key=lambda p: (p.column in many) + p.unique_share * min(p.mean_length, 60) / 20)
            chosen["title"] = columns.use(best.column).column
            many = [name for name in many if name != best.column]
    if "category" not in chosen:
        few = [
            p for p in columns.free() if p.is_text and p.column not in many and 1 < len(p.distinct) <= len(p.values) / 3
        ]
        if len(few) == 1:
            chosen["category"] = columns.use(few[0].column).column
    mapped = []
    for field in fits:
        if field not in chosen:
            continue
        name, basis = chosen[field], columns.basis(field, chosen[field])
        form = columns.of(name).number_form
        mapped.append(
            mapping.number(field, name, form, columns.contents, basis)
            if field == "price" and form is not None
            else mapping.column(field, name, columns.contents, basis)
        )
    if "attributes" in columns.given:
        many = [columns.given["attributes"]]
    if len(many) == 1:
        basis = columns.basis("attributes", many[0])
        mapped.append(mapping.column("attributes", many[0], columns.contents, basis))
    elif many:
        for name in many:
            columns.use(name)
        mapped.append(mapping.joined("attributes", tuple(many), ", ", columns.contents, "by name"))
    return mapped


def _first(columns: Columns, name: str) -> str:
    return next(iter(columns.of(name).values), "")
