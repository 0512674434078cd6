"""For orchestrators and Prometheus: alive, ready, and figures."""

import asyncio
from typing import Any

import asyncpg
import msgspec
from litestar import Response, get
from litestar.datastructures import State
from prometheus_client import generate_latest

from oms.api import PUBLIC
from oms.cache import Cache
from oms.db import Database, Sql, sql_folder

sql = Sql("health")

READY_SECONDS_MAX = 3.0


class Gauges(msgspec.Struct, frozen=True):
    """What waits for somebody."""

    exceptions_open: float
    exceptions_escalated: float
    announcements_due: float
    pushes_due: float
    pushes_dead: float
    post_batches_dead: float
    posts_unacknowledged: float
    skus_touched: float
    feeds_open: float
    stock_negative: float


class Readiness(msgspec.Struct, frozen=True):
    """Each part by itself. Redis is speed, not truth: without it the service is ready and slower."""

    ready: bool
    database: str
    migrations: str
    redis: str


applied_migrations = sql.rows("applied_migrations", str)
gauges = sql.one("gauges", Gauges)


@get("/health/live", opt={"roles": PUBLIC}, tags=["health"])
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@get("/health/ready", opt={"roles": PUBLIC}, tags=["health"])
async def ready(db: Database, cache: Cache) -> Response[Readiness]:
    """200 when requests can be served: the database is there and its schema is this version's; else 503."""
    database, migrations = "ok", "ok"
    try:
        async with asyncio.timeout(READY_SECONDS_MAX), db.connection() as connection:
            applied = set(await applied_migrations(connection))
        missing = sorted({path.name for path in sql_folder().glob("[0-9][0-9][0-9][0-9]_*.sql")} - applied)
        if missing:
            migrations = f"missing: {', '.join(missing)}; run `oms migrate`"
    except asyncpg.UndefinedTableError:
        migrations = "none is applied; run `oms migrate`"
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        database, migrations = "not reachable", "not known"
    redis = "ok" if await cache.ping() else "not reachable: slower, nothing is lost"
    is_ready = database == "ok" and migrations == "ok"
    body = Readiness(ready=is_ready, database=database, migrations=migrations, redis=redis)
    return Response(body, status_code=200 if is_ready else 503)


@get("/metrics", opt={"roles": PUBLIC}, tags=["health"])
async def metrics(db: Database, state: State) -> Response[bytes]:
    """Requests of this process by route, and what waits in the database, in Prometheus' text format."""
    text = generate_latest(state.measures.registry)
    try:
        async with asyncio.timeout(READY_SECONDS_MAX), db.connection() as connection:
            figures = msgspec.structs.asdict(await gauges(connection))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        figures = {"database_away": 1.0}
    lines = [f"# TYPE oms_{name} gauge\noms_{name} {value:g}\n" for name, value in figures.items()]
    return Response(text + "".join(lines).encode(), media_type="text/plain; version=0.0.4")


routes: list[Any] = [live, ready, metrics]
