"""Projections in this process's memory, right until Redis says that they changed (server-assisted client caching).

Redis tells each listener which keys were written; what is remembered here is forgotten then. While nobody listens, or
nothing has been heard for a while, nothing is remembered: then every question goes to Redis.

https://valkey.io/topics/client-side-caching/ (RESP3, broadcasting mode)
"""

import asyncio
import contextlib
import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import structlog
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import RedisError

from oms.cache import EPOCH, KEY, RULES, UPTO, Cache, Projection, Seen

log = structlog.get_logger("oms.near")

ROWS_MAX = 50_000
HEARD_SECONDS_MAX = 3.0
"""The projector writes its moment each second: who has heard nothing for so long does not know what changed."""
AGAIN_SECONDS = 1.0


class Near:
    """What this process remembers of Redis.

    An answer that was on its way while its key was written is not remembered: each change has a number, and an answer
    that was asked for before it is older.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._rows: dict[str, Projection] = {}
        self._head: Seen | None = None
        self._heard_at = 0.0
        self._changes = self._began = 0
        self._changed: dict[str, int] = {}
        self._asked: deque[int] = deque()
        self._task: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listens from now on, until `stop`."""
        self._task = asyncio.create_task(self._listen(), name="near")

    async def stop(self) -> None:
        """Listens and remembers no more."""
        for task in (self._task, self._refreshing):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._forget()

    def seen(self, skus: Sequence[str]) -> Seen | None:
        """The projections of these skus, where all of them are remembered."""
        head = self._head
        if head is None or time.monotonic() - self._heard_at > HEARD_SECONDS_MAX:
            return None
        rows = self._rows
        try:
            return Seen(head.epoch, {sku: rows[sku] for sku in skus}, head.rules, head.upto)
        except KeyError:
            return None

    async def get(self, skus: Sequence[str]) -> Seen:
        """The projections of these skus: from memory, or from Redis, and then remembered."""
        found = self.seen(skus)
        if found is not None:
            return found
        found, at = await self._ask(skus)
        if at is not None:
            if self._is_newest(at, EPOCH, RULES):
                self._head = found
            for sku, row in found.rows.items():
                if self._is_newest(at, sku):
                    self._remember(sku, row)
        oldest = self._asked[0] if self._asked else self._changes
        for key in [key for key, change in self._changed.items() if change <= oldest]:
            del self._changed[key]
        return found

    async def _ask(self, skus: Sequence[str]) -> tuple[Seen, int | None]:
        """Redis' answer, and the change before which it was asked for; None where it may not be remembered."""
        at = self._changes
        self._asked.append(at)
        try:
            found = await self._cache.get(skus)
        finally:
            self._asked.remove(at)
        may_be = self._heard_at and found.epoch is not None and at >= self._began
        return found, at if may_be else None

    def _is_newest(self, at: int, *keys: str) -> bool:
        """Whether none of these keys was written since this change."""
        return all(self._changed.get(key, 0) <= at for key in keys)

    def _remember(self, sku: str, row: Projection) -> None:
        if len(self._rows) >= ROWS_MAX and sku not in self._rows:
            self._rows.pop(next(iter(self._rows)))
        self._rows[sku] = row

    def _forget(self) -> None:
        self._rows.clear()
        self._head, self._heard_at = None, 0.0
        self._changes += 1
        self._began = self._changes

    def _hear(self, keys: Sequence[str] | None) -> None:
        """These keys were written; None: all of them are gone."""
        if keys is None:
            self._forget()
        self._heard_at = time.monotonic()
        self._changes += 1
        for key in keys or ():
            if key.startswith(KEY):
                sku = key[len(KEY) :]
                self._rows.pop(sku, None)
                self._note(sku)
            elif key != UPTO:
                self._head = None
                self._note(key)
            elif self._refreshing is None or self._refreshing.done():
                self._refreshing = asyncio.create_task(self.get_head(), name="near-head")

    def _note(self, key: str) -> None:
        if self._asked:
            self._changed[key] = self._changes

    async def get_head(self) -> None:
        """Learns up to which moment all is projected."""
        found, at = await self._ask([])
        if at is not None and self._head is not None and self._is_newest(at, EPOCH, RULES):
            self._head = found

    async def _listen(self) -> None:
        while True:
            try:
                await self._follow()
            except (RedisError, OSError, TimeoutError) as error:
                log.info("Redis does not tell what changes: nothing is remembered", error=str(error))
            self._forget()
            await asyncio.sleep(AGAIN_SECONDS)

    async def _follow(self) -> None:
        pool = ConnectionPool.from_url(self._cache.url, protocol=3, decode_responses=True)
        connection: Any = pool.make_connection()
        try:
            await connection.connect()
            await connection.send_command(
                "CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", KEY, "PREFIX", EPOCH, "PREFIX", RULES, "PREFIX", UPTO
            )
            await connection.read_response()
            self._forget()
            self._heard_at = time.monotonic()
            while True:
                told = await connection.read_response(push_request=True, timeout=HEARD_SECONDS_MAX * 2)
                if isinstance(told, list) and told and told[0] == "invalidate":
                    self._hear(told[1])
        finally:
            await connection.disconnect()
            await pool.aclose()


_near: "weakref.WeakKeyDictionary[Cache, Near]" = weakref.WeakKeyDictionary()


def of(cache: Cache) -> Near:
    """What this process remembers of this Redis; it remembers nothing before it is started."""
    found = _near.get(cache)
    if found is None:
        found = _near[cache] = Near(cache)
    return found
