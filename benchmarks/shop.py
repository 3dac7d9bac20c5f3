"""A generated shop: products, a year of orders, and further days of a few orders and new products."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path

import yaml

PRODUCTS, ORDERS, CUSTOMERS = 300, 15_000, 1_200
ORDERS_A_DAY, PRODUCTS_A_DAY = 82, 3
DEPARTMENTS = {
    "kitchen": ["kettle", "pan", "knife", "bowl", "whisk", "grater", "plate", "jug"],
    "garden": ["spade", "hose", "rake", "pot", "trowel", "shears", "bench", "lantern"],
    "office": ["notebook", "pencil", "stapler", "lamp", "folder", "desk mat", "eraser", "ruler"],
    "outdoors": ["tent", "rucksack", "stove", "mat", "torch", "compass", "rope", "bottle"],
    "bath": ["towel", "soap", "brush", "mirror", "robe", "basket", "candle", "sponge"],
}
WORDS = ["oak", "steel", "linen", "small", "large", "red", "blue", "folding", "light", "heavy", "plain", "striped"]
BRANDS = ["Alder", "Birch", "Cedar", "Dogwood", "Elm"]
OPENED = datetime(2025, 6, 1, 8)


def write_products(path: Path, first: int, count: int, changed: datetime, seed: int) -> None:
    """A file of products numbered from ``first``."""
    chance, departments = random.Random(seed), list(DEPARTMENTS)
    lines = ["sku,name,department,brand,price,updated_at"]
    for number in range(first, first + count):
        department = departments[number % len(departments)]
        noun = chance.choice(DEPARTMENTS[department])
        name = f"{' '.join(chance.sample(WORDS, 2))} {noun} no. {number} for the {department}"
        price = chance.randint(199, 9999) / 100
        lines.append(f"p{number},{name},{department},{chance.choice(BRANDS)},{price:.2f},{changed:%Y-%m-%dT%H:%M:%S}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_orders(
    path: Path,
    first: int,
    count: int,
    start: datetime,
    hours: int,
    products: int,
    seed: int,
    customers: int = CUSTOMERS,
) -> None:
    """A file of order lines numbered from ``first``: ``count`` of them in ``hours`` hours from ``start``.

    A customer buys mostly of one department.
    """
    chance, wide = random.Random(seed), len(DEPARTMENTS)
    moments = sorted(chance.uniform(0, hours) for _ in range(count))
    lines = ["order_id,customer,sku,quantity,ordered_at,updated_at"]
    for number, moment in enumerate(moments, first):
        customer = chance.randrange(customers)
        sku = chance.randrange(products)
        if chance.random() < 0.7:
            sku = min(products - 1, sku // wide * wide + customer % wide)
        time = f"{start + timedelta(hours=moment):%Y-%m-%dT%H:%M:%S}"
        lines.append(f"{number},c{customer},p{sku},{chance.randint(1, 4)},{time},{time}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def open_shop(folder: Path) -> None:
    """The files of the first load: 300 products and 15,000 orders of a year."""
    write_products(folder / "products.csv", 0, PRODUCTS, OPENED, 1)
    write_orders(folder / "orders" / "year.csv", 0, ORDERS, OPENED, 365 * 24, PRODUCTS, 2)


def add_day(folder: Path, day: int) -> None:
    """The files of a further day (1, 2, ...): 82 orders and 3 new products."""
    start, products = OPENED + timedelta(days=364 + day), PRODUCTS + PRODUCTS_A_DAY * day
    write_products(folder / f"products-{day}.csv", products - PRODUCTS_A_DAY, PRODUCTS_A_DAY, start, 10 + day)
    orders = ORDERS + ORDERS_A_DAY * (day - 1)
    write_orders(folder / "orders" / f"day-{day}.csv", orders, ORDERS_A_DAY, start, 24, products, 100 + day)


def add_corrections(folder: Path, day: int) -> None:
    """Beside the files of a day: 20 orders of the first year with another quantity, 2 products with another name, and 5
    orders of products that the next day has, which wait for them in quarantine.
    """
    changed, chance = OPENED + timedelta(days=364 + day, hours=20), random.Random(1_000 + day)
    at = f"{changed:%Y-%m-%dT%H:%M:%S}"
    path = folder / "orders" / "year.csv"
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    corrected = []
    for line in chance.sample(lines, 20):
        order, customer, sku, quantity, ordered_at, _ = line.split(",")
        corrected.append(f"{order},{customer},{sku},{int(quantity) + 5},{ordered_at},{at}")
    next_product = PRODUCTS + PRODUCTS_A_DAY * day
    waiting = [
        f"w{day}-{number},c{chance.randrange(CUSTOMERS)},p{next_product + number % PRODUCTS_A_DAY},1,{at},{at}"
        for number in range(5)
    ]
    text = "\n".join([header, *corrected, *waiting]) + "\n"
    (folder / "orders" / f"corrections-{day}.csv").write_text(text, encoding="utf-8")
    write_products(folder / f"products-corrected-{day}.csv", 2 * day, 2, changed, 500 + day)


def write_settings(path: Path, folder: Path, workspace: Path, *, with_keys: bool = True) -> None:
    """Settings on conf/shop.yaml, with event_id and updated_at (none ``with_keys`` False) and a short training."""
    keys = {"event_id": "order_id", "updated_at": "updated_at"} if with_keys else {}
    columns = {"user_id": "customer", "item_id": "sku", "value": "quantity", "event_time": "ordered_at"}
    products = {"item_id": "sku", "title": "name", "category": "department", "brand": "brand", "price": "price"}
    tree = {
        "extends": "conf/shop.yaml",
        "workspace": str(workspace),
        "source": {
            "format": "files",
            "path": str(folder),
            "time_unit": "iso",
            "event_type": "purchase",
            "items": {"files": "products*.csv", "columns": products | ({"updated_at": "updated_at"} if keys else {})},
            "events": {"files": "orders/*.csv", "columns": columns | keys},
        },
        "tower": {"reranker": None},
        "training": {"epochs": 1, "passes_per_epoch": 1},
        # What two epochs learn is no good model; the audit's other rules judge it as they do a good one.
        "release": {"min_validation_ndcg10": 0.0, "min_cosine": -1.0},
    }
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
