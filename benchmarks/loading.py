"""A process that takes the snapshots in the ERP's folder as `oms morning` does, and says what that took, as JSON.

    python -m benchmarks.loading DATABASE_URL REDIS_URL

The time is from the file to what every channel may sell, in PostgreSQL and Redis. The lock of a chunk is measured in
this process: from before the statement that takes the skus' rows until its commit is answered, so never too short.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec

from benchmarks.frame import memory_mb
from oms import ledger
from oms.cache import Cache
from oms.db import Connection, Database
from oms.flows import fulfill
from oms.flows.ingest import messages
from oms.flows.order.parked import unpark_lines
from oms.flows.push.projector import project
from oms.morning import analyze, take_feeds

TAKES_ROWS = ledger.sql.blocks["lock_skus"].text


class Loaded(msgspec.Struct, frozen=True):
    """What a load took: seconds by step, seconds of each chunk's locks, wall clock at both ends, peak memory."""

    rows: int
    changed: int
    seconds: float
    steps: dict[str, float]
    locks_seconds: list[float]
    began_at: float
    ended_at: float
    memory_mb: float
    statements: dict[str, float]


class Watched(Database):
    """The door to PostgreSQL, with a clock at it."""

    locks_seconds: list[float]
    statements: dict[str, float]

    @classmethod
    async def open(cls, url: str, *, connections_max: int = 10) -> "Watched":
        """As the door opens."""
        db = await super().open(url, connections_max=connections_max)
        assert isinstance(db, Watched)
        db.locks_seconds, db.statements = [], {}
        return db

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """As the door gives it."""
        since: float | None = None

        def ran(query: Any) -> None:
            nonlocal since
            name = " ".join(query.query.split())[:120]
            self.statements[name] = self.statements.get(name, 0.0) + query.elapsed
            if query.query == TAKES_ROWS and since is None:
                since = time.perf_counter() - query.elapsed

        async with self.pool.acquire() as connection:
            with connection.query_logger(ran):
                async with connection.transaction():
                    yield connection
            if since is not None:
                self.locks_seconds.append(time.perf_counter() - since)


async def load(database_url: str, redis_url: str) -> Loaded:
    """Takes what lies in the folders, up to what the channels may sell."""
    db = await Watched.open(database_url)
    cache = await Cache.open(redis_url)
    steps: dict[str, float] = {}
    try:
        began_at, began = time.time(), time.perf_counter()
        last = began

        def tell(phase: str, done: int, total: int | None) -> None:
            nonlocal last
            now = time.perf_counter()
            steps[phase] = steps.get(phase, 0.0) + now - last
            last = now

        taken = await take_feeds(db, who="benchmark", clock=lambda: datetime.now(UTC), source=None, progress=tell)
        locks = list(db.locks_seconds)
        await messages.replay_parked(db, who="benchmark")
        await unpark_lines(db, who="benchmark")
        await fulfill.relieve(db, who="benchmark", now=datetime.now(UTC))
        async with db.connection() as tx:
            await analyze(tx)
        tell("beside", 0, None)
        while (await project(db, cache, now=datetime.now(UTC))).rows:
            pass
        tell("project", 0, None)
        seconds, ended_at = time.perf_counter() - began, time.time()
    finally:
        await cache.close()
        await db.close()
    assert all(t.outcomes.keys() == {"applied"} for t in taken) and taken, taken
    return Loaded(
        rows=sum(t.rows for t in taken), changed=sum(t.changed for t in taken), seconds=seconds, steps=steps,
        locks_seconds=locks, began_at=began_at, ended_at=ended_at, memory_mb=memory_mb(), statements=db.statements,
    )  # fmt: skip


async def bare(database_url: str, file: str) -> float:
    """Seconds of a bare COPY of the same file and its upsert into a filled plain table."""
    connection = await asyncpg.connect(database_url, command_timeout=600)
    try:
        await connection.execute(
            "create table if not exists bare (sku text, location text, quantity int, primary key (sku, location))"
        )
        began = time.perf_counter()
        await connection.execute("create temp table came (sku text, location text, quantity int)")
        await connection.copy_to_table("came", source=file, format="csv", header=True)
        await connection.execute(
            "insert into bare select sku, location, quantity from came"
            " on conflict (sku, location) do update set quantity = excluded.quantity"
        )
        return time.perf_counter() - began
    finally:
        await connection.close()


if __name__ == "__main__":
    print(msgspec.json.encode(asyncio.run(load(sys.argv[1], sys.argv[2]))).decode(), flush=True)
