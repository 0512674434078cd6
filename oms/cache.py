"""The door to Redis: projections and wake-ups. It may be emptied, or be gone, at any moment: slower, never wrong.

A projection is written only by who read PostgreSQL in this *epoch*: the epoch is a key that a flush takes with it.
So nobody writes on an emptied Redis what it remembers from before, and among those of one epoch the version decides.

    seen = await cache.get(["A", "B"])                            # one round trip
    rows = ...                                                    # what is absent in seen.rows, read from PostgreSQL
    await cache.put(rows, epoch=seen.epoch, fills=True)

Beside the projections stand the version of the rules that shape numbers, and the moment up to which all that was
committed is projected.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

import msgspec
import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from oms.domain.shape import Coming

log = structlog.get_logger("oms.cache")
Answer = TypeVar("Answer")

PROJECTION_SECONDS_MAX = 3600
"""Maximum age of a projection; then a reader fills it anew."""
ANSWER_SECONDS_MAX = 2.0
"""Redis that does not answer within this counts as gone."""
GONE_SECONDS = 1.0
"""How long a Redis that was found gone is not asked again."""
ROWS_PER_CALL = 1_000
HEAD = 3
"""Keys that every round trip asks for."""
KEYS_PER_CALL = 4_000
"""Keys that one round trip asks for, at most, beside a question that is longer by itself."""
CONNECTIONS_MAX = 64

EPOCH, RULES, UPTO = "epoch", "rules", "upto"
KEY = "sku:"

_PUT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local fills, age, written = ARGV[2] == '1', ARGV[3], 0
for i = 2, #KEYS do
  local new, old = ARGV[i + 2], redis.call('GET', KEYS[i])
  local gap = old and tonumber(string.match(new, '%d+')) - tonumber(string.match(old, '%d+'))
  if not old or gap > 0 or (gap == 0 and not fills) then
    redis.call('SET', KEYS[i], new, 'EX', age)
    written = written + 1
  end
end
return written
"""


_RAISE = """
local old = redis.call('GET', KEYS[1])
if not old or tonumber(old) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
"""


class KitPart(msgspec.Struct, frozen=True, array_like=True):
    """So many of a sku are in one kit."""

    sku: str
    quantity: int


class Projection(msgspec.Struct, frozen=True, array_like=True):
    """A sku's availability as of a version, and what is expected of it. A kit has `parts`, and no units of its own."""

    version: int
    sku_id: int
    layout_id: int
    supply: list[int]
    reserved: list[int]
    taken: dict[int, int] = {}
    coming: list[Coming] = []
    parts: list[KitPart] = []


class Seen(msgspec.Struct, frozen=True):
    """What Redis knows, by our sku code; what is absent is filled under this epoch. No epoch: Redis is gone.

    `upto`: all that was committed up to this moment (in seconds since 1970) is in it, as far as is known.
    """

    epoch: str | None
    rows: dict[str, Projection]
    rules: int = 0
    upto: float | None = None


_decode = msgspec.json.Decoder(Projection).decode
_encode = msgspec.json.Encoder().encode


class Cache:
    """Redis, or its absence: no call raises because Redis is gone; each says what it gives then."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._redis = _client(url, timeout=ANSWER_SECONDS_MAX)
        self._waiting = _client(url, timeout=None)
        self._put = self._redis.register_script(_PUT)
        self._raise = self._redis.register_script(_RAISE)
        self._gone_until = 0.0
        self._is_gone = False
        self._asked: deque[tuple[list[str], asyncio.Future[Sequence[str | None] | None]]] = deque()
        self._looking: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str) -> "Cache":
        """Connects; a Redis that is gone is logged and tried again later."""
        cache = cls(url)
        await cache.ping()
        return cache

    async def close(self) -> None:
        """Ends the connections."""
        await self._redis.aclose()
        await self._waiting.aclose()

    async def ping(self) -> bool:
        """Whether Redis answers."""
        return await self._ask(self._redis.ping, default=False)

    async def wake(self, name: str) -> None:
        """Wakes one who waits for this name, or the next who will; many calls are one. Lost where Redis is gone."""

        async def push() -> None:
            pipe = self._redis.pipeline(transaction=False)
            pipe.lpush(f"wake:{name}", 1)
            pipe.ltrim(f"wake:{name}", 0, 0)
            await pipe.execute()

        await self._ask(push, default=None)

    async def wait(self, names: Sequence[str], seconds: float) -> str | None:
        """The name that was called, earlier names first; None when nobody called, or Redis is gone, for `seconds`."""
        end = time.monotonic() + seconds

        async def pop() -> str | None:
            keys = [f"wake:{name}" for name in names]
            taken = await asyncio.wait_for(self._waiting.brpop(keys, seconds), seconds + ANSWER_SECONDS_MAX)
            return None if taken is None else taken[0].removeprefix("wake:")

        called = await self._ask(pop, default=None)
        if called is None and self._is_gone:
            await asyncio.sleep(max(0.0, min(end - time.monotonic(), GONE_SECONDS)))
        return called

    async def epoch(self) -> str | None:
        """The epoch to read PostgreSQL in, before `put_atp`; None where Redis is gone."""

        async def ask() -> str:
            pipe = self._redis.pipeline(transaction=True)
            pipe.set(EPOCH, uuid4().hex, nx=True)
            pipe.get(EPOCH)
            return (await pipe.execute())[1]

        return await self._ask(ask, default=None)

    async def rules_are(self, version: int) -> None:
        """The rules that shape numbers have this version; an older one never overwrites a newer one."""
        await self._ask(partial(self._raise, keys=[RULES], args=[version]), default=None)

    async def projected_upto(self, moment: float) -> None:
        """All that was committed up to this moment (in seconds since 1970) is projected."""
        await self._ask(partial(self._redis.set, UPTO, f"{moment:.3f}"), default=None)

    async def get(self, skus: Sequence[str]) -> Seen:
        """The projections of these sku codes; empty where Redis is gone.

        Those who ask while a round trip is on its way share the next one.
        """
        asked: asyncio.Future[Sequence[str | None] | None] = asyncio.get_running_loop().create_future()
        self._asked.append(([_key(sku) for sku in skus], asked))
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_up(), name="atp")
        found = await asked
        if found is None:
            return Seen(None, {})
        epoch, rules, upto, *texts = found
        if epoch is None:
            epoch, texts = await self.epoch(), []
        return Seen(
            epoch,
            {sku: _decode(text) for sku, text in zip(skus, texts, strict=False) if text is not None},
            int(rules or 0),
            float(upto) if upto else None,
        )

    async def _look_up(self) -> None:
        """Answers all who have asked, many in one round trip, until nobody has."""
        while self._asked:
            batch: list[tuple[list[str], asyncio.Future[Sequence[str | None] | None]]] = []
            keys = [EPOCH, RULES, UPTO]
            while self._asked and (not batch or len(keys) + len(self._asked[0][0]) <= KEYS_PER_CALL):
                some, asked = self._asked.popleft()
                if not asked.done():
                    batch.append((some, asked))
                    keys += some
            try:
                found = await self._ask(partial(self._redis.mget, keys), default=None)
            except BaseException as error:
                for _, asked in [*batch, *self._asked]:
                    if not asked.done():
                        asked.set_exception(error)
                self._asked.clear()
                raise
            first = HEAD
            for some, asked in batch:
                if not asked.done():
                    asked.set_result(found and [*found[:HEAD], *found[first : first + len(some)]])
                first += len(some)

    async def put(self, rows: Mapping[str, Projection], *, epoch: str | None, fills: bool = False) -> int | None:
        """Writes projections, by sku code, that were read in this epoch; gives how many, None where nothing could be.

        An older version never overwrites a newer one; the same version does (a receipt is expected now), but not
        from a reader who `fills`.
        """
        if epoch is None:
            return None
        if not rows:
            return 0
        ordered = list(rows.items())

        async def put() -> int | None:
            pipe = self._redis.pipeline(transaction=False)
            for start in range(0, len(ordered), ROWS_PER_CALL):
                part = ordered[start : start + ROWS_PER_CALL]
                await self._put(
                    keys=[EPOCH, *(_key(sku) for sku, _ in part)],
                    args=[epoch, int(fills), PROJECTION_SECONDS_MAX, *(_encode(row) for _, row in part)],
                    client=pipe,
                )
            counts = await pipe.execute()
            return None if -1 in counts else sum(counts)

        return await self._ask(put, default=None)

    async def _ask(self, call: Callable[[], Awaitable[Answer]], *, default: Answer) -> Answer:
        if self._is_gone and time.monotonic() < self._gone_until:
            return default
        try:
            answer = await call()
        except (RedisError, OSError, TimeoutError) as error:
            if not self._is_gone:
                log.warning("Redis is gone: working without it, slower", url=_shown(self.url), error=str(error))
            self._is_gone, self._gone_until = True, time.monotonic() + GONE_SECONDS
            return default
        if self._is_gone:
            log.info("Redis is back", url=_shown(self.url))
            self._is_gone = False
        return answer


def _client(url: str, *, timeout: float | None) -> Any:
    pool = BlockingConnectionPool.from_url(
        url, decode_responses=True, max_connections=CONNECTIONS_MAX, socket_timeout=timeout,
        timeout=ANSWER_SECONDS_MAX, socket_connect_timeout=ANSWER_SECONDS_MAX,
    )  # fmt: skip
    return Redis.from_pool(pool)


def _shown(url: str) -> str:
    return url.rsplit("@", 1)[-1]


def _key(sku: str) -> str:
    return KEY + sku
