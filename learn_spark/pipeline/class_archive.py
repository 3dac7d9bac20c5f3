"""Makes Java's archive of the classes that a small run loads.

Run:  python -m learn_spark.pipeline.class_archive    (``learn-spark setup`` does)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from learn_spark.core.console import Reporter
from learn_spark.core.settings import load_settings
from learn_spark.core.tables.java_classes import EXTRA_CLASS_PATH, EXTRA_OPTIONS, archive_file, class_path
from learn_spark.core.tables.session import check_java, set_java_home

QUICK = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC"
STAGES = ("ingest", "item_text", "histories")
ORDERS = "order,customer,sku,ordered_at,updated_at\n"


def make_archive() -> Path | None:
    """Run some stages on a shop of two products, and archive the classes that they load; the file if it was made now.

    Older archives are removed. Raises SessionError without a fit Java.
    """
    set_java_home()
    file = archive_file(check_java())
    if file.is_file():
        return None
    with tempfile.TemporaryDirectory(prefix="learn-spark-") as folder:
        temporary = file.with_name(f".{file.name}.new")
        _run_small_shop(Path(folder), f"{QUICK} -XX:ArchiveClassesAtExit={temporary} -Xlog:disable")
        if not temporary.is_file():
            return None
        for old in file.parent.glob("classes-*.jsa"):
            old.unlink()
        temporary.replace(file)
    return file


def _run_small_shop(folder: Path, java_options: str) -> None:
    """Two deliveries, the second with a correction, in a JVM of their own, which has ended at the return."""
    from pyspark import SparkContext

    from learn_spark.core.tables.session import start_session
    from learn_spark.pipeline.runner import run_stages

    raw = folder / "raw"
    raw.mkdir()
    columns = {"event_id": "order", "user_id": "customer", "item_id": "sku", "event_time": "ordered_at"}
    (raw / "products.csv").write_text("sku,name\na,a pan\nb,a pot\n", encoding="utf-8")
    source = {
        "format": "files",
        "path": str(raw),
        "time_unit": "iso",
        "event_type": "purchase",
        "items": {"files": "products.csv", "columns": {"item_id": "sku", "title": "name"}},
        "events": {"files": "orders-*.csv", "columns": {**columns, "updated_at": "updated_at"}},
    }
    settings = load_settings("shop", [f"workspace={folder / 'workspace'}", f"source={source}"])
    conf = {EXTRA_OPTIONS: java_options, EXTRA_CLASS_PATH: class_path()}
    settings = settings.model_copy(update={"spark": settings.spark.model_copy(update={"conf": conf})})
    lines = [f"{n},c{n // 2},{'ab'[n % 2]},2024-03-0{n % 5 + 1}T10:00:00,2024-03-06T00:00:00" for n in range(10)]
    session = start_session(settings.spark, app="learn-spark setup", log_file=folder / "spark.log")
    for day, delivered in enumerate((lines, [lines[0].replace("10:00", "11:00").replace("03-06", "03-07")])):
        (raw / f"orders-{day}.csv").write_text(ORDERS + "\n".join(delivered) + "\n", encoding="utf-8")
        run_stages(STAGES, settings, console=Reporter(quiet=True))
    session.stop()
    gateway = SparkContext._gateway
    assert gateway is not None
    gateway.shutdown()
    # Java writes the archive when it ends, which it does at the end of its input.
    gateway.proc.stdin.close()
    gateway.proc.wait(300)


def main() -> int:
    """Make the archive; returns the exit code."""
    made = make_archive()
    if made is not None:
        sys.stdout.write(f"archived Spark's classes in {made}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
