"""Erased users: keyed hashes of their ids, by which their old events stay out, and the versions that erasures left."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables import delta
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.mentions import mentions
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

KEY_FILE = "erasure.key"
_BLOCK = 64  # bytes of a block of SHA-256, to which HMAC pads its key


class ErasureKeyError(LearnSparkError):
    """The key of the hashes is missing."""


def key_of(workspace: Workspace, *, make: bool = False) -> bytes:
    """The workspace's key [32 bytes]; with ``make`` a new one where no user was erased yet. Raises ErasureKeyError."""
    file = workspace.place / KEY_FILE
    try:
        return bytes.fromhex(file.read_text())
    except FileNotFoundError:
        pass
    except ValueError:
        raise ErasureKeyError(f"{file} is damaged: it must be 64 hexadecimal digits; put its copy back") from None
    if not make or current_version(workspace.table("erased_users")) is not None:
        raise ErasureKeyError(
            f"{file} is missing, without which the erased users of this workspace cannot be recognised: put its copy "
            "back"
        )
    key = secrets.token_bytes(32)
    file.write_text(key.hex())
    if file.is_local:
        file.local.chmod(0o600)
    return key


def user_hash(key: bytes, user_id: str) -> str:
    """HMAC-SHA256 (RFC 2104) of an id, as in erased_users."""
    return hmac.new(key, user_id.encode(), hashlib.sha256).hexdigest()


def hashed(key: bytes, column: Column) -> Column:
    """``user_hash`` of a column, by Spark's own functions."""
    from pyspark.sql import functions as F

    padded = key.ljust(_BLOCK, b"\0")
    inner, outer = (F.lit(bytearray(byte ^ pad for byte in padded)) for pad in (0x36, 0x5C))
    message = F.unhex(F.sha2(F.concat(inner, F.encode(column, "UTF-8")), 256))
    return F.sha2(F.concat(outer, message), 256)


@dataclass(frozen=True)
class ErasedUsers:
    """The erased users of a workspace."""

    path: StoragePath
    key: bytes

    @staticmethod
    def of(workspace: Workspace) -> ErasedUsers | None:
        """None where no user was ever erased. Raises ErasureKeyError."""
        path = workspace.table("erased_users")
        return None if current_version(path) is None else ErasedUsers(path, key_of(workspace))

    def _hashes(self, spark: SparkSession) -> DataFrame:
        from pyspark.sql import functions as F

        rows = delta.read(spark, self.path)
        return rows.groupBy(F.col("user_hash").alias("_user_hash")).agg(F.max("erased_at").alias("_erased_at"))

    def marked(self, events: DataFrame) -> DataFrame:
        """``events`` with a column _erased: whether the row is of an erased user, and not from after the erasure.

        A row without a readable time counts as one from before it.
        """
        from pyspark.sql import functions as F

        named = events.withColumn("_user_hash", hashed(self.key, F.col("user_id")))
        joined = named.join(self._hashes(events.sparkSession), "_user_hash", "left")
        late = F.coalesce(F.col("event_time") > F.col("_erased_at"), F.lit(False))
        return joined.withColumn("_erased", F.col("_erased_at").isNotNull() & ~late).drop("_user_hash", "_erased_at")

    def without_mentions(self, refused: DataFrame) -> DataFrame:
        """``refused`` (raw, user_id, event_time) without the rows of erased users (``marked``), and without those whose
        text has the id of one (``mentions``).
        """
        from pyspark.sql import functions as F

        columns = refused.columns
        refused = self.marked(refused).where("not _erased").select(*columns)
        hashes = self._hashes(refused.sparkSession).select(F.col("_user_hash").alias("word"))
        key = self.key
        found = mentions(refused, "raw", F.col("user_id"), hashes, of_word=lambda word: hashed(key, word))
        return refused.join(found.withColumnRenamed("text", "raw"), "raw", "left_anti")


@dataclass(frozen=True)
class Erasures:
    """The rows of ``erasures``, read once."""

    workspace: Workspace

    @cached_property
    def _done(self) -> list[dict[str, dict[str, int]]]:
        rows = [row for row in read_rows(self.workspace.table("erasures")) if row["status"] == "done"]
        return sorted(rows, key=lambda row: row["written_at"])

    def oldest_version(self, table: str) -> int:
        """The version of ``table`` that the newest erasure left, before which none can be read; 0 without one."""
        return max((row["after"].get(table, 0) for row in self._done), default=0)

    def now(self, table: str, version: int) -> int:
        """The version that has the rows of ``version`` without erased users, where that was the newest at an erasure.

        Else ``version``.
        """
        for row in self._done:
            if row["before"].get(table) == version:
                version = row["after"][table]
        return version
