"""A promise says by when, from where and why, and keeps to what a reservation would get."""

from datetime import UTC, date, datetime
from typing import Any
from uuid import uuid4

import pytest

from oms.db import Database
from oms.domain.order import CartLine
from oms.errors import BadInput
from oms.flows.network import load
from oms.flows.promise.dated import Promised, promise
from oms.flows.reserve import Cart, reserve_many
from oms.settle import settle_batch
from tests.feeding import change
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
        db, channel_id=net.channels["web"], lines=[CartLine(*line) for line in lines], method=method, lat=lat, lon=lon,
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
