"""Steps that people take at the same moment share a transaction: each gets its own answer, and none hinders another."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from oms import access
from oms.cache import Cache
from oms.db import Database
from oms.errors import Conflict, NotFound
from oms.flows import fulfill
from oms.flows.fulfill import claim, rules
from oms.flows.fulfill.steps import Step
from oms.flows.fulfill.together import Asked, advance_many, advance_one
from oms.settle import close_all, settle_batch
from tests.demand import allocated
from tests.feeding import NOW, ask, check, on_hand, stock
from tests.world import Net, set_stock, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    net = await small_network(db)
    for sku in ("A", "B"):
        for location in ("S1", "S2", "W1"):
            await set_stock(db, sku=sku, location=location, quantity=20)
    yield net
    await check(db)


def asked(net: Net, work: UUID, step: Step, who: str = "ann", location: str = "S1") -> Asked:
    actor = access.Actor(
        key_id=None, role="associate", person=who, who=who, location_id=net.locations[location]
    )  # fmt: skip
    return Asked(fulfillment=work, step=step, actor=actor, now=NOW)


async def test_each_gets_its_own_answer_and_a_no_hinders_nobody(db: Database, net: Net) -> None:
    works = [(await allocated(db, net, f"N{k}", ("A", 1, "S1"), ("B", 2, "S1"))).fulfillment for k in range(4)]
    for step in ("accept", "pick"):
        await fulfill.advance(db, fulfillments=works[:2], step=step, actor=access.house, now=NOW)  # type: ignore[arg-type]
    answers = await settle_batch(db, advance_many, [
        asked(net, works[0], "ship"), asked(net, works[1], "pack", "bob"), asked(net, works[2], "pick"),
        asked(net, works[3], "accept", "eve", "S2"), asked(net, uuid4(), "accept"), asked(net, works[3], "accept"),
        asked(net, works[0], "ship", "bob"),
    ])  # fmt: skip
    assert [a if isinstance(a, str) else type(a) for a in answers] == [
        "shipped", "packed", Conflict, NotFound, NotFound, "accepted", "shipped",
    ]  # fmt: skip
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (19, 18)
    assert await ask(db, "select count(*) from movement where kind = 'shipment'") == 2
    assert await ask(db, "select string_agg(who, ',' order by history_id) from history where step in ('shipped', 'packed')") == (
        "ann,bob"
    )  # fmt: skip


async def test_steps_of_one_fulfillment_in_one_batch_are_taken_in_turn(db: Database, net: Net) -> None:
    work = (await allocated(db, net, "N1", ("A", 2, "S1"))).fulfillment
    steps: list[Step] = ["accept", "pick", "pack", "ship", "ship"]
    answers = await settle_batch(db, advance_many, [asked(net, work, step) for step in steps])
    assert answers == ["accepted", "picked", "packed", "shipped", "shipped"]
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "allocated")) == (18, 0)


async def test_what_is_in_anothers_hands_or_not_scanned_is_refused_beside_what_is_done(db: Database, net: Net) -> None:
    mine, theirs, unscanned = [(await allocated(db, net, f"N{k}", ("A", 1, at), channel="local")).fulfillment
                               for k, at in enumerate(("S1", "S1", "S2"))]  # fmt: skip
    bob = asked(net, theirs, "pick", "bob").actor
    await claim.claim(db, location_id=net.locations["S1"], fulfillments=[theirs], limit=1, actor=bob, now=NOW)
    await rules.change(db, location="S2", said={"scans_are_required": True}, who="x")
    for work in (mine, unscanned):
        await fulfill.advance(db, fulfillments=[work], step="accept", actor=access.house, now=NOW)
    answers = await settle_batch(
        db, advance_many,
        [asked(net, mine, "pick"), asked(net, theirs, "pick"), asked(net, unscanned, "pick", "eve", "S2")],
    )  # fmt: skip
    assert [a if isinstance(a, str) else type(a) for a in answers] == ["picked", Conflict, Conflict]


async def test_many_at_once_from_many_places_end_in_balance(db: Database, net: Net, cache: Cache) -> None:
    works = [
        ((await allocated(db, net, f"N{k}", ("A", 1, at), ("B", 1, at), channel="local")).fulfillment, at)
        for k, at in enumerate(["S1", "S2"] * 6)
    ]  # fmt: skip

    async def whole(work: UUID, at: str, who: str) -> list[str]:
        steps: list[Step] = ["accept", "pick", "pack", "ship"]
        return [await advance_one(db, asked(net, work, step, who, at), cache=cache) for step in steps]

    done = await asyncio.gather(*(whole(work, at, f"p{k % 3}") for k, (work, at) in enumerate(works)))
    await close_all(db)
    assert {tuple(states) for states in done} == {("accepted", "picked", "packed", "shipped")}
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S2")) == (14, 14)
