"""Capacity of a location's local day, locked after everything else."""

from collections.abc import Collection, Sequence
from datetime import date

import msgspec

from oms.db import Connection
from oms.ledger.statements import sql


class Work(msgspec.Struct, frozen=True):
    """Capacity that work takes (or gives back) at a location on its local day."""

    location_id: int
    day: date
    orders: int
    items: int
    cents: int


class Capacity(msgspec.Struct, frozen=True):
    """What is used of a location's day, and its limits; None is unlimited."""

    location_id: int
    day: date
    orders: int
    items: int
    cents: int
    capacity_orders: int | None
    capacity_items: int | None
    capacity_cents: int | None

    def fits(self, work: Work) -> bool:
        """Whether this much more work may be taken."""
        return (
            (self.capacity_orders is None or self.orders + work.orders <= self.capacity_orders)
            and (self.capacity_items is None or self.items + work.items <= self.capacity_items)
            and (self.capacity_cents is None or self.cents + work.cents <= self.capacity_cents)
        )


ensure_capacity = sql.run("ensure_capacity")
read_capacity = sql.rows("read_capacity", Capacity)
use_capacity = sql.run("use_capacity")


async def capacity(tx: Connection, days: Collection[tuple[int, date]]) -> dict[tuple[int, date], Capacity]:
    """The capacity rows of (location, local day), locked in order, after every other lock."""
    if not days:
        return {}
    ordered = sorted(set(days))
    locations, dates = [d[0] for d in ordered], [d[1] for d in ordered]
    await ensure_capacity(tx, locations=locations, days=dates)
    return {(c.location_id, c.day): c for c in await read_capacity(tx, locations=locations, days=dates)}


async def work(tx: Connection, works: Sequence[Work]) -> None:
    """Takes (or gives back) capacity; the rows are locked by `capacity`."""
    if works:
        await use_capacity(
            tx, locations=[w.location_id for w in works], days=[w.day for w in works],
            orders=[w.orders for w in works], items=[w.items for w in works], cents=[w.cents for w in works],
        )  # fmt: skip
