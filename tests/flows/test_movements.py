"""Movements: each once, in any order, from the owner of the fact; what cannot act yet waits."""

from collections.abc import AsyncIterator

import pytest

from oms import access
from oms.cache import Cache
from oms.db import Database
from oms.flows import govern
from oms.flows.ingest import holds, messages
from oms.flows.push import projector
from tests.feeding import NOW, ask, at, baseline, change, check, exceptions, message, on_hand, sale, say, stock
from tests.world import Net, set_stock, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    net = await small_network(db)
    for sku in "AB":
        for location in ("W1", "S1", "S2"):
            await set_stock(db, sku=sku, location=location, quantity=10)
    yield net
    await check(db)


async def available(db: Database, sku: str, location: str) -> int:
    return await stock(db, sku, location, "greatest(0, on_hand - held - allocated - stock.safety_stock)")


async def test_a_message_acts_once_however_often_it_comes(db: Database, net: Net) -> None:
    one = sale("m1", "A", "S1", 2)
    assert await say(db, "pos", one, one) == ["applied", "duplicate"]
    assert await say(db, "pos", one) == ["duplicate"]
    assert await on_hand(db, "A", "S1") == 8
    assert await exceptions(db) == []


async def test_an_id_belongs_to_its_source(db: Database, net: Net) -> None:
    assert await say(db, "pos", sale("m1", "A", "S1", 1)) == ["applied"]
    assert await say(db, "wms", message("m1", "shipment", "A", "W1", 1)) == ["applied"]
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "A", "W1")) == (9, 9)


async def test_the_same_id_with_other_content_is_an_exception_and_the_first_stands(db: Database, net: Net) -> None:
    assert await say(db, "pos", sale("m1", "A", "S1", 1)) == ["applied"]
    assert await say(db, "pos", sale("m1", "A", "S1", 5), sale("m2", "A", "S1", 1)) == ["changed", "applied"]
    assert await on_hand(db, "A", "S1") == 8
    assert await exceptions(db) == [("message_changed", "pos:m1")]


@pytest.mark.parametrize(
    ("kind", "location", "source", "quantity", "on_hand_after", "available_after"),
    [
        ("sale", "S1", "pos", 3, 7, 7),
        ("shipment", "W1", "wms", 3, 7, 7),
        ("adjustment", "W1", "wms", -3, 7, 7),
        ("adjustment", "W1", "wms", 3, 13, 10),  # a warehouse's addition waits for a baseline
        ("receipt", "W1", "wms", 3, 13, 10),
        ("return", "S1", "pos", 3, 13, 10),  # a store's waits for its approver
        ("receipt", "S1", "erp", 3, 13, 10),
        ("adjustment", "S1", "erp", 3, 13, 13),
        ("count", "S1", "erp", 13, 13, 13),  # stock found in a count may be sold at once
        ("count", "W1", "erp", 4, 4, 4),
        ("transfer", "S1", "erp", 3, 7, 7),
        ("hold", "S1", "erp", 3, 10, 7),
    ],
)
async def test_reductions_act_at_once_and_additions_when_they_may_be_sold(
    *, db: Database, net: Net, kind: str, location: str, source: str, quantity: int, on_hand_after: int,
    available_after: int,
) -> None:  # fmt: skip
    to = "S2" if kind == "transfer" else None
    assert await say(db, source, message("m", kind, "A", location, quantity, to=to)) == ["applied"]
    assert (await on_hand(db, "A", location), await available(db, "A", location)) == (on_hand_after, available_after)


async def test_a_sources_own_rule_for_additions_stands_over_the_default(db: Database, net: Net) -> None:
    await change(db, "update source set additions = $1 where code = 'wms'", {"receipt": "at_once"})
    await say(db, "wms", message("m", "receipt", "A", "W1", 3))
    assert await available(db, "A", "W1") == 13


async def test_a_release_ends_the_hold_of_the_movement_that_it_names(db: Database, net: Net) -> None:
    await say(db, "erp", message("r1", "receipt", "A", "S1", 3), message("r2", "receipt", "A", "S1", 4))
    await say(db, "erp", message("l", "release", "A", "S1", 4, reference="r2"))
    assert (await stock(db, "A", "S1", "held"), await available(db, "A", "S1")) == (3, 14)
    await say(db, "erp", message("l2", "release", "A", "S1", 1))
    assert await stock(db, "A", "S1", "held") == 2


async def test_a_hold_and_its_release_in_one_delivery_leave_nothing_held(db: Database, net: Net) -> None:
    hold = message("h", "hold", "A", "S1", 3, hold="damaged")
    assert await say(db, "erp", hold, message("l", "release", "A", "S1", 3, hold="damaged")) == ["applied", "applied"]
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "held")) == (10, 0)


async def test_a_person_releases_a_hold_and_the_next_snapshot_does_not_place_it_again(db: Database, net: Net) -> None:
    await change(db, "insert into status_map values ($1, 'status', 'QI', 'hold', 'inspection')", net.sources["erp"])
    header = "sku,location,quantity,status"
    await baseline(db, "erp", "A,S1,5,QI", header=header)
    found = await holds.listed(db, locations=None, after=0, limit=10)
    assert [(h.code, h.quantity) for h in found] == [("inspection", 5)]
    await holds.release(db, hold_id=found[0].id, actor=access.house, why="looked at", now=at(5))
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "held")) == (5, 0)
    await baseline(db, "erp", "A,S1,5,QI", header=header, as_of=at(10))
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "held")) == (5, 0)


# who owns it


async def test_a_fact_of_another_source_changes_nothing_until_the_approver_applies_it(db: Database, net: Net) -> None:
    assert await say(db, "erp", sale("m", "A", "S1", 2)) == ["review"]
    assert (await on_hand(db, "A", "S1"), await exceptions(db)) == (10, [("not_owner", "erp:m")])
    found = await ask(db, "select exception_id from exception")
    ann = access.Actor(key_id=None, role="approver", person="ann", who="ann")
    assert await govern.apply_reviewed(db, actor=ann, exception_id=found, now=NOW) == 1
    assert (await on_hand(db, "A", "S1"), await exceptions(db)) == (8, [])


# what waits


async def test_messages_of_unknown_codes_wait_and_act_when_the_mapping_is_loaded(db: Database, net: Net) -> None:
    waiting = [sale("s", "0042", "S1", 1), sale("l", "A", "till 7", 1), sale("u", "A", "S1", 1, uom="case")]
    assert await say(db, "pos", *waiting) == ["parked"] * 3
    assert [kind for kind, _ in await exceptions(db)] == ["unknown_location", "unknown_sku", "unknown_unit"]
    assert await messages.replay_parked(db, who="test") == 0
    assert await on_hand(db, "A", "S1") == 10
    await change(db, "insert into sku_alias values ($1, '0042', $2)", net.sources["pos"], net.skus["A"])
    await change(db, "insert into location_alias values ($1, 'till 7', $2)", net.sources["pos"], net.locations["S1"])
    await change(db, "insert into unit values ($1, 'case', 6)", net.skus["A"])
    assert await messages.replay_parked(db, who="test") == 3
    assert (await on_hand(db, "A", "S1"), await exceptions(db)) == (2, [])
    assert await say(db, "pos", *waiting) == ["duplicate"] * 3
    assert await messages.replay_parked(db, who="test") == 0


async def test_an_exception_stays_open_while_another_message_waits_under_it(db: Database, net: Net) -> None:
    await say(db, "pos", sale("1", "X", "S1", 1), sale("2", "X", "S9", 1))
    assert await exceptions(db) == [("unknown_sku", "pos:X")]
    await change(db, "insert into sku_alias values ($1, 'X', $2)", net.sources["pos"], net.skus["A"])
    assert await messages.replay_parked(db, who="test") == 1
    assert ("unknown_location", "pos:S9") in await exceptions(db)
    assert ("unknown_sku", "pos:X") not in await exceptions(db)


async def test_messages_of_several_sources_that_wait_are_all_tried(db: Database, net: Net) -> None:
    await say(db, "pos", sale("1", "X", "S1", 1))
    await say(db, "wms", message("1", "shipment", "X", "W1", 1))
    for source in ("pos", "wms"):
        await change(db, "insert into sku_alias values ($1, 'X', $2)", net.sources[source], net.skus["A"])
    assert await messages.replay_parked(db, who="test", limit=1) == 2
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "A", "W1")) == (9, 9)


# units, kits, transfers


async def test_a_kit_moves_its_components_and_cases_count_in_each(db: Database, net: Net) -> None:
    await change(db, "update sku set is_kit = true where code = 'E'")
    await change(db, "insert into kit values ($1, $2, 2), ($1, $3, 1)", net.skus["E"], net.skus["A"], net.skus["B"])
    await change(db, "insert into unit values ($1, 'case', 3)", net.skus["B"])
    assert await say(db, "pos", sale("k", "E", "S1", 2), sale("c", "B", "S1", 1, uom="case")) == ["applied"] * 2
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1"), await on_hand(db, "E", "S1")) == (6, 5, 0)
    assert await say(db, "erp", message("n", "count", "E", "S1", 2)) == ["review"]


async def test_a_transfer_is_expected_where_it_goes_until_its_receipt_comes(db: Database, net: Net) -> None:
    await say(db, "erp", message("t", "transfer", "A", "S1", 4, to="S2"))
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "A", "S2")) == (6, 10)
    assert await ask(db, "select quantity from incoming") == 4
    await say(db, "erp", message("r", "receipt", "A", "S2", 3, reference="t"))
    assert (await on_hand(db, "A", "S2"), await ask(db, "select quantity from incoming")) == (13, 1)


async def test_a_receipt_that_comes_before_its_transfer_leaves_nothing_expected(db: Database, net: Net) -> None:
    await say(db, "erp", message("r", "receipt", "A", "S2", 4, reference="t"))
    await say(db, "erp", message("t", "transfer", "A", "S1", 4, to="S2"))
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "A", "S2")) == (6, 14)
    assert await ask(db, "select coalesce(sum(quantity), 0) from incoming") == 0


# counts


async def test_a_count_says_what_is_there_and_a_late_sale_from_before_it_changes_nothing(
    db: Database, net: Net
) -> None:
    await say(db, "pos", sale("after", "A", "S1", 1, at=at(10)))
    await say(db, "erp", message("c", "count", "A", "S1", 20, at=at(5)))
    assert await on_hand(db, "A", "S1") == 19
    # the pos has its own clock: a sale well before the count
    assert await say(db, "pos", sale("late", "A", "S1", 2, at=at(-30))) == ["absorbed"]
    assert await on_hand(db, "A", "S1") == 19
    assert await say(db, "erp", message("old", "count", "A", "S1", 3, at=at(1))) == ["absorbed"]
    assert await on_hand(db, "A", "S1") == 19


async def test_two_counts_in_one_delivery_leave_the_later_one(db: Database, net: Net) -> None:
    await say(
        db, "erp", message("c2", "count", "A", "S1", 7, at=at(20)), message("c1", "count", "A", "S1", 4, at=at(10))
    )
    assert await on_hand(db, "A", "S1") == 7


# below zero


async def test_stock_below_zero_is_a_fact_that_shows_as_zero_and_a_backdated_receipt_clears_it(
    db: Database, net: Net, redis_url: str
) -> None:
    await say(db, "wms", message("p", "shipment", "A", "W1", 12, at=at(5)))
    assert (await on_hand(db, "A", "W1"), await available(db, "A", "W1")) == (-2, 0)
    assert await ask(db, "select min(s) from availability, unnest(supply) s") >= 0
    cache = await Cache.open(redis_url)
    await projector.project(db, cache, now=NOW)
    assert [kind for kind, _ in await exceptions(db)] == ["negative_stock"]
    await say(db, "wms", message("r", "receipt", "A", "W1", 5, at=at(1)))
    await projector.project(db, cache, now=NOW)
    await cache.close()
    assert await exceptions(db) == []
    assert (await on_hand(db, "A", "W1"), await available(db, "A", "W1")) == (3, 0)


# numbers


async def test_a_gap_in_a_sources_numbers_is_an_exception(db: Database, net: Net) -> None:
    await say(db, "pos", *(sale(f"m{n}", "A", "S1", 1, sequence=n) for n in (1, 2, 5)))
    assert await messages.gaps(db, before=await ask(db, "select clock_timestamp()")) == 1
    assert await exceptions(db) == [("sequence_gap", "pos:2-5")]


async def test_a_thousand_movements_are_one_transaction_and_more_are_taken_in_further_ones(
    db: Database, net: Net
) -> None:
    outcomes = await say(db, "pos", *(sale(f"m{n}", "A", "S1", 1) for n in range(1100)))
    assert outcomes == ["applied"] * 1100
    assert await on_hand(db, "A", "S1") == -1090
