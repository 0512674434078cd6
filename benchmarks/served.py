"""The service as a benchmark serves it: our routes, and beside them controls of the same shape that answer a constant.

    python -m benchmarks.served DATABASE_URL REDIS_URL PORT WORKERS

A control is on the same server, its parameters are parsed and its key is checked in the same way, and its answer has the
same shape: what it lacks is the work.
"""

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
from litestar import Response, get, post
from litestar.datastructures import State
from litestar.params import Parameter

from oms.access import Actor
from oms.api.atp import READ, AtpAnswer, AtpQuestion
from oms.api.reservations import CHECKOUT, CartBody
from oms.app import from_environment
from oms.cache import Cache
from oms.db import Database
from oms.domain.order import CartLine
from oms.flows.promise.read import SKUS_MAX, Atp
from oms.flows.reserve import Granted
from oms.house import BACKLOG, CONNECTIONS_MAX

USUAL_CONNECTIONS = 16
USUAL_TABLES = """
create table if not exists usual_stock (sku text primary key, units int not null check (units >= 0));
insert into usual_stock select code, 1000000000 from sku on conflict do nothing;
create table if not exists usual_reservation (id uuid, sku text, units int, until timestamptz, primary key (id, sku));
analyze usual_stock;
"""
MAKING = asyncio.Lock()
MADE = UUID(int=7)
LATER = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(minutes=15)


@get("/constant/atp", opt={"roles": READ})
async def constant_atp(
    *,
    db: Database,
    cache: Cache,
    actor: Actor,
    now: datetime,
    channel: str,
    sku: Annotated[list[str], Parameter(min_items=1, max_items=SKUS_MAX)],
) -> AtpAnswer:
    """What `/v1/atp` would say, without knowing."""
    return AtpAnswer(channel, [Atp(code, 42, 7, None) for code in sku], [])


@post("/constant/atp", status_code=200, opt={"roles": READ})
async def constant_atp_of_many(db: Database, cache: Cache, actor: Actor, now: datetime, data: AtpQuestion) -> AtpAnswer:
    """What `POST /v1/atp` would say, without knowing."""
    return AtpAnswer(data.channel or "", [Atp(code, 42, 7, None) for code in data.skus], [])


@post("/constant/reservations", opt={"roles": CHECKOUT, "idempotency": "own"})
async def constant_reservation(db: Database, cache: Cache, actor: Actor, data: CartBody) -> Response[Any]:
    """What `/v1/reservations` would say, without reserving."""
    lines = [CartLine(line.sku, line.quantity) for line in data.lines]
    return Response(Granted(MADE, LATER, lines), status_code=201)


@post("/usual/reservations", opt={"roles": CHECKOUT, "idempotency": "own"})
async def usual_reservation(state: State, db: Database, cache: Cache, actor: Actor, data: CartBody) -> Response[Any]:
    """A reservation as shops usually make it: each request its own transaction of lock, read, check, write, commit."""
    pool = await usual_pool(state, db)
    async with pool.acquire() as tx, tx.transaction():
        for line in sorted(data.lines, key=lambda line: line.sku):
            left = await tx.fetchval("select units from usual_stock where sku = $1 for update", line.sku)
            if left is None or left < line.quantity:
                return Response({"title": "out of stock"}, status_code=409)
            await tx.execute("update usual_stock set units = units - $2 where sku = $1", line.sku, line.quantity)
        made = uuid4()
        until = await tx.fetchval("select clock_timestamp() + interval '15 minutes'")
        await tx.executemany(
            "insert into usual_reservation values ($1, $2, $3, $4)",
            [(made, line.sku, line.quantity, until) for line in data.lines],
        )
    return Response(Granted(made, until, [CartLine(line.sku, line.quantity) for line in data.lines]), status_code=201)


async def usual_pool(state: State, db: Database) -> asyncpg.Pool:
    """The connections of the usual way, and its tables with stock, made when first asked for."""
    async with MAKING:
        if "usual" not in state:
            pool = await asyncpg.create_pool(db.url, min_size=USUAL_CONNECTIONS, max_size=USUAL_CONNECTIONS)
            await pool.execute(USUAL_TABLES)
            state["usual"] = pool
    found: asyncpg.Pool = state["usual"]
    return found


CONTROLS: list[Any] = [constant_atp, constant_atp_of_many, constant_reservation, usual_reservation]


def factory() -> Any:
    """The service with its controls, by OMS_* variables."""
    return from_environment(CONTROLS)


def main() -> None:
    """Serves until it is told to stop."""
    from granian import Granian
    from granian.constants import Interfaces
    from granian.log import LogLevels

    database_url, redis_url, port, workers = sys.argv[1:]
    os.environ.update({"OMS_DATABASE_URL": database_url, "OMS_REDIS_URL": redis_url})
    Granian(
        "benchmarks.served:factory", address="127.0.0.1", port=int(port), workers=int(workers), interface=Interfaces.ASGI,
        factory=True, websockets=False, log_level=LogLevels.error, backlog=BACKLOG, backpressure=CONNECTIONS_MAX,
    ).serve()  # fmt: skip


if __name__ == "__main__":
    main()
