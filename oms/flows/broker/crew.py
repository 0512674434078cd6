"""Pieces of a run done by other workers: tasks are arq jobs, what they share and answer goes through Redis.

The run stays where it began, with PostgreSQL holding its state; whoever runs it does tasks as well, so that it ends
without a single helper. A task belongs to whoever claims it, as long as the claim is kept alive; one whose helper was
killed is done again. Tasks change nothing, so one that is done twice does no harm. Redis that is gone, or emptied, makes
the run slower: its own process has all that it shared.

What travels is numbers, texts and arrays (msgpack; no pickles, so that Redis cannot run code here).
"""

import asyncio
import contextlib
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

import msgpack
import numpy as np
import redis
import structlog
from arq.connections import ArqRedis, RedisSettings, create_pool
from redis.exceptions import RedisError

from brokering.executors import Here
from brokering.tasks import Arrays, Task, do

log = structlog.get_logger("oms.crew")

QUEUE = "oms:plans"
JOB = "plan_task"
KEPT_SECONDS = 3_600
"""Life of what a run shares, should it never end."""
CLAIM_SECONDS = 6
"""A helper that was silent for so long is gone."""
LOOK_SECONDS = 1
REST_SECONDS = 300
ORDERS_MIN = 20_000
"""Below so many orders a run is done before helpers have read it."""


def packed(value: Any) -> bytes:
    """Numbers, texts, lists, maps and arrays as bytes."""
    return msgpack.packb(value, default=_array)


def unpacked(raw: bytes) -> Any:
    """What `packed` took; tuples come back as lists, arrays are read-only."""
    return msgpack.unpackb(raw, ext_hook=_as_array, raw=False, strict_map_key=False)


def _array(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        head = msgpack.packb((value.dtype.str, value.shape))
        return msgpack.ExtType(1, len(head).to_bytes(4, "big") + head + value.tobytes())
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not travel")


def _as_array(code: int, raw: bytes) -> Any:
    if code != 1:
        raise ValueError(f"unknown extension {code}")
    size = int.from_bytes(raw[:4], "big")
    dtype, shape = msgpack.unpackb(raw[4 : 4 + size])
    return np.frombuffer(raw, np.dtype(dtype), offset=4 + size).reshape(shape)


class Gone(Exception):
    """What a run shared is not there any more."""


class _Keys:
    """The names of a run's keys in Redis."""

    def __init__(self, run: str) -> None:
        self._run = run

    def shared(self, name: str) -> str:
        return f"plan:{self._run}:shared:{name}"

    def task(self, number: int) -> str:
        return f"plan:{self._run}:task:{number}"

    def claim(self, number: int) -> str:
        return f"plan:{self._run}:claim:{number}"

    @property
    def done(self) -> str:
        return f"plan:{self._run}:done"

    @property
    def every(self) -> str:
        return f"plan:{self._run}:*"


class Crew:
    """An executor whose tasks any worker may do; `who` counts by whom they were done."""

    def __init__(self, url: str, pool: ArqRedis, loop: asyncio.AbstractEventLoop) -> None:
        self.run_id = uuid4().hex
        self.who: dict[str, int] = {}
        self._keys, self._number, self._lost = _Keys(self.run_id), 0, False
        self._redis = redis.Redis.from_url(url, socket_timeout=30)
        self._pool, self._loop = pool, loop
        self._here = Here()
        self._kept: dict[Any, Any] = {}

    @classmethod
    async def open(cls, url: str) -> "Crew":
        """Joins the queue of this Redis."""
        pool = await create_pool(
            RedisSettings.from_dsn(url), default_queue_name=QUEUE, job_serializer=msgpack.packb,
            job_deserializer=lambda raw: msgpack.unpackb(raw, raw=False),
        )  # fmt: skip
        return cls(url, pool, asyncio.get_running_loop())

    def share(self, name: str, value: Arrays) -> None:
        self._here.share(name, value)
        self._tell(lambda: self._redis.set(self._keys.shared(name), packed(value), ex=KEPT_SECONDS))

    def run(self, tasks: list[Task]) -> list[Any]:
        """The results of tasks, in their order. Raises RuntimeError where a task itself fails."""
        first = self._number
        self._number += len(tasks)
        waiting = {first + n: task for n, task in enumerate(tasks)}
        results: dict[int, Any] = {}
        if len(tasks) > 1:
            self._tell(lambda: self._offer(waiting))
        while waiting:
            if (number := self._mine(waiting)) is not None:
                results[number] = do(waiting.pop(number), self._here, self._kept)
                self.who["here"] = self.who.get("here", 0) + 1
            for place, who, failed, result in self._answers(is_idle=number is None):
                if place not in waiting:
                    continue  # of a task that was done again, or of an earlier call
                if failed is not None:
                    raise RuntimeError(f"a task failed at {who}:\n{failed}")
                del waiting[place]
                results[place] = result
                self.who[who] = self.who.get(who, 0) + 1
        return [results[first + n] for n in range(len(tasks))]

    async def close(self) -> None:
        """Drops what the run shared."""
        with contextlib.suppress(RedisError):
            keys = [key async for key in self._pool.scan_iter(self._keys.every)]
            if keys:
                await self._pool.delete(*keys)
        self._redis.close()
        await self._pool.aclose()

    def _offer(self, tasks: dict[int, Task]) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for number, task in tasks.items():
            body = packed([task.kind, task.shard, task.generation, task.given])
            pipe.set(self._keys.task(number), body, ex=KEPT_SECONDS)
        pipe.execute()

        async def enqueue() -> None:
            for number in tasks:
                await self._pool.enqueue_job(JOB, self.run_id, number, _job_id=f"{self.run_id}:{number}")

        asyncio.run_coroutine_threadsafe(enqueue(), self._loop).result(timeout=30)

    def _mine(self, waiting: dict[int, Task]) -> int | None:
        """A task that nobody has, the last ones first: helpers begin at the other end."""
        for number in sorted(waiting, reverse=True):
            claim = partial(self._redis.set, self._keys.claim(number), "here", nx=True, ex=KEPT_SECONDS)
            if self._tell(claim) or self._lost:
                return number
        return None

    def _answers(self, *, is_idle: bool) -> list[Any]:
        def take() -> list[Any]:
            found = []
            if is_idle:
                raw: Any = self._redis.blpop([self._keys.done], timeout=LOOK_SECONDS)
                found += [raw[1]] if raw else []
            while (more := self._redis.lpop(self._keys.done)) is not None:
                found.append(more)
            return [unpacked(one) for one in found]

        return self._tell(take) or []

    def _tell(self, call: Callable[[], Any]) -> Any:
        """What Redis answers; None from when it was lost on: the rest of the run is done here."""
        if self._lost:
            return None
        try:
            return call()
        except (RedisError, TimeoutError) as error:
            log.warning("Redis is lost to the crew; the run goes on alone", error=repr(error))
            self._lost = True
            return None


class Hand:
    """A worker's side: does tasks of one run after another. `name` says who it is."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self._redis = redis.Redis.from_url(url, socket_timeout=30)
        self._run = ""
        self._known: dict[str, Arrays] = {}
        self._kept: dict[Any, Any] = {}
        self._last, self._is_busy = time.monotonic(), False

    def rest(self) -> None:
        """Forgets a run that has asked nothing for a while."""
        if self._run and not self._is_busy and time.monotonic() > self._last + REST_SECONDS:
            self._run, self._known, self._kept = "", {}, {}

    def get(self, name: str) -> Arrays:
        """What the run shared; raises Gone where it is over."""
        if name not in self._known:
            raw: Any = self._redis.get(_Keys(self._run).shared(name))
            if raw is None:
                raise Gone(f"{name} of run {self._run} is gone")
            self._known[name] = unpacked(raw)
        return self._known[name]

    def do(self, run: str, number: int) -> bool:
        """Does a task where nobody has it; gives whether it did."""
        keys = _Keys(run)
        if not self._redis.set(keys.claim(number), self.name, nx=True, ex=CLAIM_SECONDS):
            return False
        raw: Any = self._redis.get(keys.task(number))
        if raw is None:
            return False  # the run is over
        self._is_busy = True
        if run != self._run:
            self._run, self._known, self._kept = run, {}, {}
        with _Kept(self._redis, keys.claim(number)):
            try:
                answer = [number, self.name, None, do(Task(*unpacked(raw)), self, self._kept)]
            except Gone:
                return False
            except Exception:
                answer = [number, self.name, traceback.format_exc(), None]
            finally:
                self._last, self._is_busy = time.monotonic(), False
        self._redis.rpush(keys.done, packed(answer))
        self._redis.expire(keys.done, KEPT_SECONDS)
        return True

    def close(self) -> None:
        """Leaves."""
        self._redis.close()


class _Kept:
    """Keeps a claim alive while its task is done."""

    def __init__(self, client: redis.Redis, key: str) -> None:
        self._client, self._key, self._over = client, key, threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(CLAIM_SECONDS / 3):
            with contextlib.suppress(RedisError):
                self._client.expire(self._key, CLAIM_SECONDS)


async def plan_task(ctx: dict[str, Any], run: str, number: int) -> bool:
    """A task of somebody's run, as an arq job."""
    began = time.monotonic()
    done = await asyncio.to_thread(ctx["hand"].do, run, number)
    if done:
        log.debug("a task of a plan is done", run=run, number=number, seconds=round(time.monotonic() - began, 3))
    return done
