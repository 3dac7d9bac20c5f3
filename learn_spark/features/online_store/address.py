"""The online store at a URL."""

from __future__ import annotations

from learn_spark.core.errors import SettingsError
from learn_spark.core.settings.online import OnlineSettings
from learn_spark.features.online_store.store import OnlineStore

SQLITE = "sqlite:///"


def open_store(url: str, namespace: str) -> OnlineStore:
    """The store at ``redis://host:port/db``, ``rediss://...`` or ``sqlite:///path`` (``sqlite:////tmp/x`` is /tmp/x).

    Nothing is connected yet. Raises SettingsError for another URL, MissingPartError without the extra ``online``.
    """
    if url.startswith(SQLITE) and len(url) > len(SQLITE):
        from learn_spark.features.online_store.sqlite_store import SQLiteStore

        return SQLiteStore(url.removeprefix(SQLITE), namespace)
    if url.startswith(("redis://", "rediss://")):
        from learn_spark.features.online_store.redis_store import RedisStore

        return RedisStore(url, namespace)
    raise SettingsError(
        f"{url.partition('@')[2] or url!r} is not the address of an online store: give redis://host:port/db, "
        "rediss://host:port/db or sqlite:///path"
    )


def chosen_store(settings: OnlineSettings, url: str | None) -> OnlineStore:
    """The store at ``url``, else at ``online.store``, in the settings' namespace. Raises SettingsError without one."""
    if (address := url or settings.store) is None:
        raise SettingsError(
            "no online store is named: give --to redis://host:port/db or --to sqlite:///path, or set online.store"
        )
    return open_store(address, settings.namespace)
