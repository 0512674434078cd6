"""Any walk of checkout and orders, several steps at once: the identities hold after each, and nothing is oversold."""

import asyncio
import contextlib
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oms import ledger
from oms.db import Database
from oms.domain import atp
from oms.domain.order import CartLine, NewOrder, OrderLine, ShipTo
from oms.errors import BadInput, Conflict, Refusal
from oms.flows.order.amend import Amendment, Wish, amend
from oms.flows.order.capture import Captured, capture_many
from oms.flows.order.change import cancel
from oms.flows.order.holds import hold, release
from oms.flows.order.resolve import Chosen, carry_out
from oms.flows.reserve import Cart, Granted, expire_due, reserve_many
from oms.flows.reserve import release as give_up
from oms.settle import settle_batch
from tests.balance import check_balance
from tests.world import Net, set_stock, small_network

NOW = datetime(2026, 11, 23, 15, tzinfo=UTC)
CLEAN = "truncate reservation, orders, capacity, exception, announcement, touched cascade"

lines = st.lists(st.tuples(st.sampled_from("AB"), st.integers(1, 4)), min_size=1, max_size=3)
places = st.sampled_from([None, None, "S1"])
which = st.integers(0, 20)
steps = st.one_of(
    st.tuples(st.just("reserve"), st.sampled_from(["web", "local"]), lines, places),
    st.tuples(st.just("order"), st.sampled_from(["web", "local"]), lines, places, st.one_of(st.none(), which)),
    st.tuples(st.just("again"), which),
    st.tuples(st.just("due"), which),
    st.tuples(st.just("expire")),
    st.tuples(st.just("give_up"), which),
    st.tuples(st.just("cancel"), which, st.sampled_from([None, ["1"]])),
    st.tuples(st.just("hold"), which, st.sampled_from(["fraud", "payment"]), st.booleans()),
    st.tuples(st.just("release"), which, st.sampled_from([None, "fraud"])),
    st.tuples(st.just("remedy"), which, st.sampled_from(["cancel", "other_pool", "substitute"])),
    st.tuples(st.just("amend"), which, st.integers(0, 5), st.booleans()),
    st.tuples(st.just("stock"), st.sampled_from("AB"), st.sampled_from(["W1", "S1", "S2"]), st.integers(0, 6)),
)


class Walk:
    """What was made so far, and each step by its name."""

    def __init__(self, db: Database, net: Net) -> None:
        self.db, self.net = db, net
        self.reservations: list[tuple[UUID, str]] = []
        self.orders: list[tuple[UUID, NewOrder]] = []
        self.fell = False

    async def reserve(self, channel: str, wanted: list[tuple[str, int]], place: str | None) -> None:
        cart = Cart(
            reservation_id=uuid4(), channel_id=self.net.channels[channel], location=place,
            lines=tuple(CartLine(sku, quantity) for sku, quantity in wanted),
        )  # fmt: skip
        (answer,) = await settle_batch(self.db, reserve_many, [cart])
        assert isinstance(answer, Granted | Refusal), answer
        if isinstance(answer, Granted):
            self.reservations.append((answer.id, channel))

    async def order(self, channel: str, wanted: list[tuple[str, int]], place: str | None, claim: int | None) -> None:
        mine = [reservation for reservation, sold_by in self.reservations if sold_by == channel]
        new = NewOrder(
            channel_id=self.net.channels[channel], number=uuid4().hex, placed_at=NOW, at=NOW, who="walk",
            ship_to=ShipTo(postal_code="10001"), method="ground", pickup_location=place,
            reservation=str(mine[claim % len(mine)]) if claim is not None and mine else None,
            lines=tuple(
                OrderLine(line=str(n), sku=sku, quantity=quantity) for n, (sku, quantity) in enumerate(wanted, start=1)
            ),
        )  # fmt: skip
        (answer,) = await settle_batch(self.db, capture_many, [new])
        assert isinstance(answer, Captured) and answer.is_new, answer
        self.orders.append((answer.order_id, new))

    async def again(self, number: int) -> None:
        if self.orders:
            order_id, new = self.orders[number % len(self.orders)]
            (answer,) = await settle_batch(self.db, capture_many, [new])
            assert answer == Captured(order_id, False)

    async def due(self, number: int) -> None:
        if self.reservations:
            async with self.db.transaction() as tx:
                await tx.execute(
                    "update reservation set expires_at = clock_timestamp() where reservation_id = $1 and state = 'live'",
                    self.reservations[number % len(self.reservations)][0],
                )

    async def expire(self) -> None:
        await expire_due(self.db)

    async def give_up(self, number: int) -> None:
        if self.reservations:
            await give_up(self.db, reservation_id=self.reservations[number % len(self.reservations)][0])

    async def cancel(self, number: int, named: list[str] | None) -> None:
        if self.orders:
            await cancel(self.db, order_id=self.orders[number % len(self.orders)][0], lines=named, why=None, who="walk")

    async def hold(self, number: int, kind: str, keeps_stock: bool) -> None:
        if self.orders:
            order_id = self.orders[number % len(self.orders)][0]
            with contextlib.suppress(Conflict):
                await hold(self.db, order_id=order_id, lines=None, kind=kind, keeps_stock=keeps_stock, who="walk")

    async def release(self, number: int, kind: str | None) -> None:
        if self.orders:
            await release(
                self.db, order_id=self.orders[number % len(self.orders)][0], lines=None, kind=kind, who="walk"
            )

    async def remedy(self, number: int, kind: Any) -> None:
        if self.orders:
            with contextlib.suppress(Conflict, BadInput):
                await carry_out(
                    self.db, order_id=self.orders[number % len(self.orders)][0], why=None, who="walk", now=NOW,
                    chosen=Chosen(kind, line="1", pool="local", sku="B"),
                )  # fmt: skip

    async def amend(self, number: int, quantity: int, adds: bool) -> None:
        if self.orders:
            new = (OrderLine(line=uuid4().hex, sku="A", quantity=1),) if adds else ()
            to = Amendment(lines=(Wish("1", quantity),), add=new)
            with contextlib.suppress(Conflict):
                await amend(self.db, order_id=self.orders[number % len(self.orders)][0], to=to, why=None, who="walk")

    async def stock(self, sku: str, location: str, quantity: int) -> None:
        async with self.db.connection() as connection:
            had = await connection.fetchval(
                "select coalesce((select on_hand from stock where sku_id = $1 and location_id = $2), 0)",
                self.net.skus[sku], self.net.locations[location],
            )  # fmt: skip
        self.fell |= quantity < had
        await set_stock(self.db, sku=sku, location=location, quantity=quantity)

    async def check(self) -> None:
        """The identities; and where no fact broke a promise, no promise is broken."""
        await check_balance(self.db)
        async with self.db.transaction() as tx:
            oversold = await tx.fetchval("select exists (select from exception where kind = 'oversold')")
            rows = await ledger.lock(tx, list(self.net.skus.values()))
            layouts = await ledger.layouts_of(tx, rows)
        broken = sum(atp.deficit(layouts[r.layout_id], r.supply, r.reserved) for r in rows.values())
        assert oversold or self.fell or not broken


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(start=st.lists(st.integers(0, 6), min_size=6, max_size=6), batches=st.lists(
    st.lists(steps, min_size=1, max_size=4), min_size=3, max_size=10
))  # fmt: skip
async def test_any_walk_of_checkouts_and_orders_keeps_the_identities(
    db: Database, start: list[int], batches: list[list[tuple[Any, ...]]]
) -> None:
    net = await fresh(db)
    walk = Walk(db, net)
    keys = [(sku, location) for sku in "AB" for location in ("W1", "S1", "S2")]
    for (sku, location), quantity in zip(keys, start, strict=True):
        await set_stock(db, sku=sku, location=location, quantity=quantity)
    for batch in batches:
        running: list[Coroutine[Any, Any, None]] = [getattr(walk, name)(*rest) for name, *rest in batch]
        await asyncio.gather(*running)
        await walk.check()


async def fresh(db: Database) -> Net:
    """The small network without stock or demand, in a database that examples share."""
    async with db.connection() as connection:
        if not await connection.fetchval("select exists (select from pool)"):
            net = await small_network(db)
            await connection.execute("insert into sku_substitute values ($1, $2, 1)", net.skus["A"], net.skus["B"])
            return net
        await connection.execute(CLEAN)
        ids: dict[str, dict[str, int]] = {}
        for table in ("location", "pool", "channel", "source", "sku"):
            ids[f"{table}s"] = dict(await connection.fetch(f"select code, {table}_id from {table}"))
    async with db.transaction() as tx:
        await tx.execute("update stock set allocated = 0")
        await tx.execute("update availability set reserved = array_fill(0, array[cardinality(reserved)])")
        skus = list(ids["skus"].values())
        await ledger.write(tx, await ledger.lock(tx, skus), resum=skus)
    return Net(**ids)
