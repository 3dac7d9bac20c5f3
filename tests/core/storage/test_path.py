"""A path has the forms that Spark, deltalake and Arrow read, and its files appear whole."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from learn_spark.core.errors import SettingsError
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.storage.file_systems import StorageError
from learn_spark.core.storage.path import S3Access, StoragePath, storage_path

MINIO = S3Access(endpoint="http://minio:9000")


@pytest.mark.parametrize(
    ("text", "spark", "inner"),
    [
        ("/data/shop", "file:/data/shop", "/data/shop"),
        ("file:/data/my shop", "file:/data/my shop", "/data/my shop"),
        ("s3://bucket/shop/", "s3a://bucket/shop", "bucket/shop"),
        ("s3a://bucket/shop", "s3a://bucket/shop", "bucket/shop"),
        ("s3://bucket", "s3a://bucket", "bucket"),
        ("hdfs://name:8020/shop", "hdfs://name:8020/shop", "/shop"),
        ("gs://bucket/shop", "gs://bucket/shop", "bucket/shop"),
        ("abfss://box@account.dfs.core.windows.net/shop", "abfss://box@account.dfs.core.windows.net/shop", "box/shop"),
    ],
)
def test_each_library_gets_its_form(text: str, spark: str, inner: str) -> None:
    path = storage_path(text)
    assert (path.spark, path.inner) == (spark, inner)
    assert (path / "tables" / "items").spark == f"{spark}/tables/items"
    assert (path / "tables" / "items").inner == f"{inner}/tables/items"
    assert (path / "tables").parent == path
    assert (path / "tables").name == "tables"
    assert path.is_local or (path / "tables").bucket == text.replace("s3a:", "s3:").rstrip("/").removesuffix("/shop")


def test_s3_is_reached_by_settings_or_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    aws = storage_path("s3://bucket/shop")
    assert aws.delta_options == {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"}
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert aws.delta_options["AWS_REGION"] == "eu-west-1"
    other = storage_path("s3://bucket/shop", MINIO)
    expected = {
        "AWS_ENDPOINT_URL": "http://minio:9000",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "eu-west-1",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
    }
    assert other.delta_options == expected
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio:9000")
    assert aws.delta_options == expected
    # Workers have other environments: what a path needs travels with it, and no key does.
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    pickled = pickle.dumps(aws / "tables")
    assert b"planted-secret" not in pickled
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    there = pickle.loads(pickled)
    assert there == "s3://bucket/shop/tables"
    assert there.delta_options == expected


@pytest.mark.parametrize("text", ["ftp://host/shop", "s3://", "hdfs:///shop", "http://host/shop"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(StorageError):
        storage_path(text)


def test_settings_name_no_key_and_carry_the_server() -> None:
    settings = load_settings("learn", ["workspace=s3://bucket/shop", "storage.endpoint=http://minio:9000"])
    assert settings.place == "s3://bucket/shop"
    assert settings.place.s3 == MINIO
    assert settings.addresses == ["s3://bucket/shop"]
    assert load_settings("learn").addresses == []
    with pytest.raises(SettingsError):
        load_settings("learn", ["storage.endpoint=http://key:secret@minio:9000"])
    assert not {name for name in type(settings.storage).model_fields if "key" in name or "secret" in name}
    assert isinstance(settings, Settings)


def test_files_appear_whole_and_go(place: StoragePath) -> None:
    assert not place.exists() or place.children() == []
    assert (place / "nowhere").children() == []
    assert list((place / "nowhere").files()) == []
    (place / "nowhere").remove()
    (place / "a" / "b.txt").write_text("größe")
    (place / "a" / "c" / "d.bin").write_bytes(b"\x00\x01")
    assert (place / "a" / "b.txt").read_text() == "größe"
    assert [child.name for child in (place / "a").children()] == ["b.txt", "c"]
    found = {entry.path: entry.size for entry in (place / "a").files()}
    assert found == {place / "a" / "b.txt": 7, place / "a" / "c" / "d.bin": 2}
    assert (place / "a").is_folder()
    assert not (place / "a").is_file()
    assert (place / "a" / "b.txt").is_file()
    assert (place / "a" / "b.txt").changed() is not None
    (place / "a" / "b.txt").write_text("new")
    assert (place / "a" / "b.txt").read_text() == "new"
    (place / "a" / "b.txt").remove()
    assert not (place / "a" / "b.txt").exists()
    assert (place / "a" / "b.txt").changed() is None
    with pytest.raises(FileNotFoundError):
        (place / "a" / "b.txt").read_bytes()
    (place / "a").remove()
    assert not (place / "a").exists()


def test_only_a_folder_of_this_machine_is_a_local_path(tmp_path: Path) -> None:
    assert storage_path(tmp_path).local == tmp_path
    with pytest.raises(StorageError):
        _ = storage_path("s3://bucket/shop").local
