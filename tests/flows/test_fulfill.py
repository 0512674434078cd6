"""What a location does with its work, and how that meets snapshots of a source that deducts at a step of its own."""

from collections.abc import AsyncIterator

import pytest

from oms import access
from oms.db import Database
from oms.errors import BadInput, Conflict, NotAllowed, NotFound
from oms.flows import fulfill
from oms.flows.ingest import acknowledge
from oms.flows.order.read import read_order
from tests.demand import STEPS, Step, Work, allocated, reject, ship, work_up_to
from tests.feeding import NOW, ask, at, baseline, change, check, exceptions, message, on_hand, sale, say, stock
from tests.world import Net, set_stock, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    yield await small_network(db)
    await check(db)


async def posted(db: Database, minutes: float, *references: str) -> None:
    """The erp says what of ours it has posted or deducted by then."""
    await acknowledge.posted(db, source="erp", references=references, at=at(minutes), who="test")


async def snapshot(db: Database, minutes: float, quantity: int) -> int:
    """The erp says how much there is of A at S1; gives what we make of it."""
    await baseline(db, "erp", f"A,S1,{quantity}", as_of=at(minutes))
    return await on_hand(db, "A", "S1")


async def open_units(db: Database, work: Work) -> list[tuple[int, int, int]]:
    order = await read_order(db, order_id=work.order_id)
    return [(n.open, n.allocated, n.shipped) for n in order.lines]


# steps


async def test_work_goes_step_by_step_and_a_step_done_twice_changes_nothing(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    with pytest.raises(Conflict):
        await fulfill.advance(db, fulfillments=[work.fulfillment], step="pick", actor=access.house, now=NOW)
    for step in STEPS:
        for _ in range(2):
            await fulfill.advance(db, fulfillments=[work.fulfillment], step=step, actor=access.house, now=NOW)
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "allocated")) == (3, 0)
    assert await open_units(db, work) == [(0, 0, 2)]
    with pytest.raises(Conflict):
        await reject(db, work, ("1", 1))


async def test_work_of_another_store_is_not_there(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    other = access.Actor(key_id=None, role="associate", person=None, who="x", location_id=net.locations["S2"])
    with pytest.raises(NotFound):
        await fulfill.advance(db, fulfillments=[work.fulfillment], step="accept", actor=other, now=NOW)
    with pytest.raises(NotFound):
        await fulfill.task(db, actor=other, fulfillment=work.fulfillment)
    assert await fulfill.tasks(db, actor=other, location=None, state=None, after=None, limit=9) == []


@pytest.mark.parametrize(("what", "left"), [("keep", 5), ("deduct", 3), ("zero", 0)])
async def test_a_rejection_frees_its_units_and_says_what_it_means_for_the_stock(
    db: Database, net: Net, what: str, left: int
) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    assert await reject(db, work, ("1", 2), stock=what) == "rejected"  # type: ignore[arg-type]
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "allocated")) == (left, 0)
    assert await open_units(db, work) == [(2, 0, 0)]
    assert await ask(db, "select sum(orders) + sum(items) from capacity") == 0


async def test_a_part_of_a_line_may_be_rejected_and_the_rest_ships(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    work = await allocated(db, net, "N1", ("A", 3, "S1"))
    assert await reject(db, work, ("1", 1)) == "released"
    assert await open_units(db, work) == [(1, 2, 0)]
    await ship(db, work)
    assert (await open_units(db, work), await on_hand(db, "A", "S1")) == ([(1, 0, 2)], 3)


async def test_two_lines_of_the_same_sku_may_be_rejected_together(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    work = await allocated(db, net, "N1", ("A", 2, "S1"), ("A", 1, "S1"))
    assert await reject(db, work, ("1", 2), ("2", 1), stock="zero") == "rejected"
    assert (await on_hand(db, "A", "S1"), await open_units(db, work)) == (0, [(2, 0, 0), (1, 0, 0)])


async def test_a_rejection_names_lines_and_units_that_are_there(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    for line, units in (("1", 3), ("9", 1)):
        with pytest.raises(BadInput) as refused:
            await reject(db, work, (line, units))
        assert refused.value.items[0]["line"] == line
    planner = access.Actor(key_id=None, role="planner", person=None, who="x")
    with pytest.raises(NotAllowed):
        await fulfill.reject(
            db,
            fulfillment=work.fulfillment,
            lines=[fulfill.Rejected("1", 1, "x")],
            stock="zero",
            actor=planner,
            now=NOW,
        )
    assert await open_units(db, work) == [(0, 2, 0)]


# ours until acknowledged


async def test_a_shipment_of_ours_is_deducted_from_every_snapshot_until_the_erp_has_posted_it(
    db: Database, net: Net
) -> None:
    await snapshot(db, 0, 10)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await ship(db, work, now=at(5))
    assert await on_hand(db, "A", "S1") == 8
    assert await snapshot(db, 10, 10) == 8
    assert await snapshot(db, 20, 10) == 8
    await posted(db, 25, *work.references)
    assert await on_hand(db, "A", "S1") == 8
    assert await snapshot(db, 30, 8) == 8
    assert await snapshot(db, 40, 8) == 8


async def test_a_late_acknowledgement_corrects_a_snapshot_that_had_contained_the_shipment(
    db: Database, net: Net
) -> None:
    await snapshot(db, 0, 10)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await ship(db, work, now=at(5))
    assert await snapshot(db, 10, 8) == 6
    await posted(db, 8, *work.references)
    assert await on_hand(db, "A", "S1") == 8
    await posted(db, 8, *work.references)
    assert await on_hand(db, "A", "S1") == 8
    assert await snapshot(db, 20, 8) == 8


async def test_an_echo_acknowledges_our_movement_and_is_no_second_one(db: Database, net: Net) -> None:
    await change(db, "update ownership set source_id = $1 where fact = 'sale'", net.sources["pos"])
    await snapshot(db, 0, 10)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await ship(db, work, now=at(5))
    (reference,) = work.references
    echo = message("e1", "shipment", "A", "S1", 2, at=at(8), reference=reference)
    assert await say(db, "erp", echo) == ["acknowledged"]
    assert await say(db, "erp", echo) == ["duplicate"]
    assert await on_hand(db, "A", "S1") == 8
    assert await snapshot(db, 10, 8) == 8
    wrong = message("e2", "shipment", "A", "S1", 3, at=at(9), reference=reference)
    assert await say(db, "erp", wrong) == ["acknowledged"]
    assert (await on_hand(db, "A", "S1"), await exceptions(db)) == (8, [("echo_mismatch", reference)])


async def test_a_rejection_that_took_stock_off_stands_until_the_erp_has_posted_it(db: Database, net: Net) -> None:
    await snapshot(db, 0, 10)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await reject(db, work, ("1", 2), stock="deduct")
    assert await on_hand(db, "A", "S1") == 8
    assert await snapshot(db, 10, 10) == 8
    adjustment = await ask(db, "select message_id from movement where kind = 'adjustment'")
    await posted(db, 12, adjustment)
    assert await snapshot(db, 20, 8) == 8


# a source that deducts at a step of its own


@pytest.mark.parametrize("step", ["accept", "pick", "ship", "invoice"])
async def test_a_source_that_deducts_at_its_own_step_is_never_deducted_twice_or_not_at_all(
    db: Database, net: Net, step: str
) -> None:
    await change(db, "update source set deducts_at = $1 where code = 'erp'", step)
    await snapshot(db, 0, 10)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    deducted = 0
    minutes = 0.0
    steps: list[Step | None] = [*STEPS, None]
    for one in steps:
        minutes += 10
        if one is not None:
            await work_up_to(db, work, one, now=at(minutes))
        has_left = one in ("ship", None)
        # before the erp hears of the step, and after it
        assert await snapshot(db, minutes + 1, 10 - deducted) == 10 - 2 * has_left
        if (one or "invoice") == step:
            deducted = 2
            await posted(db, minutes + 2, *work.references)
            assert await on_hand(db, "A", "S1") == 10 - 2 * has_left
        assert await snapshot(db, minutes + 3, 10 - deducted) == 10 - 2 * has_left
        assert await stock(db, "A", "S1", "on_hand - allocated") == 8
    assert await snapshot(db, minutes + 10, 8) == 8


async def test_a_deduction_that_is_told_late_corrects_the_snapshot_that_had_it(db: Database, net: Net) -> None:
    await snapshot(db, 0, 10)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await work_up_to(db, work, "accept")
    assert await snapshot(db, 10, 8) == 8  # believed, though it has deducted our two
    await posted(db, 5, *work.references)
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "allocated")) == (10, 2)
    await ship(db, work, now=at(20))
    assert await on_hand(db, "A", "S1") == 8
    assert await snapshot(db, 30, 8) == 8


async def test_a_rejection_after_the_source_has_deducted_gives_the_units_back_once(db: Database, net: Net) -> None:
    await snapshot(db, 0, 10)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await posted(db, 5, *work.references)
    assert await snapshot(db, 10, 8) == 10
    await reject(db, work, ("1", 2))
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "allocated")) == (10, 0)
    assert await snapshot(db, 20, 8) == 10
    await posted(db, 25, *(f"{r}/undone" for r in work.references))
    assert await on_hand(db, "A", "S1") == 10
    assert await snapshot(db, 30, 10) == 10
    assert await snapshot(db, 40, 10) == 10


async def test_giving_back_that_is_told_late_corrects_too(db: Database, net: Net) -> None:
    await snapshot(db, 0, 10)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await posted(db, 5, *work.references)
    await reject(db, work, ("1", 2))
    assert await snapshot(db, 10, 10) == 12  # it has given back, and we do not know
    await posted(db, 8, *(f"{r}/undone" for r in work.references))
    assert await on_hand(db, "A", "S1") == 10


async def test_a_part_that_is_rejected_after_the_source_deducted_all_of_it_never_shows_too_much(
    db: Database, net: Net
) -> None:
    await snapshot(db, 0, 10)
    work = await allocated(db, net, "N1", ("A", 3, "S1"))
    await posted(db, 5, *work.references)
    assert await snapshot(db, 10, 7) == 10
    await reject(db, work, ("1", 1))
    await ship(db, work, now=at(15))
    assert await on_hand(db, "A", "S1") == 8
    assert await snapshot(db, 20, 7) in (7, 8)
    assert await snapshot(db, 40, 8) == 8


# what is not there


async def test_work_that_stock_on_hand_cannot_fill_goes_back_to_open_unpicked_and_lowest_class_first(
    db: Database, net: Net
) -> None:
    await set_stock(db, sku="A", location="S1", quantity=6)
    picked = await allocated(db, net, "N1", ("A", 2, "S1"), priority=-5)
    low = await allocated(db, net, "N2", ("A", 2, "S1"), priority=0)
    high = await allocated(db, net, "N3", ("A", 2, "S1"), priority=5)
    await work_up_to(db, picked, "pick")
    assert await fulfill.relieve(db, who="test", now=NOW) == 0
    await say(db, "pos", sale("m", "A", "S1", 3))
    assert await fulfill.relieve(db, who="test", now=NOW) == 2
    assert [await open_units(db, w) for w in (picked, low, high)] == [[(0, 2, 0)], [(2, 0, 0)], [(1, 1, 0)]]
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "allocated")) == (3, 3)
    assert [kind for kind, _ in await exceptions(db)] == ["location_deficit"]
    assert await fulfill.relieve(db, who="test", now=NOW) == 0
    # it is not asked again for what it does not have
    assert await ask(db, "select count(*) from rejected_before") == 2
