"""What the database says, beside what must be."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from oms.flows import reconcile
from tests.balance import check_balance
from tests.machine.truth import LOCATIONS, POOLS, SKUS

if TYPE_CHECKING:
    from tests.machine.machine import Machine

STOCK = """select s.code, l.code, k.on_hand, k.held, k.allocated
  from stock k join sku s using (sku_id) join location l using (location_id)"""
HOLDS = """select s.code, l.code, h.code, sum(h.quantity)::int
  from hold h join sku s using (sku_id) join location l using (location_id) where h.lifted_at is null group by 1, 2, 3"""
RESERVED = """select s.code, p.code, a.reserved[i]
  from availability a join sku s using (sku_id) join layout y using (layout_id)
  cross join generate_subscripts(y.pools, 1) i join pool p on p.pool_id = y.pools[i] where s.code in ('A', 'B')"""
LINES = "select order_id, line, open, allocated, shipped, cancelled, returned, hold from order_line"
WORKS = """select f.fulfillment_id, l.code, f.state, n.line, g.quantity, g.picked
  from fulfillment f join location l using (location_id) join fulfillment_line g using (fulfillment_id)
  join order_line n using (line_id)"""
CAPACITY = "select l.code, c.day, c.orders, c.items, c.cents from capacity c join location l using (location_id)"
INCOMING = """select i.reference, s.code, l.code, i.quantity
  from incoming i join sku s using (sku_id) join location l using (location_id)"""
REFUNDS = "select subject from notice where kind = 'refund_due'"
LOSSES = """select l.code, w.day, w.requested_by, w.state, sum(w.cents)::int
  from write_off w join location l using (location_id) group by 1, 2, 3, 4"""
RESERVATIONS = "select reservation_id from reservation where state = 'live'"


async def compare(m: "Machine") -> None:
    """Raises AssertionError where an identity is broken, or the database is not what the truth says."""
    truth = m.truth
    async with m.db.connection() as tx:
        asked = {
            name: [tuple(row) for row in await tx.fetch(query)]
            for name, query in (
                ("stock", STOCK), ("holds", HOLDS), ("reserved", RESERVED), ("lines", LINES), ("works", WORKS),
                ("capacity", CAPACITY), ("incoming", INCOMING), ("refunds", REFUNDS), ("losses", LOSSES),
                ("reservations", RESERVATIONS),
            )
        }  # fmt: skip
    keys = [(sku, location) for sku in SKUS for location in LOCATIONS]
    same("stock", {row[:2]: row[2:] for row in asked["stock"]},
         {key: (truth.on_hand[key], truth.held(key), truth.allocated(key)) for key in keys})  # fmt: skip
    same("holds", {row[:3]: row[3] for row in asked["holds"]}, {k: n for k, n in truth.holds.items() if n})
    same("reserved", {row[:2]: row[2] for row in asked["reserved"]},
         {(sku, pool): truth.reserved(sku, pool) for sku in SKUS for pool in POOLS})  # fmt: skip
    same("lines", {row[:2]: row[2:] for row in asked["lines"]}, {
        (order_id, name): (n.open, n.allocated, n.shipped, n.cancelled, n.returned, n.hold)
        for order_id, order in truth.orders.items() for name, n in order.lines.items()
    })  # fmt: skip
    same("works", {(row[0], row[3]): (*row[1:3], *row[4:]) for row in asked["works"]}, {
        (work_id, name): (work.location, work.state, part.quantity, part.picked)
        for work_id, work in truth.works.items() for name, part in work.lines.items()
    })  # fmt: skip
    used: Counter[Any] = Counter()
    for location, day, *numbers in asked["capacity"]:
        for what, much in zip(("orders", "items", "cents"), numbers, strict=True):
            used[location, day, what] += much
    same("capacity", {k: n for k, n in used.items() if n}, {k: n for k, n in truth.capacity().items() if n})
    same("incoming", {row[:3]: row[3] for row in asked["incoming"] if row[3]},
         {k: n for k, n in truth.expected.items() if n})  # fmt: skip
    same("refunds", sorted(row[0] for row in asked["refunds"]), sorted(truth.refunds))
    losses: Counter[Any] = Counter()
    for loss in truth.losses.values():
        losses[loss.location, loss.day, loss.who, loss.state] += loss.cents
    same("losses", {row[:4]: row[4] for row in asked["losses"]}, dict(losses))
    same("reservations", {row[0] for row in asked["reservations"]},
         {i for i, r in truth.reservations.items() if r.is_live})  # fmt: skip
    for order in truth.orders.values():
        for line in order.lines.values():
            assert line.open + line.allocated + line.shipped + line.cancelled == line.quantity
    await check_balance(m.db)
    _, differences = await reconcile.verify(m.db)
    assert not differences, differences


def same(what: str, kept: Any, must: Any) -> None:
    """Raises AssertionError that tells what differs."""
    if kept != must:
        if isinstance(kept, dict):
            keys = [k for k in {**kept, **must} if kept.get(k) != must.get(k)]
            raise AssertionError(
                f"{what}: " + "; ".join(f"{k} is {kept.get(k)}, must be {must.get(k)}" for k in keys[:4])
            )
        raise AssertionError(f"{what}: is {kept}, must be {must}")
