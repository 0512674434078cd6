"""Who owes whom between divisions, consignors and vendors, as units leave and come back."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from oms import access
from oms.db import Database
from oms.errors import BadInput, Conflict, NotFound
from oms.flows import broker, fulfill, network, reconcile, returns, settlement
from oms.flows.broker import planning
from oms.flows.fulfill import answers, handover
from oms.flows.ingest import messages
from oms.flows.order import change
from oms.flows.settlement import Entry, waiting
from tests.demand import allocated, captured, order, planned, reject, ship, work_of, work_up_to
from tests.feeding import NOW, ask, check, exceptions, message, sale, say
from tests.world import Net, set_stock, small_network

DECEMBER = datetime(2026, 12, 3, 12, 0, tzinfo=UTC)


async def load(db: Database, kind: str, *rows: dict[str, Any]) -> network.Loaded:
    return await network.load(db, kind=kind, rows=rows, who="ann", now=NOW)


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    """The web division sells what lies at W1 (its own), S1 (of the stores) and S2 (of the outlet)."""
    net = await small_network(db)
    for location in ("W1", "S1", "S2"):
        await set_stock(db, sku="A", location=location, quantity=20)
    await set_stock(db, sku="B", location="S1", quantity=20)
    await load(db, "parties", {"code": "web"}, {"code": "stores"}, {"code": "outlet"},
               {"code": "cons", "kind": "consignor", "takes_back": True})  # fmt: skip
    await load(db, "locations", {"code": "W1", "division": "web"}, {"code": "S1", "division": "stores"},
               {"code": "S2", "division": "outlet"})  # fmt: skip
    await load(db, "channels", {"code": "web", "division": "web"}, {"code": "local", "division": "outlet"})
    yield net
    await check(db)


async def price(db: Database, code: str, owner: str, cents: int | None = None, **more: Any) -> None:
    loaded = await load(
        db, "transfer_prices", {"code": code, "owner": owner, **({} if cents is None else {"cents": cents}), **more}
    )
    assert loaded.refused == []


async def told(db: Database, **wanted: Any) -> list[tuple[str, str, str, int, int]]:
    """Entries, oldest first: kind, owner, buyer, units, cents."""
    found = await settlement.listed(db, limit=100, **wanted)
    return [(e.kind, e.owner, e.buyer, e.quantity, e.cents) for e in reversed(found)]


async def first(db: Database) -> Entry:
    return (await settlement.listed(db, limit=100))[-1]


async def back(db: Database, net: Net, order_id: UUID, units: int, *, to: str, at: datetime = NOW) -> None:
    """Units of an order's only line come back to a location."""
    actor = access.Actor(key_id=None, role="associate", person="eve", who="eve", location_id=net.locations[to])
    made = await returns.announce(
        db, location_id=net.locations[to], order_id=order_id, lines=[returns.Sent(units, "fits not", line="1")],
        actor=actor, now=at,
    )  # fmt: skip
    await returns.receive(db, return_id=made, location_id=net.locations[to], lines=None, actor=actor, now=at)


async def debts(db: Database, period: str = "2026-11") -> list[tuple[str, str, int, int]]:
    return [(d.debtor, d.creditor, d.units, d.cents) for d in (await settlement.report(db, period=period)).debts]


# what is sold


async def test_what_another_divisions_stock_fulfills_is_owed_once_when_it_ships(db: Database, net: Net) -> None:
    await price(db, "p", "stores", 700)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    assert await told(db) == []
    for _ in range(2):
        await ship(db, work)
    assert await told(db) == [("sale", "stores", "web", 2, 1400)]
    entry = await first(db)
    assert (entry.sku, entry.location, entry.channel, entry.order, entry.line) == ("A", "S1", "web", "N1", "1")
    assert (entry.fulfillment_id, entry.price, entry.period) == (work.fulfillment, "p", "2026-11")
    assert await debts(db) == [("web", "stores", 2, 1400)]


async def test_messages_of_a_system_that_come_twice_and_at_once_owe_once(db: Database, net: Net) -> None:
    await price(db, "p", "stores", 700)
    async with db.transaction() as tx:
        await tx.execute(
            "insert into fulfiller (location_id, kind, settings) values ($1, 'file', '{}')", net.locations["S1"]
        )
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    runner = answers.Runner(net.locations["S1"], "S1", "file", {}, 15, True)
    both = [
        msgspec.convert({"id": id, "fulfillment": str(work.fulfillment), "event": "shipped"}, answers.Said)
        for id in ("m1", "m2")
    ]
    await asyncio.gather(*(answers.take_in(db, runner=runner, said=both, now=NOW) for _ in range(3)))
    assert await told(db) == [("sale", "stores", "web", 2, 1400)]


async def test_own_stock_owes_nothing_nor_does_what_was_rejected_or_a_network_without_divisions(
    db: Database, net: Net
) -> None:
    await price(db, "p", "stores", 700)
    await ship(db, await allocated(db, net, "N1", ("A", 2, "W1")))
    refused = await allocated(db, net, "N2", ("A", 2, "S1"))
    await reject(db, refused, ("1", 2))
    await load(db, "locations", {"code": "S1", "division": None})
    await load(db, "channels", {"code": "web", "division": None})
    await ship(db, await allocated(db, net, "N3", ("A", 2, "S1")))
    assert (await told(db), await ask(db, "select count(*) from owed")) == ([], 0)


async def test_only_the_units_that_left_are_owed(db: Database, net: Net) -> None:
    await price(db, "p", "stores", 700)
    work = await allocated(db, net, "N1", ("A", 3, "S1"))
    await reject(db, work, ("1", 1))
    await ship(db, work)
    assert await told(db) == [("sale", "stores", "web", 2, 1400)]


async def test_a_pick_up_owes_when_it_is_handed_over(db: Database, net: Net) -> None:
    await price(db, "p", "stores", 700)
    new = order(net, "N1", ("A", 1), pickup_location="S1")
    order_id = await captured(db, new)
    run_id = await planned(db, net, order_id)
    work = await work_of(db, order_id, run_id)
    await work_up_to(db, work, "pack")
    assert await told(db) == []
    for _ in range(2):
        await handover.hand_over(
            db, fulfillment=work.fulfillment, kind="known_person", proof="a neighbor", actor=access.house, now=NOW
        )
    assert await told(db) == [("sale", "stores", "web", 1, 700)]


async def test_a_pick_up_that_nobody_collects_owes_nothing(db: Database, net: Net) -> None:
    await price(db, "p", "stores", 700)
    order_id = await captured(db, order(net, "N1", ("A", 1), pickup_location="S1"))
    work = await work_of(db, order_id, await planned(db, net, order_id))
    await work_up_to(db, work, "pack")
    await fulfill.collect.not_collected(
        db, fulfillment=work.fulfillment, why="nobody came", actor=access.house, now=NOW
    )
    assert await ask(db, "select count(*) from owed") == 0


async def test_a_consignors_stock_is_owed_to_the_consignor_also_in_the_sellers_own_place(
    db: Database, net: Net
) -> None:
    await load(db, "stock_owners", {"sku": "A", "location": "*", "owner": "cons"})
    await price(db, "p", "cons", percent=62.5, percent_of="price", currency="EUR")
    await ship(db, await allocated(db, net, "N1", ("A", 3, "W1")))
    assert await told(db) == [("consignment", "cons", "web", 3, 1875)]
    assert (await first(db)).currency == "EUR"
    await load(db, "stock_owners", {"sku": "A", "location": "W1", "owner": "web"})
    await ship(db, await allocated(db, net, "N2", ("A", 1, "W1")))
    assert len(await told(db)) == 1


async def test_a_vendors_place_holds_the_vendors_stock(db: Database, net: Net) -> None:
    await load(db, "parties", {"code": "acme", "kind": "vendor"})
    await load(db, "locations", {"code": "S1", "owner": "acme"})
    await price(db, "p", "acme", percent=100, percent_of="cost")
    await ship(db, await allocated(db, net, "N1", ("A", 2, "S1")))
    assert await told(db) == [("consignment", "acme", "web", 2, 1200)]


async def test_the_price_that_speaks_most_closely_on_the_day_counts(db: Database, net: Net) -> None:
    await load(db, "skus", {"code": "A", "category": "shoes"})
    for code, cents, more in (
        ("every", 100, {}), ("category", 200, {"category": "shoes"}), ("other", 300, {"category": "hats"}),
        ("sku", 400, {"sku": "A"}), ("buyer", 500, {"sku": "A", "buyer": "web"}),
        ("later", 600, {"sku": "A", "buyer": "web", "from_on": "2026-11-20"}),
        ("over", 700, {"sku": "A", "buyer": "web", "from_on": "2026-11-21", "until_on": "2026-11-23"}),
        ("to come", 800, {"sku": "A", "buyer": "web", "from_on": "2026-11-24"}),
    ):  # fmt: skip
        await price(db, code, "stores", cents, **more)
    for code in ("later", "buyer", "sku", "category", "every"):
        await ship(db, await allocated(db, net, f"N {code}", ("A", 1, "S1")))
        assert (await settlement.listed(db, limit=1))[0].price == code
        await load(db, "transfer_prices", {"code": code, "until_on": "2026-11-22", "from_on": "2026-11-01"})


async def test_what_left_though_it_was_taken_back_is_owed_all_the_same(db: Database, net: Net) -> None:
    await price(db, "p", "stores", 700)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await change.cancel(db, order_id=work.order_id, lines=None, why="late", who="x")
    said = msgspec.convert({"id": "m", "fulfillment": str(work.fulfillment), "event": "shipped"}, answers.Said)
    runner = answers.Runner(net.locations["S1"], "S1", "file", {}, 15, True)
    for _ in range(2):
        await answers.take_in(db, runner=runner, said=[said], now=NOW)
    assert await told(db) == [("sale", "stores", "web", 2, 1400)]


async def test_what_a_kit_is_made_of_is_owed_by_its_parts(db: Database, net: Net) -> None:
    await load(
        db, "kits", {"kit": "C", "components": [{"component": "A", "quantity": 2}, {"component": "B", "quantity": 1}]}
    )
    await price(db, "p", "stores", percent=50, percent_of="price")
    order_id = await captured(db, order(net, "N1", ("C", 1), pickup_location="S1"))
    await ship(db, await work_of(db, order_id, order_id))
    assert sorted(await told(db)) == [("sale", "stores", "web", 1, 167), ("sale", "stores", "web", 2, 333)]


async def test_a_till_that_sells_a_consignors_units_owes_them_once_and_gets_back_what_it_took_back(
    db: Database, net: Net
) -> None:
    await say(db, "pos", sale("m0", "A", "S1", 1))
    await load(db, "stock_owners", {"sku": "A", "location": "S1", "owner": "cons"})
    await price(db, "p", "cons", percent=60, percent_of="price")
    for _ in range(2):
        await say(db, "pos", sale("m1", "A", "S1", 2), sale("m2", "B", "S1", 1), sale("m3", "A", "S2", 1))
        await say(db, "pos", message("m4", "return", "A", "S1", 1), message("m5", "return", "B", "S1", 1))
    assert await told(db) == [("consignment", "cons", "stores", 2, 1200), ("return", "cons", "stores", -1, -600)]
    entry = await first(db)
    assert (entry.sku, entry.location, entry.channel, entry.order) == ("A", "S1", None, None)
    await load(db, "locations", {"code": "S1", "division": None})
    await say(db, "pos", sale("m6", "A", "S1", 1))
    assert await exceptions(db) == [("settlement_waiting", "buyer:S1")]
    await load(db, "locations", {"code": "S1", "division": "outlet"})
    assert (await told(db))[2:] == [("consignment", "cons", "outlet", 1, 600)]


async def test_what_waits_as_an_unknown_sku_is_owed_when_it_is_known(db: Database, net: Net) -> None:
    await load(db, "locations", {"code": "S1", "owner": "cons"})
    await price(db, "p", "cons", 500)
    await say(db, "pos", sale("m1", "NEW", "S1", 1))
    assert await told(db) == []
    await load(db, "sku_aliases", {"source": "pos", "code": "NEW", "sku": "B"})
    for _ in range(2):
        await messages.replay_parked(db, who="x")
    assert await told(db) == [("consignment", "cons", "stores", 1, 500)]


# what it costs when it is brokered


async def went(db: Database, net: Net, number: str, **more: Any) -> tuple[str, int]:
    """Where one unit of A goes, and what the transfer cost in the plan."""
    order_id = await captured(db, order(net, number, ("A", 1), **more))
    run = await broker.run(db, who="test", now=NOW, seconds=1)
    asked = "select code from fulfillment join location using (location_id) where order_id = $1"
    return await ask(db, asked, order_id), run.summary["cost_by_term"].get("transfer", 0)


async def test_anothers_unit_costs_its_price_beyond_the_cost_of_an_own_one(db: Database, net: Net) -> None:
    await load(db, "locations", {"code": "W1", "division": "stores"}, {"code": "S1", "division": "web"})
    assert await went(db, net, "N1") == ("W1", 0)
    await price(db, "p", "stores", 601, sku="A")
    assert await went(db, net, "N2") == ("W1", 1)
    await price(db, "q", "stores", percent=500, percent_of="price", sku="A", buyer="web")
    assert await went(db, net, "N3") == ("S1", 0)
    await load(db, "locations", {"code": "W1", "division": "web"})
    assert await went(db, net, "N4") == ("W1", 0)


async def test_where_several_sell_a_sku_in_one_run_its_transfer_is_their_mean(db: Database, net: Net) -> None:
    await price(db, "p", "stores", 1000)
    await price(db, "q", "outlet", 1200)
    for number, channel in (("N1", "web"), ("N2", "local")):
        await captured(db, order(net, number, ("A", 1), channel=channel))
    problem, _ = await planning.read_problem(db, run_id=UUID(int=0), now=NOW, policies=[])
    of = {n.location_id: n.transfer_cents for n in problem.stock}
    assert of == {net.locations["W1"]: 0, net.locations["S1"]: 400, net.locations["S2"]: 300}


# what has no price


async def test_a_missing_price_is_never_zero_and_its_entry_is_made_when_a_person_says_it(
    db: Database, net: Net
) -> None:
    for number in ("N1", "N2"):
        await ship(db, await allocated(db, net, number, ("A", 1, "S1")))
    assert await told(db) == []
    assert await exceptions(db) == [("settlement_waiting", "stores>web:A")]
    (waits,) = (await settlement.report(db, period="2026-11")).waiting
    assert (waits.subject, waits.entries, waits.units) == ("stores>web:A", 2, 2)
    await price(db, "late", "stores", 700, from_on="2026-11-24")
    assert await told(db) == []
    await price(db, "p", "stores", 650)
    assert await told(db) == [("sale", "stores", "web", 1, 650)] * 2
    assert await exceptions(db) == []
    await price(db, "p", "stores", 900)
    assert await told(db) == [("sale", "stores", "web", 1, 650)] * 2


async def test_what_waits_is_told_again_when_its_exception_is_closed_without_a_price(db: Database, net: Net) -> None:
    await ship(db, await allocated(db, net, "N1", ("A", 1, "S1")))
    await waiting.watch(db)
    closing = "update exception set state = 'resolved', resolved_at = now() returning count"
    assert await ask(db, closing) == 1
    assert await waiting.watch(db) == 0
    assert await exceptions(db) == [("settlement_waiting", "stores>web:A")]
    async with db.transaction() as tx:
        await tx.execute(
            "insert into transfer_price (code, owner_id, cents, currency)"
            " select 'p', party_id, 700, 'USD' from party where code = 'stores'"
        )
    assert (await waiting.watch(db), await waiting.watch(db)) == (1, 0)
    assert (await told(db), await exceptions(db)) == ([("sale", "stores", "web", 1, 700)], [])


async def test_a_percent_of_a_cost_that_nobody_knows_waits_for_it(db: Database, net: Net) -> None:
    await load(db, "skus", {"code": "A", "value_cents": None})
    await price(db, "p", "stores", percent=50, percent_of="cost")
    await ship(db, await allocated(db, net, "N1", ("A", 1, "S1")))
    assert (await told(db), await exceptions(db)) == ([], [("settlement_waiting", "stores>web:A")])
    await load(db, "skus", {"code": "A", "value_cents": 301})
    assert (await told(db), await exceptions(db)) == ([("sale", "stores", "web", 1, 151)], [])


async def test_a_place_or_a_channel_of_nobody_waits_for_its_division(db: Database, net: Net) -> None:
    await price(db, "p", "stores", 700)
    await load(db, "locations", {"code": "S1", "division": None})
    await ship(db, await allocated(db, net, "N1", ("A", 1, "S1")))
    assert await exceptions(db) == [("settlement_waiting", "owner:S1")]
    await load(db, "locations", {"code": "S1", "division": "stores"})
    assert await told(db) == [("sale", "stores", "web", 1, 700)]
    await load(db, "channels", {"code": "web", "division": None})
    await ship(db, await allocated(db, net, "N2", ("A", 1, "S1")))
    assert await exceptions(db) == [("settlement_waiting", "seller:web")]
    await load(db, "channels", {"code": "web", "division": "stores"})
    assert (len(await told(db)), await exceptions(db)) == (1, [])


async def test_the_owner_is_who_owned_it_when_it_left(db: Database, net: Net) -> None:
    await ship(db, await allocated(db, net, "N1", ("A", 1, "S1")))
    await load(db, "locations", {"code": "S1", "division": "outlet"})
    await price(db, "p", "stores", 700)
    assert await told(db) == [("sale", "stores", "web", 1, 700)]


# what comes back


async def test_what_comes_back_to_its_owner_is_given_back_to_the_cent(db: Database, net: Net) -> None:
    await price(db, "p", "stores", percent=33.335, percent_of="price")
    work = await allocated(db, net, "N1", ("A", 3, "S1"))
    await ship(db, work)
    await price(db, "p", "stores", percent=90, percent_of="price")
    for _ in range(3):
        await back(db, net, work.order_id, 1, to="S1")
    entries = await told(db)
    assert entries[0] == ("sale", "stores", "web", 3, 1000)
    assert [e[4] for e in entries[1:]] == [-333, -333, -334]
    assert await debts(db) == [("web", "stores", 0, 0)]


async def test_what_comes_back_to_the_seller_is_bought_at_the_price_of_its_sale(db: Database, net: Net) -> None:
    await price(db, "p", "stores", 700)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await ship(db, work)
    await price(db, "p", "stores", 900)
    await back(db, net, work.order_id, 1, to="W1")
    assert (await told(db))[1:] == [("return", "stores", "web", -1, -700), ("bought", "stores", "web", 1, 700)]
    assert await debts(db) == [("web", "stores", 2, 1400)]


async def test_what_comes_back_to_a_third_division_is_bought_by_it(db: Database, net: Net) -> None:
    await price(db, "p", "stores", 700)
    await price(db, "q", "web", 800)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await ship(db, work)
    await back(db, net, work.order_id, 2, to="S2")
    assert (await told(db))[1:] == [("return", "stores", "web", -2, -1400), ("bought", "stores", "outlet", 2, 1400)]
    own = await allocated(db, net, "N2", ("A", 1, "W1"))
    await ship(db, own)
    await back(db, net, own.order_id, 1, to="S2")
    assert (await told(db))[3:] == [("bought", "web", "outlet", 1, 800)]
    report = await settlement.report(db, period="2026-11")
    assert {b.party: b.cents for b in report.balances} == {"stores": 1400, "web": 800, "outlet": -2200}


async def test_a_consignor_takes_its_units_back_wherever_they_came(db: Database, net: Net) -> None:
    await load(db, "stock_owners", {"sku": "A", "location": "*", "owner": "cons"})
    await load(db, "stock_owners", {"sku": "A", "location": "S2", "owner": "outlet"})
    await price(db, "p", "cons", 500)
    work = await allocated(db, net, "N1", ("A", 2, "W1"))
    await ship(db, work)
    await back(db, net, work.order_id, 1, to="S2")
    assert await told(db) == [("consignment", "cons", "web", 2, 1000), ("return", "cons", "web", -1, -500)]


async def test_what_comes_back_before_its_sale_has_a_price_waits_with_it(db: Database, net: Net) -> None:
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await ship(db, work)
    await back(db, net, work.order_id, 1, to="S1")
    await back(db, net, work.order_id, 1, to="W1")
    assert (await told(db), await exceptions(db)) == ([], [("settlement_waiting", "stores>web:A")])
    await price(db, "p", "stores", 700)
    assert await told(db) == [
        ("sale", "stores", "web", 2, 1400), ("return", "stores", "web", -1, -700), ("return", "stores", "web", -1, -700),
        ("bought", "stores", "web", 1, 700),
    ]  # fmt: skip
    assert await exceptions(db) == []


# periods


async def test_a_period_is_closed_by_two_people_of_what_the_second_saw(db: Database, net: Net) -> None:
    await price(db, "p", "stores", 700)
    await ship(db, await allocated(db, net, "N1", ("A", 1, "S1")))
    with pytest.raises(Conflict, match="not ended"):
        await settlement.ask_to_close(db, period="2026-11", person="olga", now=NOW)
    with pytest.raises(NotFound):
        await settlement.approve(db, period="2026-11", person="ann", now=DECEMBER)
    asked = await settlement.ask_to_close(db, period="2026-11", person="olga", now=DECEMBER)
    assert asked.state == "asked"
    assert await exceptions(db) == [("settlement_close", "2026-11")]
    with pytest.raises(Conflict, match="another person"):
        await settlement.approve(db, period="2026-11", person="olga", now=DECEMBER)
    await ship(db, await allocated(db, net, "N2", ("A", 1, "S1")))
    with pytest.raises(Conflict, match="ask anew"):
        await settlement.approve(db, period="2026-11", person="ann", now=DECEMBER)
    await settlement.ask_to_close(db, period="2026-11", person="olga", now=DECEMBER)
    closed = await settlement.approve(db, period="2026-11", person="ann", now=DECEMBER)
    assert (closed.state, closed.asked_by, closed.approved_by) == ("closed", "olga", "ann")
    assert (await settlement.approve(db, period="2026-11", person="ann", now=DECEMBER)).state == "closed"
    assert await exceptions(db) == []
    with pytest.raises(Conflict, match="is closed"):
        await settlement.ask_to_close(db, period="2026-11", person="olga", now=DECEMBER)


async def test_an_entry_of_a_closed_period_falls_into_the_next_and_says_so(db: Database, net: Net) -> None:
    await ship(db, await allocated(db, net, "N1", ("A", 1, "S1")))
    for period, later in (("2026-11", DECEMBER), ("2026-12", DECEMBER + timedelta(days=31))):
        await settlement.ask_to_close(db, period=period, person="olga", now=later)
        await settlement.approve(db, period=period, person="ann", now=later)
    await price(db, "p", "stores", 700)
    entry = await first(db)
    assert (entry.month, entry.period) == ("2026-11", "2027-01")
    assert await debts(db) == []
    report = await settlement.report(db, period="2027-01")
    assert [(n.month, n.entries, n.units) for n in report.late] == [("2026-11", 1, 1)]
    assert await debts(db, "2027-01") == [("web", "stores", 1, 700)]


async def test_a_close_waits_for_the_entries_that_are_being_made(db: Database, net: Net) -> None:
    await price(db, "p", "stores", 700)
    await settlement.ask_to_close(db, period="2026-11", person="olga", now=DECEMBER)
    work = await allocated(db, net, "N1", ("A", 1, "S1"))
    await work_up_to(db, work, "pack")
    async with db.transaction() as tx:
        await fulfill.steps.advance_in(tx, [work.fulfillment], step="ship", actor=access.house, now=NOW)
        closing = asyncio.create_task(settlement.approve(db, period="2026-11", person="ann", now=DECEMBER))
        await asyncio.sleep(0.1)
        assert not closing.done()
    with pytest.raises(Conflict, match="ask anew"):
        await closing


async def test_an_entry_is_never_edited_but_set_right_by_a_further_one(db: Database, net: Net) -> None:
    await price(db, "p", "stores", 700)
    await ship(db, await allocated(db, net, "N1", ("A", 1, "S1")))
    entry = await first(db)
    for statement in ("update settlement set cents = 0", "delete from settlement"):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await ask(db, statement)
    made = await settlement.correct(db, entry=entry.id, cents=-50, why="wrong list", who="olga", now=DECEMBER)
    assert (made.kind, made.owner, made.buyer, made.cents, made.corrects) == (
        "correction",
        "stores",
        "web",
        -50,
        entry.id,
    )
    assert (made.order, made.sku, made.period, made.why) == ("N1", "A", "2026-12", "wrong list")
    assert await debts(db, "2026-12") == [("stores", "web", 0, 50)]
    with pytest.raises(NotFound):
        await settlement.correct(db, entry=10**9, cents=1, why="x", who="olga", now=DECEMBER)
    with pytest.raises(BadInput):
        await settlement.correct(db, entry=entry.id, cents=0, why="x", who="olga", now=DECEMBER)


async def test_entries_are_listed_by_day_owner_and_buyer_and_a_period_is_a_month(db: Database, net: Net) -> None:
    await price(db, "p", "stores", 700)
    await price(db, "q", "outlet", 700)
    await ship(db, await allocated(db, net, "N1", ("A", 1, "S1")))
    await ship(db, await allocated(db, net, "N2", ("A", 1, "S1"), channel="local"))
    await ship(db, await allocated(db, net, "N3", ("A", 1, "S2"), channel="local"))
    assert {(e[1], e[2]) for e in await told(db)} == {("stores", "web"), ("stores", "outlet")}
    assert len(await told(db, buyer="web")) == len(await told(db, owner="stores", buyer="outlet")) == 1
    assert len(await told(db, from_on=NOW.date(), until_on=NOW.date())) == 2
    assert (
        await told(db, from_on=NOW.date() + timedelta(days=1))
        == await told(db, until_on=NOW.date() - timedelta(1))
        == []
    )
    for wrong in ("2026-13", "2026", "x"):
        with pytest.raises(BadInput):
            await settlement.report(db, period=wrong)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_after_a_random_month_each_party_has_what_its_units_are_worth_and_all_sum_to_zero(
    db: Database, net: Net, seed: int
) -> None:
    chance = random.Random(seed)
    division = {"W1": "web", "S1": "stores", "S2": "outlet"}
    seller = {"web": "web", "local": "outlet"}
    reach = {"web": ["W1", "S1"], "local": ["S1", "S2"]}
    await set_stock(db, sku="C", location="S1", quantity=20)
    await load(db, "stock_owners", {"sku": "C", "location": "*", "owner": "cons"})
    worth = {"web": 101, "stores": 503, "outlet": 907, "cons": 1301}
    late = chance.choice(list(worth))
    for owner, cents in worth.items():
        if owner != late:
            await price(db, owner, owner, cents)
    has = dict.fromkeys(worth, 0)

    def gives(owner: str, buyer: str, units: int) -> None:
        has[owner] += units * worth[owner]
        has[buyer] -= units * worth[owner]

    out: list[tuple[UUID, str, str]] = []
    for n in range(14):
        channel = chance.choice(["web", "local"])
        sku = chance.choice(["A", "A", "C"])
        location = "S1" if sku == "C" else chance.choice(reach[channel])
        work = await allocated(db, net, f"N{n}", (sku, 1, location), channel=channel)
        await ship(db, work)
        owner = "cons" if sku == "C" else division[location]
        gives(owner, seller[channel], 1)
        out.append((work.order_id, owner, seller[channel]))
        if chance.random() < 0.6:
            order_id, owner, buyer = out.pop(chance.randrange(len(out)))
            to = chance.choice(list(division))
            await back(db, net, order_id, 1, to=to)
            gives(owner, buyer, -1)
            if owner != "cons":
                gives(owner, division[to], 1)
    await price(db, late, late, worth[late])
    report = await settlement.report(db, period="2026-11")
    told = {b.party: b.cents for b in report.balances}
    assert {party: told.get(party, 0) for party in has} == has
    assert (sum(told.values()), report.waiting, await exceptions(db)) == (0, [], [])
    assert (await reconcile.verify(db))[1] == []


async def test_verify_sees_what_is_owed_wrongly_and_a_closed_period_that_changed(db: Database, net: Net) -> None:
    await price(db, "p", "stores", 700)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await ship(db, work)
    await back(db, net, work.order_id, 1, to="S1")
    await settlement.ask_to_close(db, period="2026-11", person="olga", now=DECEMBER)
    await settlement.approve(db, period="2026-11", person="ann", now=DECEMBER)
    assert (await reconcile.verify(db))[1] == []
    broken = (
        ("update owed set quantity = 3 where kind = 'sale'", "owed"),
        ("update owed set quantity = -3 where kind = 'return'", "given back"),
        ("update owed set state = 'own' where kind = 'sale'", "entry"),
        ("update settlement_period set totals = '[]'", "settlement period"),
    )
    for statement, what in broken:
        async with db.connection() as tx:
            await tx.execute("begin")
            await tx.execute(statement)
            assert {row[0] for row in await tx.fetch(reconcile.sql.blocks["settlements_differ"].text)} == {what}
            await tx.execute("rollback")


# the table


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"cents": 1, "percent": 2, "percent_of": "cost"}, "cents"),
        ({}, "cents"),
        ({"percent": 2}, "percent_of"),
        ({"cents": 1, "sku": "A", "category": "shoes"}, "category"),
        ({"cents": 1, "buyer": "stores"}, "buyer"),
        ({"cents": 1, "buyer": "nobody"}, "buyer"),
        ({"cents": 1, "from_on": "2026-11-02", "until_on": "2026-11-02"}, "until_on"),
        ({"cents": -1}, "cents"),
    ],
)
async def test_a_price_that_says_nothing_sound_is_refused(
    db: Database, net: Net, row: dict[str, Any], field: str
) -> None:
    loaded = await load(db, "transfer_prices", {"code": "p", "owner": "stores", **row})
    assert [fault.field for fault in loaded.refused] == [field]


async def test_a_consignor_is_no_division_and_a_division_that_is_used_stays_one(db: Database, net: Net) -> None:
    assert (await load(db, "locations", {"code": "S1", "division": "cons"})).refused
    assert (await load(db, "channels", {"code": "web", "division": "cons"})).refused
    assert (await load(db, "parties", {"code": "web", "kind": "vendor"})).refused
    again = await load(db, "parties", {"code": "cons", "kind": "consignor"})
    assert again.unchanged == 1
