"""Topics of Kafka as sources: each partition is a delivery, of which the messages after the last ones read are new.

The offsets are chosen here and entered in raw_files, after all rows are in the tables: no checkpoint of Spark decides
what was read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learn_spark.core.causes import first_line
from learn_spark.core.settings.source import FilesSettings
from learn_spark.core.storage.path import StoragePath
from learn_spark.data.sources.json_rows import json_rows
from learn_spark.data.sources.location import LocationError
from learn_spark.data.sources.source import FileKind, RawFile, UnreadableFileError
from learn_spark.data.sources.wording import shown

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

# A file of Java properties for the clients: security.protocol, sasl.*, ssl.*. Settings never have them.
PROPERTIES = "LEARN_SPARK_KAFKA_PROPERTIES"
# Of consumers in general, and set here or by Spark, which refuses them.
_SET_HERE = frozenset(
    [
        "key.serializer",
        "value.serializer",
        "key.deserializer",
        "value.deserializer",
        "auto.offset.reset",
        "enable.auto.commit",
        "interceptor.classes",
        "bootstrap.servers",
    ]
)
ANSWER_MILLISECONDS = 30_000
# Columns of a message beside the fields of its JSON.
MESSAGE_COLUMNS = ("kafka_topic", "kafka_partition", "kafka_offset", "kafka_timestamp", "kafka_key")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_NAME = re.compile(r"kafka:(?P<topic>[^/]+)/(?P<partition>\d+)")


def topics_of(described: FilesSettings) -> list[str]:
    """The topics that ``files`` names, separated by commas. Raises LocationError for what is no name of a topic."""
    topics = [topic.strip() for topic in described.files.split(",")]
    for topic in topics:
        if not _TOPIC.fullmatch(topic):
            raise LocationError(
                f"{described.files!r} names no topics: letters, digits, '.', '_' and '-', separated by commas"
            )
    return sorted(set(topics))


def find_partitions(spark: SparkSession, brokers: str, described: FilesSettings, kind: FileKind) -> list[RawFile]:
    """The partitions of the topics, each with the range of offsets that the brokers have now.

    Raises LocationError where the brokers do not answer, or a topic is not there.
    """
    ranges = _offsets(spark, brokers, topics_of(described))
    return [
        RawFile(
            StoragePath(f"kafka://{brokers}/{topic}/{partition}"),
            f"kafka:{topic}/{partition}",
            frozenset([kind]),
            f"offsets:{begin}-{end}",
        )
        for (topic, partition), (begin, end) in sorted(ranges.items())
    ]


def offsets_of(state: str) -> tuple[int, int]:
    """(first offset, the one after the last) of a state of a partition."""
    begin, _, end = state.removeprefix("offsets:").partition("-")
    return int(begin), int(end)


def messages_of(partition: RawFile) -> int:
    """The number of offsets in a partition's range: its messages, and what transactions and compaction left out."""
    begin, end = offsets_of(partition.state)
    return end - begin


def read_after(partition: RawFile, earlier: str) -> list[RawFile]:
    """The partition with the messages after those of the state ``earlier`` (empty: all); none where there are none.

    Raises UnreadableFileError where the brokers do not have all of them any more.
    """
    begin, end = offsets_of(partition.state)
    if not earlier:
        return [partition] if begin < end else []
    read = offsets_of(earlier)[1]
    if read == end:
        return []
    if read < begin or read > end:
        lost = (
            f"offsets {read:,} to {begin - 1:,} were deleted before they were read"
            if read < begin
            else (f"it ends at offset {end:,}, and {read:,} were read before: it was made anew")
        )
        raise UnreadableFileError(
            partition.name, f"{lost}; learn-spark ingest --force reads what the brokers have, {begin:,} to {end - 1:,}"
        )
    return [replace(partition, state=f"offsets:{read}-{end}", since=earlier)]


def read_kafka(
    spark: SparkSession, partitions: Sequence[RawFile], described: FilesSettings, mapped: Sequence[str]
) -> DataFrame:
    """The messages of the partitions' ranges as JSON objects: their fields as text, MESSAGE_COLUMNS, and ROW_COLUMNS.

    A message that is no JSON object, or has no value, is malformed. ``raw`` names topic, partition and offset.
    """
    from pyspark.sql import functions as F

    begins: dict[str, dict[str, int]] = {}
    ends: dict[str, dict[str, int]] = {}
    for one in partitions:
        topic, partition = _parts(one.name)
        begin, end = offsets_of(one.state)
        begins.setdefault(topic, {})[partition] = begin
        ends.setdefault(topic, {})[partition] = end
    brokers = partitions[0].path.partition("://")[2].partition("/")[0]
    options = {f"kafka.{name}": value for name, value in client_properties(spark, brokers).items()}
    read = (
        spark.read.format("kafka")
        .options(**options)
        .option("assign", json.dumps({topic: [int(n) for n in numbers] for topic, numbers in begins.items()}))
        .option("startingOffsets", json.dumps(begins))
        .option("endingOffsets", json.dumps(ends))
        .option("failOnDataLoss", "true")
        .load()
    )
    messages = read.select(
        F.make_valid_utf8(F.col("value").cast("string")).alias("value"),
        F.concat(F.lit("kafka:"), "topic", F.lit("/"), "partition").alias("source_file"),
        F.col("topic").alias("kafka_topic"),
        F.col("partition").alias("kafka_partition"),
        F.col("offset").alias("kafka_offset"),
        F.col("timestamp").alias("kafka_timestamp"),
        F.make_valid_utf8(F.col("key").cast("string")).alias("kafka_key"),
    )
    return json_rows(spark, messages, partitions, mapped, raw=_raw, malformed_raw=_raw, others=MESSAGE_COLUMNS)


def _raw() -> Column:
    """The message as JSON, with its place."""
    from pyspark.sql import functions as F

    place = [F.col(f"kafka_{name}").alias(name) for name in ("topic", "partition", "offset")]
    return F.to_json(F.struct(*place, "value"))


def _parts(name: str) -> tuple[str, str]:
    found = _NAME.fullmatch(name)
    assert found is not None, name
    return found["topic"], found["partition"]


def client_properties(spark: SparkSession, brokers: str) -> dict[str, str]:
    """The properties of a client: those of the file in PROPERTIES, and the brokers.

    Rows of transactions that were aborted are not read. Raises LocationError where the file cannot be read.
    """
    properties = {"isolation.level": "read_committed"}
    if path := os.environ.get(PROPERTIES):
        jvm: Any = spark._jvm
        found = jvm.java.util.Properties()
        try:
            found.load(jvm.java.io.StringReader(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise LocationError(f"{PROPERTIES}: {path} cannot be read: {error.strerror}") from None
        names = {str(name) for name in found.stringPropertyNames()} - _SET_HERE
        properties |= {name: str(found.getProperty(name)) for name in names}
    return properties | {"bootstrap.servers": brokers}


def _offsets(spark: SparkSession, brokers: str, topics: Sequence[str]) -> dict[tuple[str, int], tuple[int, int]]:
    """(first offset, the one after the last) of each partition, from the brokers."""
    from py4j.protocol import Py4JError

    jvm: Any = spark._jvm
    properties = jvm.java.util.Properties()
    needed = {
        "key.deserializer": "org.apache.kafka.common.serialization.ByteArrayDeserializer",
        "value.deserializer": "org.apache.kafka.common.serialization.ByteArrayDeserializer",
        "allow.auto.create.topics": "false",
        "default.api.timeout.ms": str(ANSWER_MILLISECONDS),
    }
    for name, value in (needed | client_properties(spark, brokers)).items():
        properties.put(name, value)
    ranges: dict[tuple[str, int], tuple[int, int]] = {}
    try:
        consumer = jvm.org.apache.kafka.clients.consumer.KafkaConsumer(properties)
    except (Py4JError, TypeError) as error:
        if "is not callable" in str(error) or "does not exist in the JVM" in str(error):
            raise LocationError(
                "this Spark session has no connector of Kafka: run learn-spark setup --kafka, and pass the JARs to "
                "spark-submit (--jars) where it does not read this environment's spark-defaults.conf"
            ) from None
        raise LocationError(f"source.kafka: no client for {brokers}: {_cause(error)}") from None
    try:
        for topic in topics:
            infos = consumer.partitionsFor(topic)
            if not infos:
                raise LocationError(f"source.kafka: there is no topic {topic} at {brokers}")
            partitions = jvm.java.util.ArrayList()
            for info in infos:
                partitions.add(jvm.org.apache.kafka.common.TopicPartition(topic, info.partition()))
            begins, ends = consumer.beginningOffsets(partitions), consumer.endOffsets(partitions)
            for partition in partitions:
                place = (topic, int(partition.partition()))
                ranges[place] = int(begins.get(partition)), int(ends.get(partition))
    except Py4JError as error:
        raise LocationError(f"source.kafka: {brokers} gave no offsets of {topic}: {_cause(error)}") from None
    finally:
        consumer.close()
    return ranges


def _cause(error: Exception) -> str:
    """The innermost message of an error of Java, without values of properties."""
    java = getattr(error, "java_exception", None)
    while java is not None and java.getCause() is not None:
        java = java.getCause()
    return shown(java.getMessage() or java.getClass().getSimpleName()) if java is not None else shown(first_line(error))
