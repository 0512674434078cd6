"""A promise says by when, from where and why, and keeps to what a reservation would get."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from oms import enquiries
from oms.cache import Cache
from oms.db import Database
from oms.domain.order import CartLine
from oms.errors import BadInput, NotFound
from oms.flows.network import load
from oms.flows.order.read import order_history, read_order
from oms.flows.promise import asked, overdue
from oms.flows.promise.dated import Place, Promised, promise
from oms.flows.promise.read import atp
from oms.flows.reserve import Cart, reserve_many
from oms.settle import settle_batch
from tests.demand import captured, order
from tests.feeding import change, exceptions
from tests.world import Net, set_stock, small_network

NOW = datetime(2026, 11, 23, 15, tzinfo=UTC)
NEW_YORK = (40.75, -73.99)


@pytest.fixture
async def net(db: Database) -> Net:
    """W1 lies in Chicago, 711 miles away; S1 around the corner."""
    return await small_network(db)


async def put(db: Database, kind: str, *rows: dict[str, Any]) -> None:
    assert not (await load(db, kind=kind, rows=list(rows), who="me", now=NOW)).refused


async def ask(
    db: Database, net: Net, *lines: tuple[str, int], method: str = "standard", now: datetime = NOW
) -> Promised:
    lat, lon = NEW_YORK
    return await promise(
        db, channel_id=net.channels["web"], lines=[CartLine(*line) for line in lines], method=method, to=Place(lat, lon),
        now=now,
    )  # fmt: skip


def parts(said: Promised) -> list[list[tuple[int, str | None]]]:
    return [[(part.quantity, part.location) for part in line.parts] for line in said.lines]


async def test_a_cart_comes_whole_from_where_it_is_there_first(db: Database, net: Net) -> None:
    for sku in "AB":
        for location in ("W1", "S1"):
            await set_stock(db, sku=sku, location=location, quantity=5)
    said = await ask(db, net, ("A", 2), ("B", 1), ("A", 1))
    assert (said.whole, said.arrives_on, parts(said)) == (True, date(2026, 11, 24), [[(3, "S1")], [(1, "S1")]])
    assert said.lines[0].parts[0].kind == "store"
    await put(db, "locations", {"code": "S1", "handling_days": 9})
    assert parts(await ask(db, net, ("A", 2))) == [[(2, "W1")]]
    await put(db, "locations", {"code": "S1", "handling_days": 0, "work_days": "0000000"})
    assert parts(await ask(db, net, ("A", 2))) == [[(2, "W1")]]


async def test_the_cut_off_of_a_location_counts_in_its_own_time(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    await put(db, "locations", {"code": "S1", "cut_off": "10:30"})  # it is 10:00 in New York
    assert (await ask(db, net, ("A", 1))).arrives_on == date(2026, 11, 24)
    assert (await ask(db, net, ("A", 1), now=NOW.replace(hour=16))).arrives_on == date(2026, 11, 25)


async def test_a_method_takes_what_its_table_says(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    assert (await ask(db, net, ("A", 1))).arrives_on == date(2026, 11, 26)
    await put(db, "transits", {"code": "x1", "method": "express", "miles": 3000, "days": 1},
              {"code": "b1", "method": "bike", "miles": 10, "days": 0})  # fmt: skip
    assert (await ask(db, net, ("A", 1), method="express")).arrives_on == date(2026, 11, 24)
    none = await ask(db, net, ("A", 1), method="bike")
    assert (none.arrives_on, none.whole) == (None, False)


async def test_what_no_location_has_whole_is_split_by_line_and_by_unit(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=2)
    await set_stock(db, sku="A", location="W1", quantity=2)
    await set_stock(db, sku="B", location="W1", quantity=2)
    said = await ask(db, net, ("A", 3), ("B", 1))
    assert (said.whole, parts(said)) == (False, [[(2, "S1"), (1, "W1")], [(1, "W1")]])
    assert (said.lines[0].why, said.arrives_on) == ("in stock, split", date(2026, 11, 26))


async def test_what_is_not_there_yet_is_promised_from_what_is_expected(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=1)
    await put(db, "incoming", {"source": "erp", "reference": "PO", "sku": "A", "location": "W1", "quantity": 5, "due_on": "2026-12-01"})  # fmt: skip
    said = await ask(db, net, ("A", 4))
    assert (said.lines[0].why, said.lines[0].parts[0].location) == ("expected on 2026-12-01", None)
    assert said.arrives_on is not None and said.arrives_on > date(2026, 12, 1)
    assert (await ask(db, net, ("A", 7))).arrives_on is None
    await change(db, "update channel set settings = $1 where code = 'web'", {"promise": {"backorder_days": 5}})
    late = await ask(db, net, ("A", 4))
    assert (late.arrives_on, "later than the 5 days" in late.lines[0].why) == (None, True)


async def test_a_channel_that_takes_no_part_is_promised_all_or_nothing(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    said = await ask(db, net, ("A", 1), ("B", 1))
    assert [line.arrives_on is None for line in said.lines] == [False, True]
    await change(db, "update channel set settings = $1 where code = 'web'", {"promise": {"partial": False}})
    said = await ask(db, net, ("A", 1), ("B", 1))
    assert [line.arrives_on for line in said.lines] == [None, None]


async def test_what_others_reserved_is_not_promised_again(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=3)
    cart = Cart(reservation_id=uuid4(), channel_id=net.channels["local"], lines=(CartLine("A", 2),))
    await settle_batch(db, reserve_many, [cart])
    assert parts(await ask(db, net, ("A", 1))) == [[(1, "S1")]]
    assert (await ask(db, net, ("A", 2))).arrives_on is None


async def test_unknown_skus_are_named_by_line(db: Database, net: Net) -> None:
    with pytest.raises(BadInput) as refused:
        await ask(db, net, ("A", 1), ("nope", 1))
    assert refused.value.items[0]["field"] == "lines[1].sku"


async def pick_up(db: Database, net: Net, *lines: tuple[str, int], now: datetime = NOW) -> Promised:
    return await promise(
        db, channel_id=net.channels["web"], lines=[CartLine(*line) for line in lines], method="pickup",
        to=Place(pickup="S1"), now=now,
    )  # fmt: skip


async def test_a_pick_up_is_ready_within_the_hours_of_its_store(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=3)
    await put(db, "locations", {"code": "S1", "cut_off": "17:00", "pickup_minutes": 90, "work_days": "1101111"})
    assert (await pick_up(db, net, ("A", 3))).ready_from == "2026-11-23T16:30:00+00:00"
    late = await pick_up(db, net, ("A", 3), now=datetime(2026, 11, 24, 22, 30, tzinfo=UTC))
    assert (late.ready_from, late.arrives_on) == ("2026-11-26", date(2026, 11, 26)), "Wednesday it is closed"
    short = await pick_up(db, net, ("A", 4))
    assert (short.whole, short.ready_from, short.lines[0].why) == (False, None, "3 are there for a pick-up")
    await put(db, "locations", {"code": "S1", "on": False})
    assert (await pick_up(db, net, ("A", 3))).ready_from is None
    with pytest.raises(NotFound):
        await promise(
            db, channel_id=net.channels["web"], lines=[CartLine("A", 1)], method="x", to=Place(pickup="S9"), now=NOW
        )


async def test_what_was_asked_and_said_is_kept(db: Database, net: Net, cache: Cache) -> None:
    await set_stock(db, sku="A", location="S1", quantity=3)
    said = await ask(db, net, ("A", 2))
    cart = Cart(reservation_id=uuid4(), channel_id=net.channels["web"], lines=(CartLine("A", 5),))
    enquiries.of(db)
    await settle_batch(db, reserve_many, [cart])
    for _ in range(3):
        await atp(db, cache, channels=["web"], skus=["A", "B"], now=NOW)
    await asked.write(db)
    await atp(db, cache, channels=["web"], skus=["A"], now=NOW)
    await asked.write(db)
    [kept] = await asked.promises(db, channel="web", sku="A", before=None, limit=9)
    assert kept.said["arrives_on"] == said.arrives_on.isoformat() if said.arrives_on else None
    assert kept.stock["A"]["atp"] == 3
    [refused] = await asked.refusals(db, channel=None, sku="A", before=None, limit=9)
    assert (refused.quantity, refused.atp, refused.versions) == (5, 3, [kept.stock["A"]["version"]])
    reads = await asked.reads(db, channel="web", sku=None, until=None, limit=9)
    assert [(r.minute, r.sku, r.atp, r.count) for r in reads] == [(NOW, "A", 3, 4), (NOW, "B", 0, 3)]
    await asked.forget(db, before=NOW + timedelta(days=1))
    assert await asked.promises(db, channel=None, sku=None, before=None, limit=9) == []


async def test_what_leans_on_a_receipt_that_is_overdue_is_promised_again(db: Database, net: Net, cache: Cache) -> None:
    def incoming(reference: str, quantity: int, due: str) -> dict[str, Any]:
        return {
            "source": "erp",
            "reference": reference,
            "sku": "A",
            "location": "W1",
            "quantity": quantity,
            "due_on": due,
        }

    start = datetime.now(UTC)
    first, second = (start.date() + timedelta(days=n) for n in (2, 17))
    await set_stock(db, sku="A", location="W1", quantity=2)
    await put(db, "incoming", incoming("PO1", 4, first.isoformat()), incoming("PO2", 9, second.isoformat()))
    orders = [
        await captured(db, order(net, number, ("A", units), placed_at=start))
        for number, units in (("N1", 2), ("N2", 3), ("N3", 3))
    ]

    async def days(now: datetime) -> list[date | None]:
        await overdue.watch(db, now=now)
        async with db.connection() as tx:
            return [r[0] for r in await tx.fetch("select promised_on from order_line order by line_id")]

    assert await days(start) == [None, first, second]
    assert await days(start + timedelta(days=3)) == [None, start.date() + timedelta(days=3), second], (
        "late, within tolerance"
    )
    assert await days(start + timedelta(days=4)) == [None, second, second]
    assert ("incoming_overdue", "erp PO1 A W1") in await exceptions(db)
    [line] = (await read_order(db, order_id=orders[1])).lines
    assert line.promised_on == second
    anew = start.date() + timedelta(days=7)
    await put(db, "incoming", incoming("PO1", 4, anew.isoformat()))
    assert await days(start + timedelta(days=4)) == [None, anew, second]
    assert "incoming_overdue" not in {kind for kind, _ in await exceptions(db)}
    steps = await order_history(db, order_id=orders[1])
    assert [s.detail["on"] for s in steps if s.step == "promised"] == [
        day.isoformat() for day in (first, start.date() + timedelta(days=3), second, anew)
    ]
