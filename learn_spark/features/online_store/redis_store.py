"""An online store in Redis: one string an entity, read by MGET, written by scripts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast, get_args
from urllib.parse import urlsplit

import redis

from learn_spark.features.online_store.layout import entity_key, record_key, vector_in
from learn_spark.features.online_store.store import (
    Entity,
    Kind,
    LostVectorsError,
    OnlineRelease,
    OnlineStoreError,
    OvertakenError,
    Reading,
    Record,
    Row,
    Sign,
)

PASSWORD_VARIABLE = "LEARN_SPARK_REDIS_PASSWORD"
ROWS_OF_A_SCRIPT = 100  # readers wait for a running script
_OVERTAKEN = "OVERTAKEN"
# KEYS: the record, entities. ARGV: the record that must be there, the record that replaces it.
_HEAD = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return redis.error_reply('OVERTAKEN another push has begun') end
local floor, served = tonumber(ARGV[3]), tonumber(ARGV[4])
local function in_force(versions)
  local newest, found, place = floor - 1, '', 1
  while versions and place < #versions do
    local generation, size = struct.unpack('<I4I4', versions, place)
    if generation > newest and generation <= served then
      newest, found = generation, size > 0 and string.sub(versions, place, place + 7 + size) or ''
    end
    place = place + 8 + size
  end
  return found
end
"""
_TAIL = """
if ARGV[2] ~= ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end
"""
# ARGV further: floor and generation of the release in force, generation and end (ms, or '') of the rows, and a row an
# entity: 'v' and its vector, 'd' (deleted) or 'k' (kept).
_WRITE = f"""{_HEAD}
local number, ends, lost = tonumber(ARGV[5]), ARGV[6], 0
for place = 2, #KEYS do
  local key, row = KEYS[place], ARGV[place + 5]
  local sign, there = string.sub(row, 1, 1), true
  if sign == 'k' then
    there = redis.call('EXISTS', key) == 1
    if not there then lost = lost + 1 elseif ends == '' then redis.call('PERSIST', key) end
  else
    local before, vector = in_force(redis.call('GET', key)), string.sub(row, 2)
    there = sign == 'v' or before ~= ''
    if there then
      redis.call('SET', key, before .. struct.pack('<I4I4', number, #vector) .. vector)
    else
      redis.call('UNLINK', key)
    end
  end
  if there and ends ~= '' then redis.call('PEXPIREAT', key, ends) end
end
{_TAIL} return lost
"""
_DROP = f"""{_HEAD}
for place = 2, #KEYS do
  local versions = redis.call('GET', KEYS[place])
  local kept = in_force(versions)
  if versions and kept == '' then
    redis.call('UNLINK', KEYS[place])
  elseif versions and kept ~= versions then
    redis.call('SET', KEYS[place], kept, 'KEEPTTL')
  end
end
{_TAIL} return 0
"""


class RedisStore:
    """A store in the database of a URL (redis:// or rediss://), under a namespace.

    The password is that of the URL, or of the environment variable LEARN_SPARK_REDIS_PASSWORD.
    """

    def __init__(self, url: str, namespace: str) -> None:
        parts = urlsplit(url)
        self.name = f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}{parts.path}"  # without a password
        self.namespace = namespace
        given = {} if parts.password else {"password": os.environ.get(PASSWORD_VARIABLE)}
        self._redis = redis.Redis.from_url(url, socket_timeout=60, socket_connect_timeout=5, **given)
        self._write, self._drop = self._redis.register_script(_WRITE), self._redis.register_script(_DROP)
        self._loaded = False

    def read(self, entities: Sequence[Entity]) -> Reading:
        """One MGET: Redis runs a command alone, so that all values are of one moment."""
        keys = [record_key(self.namespace), *(entity_key(self.namespace, one) for one in entities)]
        with self._answers():
            stored, *versions = self._redis.mget(keys)
        record = Record.from_bytes(stored or b"")
        return Reading(record, [vector_in(one, record.release) for one in cast("list[bytes | None]", versions)])

    def write(self, rows: Sequence[Row], was: Record, now: Record) -> None:
        """One pipeline; only its last script changes the record."""
        assert was.push is not None
        target = was.push.target
        ends = "" if target.expires_at is None else str(int(target.expires_at * 1000))
        lost = self._run(
            self._write,
            [entity for entity, _ in rows],
            [{Sign.DELETED: b"d", Sign.KEPT: b"k"}[row] if isinstance(row, Sign) else b"v" + row for _, row in rows],
            was,
            now,
            (target.generation, ends),
        )
        if lost:
            raise LostVectorsError(f"{self.name} lost {lost} of {len(rows)} vectors: they expired or were evicted")

    def drop(self, entities: Sequence[Entity] | None, was: Record, now: Record) -> None:
        """By key; all: by a SCAN of the namespace."""
        if entities is not None:
            self._run(self._drop, entities, [], was, now, ())
            return
        for kind in get_args(Kind):
            prefix = entity_key(self.namespace, Entity(kind, ""))
            pattern = "".join(f"\\{one}" if one in "[]*?\\^" else one for one in prefix) + "*"
            found: list[Entity] = []
            with self._answers():
                for key in self._redis.scan_iter(match=pattern, count=1000):
                    found.append(Entity(kind, key.decode()[len(prefix) :]))
                    if len(found) == 10 * ROWS_OF_A_SCRIPT:
                        self._run(self._drop, found, [], was, was, ())
                        found = []
            self._run(self._drop, found, [], was, was, ())
        self.switch(was, now)

    def switch(self, was: Record, now: Record) -> None:
        """A script without entities."""
        self._run(self._drop, [], [], was, now, ())

    def _run(
        self,
        script: redis.commands.core.Script,
        entities: Sequence[Entity],
        rows: Sequence[bytes],
        was: Record,
        now: Record,
        more: tuple[int | str, ...],
    ) -> int:
        """Run a script over ``entities`` in one pipeline; the sum of its answers."""
        key, before, after = record_key(self.namespace), was.to_bytes(), now.to_bytes()
        served: OnlineRelease | None = was.release
        bounds = (1, 0) if served is None else (served.floor, served.generation)
        with self._answers(), self._redis.pipeline(transaction=False) as pipeline:
            if not self._loaded:
                self._redis.script_load(_WRITE), self._redis.script_load(_DROP)
                self._loaded = True
            for start in range(0, max(len(entities), 1), ROWS_OF_A_SCRIPT):
                part = slice(start, start + ROWS_OF_A_SCRIPT)
                last = start + ROWS_OF_A_SCRIPT >= len(entities)
                keys = [key, *(entity_key(self.namespace, one) for one in entities[part])]
                pipeline.evalsha(
                    script.sha, len(keys), *keys, before, after if last else before, *bounds, *more, *rows[part]
                )
            return sum(int(answer) for answer in pipeline.execute())

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """Errors of Redis as OnlineStoreError, which names the store."""
        try:
            yield
        except redis.exceptions.NoScriptError as error:
            self._loaded = False
            raise OnlineStoreError(f"{self.name} restarted or forgot its scripts; run the command again") from error
        except redis.exceptions.ResponseError as error:
            if _OVERTAKEN in str(error):
                raise OvertakenError(
                    f"another push to {self.name} ({self.namespace}) has begun, and goes on where this one stopped"
                ) from None
            raise OnlineStoreError(f"{self.name}: {error}") from error
        except redis.exceptions.RedisError as error:
            raise OnlineStoreError(f"{self.name} does not answer: {error}") from error
