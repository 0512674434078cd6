"""Orders that a location works on, without asking the engine where they go.

work = await allocated(db, net, "N1", ("A", 2, "S1"))
await ship(db, work)
"""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from oms import access
from oms.db import Database
from oms.domain.order import NewOrder, OrderLine, ShipTo
from oms.flows import broker, fulfill
from oms.flows.broker import planning
from oms.flows.order.capture import Captured, capture_many
from oms.settle import settle_batch
from tests.feeding import NOW
from tests.world import Net


class Work(msgspec.Struct, frozen=True):
    """An order, what was planned for it, and its fulfillments by location with the references of their lines."""

    order_id: UUID
    run_id: UUID
    fulfillments: dict[str, UUID]
    references: list[str]

    @property
    def fulfillment(self) -> UUID:
        """The only one."""
        (found,) = self.fulfillments.values()
        return found


def order(net: Net, number: str, *lines: tuple[str, int], channel: str = "web", **more: Any) -> NewOrder:
    """An order as its shop says it, from a place in New York."""
    fields: dict[str, Any] = {
        "channel_id": net.channels[channel], "number": number, "placed_at": NOW, "at": NOW, "who": "shop",
        "ship_to": ShipTo(postal_code="10001", lat=40.75, lon=-73.99), "method": "ground",
        "lines": tuple(
            OrderLine(line=str(place), sku=sku, quantity=quantity, price_cents=1000)
            for place, (sku, quantity) in enumerate(lines, start=1)
        ),
    }  # fmt: skip
    return NewOrder(**fields | more)


async def captured(db: Database, new: NewOrder) -> UUID:
    """The order is ours now."""
    (answer,) = await settle_batch(db, capture_many, [new])
    assert isinstance(answer, Captured), answer
    return answer.order_id


async def planned(db: Database, net: Net, order_id: UUID, *parts: tuple[str, int, str]) -> UUID:
    """A run that plans (line, units, location) of an order, as the engine would have."""
    async with db.transaction() as tx:
        run_id = await broker.begin_run(
            tx, dry_run=False, policy=None, policies=[], seconds=1.0, seed=0, who="test", mode="joint"
        )
        lines = {
            r[0]: r
            for r in await tx.fetch("select line, line_id, version from order_line where order_id = $1", order_id)
        }
        plan = [
            {
                "line_id": lines[line][1],
                "version": lines[line][2],
                "location_id": net.locations[location],
                "quantity": units,
            }
            for line, units, location in parts
        ]
        await planning.keep_decisions(
            tx, run_id=run_id, orders=[order_id], plans=[msgspec.json.encode(plan).decode()], whys=[{}]
        )
        await planning.planned(tx, run_id=run_id, summary={}, prices=None)
    return run_id


async def allocated(
    db: Database, net: Net, number: str, *parts: tuple[str, int, str], channel: str = "web", **more: Any
) -> Work:
    """An order of (sku, units, location) lines that is allocated there."""
    order_id = await captured(
        db, order(net, number, *((sku, units) for sku, units, _ in parts), channel=channel, **more)
    )
    run_id = await planned(
        db, net, order_id, *((str(k), units, location) for k, (_, units, location) in enumerate(parts, start=1))
    )
    await broker.apply(db, run_id=run_id, who="test", now=NOW)
    return await work_of(db, order_id, run_id)


async def work_of(db: Database, order_id: UUID, run_id: UUID) -> Work:
    """What locations have of an order."""
    async with db.connection() as tx:
        rows = await tx.fetch(
            "select l.code, f.fulfillment_id, n.reference from fulfillment f join fulfillment_line n using (fulfillment_id)"
            " join location l using (location_id) where f.order_id = $1 and f.state not in ('rejected', 'recalled')"
            " order by n.line_id", order_id,
        )  # fmt: skip
    return Work(order_id, run_id, {r[0]: r[1] for r in rows}, [r[2] for r in rows])


Step = Literal["accept", "pick", "pack", "ship"]
STEPS: tuple[Step, ...] = ("accept", "pick", "pack", "ship")


async def work_up_to(db: Database, work: Work, step: Step, *, now: datetime = NOW) -> None:
    """A location works on it, up to this step."""
    for one in STEPS[: STEPS.index(step) + 1]:
        await fulfill.advance(db, fulfillments=list(work.fulfillments.values()), step=one, actor=access.house, now=now)


async def ship(db: Database, work: Work, *, now: datetime = NOW) -> None:
    """It leaves."""
    await work_up_to(db, work, "ship", now=now)


async def reject(
    db: Database, work: Work, *lines: tuple[str, int], stock: Literal["keep", "deduct", "zero"] = "keep"
) -> str:
    """Its location says no to units of lines."""
    rejected = [fulfill.Rejected(line=line, quantity=units, reason="not found") for line, units in lines]
    return await fulfill.reject(
        db, fulfillment=work.fulfillment, lines=rejected, stock=stock, actor=access.house, now=NOW
    )
