"""Work at one location, put there by a plan that nobody had to look for."""

from datetime import UTC, datetime
from uuid import uuid4

import msgspec

from oms.db import Database
from oms.domain.order import NewOrder, OrderLine, ShipTo
from oms.flows import broker
from oms.flows.broker import planning
from oms.flows.order.capture import capture_from

TRIES = 5


async def place_work(db: Database, *, location: str, count: int) -> None:
    """Captures orders of one line and allocates them there until so many are released; the worker may be faster."""
    for _ in range(TRIES):
        has = await db.pool.fetchval(
            "select count(*) from fulfillment f join location l using (location_id)"
            " where l.code = $1 and f.state = 'released'", location,
        )  # fmt: skip
        if has >= count:
            return
        await _place(db, location=location, count=count - has)


async def _place(db: Database, *, location: str, count: int) -> None:
    now, mark = datetime.now(UTC), uuid4().hex[:8]
    async with db.transaction() as tx:
        channel_id = await tx.fetchval("select channel_id from channel where code = 'web'")
        location_id = await tx.fetchval("select location_id from location where code = $1", location)
        stock = await tx.fetch(
            "select s.code, k.on_hand - k.held - k.allocated as units from stock k join sku s using (sku_id)"
            " where k.location_id = $1 and k.on_hand - k.held - k.allocated > 1 order by 2 desc limit $2",
            location_id, count,
        )  # fmt: skip
    codes = [code for code, units in stock for _ in range(min(4, units))][:count]
    orders = [
        NewOrder(
            channel_id=channel_id, number=f"{mark}-{k}", placed_at=now, at=now, who="benchmark", method="ground",
            ship_to=ShipTo(postal_code="10001", lat=40.75, lon=-73.99),
            lines=(OrderLine(line="1", sku=code, quantity=1, price_cents=1000),),
        )
        for k, code in enumerate(codes)
    ]  # fmt: skip
    async with db.transaction() as tx:
        # the run exists before its orders, so that the worker's own run leaves them to it
        run_id = await broker.begin_run(
            tx, dry_run=False, policy=None, policies=[], seconds=1.0, seed=0, who="benchmark"
        )
    await capture_from(db, channel_id=channel_id, orders=orders, until=None)
    async with db.transaction() as tx:
        rows = await tx.fetch(
            "select n.order_id, n.line_id, n.version, n.open from order_line n join orders o using (order_id)"
            " where o.number like $1 and n.open > 0", f"{mark}-%",
        )  # fmt: skip
        plans = [
            msgspec.json.encode(
                [{"line_id": line, "version": version, "location_id": location_id, "quantity": units}]
            ).decode()
            for _, line, version, units in rows
        ]
        await planning.keep_decisions(
            tx, run_id=run_id, orders=[r[0] for r in rows], plans=plans, whys=[{}] * len(plans)
        )
        await planning.planned(tx, run_id=run_id, summary={}, prices=None)
    await broker.apply(db, run_id=run_id, who="benchmark", now=now)
