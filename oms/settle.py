"""Group commit: one bounded queue and one transaction for many requests.

While one transaction commits, what arrives is gathered and settled by the next. `many(tx, requests)` gives one answer
or Refusal per request, in order, and is idempotent by an id that each request carries: it may be called again with
requests that are settled already, when nobody knows whether a commit came through.
"""

import asyncio
import contextlib
import random
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import asyncpg
import structlog

from oms.db import Connection, Database
from oms.errors import Busy, Refusal

log = structlog.get_logger("oms.settle")
Request = TypeVar("Request")
Answer = TypeVar("Answer")

Many = Callable[[Connection, Sequence[Any]], Awaitable[Sequence[Any]]]

BATCH_MAX = 256
QUEUE_MAX = 4096
ATTEMPTS_MAX = 12
PAUSE_SECONDS_MAX = 2.0
"""A lost connection is tried again for about 15 s; then the callers are told that nobody knows, and to ask again."""


class Again(Exception):
    """Raised by `many` where another process was faster: nothing is written, and the batch is settled anew."""


_LOST = (
    asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.CannotConnectNowError, asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError, asyncpg.TooManyConnectionsError, OSError,
)  # fmt: skip
_RACED = (Again, asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


async def settle_batch(db: Database, many: Many, requests: Sequence[Any]) -> list[Any]:
    """Settles requests in one transaction, and gives an answer, a Refusal or an error for each, in order.

    A request that raises something unexpected is found by halving: it alone gets its error, the rest is settled.
    A lost connection leaves the outcome unknown, so the same requests are asked again: their ids make it once.
    """
    try:
        return list(await _settle(db, many, requests))
    except _LOST as error:
        log.warning("the database cannot be reached, outcome unknown", requests=len(requests), error=repr(error))
        busy = Busy("The outcome is not known: ask again with the same key or id.", retry_after_seconds=5)
        return [busy] * len(requests)
    except Exception as error:
        if len(requests) == 1:
            if not isinstance(error, Refusal):
                log.exception("a request cannot be settled")
            return [error]
        half = len(requests) // 2
        first = await settle_batch(db, many, requests[:half])
        return first + await settle_batch(db, many, requests[half:])


async def _settle(db: Database, many: Many, requests: Sequence[Any]) -> Sequence[Any]:
    for attempt in range(ATTEMPTS_MAX):
        try:
            async with db.transaction() as tx:
                answers = await many(tx, requests)
            assert len(answers) == len(requests), "many gives one answer per request"
            return answers
        except (*_LOST, *_RACED) as error:
            if attempt == ATTEMPTS_MAX - 1:
                raise
            raced = isinstance(error, _RACED)
            pause = min(PAUSE_SECONDS_MAX, (0.002 if raced else 0.05) * 2**attempt)
            await asyncio.sleep(pause * (0.5 + random.random() / 2))
    raise AssertionError("unreachable")


class Settle(Generic[Request, Answer]):
    """One queue and one worker: each `ask` waits for its own answer, many share a transaction."""

    def __init__(
        self,
        db: Database,
        many: Callable[[Connection, Sequence[Request]], Awaitable[Sequence[Answer | Refusal]]],
        *,
        batch_max: int = BATCH_MAX,
        queue_max: int = QUEUE_MAX,
        after: Callable[[], Awaitable[None]] | None = None,
        weigh: Callable[[Request], int] = lambda request: 1,
    ) -> None:
        self.db, self.many, self.batch_max, self.queue_max, self.after = db, many, batch_max, queue_max, after
        self.weigh = weigh
        self._waiting: deque[tuple[Request, asyncio.Future[Any]]] = deque()
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._is_closing = False

    async def ask(self, request: Request) -> Answer:
        """The answer, durable when it is given; raises its Refusal, Busy where the queue is full."""
        if self._is_closing or len(self._waiting) >= self.queue_max:
            why = "is stopping" if self._is_closing else f"has {self.queue_max} requests waiting, its limit"
            raise Busy(f"The service {why}; nothing of this request was applied.", retry_after_seconds=1)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="settle")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        self._arrived.set()
        answer = await future
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        """Takes nothing new, settles what waits, and ends."""
        self._is_closing = True
        self._arrived.set()
        if self._worker is not None:
            await self._worker
            self._worker = None

    def _next(self) -> list[tuple[Request, asyncio.Future[Any]]]:
        """The requests that are settled together next: up to `batch_max` by weight, one at least."""
        batch: list[tuple[Request, asyncio.Future[Any]]] = []
        left = self.batch_max
        while self._waiting and (not batch or self.weigh(self._waiting[0][0]) <= left):
            request, future = self._waiting.popleft()
            if not future.done():
                batch.append((request, future))
                left -= self.weigh(request)
        return batch

    async def _work(self) -> None:
        while True:
            if not self._waiting:
                if self._is_closing:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            batch = self._next()
            if not batch:
                continue
            try:
                answers = await settle_batch(self.db, self.many, [request for request, _ in batch])
            except asyncio.CancelledError:
                for _, future in [*batch, *self._waiting]:
                    future.cancel()
                raise
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
            if self.after is not None:
                with contextlib.suppress(Exception):
                    await self.after()


_shared: "weakref.WeakKeyDictionary[Database, dict[Any, Settle[Any, Any]]]" = weakref.WeakKeyDictionary()


def shared(
    db: Database,
    many: Many,
    *,
    after: Callable[[], Awaitable[None]] | None = None,
    of: Any = None,
    batch_max: int = BATCH_MAX,
    queue_max: int = QUEUE_MAX,
    weigh: Callable[[Any], int] = lambda request: 1,
) -> Settle[Any, Any]:
    """The one queue of this database and this kind of request, made when it is first asked for.

    `of` tells apart queues of a kind whose requests share no transaction.
    """
    queues = _shared.setdefault(db, {})
    key = many if of is None else of
    if key not in queues:
        queues[key] = Settle(db, many, after=after, batch_max=batch_max, queue_max=queue_max, weigh=weigh)
    return queues[key]


async def close_all(db: Database) -> None:
    """Settles what waits in every shared queue of this database; for the service's shutdown."""
    queues = _shared.pop(db, {})
    await asyncio.gather(*(queue.close() for queue in queues.values()))
