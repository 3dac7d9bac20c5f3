"""Simulated experiments of known effect: users with stable habits, and a treatment that lifts conversion."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from learn_spark.ads.experiments.assignment import EVEN, arm
from learn_spark.ads.experiments.moments import SUMS, WIDTH

EXPOSURES = 12.0  # a user, in the experiment, on average; as many before it
CONVERSION = 0.1
PRICE = 20.0
ITEMS = 200
DEVICES = ("phone", "desktop")


@dataclass(frozen=True)
class People:
    """Each user's rate of exposures, chance of conversion and level of prices, all [n]."""

    rate: np.ndarray
    chance: np.ndarray
    price: np.ndarray

    @staticmethod
    def draw(users: int, generator: np.random.Generator) -> People:
        """``users`` of them; rates vary as 1 : 0.7 (standard deviation), chances and prices somewhat less."""
        return People(
            rate=generator.gamma(2.0, EXPOSURES / 2, users),
            chance=generator.beta(4.0, 4.0 / CONVERSION - 4.0, users),
            price=PRICE * generator.gamma(4.0, 0.25, users),
        )


def simulated_users(
    users: int, *, seed: int, lift: float = 0.0, share: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(sums [n, K] of moments.SUMS in the experiment and before it, treated bool [n], seeds uint64 [n]).

    The treated, a ``share``, convert (1 + ``lift``) times as often: that is the lift of conversions, of revenue, and of
    both per exposure. Exposures are untouched.
    """
    generator = np.random.default_rng(seed)
    people = People.draw(users, generator)
    treated = generator.random(users) < share
    values = np.zeros((users, WIDTH))
    for at, more in ((0, lift * treated), (len(SUMS), 0.0)):
        exposures = generator.poisson(people.rate)
        conversions = generator.binomial(exposures, people.chance * (1 + more))
        # A sum of c exponential amounts is gamma distributed.
        revenue = np.where(conversions > 0, generator.gamma(np.maximum(conversions, 1)) * people.price, 0.0)
        values[:, at : at + len(SUMS)] = np.stack([exposures, conversions, conversions > 0, revenue], axis=1)
    return values, treated, generator.integers(0, 1 << 64, users, dtype=np.uint64)


def simulated_log(
    users: int,
    *,
    seed: int,
    lift: float = 0.0,
    experiment: str = "simulated",
    salt: str = "salt",
    start: datetime = datetime(2024, 5, 1, tzinfo=UTC),
    days: int = 14,
    pre_days: int = 14,
) -> pa.Table:
    """A log in the columns of schemas/exposures.yaml: as ``simulated_users``, one row an exposure.

    Arms are those of ``arm(user, experiment, salt)``, from ``start`` on; before it rows have none. Of the ITEMS items
    the last tenth is shown from ``start`` on alone. Context has the user's device.
    """
    generator = np.random.default_rng(seed)
    people = People.draw(users, generator)
    names = np.array([f"u{number}" for number in range(users)])
    arms = np.array([arm(name, experiment, salt, EVEN) for name in names])
    device = np.array([json.dumps({"device": DEVICES[one]}) for one in generator.integers(0, len(DEVICES), users)])
    parts = []
    for begin, length, known in ((start - timedelta(days=pre_days), pre_days, False), (start, days, True)):
        who = np.repeat(np.arange(users), generator.poisson(people.rate * length / days))
        count = len(who)
        treated = known & (arms[who] == "treatment")
        converted = generator.random(count) < people.chance[who] * (1 + lift * treated)
        items = generator.integers(0, ITEMS if known else ITEMS - ITEMS // 10, count)
        micros = generator.integers(0, length * 86_400_000_000, count)
        parts.append(
            pa.table(
                {
                    "event_id": [f"{'e' if known else 'p'}{number}" for number in range(count)],
                    "user_id": names[who],
                    "item_id": np.char.add("i", items.astype(str)),
                    "event_time": pa.array(micros + round(begin.timestamp() * 1e6), pa.timestamp("us", "UTC")),
                    "arm": pa.array(arms[who] if known else [None] * count, pa.string()),
                    "position": pa.array(generator.integers(1, 11, count), pa.int32()),
                    "context": device[who],
                    "converted": converted,
                    "revenue": np.where(converted, generator.exponential(1.0, count) * people.price[who], 0.0),
                    "weight": np.ones(count),
                }
            )
        )
    return pa.concat_tables(parts)
