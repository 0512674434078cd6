"""The service as a benchmark serves it: our routes, and beside them controls of the same shape that answer a constant.

    python -m benchmarks.served DATABASE_URL REDIS_URL PORT WORKERS

A control is on the same server, its parameters are parsed and its key is checked in the same way, and its answer has the
same shape: what it lacks is the work.
"""

import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from litestar import Response, get, post
from litestar.params import Parameter

from oms.access import Actor
from oms.api.atp import READ, AtpAnswer, AtpItem, AtpQuestion
from oms.api.reservations import CHECKOUT, CartBody
from oms.app import create_app
from oms.cache import Cache
from oms.db import Database
from oms.domain.order import CartLine
from oms.flows.promise.read import SKUS_MAX
from oms.flows.reserve import Granted
from oms.settings import Settings

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
    return AtpAnswer(channel, [AtpItem(code, 42, 7, None) for code in sku], [])


@post("/constant/atp", status_code=200, opt={"roles": READ})
async def constant_atp_of_many(db: Database, cache: Cache, actor: Actor, now: datetime, data: AtpQuestion) -> AtpAnswer:
    """What `POST /v1/atp` would say, without knowing."""
    return AtpAnswer(data.channel, [AtpItem(code, 42, 7, None) for code in data.skus], [])


@post("/constant/reservations", opt={"roles": CHECKOUT, "idempotency": "own"})
async def constant_reservation(db: Database, cache: Cache, actor: Actor, data: CartBody) -> Response[Any]:
    """What `/v1/reservations` would say, without reserving."""
    lines = [CartLine(line.sku, line.quantity) for line in data.lines]
    return Response(Granted(MADE, LATER, lines), status_code=201)


CONTROLS: list[Any] = [constant_atp, constant_atp_of_many, constant_reservation]


def factory() -> Any:
    """The service with its controls, by OMS_* variables."""
    return create_app(settings=Settings.read(os.environ), also=CONTROLS)


def main() -> None:
    """Serves until it is told to stop."""
    from granian import Granian
    from granian.constants import Interfaces
    from granian.log import LogLevels

    database_url, redis_url, port, workers = sys.argv[1:]
    os.environ.update({"OMS_DATABASE_URL": database_url, "OMS_REDIS_URL": redis_url})
    Granian(
        "benchmarks.served:factory", address="127.0.0.1", port=int(port), workers=int(workers), interface=Interfaces.ASGI,
        factory=True, websockets=False, log_level=LogLevels.warning,
    ).serve()  # fmt: skip


if __name__ == "__main__":
    main()
