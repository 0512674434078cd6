"""Stock at a location by its own people: received, moved, counted against picks in progress, written off by two."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from oms import access
from oms.db import Database
from oms.errors import BadInput, Conflict, NotAllowed, NotFound, Refusal
from oms.flows import fulfill
from oms.flows.fulfill import claim, rules, scan
from oms.flows.ingest import acknowledge
from oms.flows.order import change as order_change
from oms.flows.stock import count, plan, receive, transfer, writeoff
from tests.demand import allocated, captured, order, work_up_to
from tests.feeding import NOW, ask, at, baseline, change, check, exceptions, on_hand, sale, say, stock
from tests.world import Net, set_stock, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    net = await small_network(db)
    yield net
    await check(db)


def person(net: Net, name: str, *, role: str = "associate", location: str = "S1") -> access.Actor:
    return access.Actor(key_id=None, role=role, person=name, who=name, location_id=net.locations[location])


async def due(db: Database, net: Net, reference: str, sku: str, units: int, location: str = "S1") -> None:
    """A purchase is expected."""
    await change(
        db, "insert into incoming (source_id, reference, sku_id, location_id, kind, quantity, due_on)"
        " values ($1, $2, $3, $4, 'purchase', $5, '2026-11-23')",
        net.sources["erp"], reference, net.skus[sku], net.locations[location], units,
    )  # fmt: skip


async def come(
    db: Database, net: Net, *lines: tuple[str, int] | tuple[str, int, int], reference: str | None = "PO1",
    final: bool = False, location: str = "S1",
) -> receive.Received:  # fmt: skip
    return await receive.receive(
        db, location_id=net.locations[location], reference=reference, is_final=final, now=NOW, device="gun",
        lines=[receive.Came(*line) for line in lines], actor=person(net, "ann", location=location),
    )  # fmt: skip


def now() -> datetime:
    return datetime.now(UTC)


# receiving


async def test_a_store_receipt_is_on_hand_at_once_and_sellable_when_it_is_released(db: Database, net: Net) -> None:
    await due(db, net, "PO1", "A", 10)
    done = await come(db, net, ("A", 6))
    assert ([(n.sku, n.expected, n.quantity, n.hold) for n in done.lines], done.missing) == (
        [("A", 10, 6, "until_released")], {"A": 4},
    )  # fmt: skip
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "held")) == (6, 6)
    assert await ask(db, "select quantity from incoming") == 4
    assert await exceptions(db) == []


@pytest.mark.parametrize(
    ("rule", "hold"),
    [
        ("at_once", None),
        ("inspection", "until_inspected"),
        ("put_away", "until_put_away"),
        ("baseline", "until_baseline"),
    ],
)
async def test_when_a_receipt_may_be_sold_is_its_sources_rule(
    db: Database, net: Net, rule: str, hold: str | None
) -> None:
    await change(db, "update source set additions = jsonb_build_object('receipt', $1::text) where code = 'erp'", rule)
    done = await come(db, net, ("A", 2), reference=None)
    assert done.lines[0].hold == hold
    assert await stock(db, "A", "S1", "held") == (2 if hold else 0)


async def test_over_under_unexpected_and_damaged_are_booked_as_they_came_and_told(db: Database, net: Net) -> None:
    for sku, units in (("A", 2), ("B", 5), ("D", 1)):
        await due(db, net, "PO1", sku, units)
    done = await come(db, net, ("A", 3), ("B", 4, 1), ("C", 1), final=True)
    assert done.missing == {"B": 1, "D": 1}
    detail = await ask(db, "select detail from exception where kind = 'receipt_differs'")
    for words in ("1 A too many", "1 B damaged", "1 C unexpected", "1 B missing", "1 D missing"):
        assert words in detail
    assert await ask(db, "select sum(quantity) from incoming") == 0
    assert await ask(db, "select sum(quantity) from hold where code = 'damaged'") == 1


async def test_nothing_is_received_where_a_code_is_unknown(db: Database, net: Net) -> None:
    with pytest.raises(BadInput) as refused:
        await come(db, net, ("A", 1), ("nonsense", 1))
    assert refused.value.items[0]["index"] == 1
    with pytest.raises(BadInput):
        await come(db, net, ("A", 1, 2))
    assert await on_hand(db, "A", "S1") == 0


async def test_a_receipt_of_ours_stands_over_snapshots_until_the_erp_has_posted_it(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,5", as_of=at(0))
    await receive.receive(
        db, location_id=net.locations["S1"], reference=None, is_final=False, now=at(5), lines=[receive.Came("A", 2)],
        actor=person(net, "ann"),
    )  # fmt: skip
    await baseline(db, "erp", "A,S1,5", as_of=at(10))
    assert await on_hand(db, "A", "S1") == 7
    message = await ask(db, "select message_id from movement where kind = 'receipt'")
    await acknowledge.posted(db, source="erp", references=[message], at=at(12), who="x")
    await baseline(db, "erp", "A,S1,7", as_of=at(20))
    assert await on_hand(db, "A", "S1") == 7


# transfers


async def moved(db: Database, net: Net, units: int, *, send: bool = True) -> UUID:
    """A transfer of A from S1 to S2."""
    made = await transfer.ask(
        db, from_id=net.locations["S1"], to_id=net.locations["S2"], lines=[transfer.Wanted("A", units)], now=NOW,
        actor=person(net, "ann"), labor_cents=100, transport_cents=250,
    )  # fmt: skip
    if send:
        await transfer.send(db, transfer_id=made, actor=person(net, "ann"), now=NOW, labor_cents=50)
    return made


async def test_a_transfer_is_in_transit_until_it_is_received_and_its_differences_are_told(
    db: Database, net: Net
) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    made = await moved(db, net, 4)
    assert await transfer.send(db, transfer_id=made, actor=person(net, "ann"), now=NOW) == "sent"
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "A", "S2")) == (1, 0)
    assert await ask(db, "select quantity from incoming where kind = 'transfer'") == 4
    with pytest.raises(Conflict):
        await come(db, net, ("A", 4), reference=str(made), location="S1")
    await come(db, net, ("A", 1), reference=str(made), location="S2")
    await come(db, net, ("A", 2), reference=str(made), final=True, location="S2")
    view = await transfer.show(db, locations=[net.locations["S2"]], transfer_id=made)
    assert (view.state, view.labor_cents, view.transport_cents) == ("received", 150, 250)
    assert view.lines == [{"sku": "A", "asked": 4, "sent": 4, "received": 3, "damaged": 0, "in_transit": 0}]
    assert await on_hand(db, "A", "S2") == 3
    assert await exceptions(db) == [("transfer_differs", f"S2:{made}")]


async def test_what_is_promised_to_others_is_not_sent_away(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    await allocated(db, net, "N1", ("A", 2, "S1"))
    await captured(db, order(net, "N2", ("A", 1)))
    made = await moved(db, net, 3, send=False)
    with pytest.raises(Conflict) as refused:
        await transfer.send(db, transfer_id=made, actor=person(net, "ann"), now=NOW)
    assert refused.value.items[0]["sku"] == "A"
    await transfer.send(db, transfer_id=made, actor=person(net, "ann"), now=NOW, lines=[transfer.Wanted("A", 2)])
    assert await on_hand(db, "A", "S1") == 3


async def test_only_the_origin_sends_and_strangers_see_nothing(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    made = await moved(db, net, 3, send=False)
    with pytest.raises(Conflict):
        await transfer.send(db, transfer_id=made, actor=person(net, "eve", location="S2"), now=NOW)
    with pytest.raises(NotFound):
        await transfer.send(db, transfer_id=made, actor=person(net, "x", location="W1"), now=NOW)
    assert await transfer.cancel(db, transfer_id=made, actor=person(net, "ann"), why="no") == "cancelled"


# counts


async def counting(db: Database, net: Net, *skus: str, kind: Any = "cycle") -> UUID:
    return await plan.make(
        db,
        location_id=net.locations["S1"],
        kind=kind,
        codes=list(skus) or None,
        why=None,
        actor=person(net, "ann"),
        now=now(),
    )


async def counted(
    db: Database, net: Net, made: UUID, *lines: tuple[str, int], who: str = "ann", when: datetime | None = None
) -> list[str]:
    found = await count.enter(
        db, count_id=made, lines=[count.Seen(*line) for line in lines], actor=person(net, who), now=now(), at=when
    )
    return [v.state for v in found]


async def test_a_count_is_right_while_picks_are_in_progress(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=10)
    picked, shipped = [await allocated(db, net, n, ("A", 2, "S1")) for n in ("N1", "N2")]
    await work_up_to(db, picked, "pick", now=now())
    await work_up_to(db, shipped, "ship", now=now())
    made = await counting(db, net, "A")
    assert await counted(db, net, made, ("A", 6)) == ["applied"]
    assert (await on_hand(db, "A", "S1"), await ask(db, "select variance from count_line")) == (8, 0)


async def test_what_is_picked_sold_or_shipped_after_the_count_was_made_is_no_variance(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=10)
    early, late = [await allocated(db, net, n, ("A", 2, "S1")) for n in ("N1", "N2")]
    await work_up_to(db, early, "pick", now=now())
    made, moment = await counting(db, net, "A"), now()
    await work_up_to(db, late, "ship", now=now())
    await work_up_to(db, early, "ship", now=now())
    assert await counted(db, net, made, ("A", 8), when=moment) == ["applied"]
    assert (await on_hand(db, "A", "S1"), await ask(db, "select variance from count_line")) == (6, 0)


async def test_a_count_that_is_far_off_is_recounted_by_another_and_then_stands(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=10)
    made = await counting(db, net, "A")
    assert [(n.sku, n.variance) for n in await plan.show(db, count_id=made, actor=person(net, "ann"))] == [("A", None)]
    assert await counted(db, net, made, ("A", 7)) == ["recount"]
    assert await on_hand(db, "A", "S1") == 10
    with pytest.raises(Conflict):
        await counted(db, net, made, ("A", 7))
    with pytest.raises(Conflict):
        await count.close(db, count_id=made, actor=person(net, "ann"), now=now())
    assert await counted(db, net, made, ("A", 8), who="bob") == ["applied"]
    assert await on_hand(db, "A", "S1") == 8
    found = await plan.variances(db, locations=None, since=now() - timedelta(hours=1), until=now() + timedelta(hours=1))
    assert [(v.reason, v.units_short, v.units_over, v.cents) for v in found] == [("unexplained", 2, 0, -1200)]


async def test_what_nobody_counted_is_untouched_unless_the_count_is_full(db: Database, net: Net) -> None:
    for sku in ("A", "B"):
        await set_stock(db, sku=sku, location="S1", quantity=2)
    cycle = await counting(db, net, "A", "B")
    await counted(db, net, cycle, ("A", 2))
    await count.close(db, count_id=cycle, actor=person(net, "ann"), now=now())
    assert (
        await on_hand(db, "B", "S1"),
        await ask(db, "select count(*) from count_line where state = 'untouched'"),
    ) == (2, 1)
    full = await counting(db, net, kind="full")
    await counted(db, net, full, ("A", 2), ("C", 1))
    await count.close(db, count_id=full, actor=person(net, "ann"), now=now())
    assert [await on_hand(db, s, "S1") for s in "ABC"] == [2, 0, 1]
    with pytest.raises(Conflict):
        await counted(db, net, full, ("B", 1))


async def test_a_newer_snapshot_stands_over_a_count_that_is_entered_late(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,5", as_of=now() - timedelta(hours=2), now=now())
    made, moment = await counting(db, net, "A"), now() - timedelta(hours=3)
    assert await counted(db, net, made, ("A", 4), when=moment) == ["superseded"]
    assert await on_hand(db, "A", "S1") == 5


async def test_a_sale_that_is_told_late_is_not_deducted_from_the_count_that_saw_it(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=10)
    made = await counting(db, net, "A")
    await counted(db, net, made, ("A", 9))
    await say(db, "pos", sale("late", "A", "S1", 1, at=now() - timedelta(hours=5)))
    assert await on_hand(db, "A", "S1") == 9


async def test_counts_are_planned_by_doubt_speed_and_value_once_a_day_and_a_wms_is_asked(
    db: Database, net: Net
) -> None:
    for sku in ("A", "B", "C"):
        await set_stock(db, sku=sku, location="S1", quantity=5)
    await set_stock(db, sku="A", location="W1", quantity=5)
    await change(db, "update ownership set source_id = $1 where fact = 'quantity' and location_id = $2",
                 net.sources["wms"], net.locations["W1"])  # fmt: skip
    await change(db, "update sku set value_cents = 90000 where code = 'C'")
    for n in range(4):
        await say(db, "pos", sale(f"m{n}", "B", "S1", 1, at=now() - timedelta(days=1)))
    await change(
        db,
        "update stock set counted_at = now() - interval '8 days' where sku_id in ($1, $2)"
        " and location_id in (select location_id from location where code = 'S1')",
        net.skus["A"],
        net.skus["B"],
    )
    assert [await plan.plan(db, now=now()) for _ in range(2)] == [2, 0]
    found = await ask(
        db, "select array_agg(s.code || ' ' || n.why order by s.code) from count_line n join counting c using (count_id)"
        " join sku s using (sku_id) where c.kind = 'cycle'",
    )  # fmt: skip
    assert found == ["B fast mover", "C slow mover"]
    assert await ask(db, "select body ->> 'source' from notice where kind = 'count_requested'") == "wms"
    request = await ask(db, "select count_id from counting where kind = 'request'")
    boss = access.Actor(key_id=None, role="operator", person="o", who="o")
    with pytest.raises(Conflict):
        await count.enter(db, count_id=request, lines=[count.Seen("A", 1)], actor=boss, now=now())
    await change(db, "update stock set counted_at = now() where location_id = $1", net.locations["W1"])
    await plan.plan(db, now=now())
    assert await ask(db, "select state from counting where count_id = $1", request) == "closed"


# write-offs


async def gone(db: Database, net: Net, units: int, *, who: str = "ann") -> UUID:
    return await writeoff.ask(
        db,
        location_id=net.locations["S1"],
        lines=[writeoff.Gone("A", units, "broken")],
        actor=person(net, who),
        now=NOW,
    )


async def test_small_write_offs_that_add_up_above_the_limit_need_two_people(db: Database, net: Net) -> None:
    await rules.change(db, location="S1", said={"write_off_cents_max": 1200}, who="x")
    await set_stock(db, sku="A", location="S1", quantity=10)
    await gone(db, net, 1)
    await gone(db, net, 1)
    third = await gone(db, net, 1)
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "held")) == (8, 1)
    assert await exceptions(db) == [("write_off_waiting", str(third))]
    await gone(db, net, 1, who="bob")  # another person's own limit
    ann, boss = person(net, "ann", role="approver"), person(net, "boss", role="approver")
    with pytest.raises(Conflict):
        await writeoff.decide(db, write_off_id=third, agrees=True, actor=ann, now=NOW)
    with pytest.raises(NotFound):
        other = person(net, "z", role="approver", location="S2")
        await writeoff.decide(db, write_off_id=third, agrees=True, actor=other, now=NOW)
    for _ in range(2):
        assert await writeoff.decide(db, write_off_id=third, agrees=True, actor=boss, now=NOW) == "applied"
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "held")) == (6, 0)
    assert await exceptions(db) == []


async def test_a_refused_write_off_gives_the_units_back_and_nameless_keys_cannot_ask(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=100)
    made = await gone(db, net, 20)
    await writeoff.decide(db, write_off_id=made, agrees=False, actor=person(net, "boss", role="approver"), now=NOW)
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "held")) == (100, 0)
    nameless = access.Actor(key_id=None, role="associate", person=None, who="key x", location_id=net.locations["S1"])
    with pytest.raises(NotAllowed):
        await writeoff.ask(
            db, location_id=net.locations["S1"], lines=[writeoff.Gone("A", 20, "x")], actor=nameless, now=NOW
        )
    with pytest.raises(BadInput):
        await gone(db, net, 101)


async def test_a_loss_that_a_count_finds_needs_two_people_above_the_limit_too(db: Database, net: Net) -> None:
    await rules.change(db, location="S1", said={"write_off_cents_max": 1000, "recount_units_min": 100}, who="x")
    for sku in ("A", "B"):
        await set_stock(db, sku=sku, location="S1", quantity=10)
    made = await counting(db, net, "A", "B")
    assert await counted(db, net, made, ("A", 8), ("B", 11)) == ["waiting", "applied"]
    assert [await on_hand(db, s, "S1") for s in "AB"] == [10, 11]
    write_off = await ask(db, "select write_off_id from write_off where state = 'waiting'")
    await say(db, "pos", sale("m", "A", "S1", 1, at=now() + timedelta(seconds=1)))
    await writeoff.decide(
        db, write_off_id=write_off, agrees=True, actor=person(net, "boss", role="approver"), now=now()
    )
    assert (
        await on_hand(db, "A", "S1"),
        await ask(db, "select variance from count_line where sku_id = $1", net.skus["A"]),
    ) == (7, -2)


async def test_stock_that_a_rejection_takes_off_counts_with_what_its_person_writes_off(db: Database, net: Net) -> None:
    await rules.change(db, location="S1", said={"write_off_cents_max": 1200}, who="x")
    await set_stock(db, sku="A", location="S1", quantity=10)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await fulfill.reject(
        db, fulfillment=work.fulfillment, lines=[fulfill.Rejected("1", 2, "broken")], stock="deduct",
        actor=person(net, "ann"), now=NOW,
    )  # fmt: skip
    await gone(db, net, 1)
    assert [kind for kind, _ in await exceptions(db)] == ["write_off_waiting"]
    assert await on_hand(db, "A", "S1") == 8


async def test_everything_at_once_at_a_store_ends_in_balance(db: Database, net: Net) -> None:
    for sku in ("A", "B"):
        await set_stock(db, sku=sku, location="S1", quantity=60)
    works = [await allocated(db, net, f"N{n}", ("A", 2, "S1"), ("B", 1, "S1")) for n in range(8)]
    made = await counting(db, net, "A", "B")

    async def one(k: int) -> None:
        actor, work = person(net, f"p{k % 3}"), works[k % 8]
        match k % 9:
            case 0 | 1:
                rejected = [fulfill.Rejected("1", 1, "x")]
                await fulfill.reject(
                    db, fulfillment=work.fulfillment, lines=rejected, stock="deduct", others=k % 2 == 0, actor=actor, now=now()
                )  # fmt: skip
            case 2:
                await order_change.cancel(db, order_id=work.order_id, lines=["2"], why="x", who="x")
            case 3:
                await claim.claim(
                    db, location_id=net.locations["S1"], fulfillments=None, limit=2, actor=actor, now=now()
                )  # fmt: skip
            case 4:
                await scan.scan(
                    db, fulfillment=work.fulfillment, step="pick", text="A", quantity=1, actor=actor, now=now()
                )  # fmt: skip
            case 5:
                await counted(db, net, made, ("A", 40 + k), ("B", 50), who=actor.who)
            case 6:
                await gone(db, net, 1, who=actor.who)
            case 7:
                await come(db, net, ("B", 1), ("A", 1), reference=None)
            case _:
                await moved(db, net, 1)

    async def refused_or_done(k: int) -> None:
        with contextlib.suppress(Refusal):
            await one(k)

    await asyncio.gather(*(refused_or_done(k) for k in range(54)))
    assert await ask(db, "select count(distinct kind) from movement where source_id = 1") >= 3
