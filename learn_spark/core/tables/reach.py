"""What a Spark session needs to reach the addresses of a workspace and its sources."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.core.connectors import LOG_STORE, kafka_jar_paths, s3_jar_paths
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.install import InstallError
from learn_spark.core.storage.path import S3Access, StoragePath

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# The SDK's own chain: environment, profile, web identity, container, machine. Hadoop's default has no profile.
_CREDENTIALS = "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"
_LOG_STORE_KEY = "spark.delta.logStore.s3a.impl"
_S3A = "org.apache.hadoop.fs.s3a.S3AFileSystem"


class UnreachableError(LearnSparkError):
    """Spark lacks what reads an address."""


def settings_for(addresses: Iterable[StoragePath]) -> dict[str, str]:
    """The settings of a new session that cannot be made later."""
    return {_LOG_STORE_KEY: LOG_STORE} if any(address.scheme == "s3" for address in addresses) else {}


def jars_for(addresses: Iterable[StoragePath], topics: bool = False) -> list[Path]:
    """The JARs that a new session needs beside Delta's; ``topics``: whether it reads Kafka.

    Raises UnreachableError where they are not installed.
    """
    try:
        of_s3 = s3_jar_paths() if any(address.scheme == "s3" for address in addresses) else []
        return [*of_s3, *(kafka_jar_paths() if topics else [])]
    except InstallError as error:
        raise UnreachableError(str(error)) from None


def reach(session: SparkSession, addresses: Iterable[StoragePath]) -> None:
    """Configure a running session for the addresses, bucket by bucket, so that each may have its own server.

    No key is among the settings. Raises UnreachableError where the session's classpath has no connector of S3.
    """
    context = session.sparkContext
    conf = context._jsc.hadoopConfiguration()
    for address in addresses:
        if address.scheme != "s3":
            continue
        _require_s3a(session)
        if not conf.get("fs.s3a.aws.credentials.provider", "").startswith(_CREDENTIALS) and not _given(session):
            conf.set("fs.s3a.aws.credentials.provider", _CREDENTIALS)
        bucket = address.partition("://")[2].partition("/")[0]
        settings = {"path.style.access": str(address.s3.bucket_in_path).lower()}
        if address.s3.region_name:
            settings["endpoint.region"] = address.s3.region_name
        if address.s3.server:
            settings["endpoint"] = address.s3.server
            settings["connection.ssl.enabled"] = str(address.s3.server.startswith("https:")).lower()
        for name, value in settings.items():
            conf.set(f"fs.s3a.bucket.{bucket}.{name}", value)


def _given(session: SparkSession) -> bool:
    """Whether the user chose a provider of credentials."""
    return session.sparkContext.getConf().contains("spark.hadoop.fs.s3a.aws.credentials.provider")


def _require_s3a(session: SparkSession) -> None:
    jvm = session._jvm
    assert jvm is not None
    if session.sparkContext.getConf().get(_LOG_STORE_KEY) != LOG_STORE:
        raise UnreachableError(
            f"this Spark session would commit to S3 without {LOG_STORE}, and could lose commits where two writers "
            f"meet: start it with --conf {_LOG_STORE_KEY}={LOG_STORE}"
        )
    try:
        jvm.java.lang.Thread.currentThread().getContextClassLoader().loadClass(_S3A)
    except Exception:
        raise UnreachableError(
            "this Spark session has no connector of S3: run learn-spark setup --s3, and pass the JARs to spark-submit "
            "(--jars) where it does not read this environment's spark-defaults.conf"
        ) from None


def access_of(session: SparkSession, address: StoragePath) -> S3Access:
    """How a session reaches the bucket of an address, for deltalake and Arrow: what it was configured with, else what
    the environment says."""
    if address.scheme != "s3":
        return S3Access()
    conf = session.sparkContext._jsc.hadoopConfiguration()
    bucket = address.partition("://")[2].partition("/")[0]

    def setting(name: str) -> str | None:
        found = conf.get(f"fs.s3a.bucket.{bucket}.{name}") or conf.get(f"fs.s3a.{name}")
        return str(found) if found else None

    endpoint, region = setting("endpoint"), setting("endpoint.region")
    if endpoint is None or endpoint == "s3.amazonaws.com":
        return S3Access(region=region)
    if "://" not in endpoint:
        endpoint = f"{'http' if setting('connection.ssl.enabled') == 'false' else 'https'}://{endpoint}"
    return S3Access(endpoint, region, setting("path.style.access") == "true")
