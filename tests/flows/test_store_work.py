"""A store's people at work: pick lists, scans, parcels, pick-ups, ship to store; nothing is picked twice."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest

from oms import access
from oms.db import Database
from oms.errors import BadInput, Conflict, NotAllowed, NotFound
from oms.flows import broker, fulfill
from oms.flows.broker import planning
from oms.flows.fulfill import claim, collect, handover, look, parcels, rules, scan, short
from oms.flows.order import change as order_change
from oms.flows.order.read import read_order
from tests.demand import allocated, captured, order, ship, work_up_to
from tests.feeding import NOW, ask, change, check, exceptions, on_hand, stock
from tests.world import Net, set_stock, small_network

BARCODES = {"A": "4006381333931", "B": "036000291452"}
TAG = "3074257BF40C0E4000001A85"  # SGTIN-96 of GTIN 00614141123452, serial 6789


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    net = await small_network(db)
    for sku, barcode in BARCODES.items():
        await change(db, "insert into sku_barcode values ($1, $2)", barcode, net.skus[sku])
    for sku in ("A", "B", "C"):
        await set_stock(db, sku=sku, location="S1", quantity=10)
        await set_stock(db, sku=sku, location="W1", quantity=10)
    yield net
    await check(db)


def person(net: Net, name: str, *, role: str = "associate", location: str | None = "S1") -> access.Actor:
    at = net.locations[location] if location else None
    return access.Actor(key_id=None, role=role, person=name, who=name, location_id=at)


async def scanned(
    db: Database, actor: access.Actor, work: UUID, step: str, code: str, quantity: int = 1
) -> scan.Scanned:
    return await scan.scan(
        db, fulfillment=work, step=step, text=code, quantity=quantity, actor=actor, now=NOW, device="gun 7"
    )  # type: ignore[arg-type]


async def mispicks(db: Database) -> int:
    return int(await ask(db, "select coalesce(sum(mispicks), 0) from task"))


# pick lists


async def test_a_pick_list_goes_over_several_orders_by_bin_and_accepts_them(db: Database, net: Net) -> None:
    feed = await ask(
        db, "insert into feed (source_id, kind, name, state, received_by) values ($1, 'movements', 'x', 'applied', 'x')"
        " returning feed_id", net.sources["erp"],
    )  # fmt: skip
    for sku, bin in (("A", "Z9"), ("B", "A1")):
        await change(
            db,
            "insert into bin_stock values ($1, $2, $3, '', '', 5, $4)",
            net.locations["S1"],
            net.skus[sku],
            bin,
            feed,
        )
    first = await allocated(db, net, "N1", ("A", 2, "S1"), ("B", 1, "S1"))
    second = await allocated(db, net, "N2", ("A", 1, "S1"))
    round = await claim.claim(
        db, location_id=net.locations["S1"], fulfillments=None, limit=10, actor=person(net, "ann"), now=NOW
    )
    assert [(s.bin, s.sku, s.quantity, s.barcodes) for s in round.stops] == [
        ("A1", "B", 1, [BARCODES["B"]]), ("Z9", "A", 3, [BARCODES["A"]]),
    ]  # fmt: skip
    for work in (first, second):
        assert (await fulfill.task(db, actor=person(net, "ann"), fulfillment=work.fulfillment)).state == "accepted"
    with pytest.raises(NotFound):
        await claim.claim(
            db, location_id=net.locations["S1"], fulfillments=None, limit=10, actor=person(net, "bob"), now=NOW
        )
    with pytest.raises(NotFound):
        await claim.show(db, pick_list_id=round.id, actor=person(net, "eve", location="S2"))


async def test_nothing_is_picked_twice_by_two_people(db: Database, net: Net) -> None:
    works = [await allocated(db, net, f"N{k}", ("A", 1, "S1")) for k in range(6)]

    async def round(name: str) -> set[UUID]:
        try:
            found = await claim.claim(
                db, location_id=net.locations["S1"], fulfillments=None, limit=3, actor=person(net, name), now=NOW
            )
        except NotFound:
            return set()
        return {order["fulfillment"] for stop in found.stops for order in stop.orders}

    rounds = await asyncio.gather(*(round(name) for name in ("ann", "bob", "cy", "dee")))
    taken = [work for found in rounds for work in found]
    assert len(taken) == len(set(taken)) == len(works)


async def test_what_another_has_in_hand_is_theirs_until_they_give_it_back(db: Database, net: Net) -> None:
    work = await allocated(db, net, "N1", ("A", 1, "S1"))
    ann, bob = person(net, "ann"), person(net, "bob")
    round = await claim.claim(
        db, location_id=net.locations["S1"], fulfillments=[work.fulfillment], limit=1, actor=ann, now=NOW
    )
    for doing in (
        scanned(db, bob, work.fulfillment, "pick", BARCODES["A"]),
        fulfill.advance(db, fulfillments=[work.fulfillment], step="pick", actor=bob, now=NOW),
        claim.claim(db, location_id=net.locations["S1"], fulfillments=[work.fulfillment], limit=1, actor=bob, now=NOW),
        claim.give_back(db, pick_list_id=round.id, actor=bob, now=NOW),
    ):
        with pytest.raises(Conflict, match="ann"):
            await doing
    assert await claim.give_back(db, pick_list_id=round.id, actor=ann, now=NOW) == 1
    await scanned(db, bob, work.fulfillment, "pick", BARCODES["A"])


# scans


async def test_a_wrong_code_is_refused_and_counted_and_the_right_ones_make_the_pick(db: Database, net: Net) -> None:
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    ann = person(net, "ann")
    for wrong in (BARCODES["B"], "nothing-that-is-known", "urn:epc:id:sscc:1.2"):
        with pytest.raises(Conflict):
            await scanned(db, ann, work.fulfillment, "pick", wrong)
    assert await mispicks(db) == 3
    assert (await scanned(db, ann, work.fulfillment, "pick", BARCODES["A"])).left == 1
    with pytest.raises(Conflict, match="1 of 2"):
        await fulfill.advance(db, fulfillments=[work.fulfillment], step="pick", actor=ann, now=NOW)
    assert (await scanned(db, ann, work.fulfillment, "pick", "A")).left == 0
    with pytest.raises(Conflict):
        await scanned(db, ann, work.fulfillment, "pick", "A")
    await fulfill.advance(db, fulfillments=[work.fulfillment], step="pick", actor=ann, now=NOW, device="gun 7")
    _, tasks = await parcels.listed(db, fulfillment=work.fulfillment, actor=ann)
    assert [(t.step, t.who, t.device, t.ended_how, t.mispicks) for t in tasks] == [("pick", "ann", "gun 7", "done", 4)]
    assert await ask(db, "select count(*) from history where step = 'mis-pick' and why like 'This is B%'") == 1


async def test_a_tag_is_one_piece_scanned_again_or_for_another_order_it_does_not_count(db: Database, net: Net) -> None:
    await change(db, "insert into sku_barcode values ('614141123452', $1)", net.skus["C"])
    first, second = [await allocated(db, net, n, ("C", 2, "S1")) for n in ("N1", "N2")]
    ann = person(net, "ann")
    assert [(await scanned(db, ann, first.fulfillment, "pick", TAG)).left for _ in range(2)] == [1, 1]
    with pytest.raises(Conflict, match="another order"):
        await scanned(db, ann, second.fulfillment, "pick", "urn:epc:id:sgtin:0614141.012345.6789")
    with pytest.raises(BadInput):
        await scanned(db, ann, first.fulfillment, "pick", TAG, quantity=2)


async def test_where_scans_are_required_no_pick_ends_without_them(db: Database, net: Net) -> None:
    await rules.change(db, location="S1", said={"scans_are_required": True}, who="x")
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    ann = person(net, "ann")
    await fulfill.advance(db, fulfillments=[work.fulfillment], step="accept", actor=ann, now=NOW)
    with pytest.raises(Conflict):
        await fulfill.advance(db, fulfillments=[work.fulfillment], step="pick", actor=ann, now=NOW)
    await scanned(db, ann, work.fulfillment, "pick", BARCODES["A"], 2)
    await fulfill.advance(db, fulfillments=[work.fulfillment], step="pick", actor=ann, now=NOW)
    for said in ({"sku_rest_minutes": -1}, {"nonsense": 1}, {"collect_days": "x"}):
        with pytest.raises(BadInput):
            await rules.change(db, location="S1", said=said, who="x")


async def test_several_parcels_hold_what_was_packed_each_with_its_tracking(db: Database, net: Net) -> None:
    work = await allocated(db, net, "N1", ("A", 2, "S1"), ("B", 1, "S1"))
    ann = person(net, "ann")
    await work_up_to(db, work, "pick")
    with pytest.raises(BadInput):
        await parcels.put(
            db, fulfillment=work.fulfillment, number=1, carrier=None, tracking=None, weight_grams=None,
            lines=[parcels.Packed("1", 3)], actor=ann, now=NOW,
        )  # fmt: skip
    await parcels.put(
        db, fulfillment=work.fulfillment, number=2, carrier="ups", tracking="1Z", weight_grams=900,
        lines=[parcels.Packed("1", 2)], actor=ann, now=NOW,
    )  # fmt: skip
    with pytest.raises(Conflict):
        await fulfill.advance(db, fulfillments=[work.fulfillment], step="pack", actor=ann, now=NOW)
    await scanned(db, ann, work.fulfillment, "pack", BARCODES["B"])
    await fulfill.advance(db, fulfillments=[work.fulfillment], step="pack", actor=ann, now=NOW)
    await fulfill.advance(db, fulfillments=[work.fulfillment], step="ship", actor=ann, now=NOW)
    boxes, _ = await parcels.listed(db, fulfillment=work.fulfillment, actor=ann)
    assert [(b.number, b.tracking, [(n["line"], n["quantity"]) for n in b.lines]) for b in boxes] == [
        (1, None, [("2", 1)]), (2, "1Z", [("1", 2)]),
    ]  # fmt: skip
    assert await on_hand(db, "A", "S1") == 8


async def test_a_partial_pick_picks_what_is_there_and_gives_the_rest_back(db: Database, net: Net) -> None:
    work = await allocated(db, net, "N1", ("A", 3, "S1"))
    ann = person(net, "ann")
    await scanned(db, ann, work.fulfillment, "pick", BARCODES["A"], 2)
    missing = [fulfill.Rejected("1", 1, "not found")]
    state = await short.pick_short(db, fulfillment=work.fulfillment, missing=missing, stock="zero", actor=ann, now=NOW)
    # none on the shelf, and the two in hand are there all the same
    await check(db)
    assert (state, await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "allocated")) == ("picked", 2, 2)
    lines = (await read_order(db, order_id=work.order_id)).lines
    assert [(n.open, n.allocated) for n in lines] == [(1, 2)]


# the list


async def test_a_work_list_of_500_fulfillments_is_there_within_50_ms(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=600)
    async with db.transaction() as tx:
        await tx.execute(
            "with o as (insert into orders (channel_id, number, hash, placed_at, ship_to, method, priority)"
            " select $1, 'bulk' || n, '', now(), '{}', 'ground', n % 3 from generate_series(1, 500) n returning order_id),"
            " l as (insert into order_line (order_id, line, sku_id, sku, pool_id, quantity, cancelled)"
            " select order_id, '1', $2, 'A', $3, 1, 1 from o returning order_id, line_id),"
            " f as (insert into fulfillment (order_id, location_id, capacity_day) select order_id, $4, current_date from o"
            " returning fulfillment_id, order_id)"
            " insert into fulfillment_line (fulfillment_id, line_id, sku_id, given, quantity, reference)"
            " select f.fulfillment_id, l.line_id, $2, 1, 1, f.fulfillment_id || ':' || l.line_id from f join l using (order_id)",
            net.channels["web"], net.skus["A"], net.pools["web"], net.locations["S1"],
        )  # fmt: skip
    times = []
    for _ in range(7):
        start = time.perf_counter()
        found = await look.due(db, actor=person(net, "ann"), location=None, now=NOW)
        times.append(time.perf_counter() - start)
    async with db.transaction() as tx:
        await tx.execute("update fulfillment_line set quantity = 0")
        await tx.execute("update fulfillment set state = 'recalled'")
    assert len(found) == 500
    assert [w.priority for w in found] == sorted((w.priority for w in found), reverse=True)
    assert sorted(times)[3] < 0.05, times


async def test_work_past_its_cut_off_is_late_and_stands_first(db: Database, net: Net) -> None:
    await change(db, "update location set cut_off = '12:00' where code = 'S1'")
    await allocated(db, net, "N1", ("A", 1, "S1"))
    (found,) = await look.due(db, actor=person(net, "ann"), location="S1", now=NOW)
    assert (found.is_late, found.due_at.isoformat()) == (True, "2026-11-23T17:00:00+00:00")
    assert await look.due(db, actor=person(net, "eve", location="S2"), location="S1", now=NOW) == []


# pick-up and ship to store


async def picked_up(db: Database, net: Net) -> tuple[UUID, UUID]:
    """A pick-up order at S1: order and fulfillment."""
    order_id = await captured(db, order(net, "P1", ("A", 2), channel="local", pickup_location="S1"))
    return order_id, await ask(db, "select fulfillment_id from fulfillment where order_id = $1", order_id)


async def test_a_pick_up_is_ready_reminded_and_handed_over_with_proof(db: Database, net: Net) -> None:
    _, work = await picked_up(db, net)
    ann = person(net, "ann")
    for step in ("accept", "pick", "pack"):
        await fulfill.advance(db, fulfillments=[work], step=step, actor=ann, now=NOW)  # type: ignore[arg-type]
    assert await collect.remind(db, now=NOW + timedelta(hours=47)) == 0
    assert [await collect.remind(db, now=NOW + timedelta(hours=49)) for _ in range(2)] == [1, 0]
    code = await ask(db, "select code from collection")
    with pytest.raises(NotFound):
        await handover.hand_over(
            db, fulfillment=work, kind="code", proof=code, actor=person(net, "e", location="S2"), now=NOW
        )
    wrong = "999999" if code != "999999" else "000000"
    with pytest.raises(BadInput):
        await handover.hand_over(db, fulfillment=work, kind="code", proof=wrong, actor=ann, now=NOW)
    for _ in range(2):
        assert (
            await handover.hand_over(db, fulfillment=work, kind="code", proof=code, actor=ann, now=NOW) == "handed_over"
        )
    assert (await on_hand(db, "A", "S1"), await ask(db, "select proof_kind from collection")) == (8, "code")
    assert await ask(db, "select string_agg(kind, ' ' order by kind) from notice") == "pickup_ready pickup_reminder"


async def test_what_nobody_collects_is_back_in_stock_and_its_refund_is_due_once(db: Database, net: Net) -> None:
    order_id, work = await picked_up(db, net)
    ann = person(net, "ann")
    with pytest.raises(NotFound):
        await collect.not_collected(db, fulfillment=work, why="x", actor=ann, now=NOW)
    for step in ("accept", "pick", "pack"):
        await fulfill.advance(db, fulfillments=[work], step=step, actor=ann, now=NOW)  # type: ignore[arg-type]
    await collect.remind(db, now=NOW + timedelta(days=8))
    assert await exceptions(db) == [("pickup_overdue", str(work))]
    for _ in range(2):
        await collect.not_collected(db, fulfillment=work, why="nobody came", actor=ann, now=NOW)
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "allocated")) == (10, 0)
    assert [(n.allocated, n.cancelled) for n in (await read_order(db, order_id=order_id)).lines] == [(0, 2)]
    assert await ask(db, "select count(*) from notice where kind = 'refund_due'") == 1
    assert await exceptions(db) == []
    assert await ask(db, "select coalesce(sum(orders) + sum(items), 0) from capacity") == 0


async def test_ship_to_store_is_expected_there_arrives_and_is_handed_over_or_comes_back(db: Database, net: Net) -> None:
    works = []
    for number in ("N1", "N2"):
        to = order(net, number, ("A", 1)).ship_to
        work = await allocated(db, net, number, ("A", 1, "W1"), ship_to=type(to)(postal_code="02108", collect_at="S2"))
        await ship(db, work)
        works.append(work.fulfillment)
    eve = person(net, "eve", location="S2")
    assert [c.state for c in await collect.listed(db, actor=eve, location=None, state=None, limit=9)] == [
        "expected"
    ] * 2
    assert await collect.listed(db, actor=person(net, "ann"), location=None, state=None, limit=9) == []
    with pytest.raises(NotFound):
        await collect.arrive(db, fulfillment=works[0], actor=person(net, "ann"), now=NOW)
    for work in works:
        assert [await collect.arrive(db, fulfillment=work, actor=eve, now=NOW) for _ in range(2)] == ["ready"] * 2
    code = await ask(db, "select code from collection where fulfillment_id = $1", works[0])
    assert (
        await handover.hand_over(db, fulfillment=works[0], kind="code", proof=code, actor=eve, now=NOW) == "handed_over"
    )
    await collect.not_collected(db, fulfillment=works[1], why="nobody came", actor=eve, now=NOW)
    assert await ask(db, "select sum(expected) from customer_return join return_line using (return_id)") == 1


# rejection


async def test_a_rejection_may_take_other_orders_for_the_sku_along_and_the_location_rests(
    db: Database, net: Net
) -> None:
    first, second = [await allocated(db, net, n, ("A", 2, "S1"), ("B", 1, "S1")) for n in ("N1", "N2")]
    picked = await allocated(db, net, "N3", ("A", 1, "S1"))
    await work_up_to(db, picked, "pick")
    await fulfill.reject(
        db, fulfillment=first.fulfillment, lines=[fulfill.Rejected("1", 2, "not found")], stock="zero", others=True,
        actor=person(net, "ann"), now=NOW, device="phone 1",
    )  # fmt: skip
    for work in (first, second):
        assert [(n.open, n.allocated) for n in (await read_order(db, order_id=work.order_id)).lines] == [(2, 0), (0, 1)]
    # what is picked for another is in hand, whatever is missing on the shelf
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "allocated")) == (1, 1)
    later = await captured(db, order(net, "N4", ("A", 1)))
    async with db.connection() as tx:
        barred = await planning.barred(tx, orders=[later], now=NOW + timedelta(hours=3))
        rested = await planning.barred(tx, orders=[later], now=NOW + timedelta(hours=5))
    assert ([tuple(b)[1:] if isinstance(b, tuple) else (b.sku_id, b.location_id) for b in barred], rested) == (
        [(net.skus["A"], net.locations["S1"])], [],
    )  # fmt: skip
    await broker.run(db, who="test", now=NOW, seconds=2)
    assert await ask(db, "select count(*) from order_line where open > 0") == 0
    assert (
        await ask(
            db, "select count(*) from fulfillment where location_id = $1 and order_id = $2", net.locations["S1"], later
        )
        == 0
    )
    assert (
        await ask(db, "select count(*) from history where step = 'rejected' and detail ->> 'device' = 'phone 1'") == 2
    )


async def test_a_whole_fulfillment_is_rejected_in_one_word_and_capacity_falls_back(db: Database, net: Net) -> None:
    work = await allocated(db, net, "N1", ("A", 2, "S1"), ("B", 1, "S1"))
    state = await fulfill.reject(
        db,
        fulfillment=work.fulfillment,
        lines=[],
        whole="store closed",
        stock="keep",
        actor=person(net, "ann"),
        now=NOW,
    )
    assert state == "rejected"
    assert await ask(db, "select sum(orders) + sum(items) from capacity") == 0
    assert [n.open for n in (await read_order(db, order_id=work.order_id)).lines] == [2, 1]


async def test_an_associate_changes_stock_by_a_rejection_only_where_the_store_lets_them(db: Database, net: Net) -> None:
    await rules.change(db, location="S1", said={"rejections_change_stock": False}, who="x")
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    rejected = [fulfill.Rejected("1", 2, "not found")]
    with pytest.raises(NotAllowed):
        await fulfill.reject(
            db, fulfillment=work.fulfillment, lines=rejected, stock="zero", actor=person(net, "ann"), now=NOW
        )
    boss = person(net, "boss", role="approver")
    await fulfill.reject(db, fulfillment=work.fulfillment, lines=rejected, stock="deduct", actor=boss, now=NOW)
    assert await on_hand(db, "A", "S1") == 8


async def test_a_cancellation_takes_work_out_of_a_pickers_hands(db: Database, net: Net) -> None:
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    ann = person(net, "ann")
    await scanned(db, ann, work.fulfillment, "pick", BARCODES["A"])
    await order_change.cancel(db, order_id=work.order_id, lines=None, why="late", who="x")
    assert await ask(db, "select ended_how from task") == "recalled"
    assert await ask(db, "select sum(quantity) from pick_step") == 0
    with pytest.raises(Conflict):
        await scanned(db, ann, work.fulfillment, "pick", BARCODES["A"])
