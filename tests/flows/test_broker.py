"""A run plans what is open and writes what still fits: once, whoever writes it, and no promise is broken by it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from oms import access, worker
from oms.book import PROMISE_BROKEN
from oms.cache import Cache
from oms.db import Database
from oms.domain.order import ShipTo
from oms.errors import Conflict, NotFound
from oms.flows import broker, fulfill
from oms.flows.broker import policy
from oms.flows.broker.planning import read_problem
from oms.flows.network import load
from oms.flows.order.change import cancel
from oms.flows.order.holds import hold, release
from oms.flows.order.read import order_history, read_order
from oms.settings import Settings
from tests.demand import allocated, captured, order, planned, reject, work_of, work_up_to
from tests.feeding import NOW, ask, at, change, check, exceptions, sale, say, stock
from tests.world import Net, set_stock, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    yield await small_network(db)
    await check(db)


async def run(db: Database, **given: object) -> broker.Run:
    return await broker.run(db, who="test", now=NOW, seconds=2, **given)  # type: ignore[arg-type]


async def lines(db: Database, order_id: UUID) -> list[tuple[int, int]]:
    """Open and allocated units of each line."""
    return [(n.open, n.allocated) for n in (await read_order(db, order_id=order_id)).lines]


async def places(db: Database, order_id: UUID) -> list[str]:
    """Where an order's work is."""
    return sorted((await work_of(db, order_id, order_id)).fulfillments)


async def fate(db: Database, run_id: UUID) -> list[tuple[str, str | None]]:
    """What became of a run's decisions."""
    return [(d.state, d.result) for d in await broker.why(db, run_id=run_id, number=None, after=None, limit=100)]


async def test_a_decision_names_the_smallest_change_that_flips_it(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=50)
    await set_stock(db, sku="A", location="S1", quantity=50)
    await captured(db, order(net, "N1", ("A", 1)))
    done = await run(db)
    (why,) = await broker.why(db, run_id=done.id, number="N1", after=None, limit=9)
    assert {why.plan[0]["location"], why.why["flip"]["location"]} == {"W1", "S1"}
    assert (why.why["flip"]["by"], why.why["flip"]["cents"] > 0) == ("cost", True)


async def test_open_lines_are_planned_allocated_and_told_why(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    await set_stock(db, sku="B", location="S1", quantity=5)
    first = await captured(db, order(net, "N1", ("A", 2), ("B", 1)))
    second = await captured(db, order(net, "N2", ("A", 1), ("C", 1)))
    done = await run(db)
    assert (done.state, done.summary["applied"], done.summary["assigned_lines"]) == ("applied", 2, 3)
    assert (await lines(db, first), await lines(db, second)) == ([(0, 2), (0, 1)], [(0, 1), (1, 0)])
    assert await places(db, first) == ["S1", "W1"]
    (why,) = await broker.why(db, run_id=done.id, number="N2", after=None, limit=9)
    assert (why.channel, why.plan[0]["location"], len(why.why["unfilled"])) == ("web", "W1", 1)
    again = await run(db)
    assert again.summary["assigned_lines"] == 0


async def test_a_dry_run_allocates_nothing_and_is_not_taken_up_later(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    made = await captured(db, order(net, "N1", ("A", 2)))
    done = await run(db, dry_run=True)
    assert (done.state, done.dry_run, done.summary["assigned_lines"]) == ("planned", True, 1)
    assert await broker.resume(db, who="test", now=NOW) == 0
    assert await lines(db, made) == [(2, 0)]


async def test_a_run_that_was_killed_after_its_plan_is_written_once_by_whoever_takes_it_up(
    db: Database, net: Net
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=50)
    ids = [await captured(db, order(net, f"N{n}", ("A", 2))) for n in range(5)]
    runs = [await planned(db, net, order_id, ("1", 2, "W1")) for order_id in ids]
    async with db.connection() as worker:  # as long as theirs lives, nobody takes them up
        assert all([await broker.hold_run(worker, run_id=run_id) for run_id in runs])
        assert await broker.resume(db, who="test", now=NOW) == 0
    await asyncio.gather(*(broker.resume(db, who=f"w{n}", now=NOW) for n in range(3)))
    await asyncio.gather(*(broker.apply(db, run_id=r, who="again", now=NOW) for r in runs))
    assert [await lines(db, i) for i in ids] == [[(0, 2)]] * 5
    assert await stock(db, "A", "W1", "allocated") == 10
    assert await ask(db, "select count(*) from fulfillment") == 5


async def test_a_run_that_was_killed_while_it_read_is_given_up(db: Database, net: Net) -> None:
    async with db.transaction() as tx:
        run_id = await broker.begin_run(
            tx, dry_run=False, policy=None, policies=[], seconds=1.0, seed=0, who="test", mode="joint"
        )
    assert await broker.resume(db, who="test", now=NOW) == 1
    assert (await broker.read(db, run_id=run_id)).state == "failed"
    with pytest.raises(NotFound):
        await broker.read(db, run_id=UUID(int=1))


async def test_orders_that_another_run_has_planned_are_left_to_it(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    made = await captured(db, order(net, "N1", ("A", 2)))
    waiting = await planned(db, net, made, ("1", 2, "W1"))
    other = await run(db)
    assert other.summary["lines"] == 0
    await broker.apply(db, run_id=waiting, who="test", now=NOW)
    assert await lines(db, made) == [(0, 2)]


async def test_a_line_that_changed_since_it_was_read_stays_open(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=9)
    made = [await captured(db, order(net, f"N{n}", ("A", 2))) for n in range(3)]
    runs = [await planned(db, net, i, ("1", 2, "W1")) for i in made]
    await hold(db, order_id=made[0], lines=None, kind="fraud", who="test")
    await cancel(db, order_id=made[1], lines=None, why="gone", who="test")
    await hold(db, order_id=made[2], lines=None, kind="fraud", who="test")
    await release(db, order_id=made[2], lines=None, who="test")
    for run_id in runs:
        await broker.apply(db, run_id=run_id, who="test", now=NOW)
        assert await fate(db, run_id) == [("dropped", "changed since it was read")]
    assert [await lines(db, i) for i in made] == [[(2, 0)], [(0, 0)], [(2, 0)]]
    await run(db)
    assert [await lines(db, i) for i in made] == [[(2, 0)], [(0, 0)], [(0, 2)]]


async def test_what_others_took_meanwhile_stays_open(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=2)
    made = await captured(db, order(net, "N1", ("A", 2)))
    run_id = await planned(db, net, made, ("1", 2, "S1"))
    await say(db, "pos", sale("m", "A", "S1", 1, at=at(1)))
    await broker.apply(db, run_id=run_id, who="test", now=NOW)
    assert (await fate(db, run_id), await lines(db, made)) == ([("dropped", "its stock went to others")], [(2, 0)])


async def test_two_lines_of_the_same_sku_are_not_both_given_the_last_units(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=4)
    order_id = await captured(db, order(net, "N1", ("A", 2), ("A", 2)))
    run_id = await planned(db, net, order_id, ("1", 2, "S1"), ("2", 2, "S1"))
    await say(db, "pos", sale("walk-in", "A", "S1", 2))
    await broker.apply(db, run_id=run_id, who="test", now=NOW)
    assert (await stock(db, "A", "S1", "on_hand"), await stock(db, "A", "S1", "allocated")) == (2, 2)
    assert [(n.open, n.allocated) for n in (await read_order(db, order_id=order_id)).lines] == [(0, 2), (2, 0)]


async def test_a_location_that_went_off_gets_nothing(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=2)
    made = await captured(db, order(net, "N1", ("A", 2)))
    run_id = await planned(db, net, made, ("1", 2, "S1"))
    await change(db, "update location set is_on = false where code = 'S1'")
    await broker.apply(db, run_id=run_id, who="test", now=NOW)
    assert (await fate(db, run_id), await lines(db, made)) == ([("dropped", "the location is off")], [(2, 0)])
    await change(db, "update location set is_on = true where code = 'S1'")


async def test_one_pools_line_is_not_allocated_where_it_breaks_anothers_promise(db: Database, net: Net) -> None:
    # web may take from W1 and S1, local only from S1 and S2: the unit in S1 is local's only one
    await set_stock(db, sku="A", location="W1", quantity=1)
    await set_stock(db, sku="A", location="S1", quantity=1)
    web = await captured(db, order(net, "N1", ("A", 1)))
    local = await captured(db, order(net, "N2", ("A", 1), channel="local"))
    wrong = await planned(db, net, web, ("1", 1, "S1"))
    await broker.apply(db, run_id=wrong, who="test", now=NOW)
    assert await fate(db, wrong) == [("dropped", "another pool's promise would be broken")]
    await run(db)
    assert (await places(db, web), await places(db, local)) == (["W1"], ["S1"])


async def test_what_would_break_a_waiting_orders_promise_is_not_planned_again_for_an_hour(
    db: Database, net: Net
) -> None:
    # the local order waits for B, and for its unit of A, which only S1 has for it; the web could have it from W1
    await set_stock(db, sku="A", location="S1", quantity=1)
    await set_stock(db, sku="A", location="W1", quantity=1)
    web = await captured(db, order(net, "N1", ("A", 1)))
    await captured(db, order(net, "N2", ("A", 1), ("B", 1), channel="local", split="complete"))
    wrong = await planned(db, net, web, ("1", 1, "S1"))
    await broker.apply(db, run_id=wrong, who="test", now=NOW)
    assert await fate(db, wrong) == [("dropped", PROMISE_BROKEN)]
    problem, _ = await read_problem(db, run_id=wrong, now=NOW, policies=[])
    assert [(b.order_id, b.location_id) for b in problem.barred] == [(str(web), net.locations["S1"])]
    later, _ = await read_problem(db, run_id=wrong, now=NOW + timedelta(hours=2), policies=[])
    assert later.barred == []
    await run(db)
    assert await places(db, web) == ["W1"]


async def test_a_line_is_not_allocated_outside_its_pool(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S2", quantity=1)
    await set_stock(db, sku="A", location="W1", quantity=1)
    made = await captured(db, order(net, "N1", ("A", 1)))
    wrong = await planned(db, net, made, ("1", 1, "S2"))
    await broker.apply(db, run_id=wrong, who="test", now=NOW)
    assert await fate(db, wrong) == [("dropped", "the location is not in its pool any more")]


async def test_a_day_that_is_full_takes_no_more_and_rejected_work_makes_room_again(db: Database, net: Net) -> None:
    await change(db, "update location set capacity_orders = 1 where code = 'W1'")
    await set_stock(db, sku="A", location="W1", quantity=9)
    first = await captured(db, order(net, "N1", ("A", 1)))
    second = await captured(db, order(net, "N2", ("A", 1)))
    runs = [await planned(db, net, i, ("1", 1, "W1")) for i in (first, second)]
    for run_id in runs:
        await broker.apply(db, run_id=run_id, who="test", now=NOW)
    assert await fate(db, runs[1]) == [("dropped", "its location's day is full")]
    assert (await run(db)).summary["unfilled"] == {"capacity": 1} or await lines(db, second) == [(1, 0)]
    await reject(db, await work_of(db, first, runs[0]), ("1", 1))
    await run(db)
    assert (await lines(db, first), await lines(db, second)) == ([(1, 0)], [(0, 1)])


@pytest.mark.parametrize(
    ("split", "kept"),
    [("free", [(0, 1), (1, 0)]), ("complete", [(1, 0), (1, 0)]), ("keep_together", [(1, 0), (1, 0)])],
)
async def test_a_line_that_fails_takes_with_it_what_its_split_rule_binds_to_it(
    db: Database, net: Net, split: str, kept: list[tuple[int, int]]
) -> None:
    for sku in "AB":
        await set_stock(db, sku=sku, location="S1", quantity=1)
    made = await captured(db, order(net, "N1", ("A", 1), ("B", 1), split=split))
    run_id = await planned(db, net, made, ("1", 1, "S1"), ("2", 1, "S1"))
    await say(db, "pos", sale("m", "B", "S1", 1, at=at(1)))
    await broker.apply(db, run_id=run_id, who="test", now=NOW)
    assert await lines(db, made) == kept


@pytest.mark.parametrize(("split", "expected"), [("single", 1), ("free", 2)])
async def test_the_engine_keeps_to_the_split_rule(db: Database, net: Net, split: str, expected: int) -> None:
    await set_stock(db, sku="A", location="S1", quantity=1)
    await set_stock(db, sku="B", location="W1", quantity=1)
    made = await captured(db, order(net, "N1", ("A", 1), ("B", 1), split=split))
    await run(db)
    assert sum(allocated for _, allocated in await lines(db, made)) == expected
    assert len(await places(db, made)) == expected


async def test_a_rejected_line_goes_elsewhere_and_is_not_asked_for_there_again(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    await set_stock(db, sku="A", location="W1", quantity=5)
    made = await captured(db, order(net, "N1", ("A", 1)))
    seen = []
    for _ in range(3):
        done = await run(db)
        work = await work_of(db, made, done.id)
        seen += sorted(work.fulfillments)
        if work.fulfillments:
            await reject(db, work, ("1", 1))
    assert sorted(seen) == ["S1", "W1"]
    assert await lines(db, made) == [(1, 0)]
    # another order's line may still go there
    other = await captured(db, order(net, "N2", ("A", 1)))
    await run(db)
    assert await lines(db, other) == [(0, 1)]


async def test_relieved_work_is_brokered_where_the_stock_is(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=2)
    made = await captured(db, order(net, "N1", ("A", 2)))
    await run(db)
    assert await places(db, made) == ["S1"]
    await say(db, "pos", sale("m", "A", "S1", 2, at=at(1)))
    await set_stock(db, sku="A", location="W1", quantity=2)
    assert await fulfill.relieve(db, who="test", now=NOW) == 1
    await run(db)
    assert (await places(db, made), await lines(db, made)) == (["W1"], [(0, 2)])


async def test_two_runs_at_once_allocate_each_line_once(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=4)
    ids = [await captured(db, order(net, f"N{n}", ("A", 1))) for n in range(6)]
    await asyncio.gather(run(db), run(db))
    assert sorted([await lines(db, i) for i in ids]) == [[(0, 1)]] * 4 + [[(1, 0)]] * 2
    assert await stock(db, "A", "W1", "allocated") == 4


async def test_a_run_and_shipping_and_rejection_at_once_end_in_balance(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=6)
    await set_stock(db, sku="A", location="W1", quantity=6)
    ids = [await captured(db, order(net, f"N{n}", ("A", 1))) for n in range(8)]
    done = await run(db)
    works = [await work_of(db, i, done.id) for i in ids]
    await asyncio.gather(
        *(work_up_to(db, w, "ship") for w in works[:4]), *(reject(db, w, ("1", 1)) for w in works[4:]), run(db), run(db)
    )
    await run(db)
    assert [await lines(db, i) for i in ids] == [[(0, 0)]] * 4 + [[(0, 1)]] * 4


async def test_a_kits_parts_go_together(db: Database, net: Net) -> None:
    await change(db, "update sku set is_kit = true where code = 'E'")
    await change(db, "insert into kit values ($1, $2, 2), ($1, $3, 1)", net.skus["E"], net.skus["A"], net.skus["B"])
    await set_stock(db, sku="A", location="S1", quantity=2)
    await set_stock(db, sku="B", location="W1", quantity=2)
    made = await captured(db, order(net, "N1", ("E", 1)))
    await run(db)
    assert await lines(db, made) == [(2, 0), (1, 0)]
    await set_stock(db, sku="A", location="W1", quantity=2)
    await run(db)
    assert (await lines(db, made), await places(db, made)) == ([(0, 2), (0, 1)], ["W1"])
    work = await work_of(db, made, made)
    await fulfill.reject(
        db, fulfillment=work.fulfillment, lines=[fulfill.Rejected("1", 1, "gone")], stock="keep", actor=access.house,
        now=NOW,
    )  # fmt: skip
    assert await lines(db, made) == [(2, 0), (1, 0)]


async def test_relief_of_one_part_of_a_kit_gives_back_the_kit(db: Database, net: Net) -> None:
    await change(db, "update sku set is_kit = true where code = 'E'")
    await change(db, "insert into kit values ($1, $2, 2), ($1, $3, 1)", net.skus["E"], net.skus["A"], net.skus["B"])
    await set_stock(db, sku="A", location="S1", quantity=4)
    await set_stock(db, sku="B", location="S1", quantity=2)
    made = await captured(db, order(net, "N1", ("E", 2)))
    await run(db)
    await say(db, "pos", sale("m", "A", "S1", 1, at=at(1)))
    assert await fulfill.relieve(db, who="test", now=NOW) == 1
    assert await lines(db, made) == [(2, 2), (1, 1)]


async def test_an_order_without_coordinates_stands_at_its_postal_code_and_an_unknown_address_is_told(
    db: Database, net: Net
) -> None:
    await set_stock(db, sku="A", location="S1", quantity=9)
    await captured(db, order(net, "N1", ("A", 1), ship_to=ShipTo(postal_code="02108-1234")))
    lost = await captured(db, order(net, "N2", ("A", 1), ship_to=ShipTo(postal_code="nowhere")))
    problem, _ = await read_problem(db, run_id=UUID(int=1), now=NOW, policies=[])
    boston, nowhere = problem.orders
    assert boston.lat is not None and boston.lon is not None and abs(boston.lat - 42.36) < 0.1 > abs(boston.lon + 71.06)
    assert (nowhere.lat, nowhere.lon) == (None, None)
    await run(db)
    assert await ask(db, "select subject from exception where kind = 'address_unknown'") == str(lost)


async def test_a_policy_weighs_the_costs_once_another_person_has_approved_it(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    made = await captured(db, order(net, "N1", ("A", 1)))
    await drafted(db, "leave", {"leave_share": 0.0, "leave_cents_min": 0})
    with pytest.raises(NotFound):
        await run(db, policy="nobody")
    with pytest.raises(Conflict, match="no approved version"):
        await run(db, policy="leave")
    assert await ask(db, "select count(*) from run") == 0
    tried = await run(db, policy="leave", dry_run=True)
    assert tried.summary["assigned_lines"] == 0, "a dry run may try a draft"
    await policy.ask(db, code="leave", from_at=None, note=None, who="planner", now=datetime.now(UTC))
    assert await exceptions(db) == [("policy_waiting", "leave")]
    with pytest.raises(Conflict, match="another person"):
        await policy.decide(db, code="leave", is_agreed=True, who="planner")
    await policy.decide(db, code="leave", is_agreed=True, who="approver")
    assert await exceptions(db) == []
    later = datetime.now(UTC)
    done = await broker.run(db, who="test", now=later, seconds=2, policy="leave")
    assert (done.policies, await lines(db, made)) == ([{"code": "leave", "version": 1}], [(1, 0)])
    await drafted(db, "leave", {"leave_share": 2.0})
    await broker.run(db, who="test", now=later, seconds=2)
    assert await lines(db, made) == [(1, 0)], "what is in force is the approved one, not the draft"
    await policy.ask(db, code="leave", from_at=None, note=None, who="planner", now=datetime.now(UTC))
    await policy.decide(db, code="leave", is_agreed=False, who="approver")
    assert [(v.version, v.state, v.is_in_force) for v in await policy.versions(db, code="leave", now=later)] == [
        (2, "refused", False), (1, "approved", True),
    ]  # fmt: skip
    await policy.roll_back(db, code="leave", version=1, note="as before", who="planner", now=datetime.now(UTC))
    await policy.decide(db, code="leave", is_agreed=True, who="approver")
    newest = (await policy.versions(db, code="leave", now=datetime.now(UTC)))[0]
    assert (newest.version, newest.is_in_force, newest.note) == (3, True, "as before")
    assert "Leaving a unit open costs 0% of its value" in " ".join(newest.sentences)


async def test_each_order_is_planned_by_the_first_policy_whose_scope_it_is_in(db: Database, net: Net) -> None:
    for location in ("W1", "S1"):
        await set_stock(db, sku="A", location=location, quantity=5)
    await in_force(db, "express", {"rank": 1, "scope": {"methods": ["express"]}, "limits": [{"kinds": ["store"]}]})
    await in_force(db, "dear", {"rank": 2, "scope": {"value_cents_min": 5000}, "limits": [{"groups": ["local"]}]})
    await in_force(db, "never", {"rank": 3, "scope": {"channels": ["local"]}})
    orders = [
        await captured(db, order(net, "N1", ("A", 1), method="express")),
        await captured(db, order(net, "N2", ("A", 1))),
    ]
    done = await broker.run(db, who="test", now=datetime.now(UTC), seconds=2)
    assert [p["code"] for p in done.policies] == ["express", "dear", "never"]
    assert done.summary["hints"] == ["dear matches no order", "never matches no order"]
    assert [await places(db, made) for made in orders] == [["S1"], ["W1"]], (
        "the warehouse, cheaper, may not send an express order"
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"speed": 1}, "speed"),
        ({"late_cents": "x"}, "late_cents"),
        ({"limits": [{"kinds": ["moon"]}]}, "moon"),
        ({"limits": [{}]}, "says nothing"),
        ({"weights": {"luck": 2}}, "luck"),
        ({"tariff": {"miles": [5, 3], "parcel_cents": [1, 2, 3], "pound_cents": [1, 2, 3], "days": [1, 2, 3]}}, "rise"),
    ],
)
async def test_a_policy_that_says_nonsense_is_refused_with_its_reason(
    db: Database, net: Net, body: dict[str, object], reason: str
) -> None:
    done = await load(db, kind="policies", rows=[{"code": "odd", "body": body}], who="planner", now=NOW)
    assert [(r.field, reason in r.reason) for r in done.refused] == [("body", True)]
    assert await ask(db, "select count(*) from policy") == 0


async def test_a_run_tells_where_one_more_unit_would_have_saved_most(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=2)
    for number in range(4):
        await captured(db, order(net, f"N{number}", ("A", 1)))
    done = await run(db)
    units, _ = await broker.savings(db, run_id=done.id, limit=9)
    assert [(u.sku, u.location) for u in units] == [("A", "W1")]
    assert units[0].cents > 100
    with pytest.raises(NotFound):
        await broker.savings(db, run_id=UUID(int=1), limit=9)


async def test_what_work_costs_at_a_location_is_what_it_says_or_its_kinds(db: Database, net: Net) -> None:
    await load(
        db, kind="locations", rows=[{"code": "S1", "package_cents": 900, "line_cents": 7}], who="planner", now=NOW
    )
    problem, _ = await read_problem(db, run_id=UUID(int=1), now=NOW, policies=[])
    told = {n.location_id: (n.package_cents, n.line_cents) for n in problem.locations}
    assert told[net.locations["S1"]] == (900, 7)
    assert told[net.locations["W1"]] == (120, 25) and told[net.locations["S2"]] == (250, 80)


async def test_a_location_that_rejects_often_is_asked_less(db: Database, net: Net) -> None:
    for location in ("S1", "S2"):
        await set_stock(db, sku="A", location=location, quantity=200)
    for number in range(30):
        work = await allocated(db, net, f"R{number}", ("A", 2, "S2"), channel="local")
        await reject(db, work, ("1", 2))
    problem, _ = await read_problem(db, run_id=UUID(int=1), now=datetime.now(UTC), policies=[])
    shares = {n.location_id: n.reject_share for n in problem.locations}
    assert shares[net.locations["S2"]] > 0.5, "60 of 60 units"
    assert shares[net.locations["S1"]] < 0.3, "it was never asked: as all do"
    of_sku = {(n.sku_id, n.location_id): n.reject_share for n in problem.stock}
    assert of_sku[net.skus["A"], net.locations["S1"]] is None


async def test_what_stays_open_too_long_is_cancelled_by_its_policy(
    db: Database, net: Net, cache: Cache, settings: Settings
) -> None:
    await in_force(db, "give up", {"scope": {"channels": ["web"]}, "cancel_after_days": 3})
    made = [
        await captured(db, order(net, "N1", ("A", 1))),
        await captured(db, order(net, "N2", ("A", 1), channel="local")),
    ]
    ctx = {"db": db, "cache": cache, "settings": settings}
    await worker.give_up(ctx, now=datetime.now(UTC) + timedelta(days=2))
    assert [await lines(db, one) for one in made] == [[(1, 0)], [(1, 0)]]
    await worker.give_up(ctx, now=datetime.now(UTC) + timedelta(days=4))
    assert [await lines(db, one) for one in made] == [[(0, 0)], [(1, 0)]]
    why = [s.why for s in await order_history(db, order_id=made[0]) if s.step == "cancelled"]
    assert why == ["open for 3 days: policy give up"]


async def test_released_work_goes_elsewhere_only_where_a_policy_says_after_how_long(
    db: Database, net: Net, cache: Cache, settings: Settings
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    works = [await allocated(db, net, f"N{n}", ("A", 1, "W1")) for n in range(2)]
    accepted, ignored = works
    ctx = {"db": db, "cache": cache, "settings": settings}
    later = datetime.now(UTC) + timedelta(hours=2)
    await worker.recall(ctx, now=later)
    assert [await places(db, w.order_id) for w in works] == [["W1"], ["W1"]], "no policy says so"
    await in_force(db, "sla", {"recall_after_minutes": 60})
    await work_up_to(db, accepted, "accept")
    await worker.recall(ctx, now=datetime.now(UTC) + timedelta(minutes=30))
    await worker.recall(ctx, now=later)
    assert [await places(db, w.order_id) for w in works] == [["W1"], []]
    assert await lines(db, ignored.order_id) == [(1, 0)]
    told = [s.why for s in await order_history(db, order_id=ignored.order_id) if s.step == "rejected"]
    assert told and "not accepted within 60 minutes: policy sla" in str(told[0])
    await set_stock(db, sku="A", location="S1", quantity=50)
    await run(db)
    assert await places(db, ignored.order_id) == ["S1"], "the location that did not answer is not asked again"


async def drafted(db: Database, code: str, body: dict[str, object]) -> None:
    done = await load(db, kind="policies", rows=[{"code": code, "body": body}], who="planner", now=NOW)
    assert not done.refused


async def in_force(db: Database, code: str, body: dict[str, object]) -> None:
    await drafted(db, code, body)
    await policy.ask(db, code=code, from_at=None, note=None, who="planner", now=datetime.now(UTC))
    await policy.decide(db, code=code, is_agreed=True, who="approver")


async def test_what_a_run_left_of_an_order_goes_later_only_where_its_split_rule_lets_it(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=9)
    await set_stock(db, sku="B", location="S1", quantity=9)
    ids = {
        split: await captured(db, order(net, split, ("A", 1), ("B", 1), ("C", 1), split=split, **more))
        for split, more in (("free", {}), ("single", {}), ("max_packages", {"split_max": 1}), ("keep_together", {}))
    }
    await planned(db, net, ids["keep_together"], ("1", 1, "W1"))
    await broker.resume(db, who="test", now=NOW)
    for _ in range(3):
        await run(db)
    assert [len(await places(db, i)) for i in ids.values()] == [2, 1, 1, 1]
    [there] = await places(db, ids["single"])
    other = "W1" if there == "S1" else "S1"
    late = await planned(db, net, ids["single"], ("3", 1, other))
    await set_stock(db, sku="C", location=other, quantity=9)
    await broker.resume(db, who="test", now=NOW)
    assert await fate(db, late) == [("dropped", "its order's split rule")]
    await set_stock(db, sku="C", location=other, quantity=0)
    await set_stock(db, sku="C", location=there, quantity=9)
    await run(db)
    assert await places(db, ids["single"]) == [there]
    assert sum(allocated for _, allocated in await lines(db, ids["single"])) == 2
