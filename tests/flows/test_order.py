import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from oms import ledger
from oms.db import Database
from oms.domain.order import CartLine, NewOrder, OrderLine, ShipTo
from oms.errors import BadInput, Conflict, NotFound, OutOfStock
from oms.flows.order.capture import Captured, capture_from, capture_many
from oms.flows.order.change import cancel
from oms.flows.order.holds import hold, release
from oms.flows.order.parked import unpark_lines
from oms.flows.order.read import OrderView, order_history, read_order
from oms.flows.order.rows import Sight
from oms.flows.reserve import Cart, Granted, expire_due, reserve_many
from oms.settle import settle_batch
from tests.balance import check_balance
from tests.world import Net, set_stock, small_network

NOW = datetime(2026, 11, 23, 15, tzinfo=UTC)


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    yield await small_network(db)
    await check_balance(db)


def order(net: Net, number: str, *lines: tuple[str, int], channel: str = "web", **more: Any) -> NewOrder:
    fields: dict[str, Any] = {
        "channel_id": net.channels[channel], "number": number, "placed_at": NOW, "at": NOW, "who": "shop",
        "ship_to": ShipTo(postal_code="10001"), "method": "ground",
        "lines": tuple(
            OrderLine(line=str(place), sku=sku, quantity=quantity, price_cents=500)
            for place, (sku, quantity) in enumerate(lines, start=1)
        ),
    }  # fmt: skip
    return NewOrder(**fields | more)


async def capture(db: Database, *orders: NewOrder) -> list[Any]:
    return await settle_batch(db, capture_many, orders)


async def captured(db: Database, new: NewOrder) -> UUID:
    (answer,) = await capture(db, new)
    assert isinstance(answer, Captured), answer
    return answer.order_id


async def reserve(
    db: Database, net: Net, *lines: tuple[str, int], channel: str = "web", location: str | None = None
) -> Any:
    wish = Cart(
        reservation_id=uuid4(), channel_id=net.channels[channel], location=location,
        lines=tuple(CartLine(sku, quantity) for sku, quantity in lines),
    )  # fmt: skip
    return (await settle_batch(db, reserve_many, [wish]))[0]


async def make_due(db: Database, granted: Granted) -> None:
    async with db.transaction() as tx:
        await tx.execute(
            "update reservation set expires_at = clock_timestamp() - interval '1 second' where reservation_id = $1",
            granted.id,
        )


async def troubles(db: Database) -> dict[str, dict[str, Any]]:
    async with db.connection() as connection:
        rows = await connection.fetch("select kind, payload from exception where state = 'open'")
    return {row[0]: row[1] for row in rows}


async def reservation_state(db: Database, granted: Granted) -> str:
    async with db.connection() as connection:
        return await connection.fetchval("select state from reservation where reservation_id = $1", granted.id)


def units(view: OrderView) -> list[tuple[int, int, int, int, int]]:
    return [(line.open, line.parked, line.allocated, line.shipped, line.cancelled) for line in view.lines]


async def test_an_order_claims_its_reservation_and_its_units_become_open(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=2)
    granted = await reserve(db, net, ("A", 2))
    order_id = await captured(db, order(net, "1", ("A", 2), reservation=str(granted.id)))
    assert units(await read_order(db, order_id=order_id)) == [(2, 0, 0, 0, 0)]
    assert await reservation_state(db, granted) == "claimed"
    assert "oversold" not in await troubles(db)
    assert isinstance(await reserve(db, net, ("A", 1)), OutOfStock)


async def test_an_order_smaller_than_its_reservation_gives_the_rest_back(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    await set_stock(db, sku="B", location="W1", quantity=1)
    granted = await reserve(db, net, ("A", 5), ("B", 1))
    await captured(db, order(net, "1", ("A", 2), reservation=str(granted.id)))
    assert isinstance(await reserve(db, net, ("A", 3), ("B", 1)), Granted)


async def test_an_order_larger_than_its_reservation_is_new_demand_for_the_rest(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=3)
    granted = await reserve(db, net, ("A", 2))
    order_id = await captured(db, order(net, "1", ("A", 5), reservation=str(granted.id)))
    assert units(await read_order(db, order_id=order_id)) == [(5, 0, 0, 0, 0)]
    assert (await troubles(db))["oversold"]["lines"] == [{"line": "1", "sku": "A", "quantity": 5, "short": 2}]


async def test_a_reservation_just_expired_is_claimed_while_stock_allows(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=1)
    due = await reserve(db, net, ("A", 1))
    await make_due(db, due)
    await captured(db, order(net, "1", ("A", 1), reservation=str(due.id)))
    assert await reservation_state(db, due) == "claimed"
    assert "oversold" not in await troubles(db)


async def test_an_expired_reservation_confirmed_late_is_new_demand(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=1)
    swept = await reserve(db, net, ("A", 1))
    await make_due(db, swept)
    assert await expire_due(db) == 1
    await captured(db, order(net, "1", ("A", 1), reservation=str(swept.id)))
    assert "oversold" not in await troubles(db)
    await captured(db, order(net, "2", ("A", 1), reservation=str(swept.id)))
    assert (await troubles(db))["oversold"]["lines"][0]["short"] == 1


async def test_expiry_and_claim_race_to_one_end(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=20)
    for number in range(10):
        granted = await reserve(db, net, ("A", 1))
        await make_due(db, granted)
        await asyncio.gather(
            captured(db, order(net, f"r{number}", ("A", 1), reservation=str(granted.id))), expire_due(db)
        )
        assert await reservation_state(db, granted) in ("claimed", "expired")
        await check_balance(db)
    assert isinstance(await reserve(db, net, ("A", 11)), OutOfStock)
    assert isinstance(await reserve(db, net, ("A", 10)), Granted)


async def test_two_orders_cannot_claim_one_reservation(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=1)
    granted = await reserve(db, net, ("A", 1))
    await asyncio.gather(
        *(captured(db, order(net, str(number), ("A", 1), reservation=str(granted.id))) for number in range(3))
    )
    async with db.connection() as connection:
        short = await connection.fetch(
            "select payload -> 'lines' -> 0 ->> 'short' from exception where kind = 'oversold'"
        )
    assert [row[0] for row in short] == ["1", "1"]


async def test_another_channels_reservation_is_not_claimed(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=1)
    granted = await reserve(db, net, ("A", 1), channel="local")
    await captured(db, order(net, "1", ("A", 1), reservation=str(granted.id)))
    assert await reservation_state(db, granted) == "live"
    assert "oversold" in await troubles(db)


async def test_the_same_order_again_is_the_same_order(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=9)
    both = await asyncio.gather(*(capture(db, order(net, "1", ("A", 2))) for _ in range(4)))
    answers = [answer for batch in both for answer in batch]
    assert len({a.order_id for a in answers}) == 1
    assert sorted(a.is_new for a in answers) == [False, False, False, True]
    again = await capture(db, order(net, "2", ("A", 1)), order(net, "2", ("A", 1)))
    assert [a.is_new for a in again] == [True, False]
    assert isinstance(await reserve(db, net, ("A", 6)), Granted)
    assert await troubles(db) == {}


async def test_the_same_number_with_other_content_is_an_exception_and_the_first_stands(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=9)
    first = await captured(db, order(net, "1", ("A", 2)))
    (answer,) = await capture(db, order(net, "1", ("A", 3)))
    assert answer == Captured(first, False, True)
    assert units(await read_order(db, order_id=first)) == [(2, 0, 0, 0, 0)]
    assert (await troubles(db))["order_changed"]["order"] == str(first)
    assert (await captured(db, order(net, "1", ("A", 3), channel="local"))) != first


async def test_an_oversold_order_is_accepted_with_remedies(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S2", quantity=4)
    async with db.transaction() as tx:
        await tx.execute(
            "insert into incoming (source_id, reference, sku_id, location_id, kind, quantity, due_on)"
            " values (1, 'po1', $1, $2, 'purchase', 7, $3)",
            net.skus["A"], net.locations["W1"], date(2026, 11, 30),
        )  # fmt: skip
    order_id = await captured(db, order(net, "1", ("A", 1), ("A", 1)))
    trouble = (await troubles(db))["oversold"]
    assert trouble["order"] == str(order_id)
    assert [line["short"] for line in trouble["lines"]] == [1, 1]
    assert trouble["remedies"] == [
        {"kind": "incoming", "sku": "A", "on": "2026-11-30", "quantity": 7},
        {"kind": "other_pool", "sku": "A", "pool_id": net.pools["local"], "atp": 4},
        {"kind": "cancel"},
    ]
    assert isinstance(await reserve(db, net, ("A", 4), channel="local"), Granted)
    await cancel(db, order_id=order_id, lines=None, why="sold out", who="me")
    assert await troubles(db) == {}


async def test_an_unknown_sku_parks_its_line_until_it_is_known(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=9)
    order_id = await captured(db, order(net, "1", ("A", 1), ("X9", 3)))
    view = await read_order(db, order_id=order_id)
    assert view.state == "parked"
    assert units(view) == [(1, 0, 0, 0, 0), (0, 3, 0, 0, 0)]
    assert "unknown_sku" in await troubles(db)
    assert await unpark_lines(db) == 0
    async with db.transaction() as tx:
        source_id = await tx.fetchval("insert into source (code, kind) values ('web', 'shop') returning source_id")
        await tx.execute("insert into sku_alias values ($1, 'X9', $2)", source_id, net.skus["A"])
    assert await unpark_lines(db) == 1
    view = await read_order(db, order_id=order_id)
    assert units(view) == [(1, 0, 0, 0, 0), (3, 0, 0, 0, 0)]
    assert (view.lines[1].sku, view.lines[1].asked) == ("A", "X9")
    assert await troubles(db) == {}
    assert isinstance(await reserve(db, net, ("A", 6)), OutOfStock)


async def make_kit(db: Database, net: Net, code: str, **parts: int) -> None:
    async with db.transaction() as tx:
        kit_id = await tx.fetchval("insert into sku (code, is_kit) values ($1, true) returning sku_id", code)
        await tx.executemany(
            "insert into kit values ($1, $2, $3)", [(kit_id, net.skus[part], many) for part, many in parts.items()]
        )


async def test_a_kits_line_becomes_its_parts_and_is_cancelled_by_its_name(db: Database, net: Net) -> None:
    await make_kit(db, net, "K", A=2, B=1)
    for sku in ("A", "B"):
        await set_stock(db, sku=sku, location="W1", quantity=8)
    async with db.transaction() as tx:
        await tx.execute("update sku set price_cents = 300 where code = 'B'")
    order_id = await captured(db, order(net, "1", ("K", 3), ("A", 1)))
    view = await read_order(db, order_id=order_id)
    assert [line.price for line in view.lines] == [217, 65, 500], "500 shared as 2 x 1000 to 300"
    assert [(line.line, line.part, line.sku, line.open) for line in view.lines] == [
        ("1", 1, "A", 6),
        ("1", 2, "B", 3),
        ("2", 0, "A", 1),
    ]
    assert (await cancel(db, order_id=order_id, lines=["1"], why=None, who="me")).units == 9
    assert isinstance(await reserve(db, net, ("K", 3)), Granted)


async def test_a_parked_kit_opens_as_its_parts(db: Database, net: Net) -> None:
    order_id = await captured(db, order(net, "1", ("K", 2)))
    await make_kit(db, net, "K", A=2, B=1)
    assert await unpark_lines(db) == 1
    view = await read_order(db, order_id=order_id)
    assert [(line.part, line.sku, line.quantity, line.open) for line in view.lines] == [(1, "A", 4, 4), (2, "B", 2, 2)]
    assert "oversold" in await troubles(db)


async def test_a_pickup_order_is_allocated_at_its_store_with_capacity(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=3)
    granted = await reserve(db, net, ("A", 2), location="S1")
    order_id = await captured(db, order(net, "1", ("A", 2), pickup_location="S1", reservation=str(granted.id)))
    view = await read_order(db, order_id=order_id)
    assert units(view) == [(0, 0, 2, 0, 0)]
    assert [(f.location, f.state, f.lines[0].quantity) for f in view.fulfillments] == [("S1", "released", 2)]
    async with db.connection() as connection:
        used = await connection.fetchrow("select orders, items, cents, day from capacity")
        reference = await connection.fetchval("select reference from fulfillment_line")
    assert tuple(used) == (1, 2, 1000, date(2026, 11, 23))
    assert reference.startswith(f"{view.fulfillments[0].id}:")
    assert isinstance(await reserve(db, net, ("A", 1), location="S1"), Granted)


async def test_a_pickup_beyond_stock_or_capacity_stays_open_with_an_exception(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=3)
    async with db.transaction() as tx:
        await tx.execute("update location set capacity_orders = 1 where code = 'S1'")
    first, second, third = [
        await captured(db, order(net, number, *lines, pickup_location="S1"))
        for number, lines in (("1", [("A", 4)]), ("2", [("A", 1)]), ("3", [("A", 1)]))
    ]
    assert units(await read_order(db, order_id=first)) == [(4, 0, 0, 0, 0)]
    await cancel(db, order_id=first, lines=None, why=None, who="me")
    second_view = await read_order(db, order_id=second)
    assert units(second_view) == [(1, 0, 0, 0, 0)]
    assert units(await read_order(db, order_id=third)) == [(1, 0, 0, 0, 0)]
    fourth = await captured(db, order(net, "4", ("A", 1), pickup_location="S1"))
    assert units(await read_order(db, order_id=fourth)) == [(0, 0, 1, 0, 0)]
    fifth = await captured(db, order(net, "5", ("A", 1), pickup_location="S1"))
    assert units(await read_order(db, order_id=fifth)) == [(1, 0, 0, 0, 0)]
    assert "unfilled" in await troubles(db)


async def test_a_pickup_reservation_ordered_for_shipping_moves_into_the_pool(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=2)
    granted = await reserve(db, net, ("A", 2), location="S1")
    order_id = await captured(db, order(net, "1", ("A", 2), reservation=str(granted.id)))
    assert units(await read_order(db, order_id=order_id)) == [(2, 0, 0, 0, 0)]
    assert "oversold" not in await troubles(db)


async def test_a_pickup_at_a_place_that_nobody_knows_is_kept_and_held(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=2)
    order_id = await captured(db, order(net, "1", ("A", 1), pickup_location="S99"))
    view = await read_order(db, order_id=order_id)
    assert (view.state, view.lines[0].hold) == ("held", "address")
    assert "unknown_location" in await troubles(db)


async def test_cancelling_gives_open_units_back_and_recalls_allocated_ones(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=3)
    await set_stock(db, sku="B", location="S1", quantity=3)
    order_id = await captured(db, order(net, "1", ("A", 2), ("B", 1), pickup_location="S1"))
    assert (await cancel(db, order_id=order_id, lines=["1"], why="changed mind", who="me")).units == 2
    view = await read_order(db, order_id=order_id)
    assert units(view) == [(0, 0, 0, 0, 2), (0, 0, 1, 0, 0)]
    assert view.fulfillments[0].state == "released"
    await check_balance(db)
    assert (await cancel(db, order_id=order_id, lines=None, why=None, who="me")).units == 1
    assert (await cancel(db, order_id=order_id, lines=None, why=None, who="me")).units == 0
    view = await read_order(db, order_id=order_id)
    assert (view.state, view.fulfillments[0].state) == ("cancelled", "recalled")
    async with db.connection() as connection:
        assert tuple(await connection.fetchrow("select orders, items, cents from capacity")) == (0, 0, 0)
    assert isinstance(await reserve(db, net, ("A", 3), ("B", 3), location="S1"), Granted)


async def test_what_has_shipped_cannot_be_cancelled(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=3)
    order_id = await captured(db, order(net, "1", ("A", 2), pickup_location="S1"))
    async with db.transaction() as tx:
        await tx.execute("update order_line set allocated = 0, shipped = 2")
        await tx.execute("update fulfillment set state = 'shipped'")
        await tx.execute("update stock set allocated = 0")
    async with db.transaction() as tx:
        await ledger.write(tx, await ledger.lock(tx, [net.skus["A"]]), resum=[net.skus["A"]])
    with pytest.raises(Conflict, match="shipped"):
        await cancel(db, order_id=order_id, lines=None, why=None, who="me")


async def test_held_lines_keep_their_units_and_are_released_again(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=2)
    order_id = await captured(db, order(net, "1", ("A", 1), ("A", 1)))
    assert await hold(db, order_id=order_id, lines=["2"], kind="fraud", who="me") == 1
    view = await read_order(db, order_id=order_id)
    assert [line.hold for line in view.lines] == [None, "fraud"]
    assert isinstance(await reserve(db, net, ("A", 1)), OutOfStock)
    assert await release(db, order_id=order_id, lines=None, who="me") == 1
    with pytest.raises(BadInput):
        await hold(db, order_id=order_id, lines=None, kind="whim", who="me")
    with pytest.raises(BadInput):
        await hold(db, order_id=order_id, lines=["7"], kind="fraud", who="me")


async def test_every_step_is_in_the_history_with_who_and_why(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=2)
    order_id = await captured(db, order(net, "1", ("A", 1), pickup_location="S1"))
    await cancel(db, order_id=order_id, lines=None, why="changed mind", who="ann")
    steps = await order_history(db, order_id=order_id)
    assert [(s.kind, s.step, s.who, s.why) for s in steps] == [
        ("order", "captured", "shop", None),
        ("fulfillment", "released", "shop", "pick-up"),
        ("order", "cancelled", "ann", "changed mind"),
        ("fulfillment", "recalled", "ann", "changed mind"),
    ]
    assert await order_history(db, order_id=order_id, after=steps[2].history_id) == steps[3:]


async def test_an_order_that_is_not_seen_is_not_found(db: Database, net: Net) -> None:
    order_id = await captured(db, order(net, "1", ("A", 1)))
    for sight in (Sight(channels=(net.channels["local"],)), Sight(location_id=net.locations["S1"])):
        with pytest.raises(NotFound):
            await read_order(db, order_id=order_id, sight=sight)
        with pytest.raises(NotFound):
            await cancel(db, order_id=order_id, lines=None, why=None, who="me", sight=sight)


async def test_a_file_of_orders_is_captured_and_only_then_the_moment_moves(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=50)
    until = NOW + timedelta(hours=1)
    bad = order(net, "bad", ("A", 1), split="sideways")
    orders = [order(net, str(number), ("A", 1)) for number in range(25)]

    def breaking() -> Any:
        yield from orders[:10]
        raise OSError("the file ends in the middle")

    with pytest.raises(OSError, match="middle"):
        await capture_from(db, channel_id=net.channels["web"], orders=breaking(), until=until, chunk=4)
    async with db.connection() as connection:
        assert await connection.fetchval("select captured_until from channel where code = 'web'") is None
        assert await connection.fetchval("select count(*) from orders") == 8
    tally = await capture_from(db, channel_id=net.channels["web"], orders=[*orders, bad], until=until, chunk=4)
    assert (tally.orders, tally.new, tally.known, tally.refused) == (26, 17, 8, 1)
    await capture_from(db, channel_id=net.channels["web"], orders=[], until=NOW)
    async with db.connection() as connection:
        assert await connection.fetchval("select captured_until from channel where code = 'web'") == until
    assert (await troubles(db))["order_refused"]["content"]["number"] == "bad"


async def test_a_cap_counts_what_orders_take_and_gives_it_back(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=9)
    async with db.transaction() as tx:
        await tx.execute("update channel set cap = 3 where code = 'web'")
    granted = await reserve(db, net, ("A", 2))
    order_id = await captured(db, order(net, "1", ("A", 2), reservation=str(granted.id)))
    assert isinstance(await reserve(db, net, ("A", 2)), OutOfStock)
    await cancel(db, order_id=order_id, lines=None, why=None, who="me")
    assert isinstance(await reserve(db, net, ("A", 3)), Granted)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"split": "sideways"}, "split"),
        ({"split": "max_packages"}, "split_max"),
        ({"number": " "}, "number"),
        ({"placed_at": NOW.replace(tzinfo=None)}, "placed_at"),
        ({"lines": ()}, "lines"),
    ],
)
async def test_an_order_that_cannot_be_one_is_refused_with_its_field(
    db: Database, net: Net, change: dict[str, Any], field: str
) -> None:
    good, bad = await capture(
        db, order(net, "good", ("A", 1)), msgspec.structs.replace(order(net, "bad", ("A", 1)), **change)
    )
    assert isinstance(good, Captured)
    assert isinstance(bad, BadInput)
    assert [item["field"] for item in bad.items] == [field]
