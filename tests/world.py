"""A small world of films and ratings in the layout of MovieLens-100K, and the settings to run it."""

from __future__ import annotations

import random
from pathlib import Path

import yaml

# For Spark that lives for minutes: compile little. Without tiers Java keeps 48 MB for compiled code, which Spark fills,
# and then drops methods and compiles them anew. To verify the classes of Spark takes a fifth of a short session's time.
QUICK_JVM = (
    "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC "
    "-XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"
)
GENRES = ("Animation Children's", "Horror Thriller", "Romance Drama", "Western")
ITEM_HEADER = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
EVENT_HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
USERS, ITEMS = 40, 32
START = 880_000_000


def item_lines() -> list[str]:
    """32 films, 8 a genre; films 1 and 9 have one and the same text."""
    lines = []
    for i in range(1, ITEMS + 1):
        genre = GENRES[(i - 1) % 4]
        title = "The Same Film" if i in (1, 9) else f"{genre.split()[0]} story number {i}"
        lines.append(f"{i}\t{title}\t1995\t{genre}")
    return lines


def event_lines() -> list[str]:
    """40 users of 6 to 14 ratings; each likes one genre and rates mostly its films. Some ratings share a second."""
    chance = random.Random(7)
    lines = []
    for user in range(1, USERS + 1):
        liked = user % 4
        own = [i for i in range(1, ITEMS + 1) if (i - 1) % 4 == liked]
        other = [i for i in range(1, ITEMS + 1) if (i - 1) % 4 != liked]
        films = chance.sample(own, 5) + chance.sample(other, chance.randint(1, 4)) + chance.sample(own, 0)
        chance.shuffle(films)
        moment = START + user * 1000
        for film in films:
            moment += chance.choice([0, 60, 3600, 86400])
            lines.append(f"{user}\t{film}\t{chance.randint(1, 5)}\t{moment}")
    return lines


def write_raw(folder: Path, *, items: list[str] | None = None, events: list[str] | None = None) -> Path:
    """Write the two files; ``items`` and ``events`` replace the standard lines."""
    folder.mkdir(parents=True, exist_ok=True)
    item_text = "\n".join([ITEM_HEADER, *(item_lines() if items is None else items)])
    event_text = "\n".join([EVENT_HEADER, *(event_lines() if events is None else events)])
    (folder / "ml-100k.item").write_text(item_text + "\n", encoding="utf-8", newline="")
    (folder / "ml-100k.inter").write_text(event_text + "\n", encoding="utf-8", newline="")
    return folder


def write_config(path: Path, *, raw: Path, workspace: Path, model: Path) -> Path:
    """Settings that run the whole road over the small world in a minute."""
    tree = {
        "workspace": str(workspace),
        "source": {"format": "movielens-100k", "path": str(raw)},
        "spark": {
            "master": "local[2]",
            "driver_memory": "2g",
            "shuffle_partitions": 2,
            "conf": {
                "spark.databricks.delta.snapshotPartitions": "1",
                "spark.driver.extraJavaOptions": QUICK_JVM,
            },
        },
        "text": {"template": "movie"},
        "encoder": {"model": str(model), "max_tokens": 64, "chunk_rows": 16},
        "histories": {"max_length": 16, "rows_per_file": 16},
        "feed": {"batch_size": 16, "shuffle_rows": 64},
        "tower": {"width": 32, "layers": 1, "heads": 2, "ffn": 64, "output_dim": 16, "dropout": 0.1},
        "objective": {"history": 8, "targets": 4, "history_positions": 3, "target_positions": 2, "temperature": 0.1},
        "training": {"epochs": 3, "passes_per_epoch": 2, "patience": 3},
        "release": {"batch_rows": 8},
        "pipeline": {
            "stages": [
                "ingest",
                "item_text",
                "embed_items",
                "histories",
                "train",
                "evaluate",
                "publish",
                "export_index",
                "report",
            ]
        },
    }
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path
