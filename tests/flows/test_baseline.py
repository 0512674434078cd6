"""A baseline says: these quantities, as of T. What it does not contain is applied again; what it does is not."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from connectors.feeds import FileRefused
from oms import ledger
from oms.db import Database
from oms.errors import Conflict, FeedRefused, NotFound
from oms.flows.ingest import acknowledge, apply
from tests.demand import allocated, captured, order, ship
from tests.feeding import (
    NINE,
    ask,
    at,
    baseline,
    change,
    check,
    exceptions,
    message,
    on_hand,
    sale,
    say,
    staged,
    stock,
)
from tests.world import Net, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    yield await small_network(db)
    await check(db)


async def level(db: Database, order_level: str, *, window_seconds: int = 900, source: str = "erp") -> None:
    await change(
        db,
        "update source set order_level = $1, window_seconds = $2 where code = $3",
        order_level,
        window_seconds,
        source,
    )


async def refusals(db: Database, feed_id: int) -> list[tuple[int, str]]:
    async with db.connection() as tx:
        return [
            tuple(r)
            for r in await tx.fetch("select line, field from feed_refusal where feed_id = $1 order by 1, 2", feed_id)
        ]


# what a snapshot says


async def test_a_full_snapshot_sets_its_keys_and_keeps_a_movement_only_where_something_changed(
    db: Database, net: Net
) -> None:
    first = await baseline(db, "erp", "A,S1,5\nB,S1,0\nA,W1,7")
    assert (first.state, first.rows, first.parts) == ("staged", 3, {"staged": 2})
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1"), await on_hand(db, "A", "W1")) == (5, 0, 7)
    await baseline(db, "erp", "A,S1,5\nB,S1,2\nA,W1,4", as_of=at(10))
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1"), await on_hand(db, "A", "W1")) == (5, 2, 4)
    assert await ask(db, "select count(*) from movement where kind = 'baseline'") == 4


async def test_an_absent_key_keeps_what_it_had_and_is_zero_only_where_the_contract_says_so(
    db: Database, net: Net
) -> None:
    await baseline(db, "erp", "A,S1,5\nB,S1,2")
    second = await baseline(db, "erp", "A,S1,4", as_of=at(10))
    assert (second.absent, await on_hand(db, "B", "S1")) == (1, 2)
    await change(db, "update source set absent_is_zero = true where code = 'erp'")
    third = await baseline(db, "erp", "A,S1,4", as_of=at(20))
    assert (third.absent, await on_hand(db, "B", "S1")) == (1, 0)


async def test_a_key_that_a_full_snapshot_left_out_still_hears_of_late_movements(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,5\nB,S1,5", watermark={"pos": 1})
    await baseline(db, "erp", "A,S1,5", as_of=at(60), watermark={"pos": 9})
    assert await say(db, "pos", sale("a", "A", "S1", 1, at=at(30), sequence=5)) == ["absorbed"]
    assert await say(db, "pos", sale("b", "B", "S1", 1, at=at(30), sequence=6)) == ["applied"]
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (5, 4)


async def test_a_partial_snapshot_touches_its_keys_only_and_a_full_one_from_before_leaves_them(
    db: Database, net: Net
) -> None:
    await baseline(db, "erp", "A,S1,5\nB,S1,5")
    await baseline(db, "erp", "A,S1,3", as_of=at(20), scope="partial")
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (3, 5)
    between = await baseline(db, "erp", "A,S1,9\nB,S1,9", as_of=at(10))
    assert between.state == "staged"
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (3, 9)
    older = await baseline(db, "erp", "A,S1,1", as_of=at(15), scope="partial")
    assert (older.state, await on_hand(db, "A", "S1")) == ("staged", 3)
    await baseline(db, "erp", "A,S1,8\nB,S1,8", as_of=at(30))
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (8, 8)


async def test_a_snapshot_that_is_older_everywhere_changes_nothing(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,5", as_of=at(30))
    older = await baseline(db, "erp", "A,S1,9", as_of=at(10))
    assert (older.state, older.parts, await on_hand(db, "A", "S1")) == ("superseded", {"superseded": 1}, 5)
    with pytest.raises(NotFound):
        await apply.apply(db, feed_id=older.feed_id, who="test")


async def test_a_key_that_was_counted_since_keeps_its_count(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,5\nB,S1,5")
    await say(db, "erp", message("c", "count", "A", "S1", 2, at=at(20)))
    await baseline(db, "erp", "A,S1,9\nB,S1,9", as_of=at(10))
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (2, 9)
    await baseline(db, "erp", "A,S1,7\nB,S1,7", as_of=at(30))
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (7, 7)


async def test_a_part_for_a_location_that_another_source_owns_is_left_for_review(db: Database, net: Net) -> None:
    done = await baseline(db, "wms", "A,W1,5")
    assert (done.not_owned, await on_hand(db, "A", "W1")) == (["W1"], 0)
    assert ("not_owner", "wms:W1") in await exceptions(db)


async def test_a_dry_run_shows_the_difference_and_changes_nothing(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,5")
    done = await staged(db, "erp", "A,S1,2\nB,S1,4", as_of=at(10), dry_run=True)
    totals, largest = await apply.show(db, feed_id=done.feed_id)
    assert (totals.keys, totals.changed, totals.units_up, totals.units_down) == (2, 2, 4, 3)
    assert [(d.sku, d.was, d.becomes) for d in largest] == [("B", 0, 4), ("A", 5, 2)]
    assert await apply.unfinished(db) == []
    assert await on_hand(db, "A", "S1") == 5
    again = await baseline(db, "erp", "A,S1,2\nB,S1,4", as_of=at(10))
    assert (again.state, await on_hand(db, "A", "S1")) == ("staged", 2)


async def test_the_same_file_twice_is_taken_once(db: Database, net: Net) -> None:
    first = await baseline(db, "erp", "A,S1,5")
    again = await baseline(db, "erp", "A,S1,5")
    assert (again.state, again.same_as) == ("same", first.feed_id)
    await say(db, "pos", sale("m", "A", "S1", 1, at=at(5), sequence=1))
    await baseline(db, "erp", "A,S1,5")
    assert await on_hand(db, "A", "S1") == 4


# is a movement in it?


async def test_a_sale_beyond_the_watermark_is_applied_over_the_snapshot_and_one_below_it_is_not(
    db: Database, net: Net
) -> None:
    await baseline(db, "erp", "A,S1,10", watermark={"pos": 0})
    await say(db, "pos", *(sale(f"m{n}", "A", "S1", 1, at=at(n), sequence=n) for n in (1, 2, 3)))
    await baseline(db, "erp", "A,S1,8", as_of=at(60), watermark={"pos": 2})
    assert await on_hand(db, "A", "S1") == 7
    assert await ask(db, "select count(*) from movement where kind = 'baseline'") == 1


async def test_a_late_movement_that_the_snapshot_contains_is_absorbed(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,8", as_of=at(60), watermark={"pos": 2})
    late = sale("m2", "A", "S1", 1, at=at(2), sequence=2)
    assert await say(db, "pos", late, sale("m3", "A", "S1", 1, at=at(3), sequence=3)) == ["absorbed", "applied"]
    assert await say(db, "pos", late) == ["duplicate"]
    assert await on_hand(db, "A", "S1") == 7
    await baseline(db, "erp", "A,S1,7", as_of=at(90), watermark={"pos": 3})
    assert await on_hand(db, "A", "S1") == 7


async def test_with_one_clock_a_movement_is_in_the_snapshot_when_it_happened_before_it(db: Database, net: Net) -> None:
    await level(db, "clock")
    await baseline(db, "erp", "A,S1,10", as_of=at(0))
    await say(db, "pos", sale("a", "A", "S1", 1, at=at(9.9)), sale("b", "A", "S1", 1, at=at(10.1)))
    await baseline(db, "erp", "A,S1,9", as_of=at(10))
    assert await on_hand(db, "A", "S1") == 8
    assert await say(db, "pos", sale("c", "A", "S1", 1, at=at(5))) == ["absorbed"]
    assert await on_hand(db, "A", "S1") == 8


@pytest.mark.parametrize(
    ("kind", "minutes", "expected"),
    [
        ("sale", -16, 10),  # surely in it
        ("sale", -14, 9),  # doubtful: counted, cannot oversell
        ("sale", 14, 9),
        ("return", 14, 10),  # doubtful: not counted
        ("return", 16, 11),
    ],
)
async def test_between_different_clocks_doubt_never_oversells(
    db: Database, net: Net, kind: str, minutes: float, expected: int
) -> None:
    await level(db, "window")
    await baseline(db, "erp", "A,S1,10", as_of=at(-120))
    await say(db, "pos", message("m", kind, "A", "S1", 1, at=at(minutes)))
    await baseline(db, "erp", "A,S1,10", as_of=NINE)
    assert await on_hand(db, "A", "S1") == expected
    doubtful = abs(minutes) < 15
    assert await ask(db, "select bool_or(is_ambiguous) from stock") == doubtful
    late = message("late", kind, "A", "S1", 1, at=at(minutes))
    await say(db, "pos", late)
    assert await on_hand(db, "A", "S1") == expected + (expected - 10)
    await say(db, "erp", message("c", "count", "A", "S1", 4, at=at(300)))
    assert (await on_hand(db, "A", "S1"), await ask(db, "select bool_or(is_ambiguous) from stock")) == (4, False)


async def test_a_sale_during_the_load_is_counted_once_whatever_chunk_it_meets(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,5\nB,S1,5\nC,S1,5", watermark={"pos": 0})
    done = await staged(db, "erp", "A,S1,4\nB,S1,4\nC,S1,4", as_of=at(10), watermark={"pos": 1})
    await say(db, "pos", sale("1", "B", "S1", 1, at=at(11), sequence=2))
    async with db.transaction() as tx:
        await apply.begin_apply(tx, feed_id=done.feed_id)
        after, _ = await ledger.rebase(tx, feed_id=done.feed_id, after=0, keys=1, who="test")
    assert after == net.skus["A"]
    await say(db, "pos", *(sale(f"2{sku}", sku, "S1", 1, at=at(12), sequence=3 + n) for n, sku in enumerate("ABC")))
    contained = [sale(f"0{sku}", sku, "S1", 1, at=at(1), sequence=1) for sku in "ABC"]
    assert await say(db, "pos", *contained) == ["absorbed", "applied", "applied"]
    await apply.apply(db, feed_id=done.feed_id, who="test")
    assert [await on_hand(db, sku, "S1") for sku in "ABC"] == [3, 2, 3]


async def test_a_load_that_was_killed_goes_on_where_its_last_chunk_ended(db: Database, net: Net) -> None:
    done = await staged(db, "erp", "\n".join(f"{sku},{place},5" for sku in "ABCDE" for place in ("W1", "S1")))

    def kill(*_: object) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        await apply.apply(db, feed_id=done.feed_id, who="test", chunk_keys=3, progress=kill)
    assert [await on_hand(db, sku, "S1") for sku in "ABCDE"] == [5, 5, 0, 0, 0]
    assert [u.feed_id for u in await apply.unfinished(db)] == [done.feed_id]
    finished = await apply.apply(db, feed_id=done.feed_id, who="test")
    assert (finished.keys, await apply.unfinished(db)) == (6, [])
    assert [await on_hand(db, sku, "S1") for sku in "ABCDE"] == [5] * 5
    assert await ask(db, "select totals ->> 'applied_keys' from feed") == "10"
    assert await ask(db, "select count(*) from movement") == 10


async def test_a_delivery_that_was_cut_off_before_it_was_complete_is_given_up_when_the_next_one_comes(
    db: Database, net: Net
) -> None:
    async with db.transaction() as tx:
        source_id = net.sources["erp"]
        feed_id = await tx.fetchval(
            "insert into feed (source_id, kind, name, scope, as_of, state, received_by)"
            " values ($1, 'baseline', 'cut', 'full', $2, 'staging', 'x') returning feed_id", source_id, NINE,
        )  # fmt: skip
        await tx.execute("select open_feed($1)", feed_id)
    await baseline(db, "erp", "A,S1,5")
    assert await ask(db, "select state from feed where feed_id = $1", feed_id) == "refused"


# rows that cannot be taken


@pytest.mark.parametrize(
    ("row", "field", "kept"),
    [
        ("A,S1,-3", "quantity", 0),
        ("A,S1,1.5", "quantity", 5),
        ("A,S1,many", "quantity", 5),
        ("A,S1,99999999999", "quantity", 5),
        ("A,S1,1000000001", "quantity", 5),
        ("A,S1,", "quantity", 5),
        ("ZZ,S1,3", "sku", 5),
        ("A,S9,3", "location", 5),
        ("A,S1", "row", 5),
    ],
)
async def test_a_row_that_cannot_be_taken_is_refused_alone_with_its_line_and_field(
    db: Database, net: Net, row: str, field: str, kept: int
) -> None:
    await baseline(db, "erp", "A,S1,5\nB,S1,5")
    done = await baseline(db, "erp", f"{row}\nB,S1,7", as_of=at(10))
    assert await refusals(db, done.feed_id) == [(2, field)]
    assert (done.refused, await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (1, kept, 7)


async def test_a_key_that_was_refused_keeps_hearing_of_its_movements(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,5", watermark={"pos": 1})
    await baseline(db, "erp", "A,S1,?\nB,S1,1", as_of=at(60), watermark={"pos": 9})
    assert await say(db, "pos", sale("m", "A", "S1", 1, at=at(5), sequence=4)) == ["applied"]
    assert await on_hand(db, "A", "S1") == 4


async def test_a_unit_or_status_that_nobody_knows_parks_its_rows(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,5\nB,S1,5")
    done = await baseline(
        db, "erp", "A,S1,1,,case\nB,S1,1,LOST,", as_of=at(10), header="sku,location,quantity,status,uom"
    )
    assert await refusals(db, done.feed_id) == [(2, "uom"), (3, "status")]
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (5, 5)


async def test_a_doubled_key_is_believed_on_neither_row(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,5\nB,S1,5")
    done = await baseline(db, "erp", "A,S1,1\nA,S1,2\nB,S1,3", as_of=at(10))
    assert await refusals(db, done.feed_id) == [(2, "sku"), (3, "sku")]
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (5, 3)


async def test_a_key_with_one_good_and_one_bad_row_is_not_believed_either(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,5\nB,S1,5")
    done = await baseline(db, "erp", "A,S1,9\nA,S1,x\nB,S1,9\nB,S1,-1", as_of=at(10))
    assert done.refused >= 2
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (5, 0)


async def test_rows_by_bin_and_lot_are_summed_where_the_layout_says_so(db: Database, net: Net) -> None:
    await change(db, "update source set sums_rows = true where code = 'erp'")
    header = "sku,location,quantity,bin,lot"
    first = await baseline(db, "erp", "A,S1,1,b1,l1\nA,S1,2,b1,l2\nA,S1,4,b2,", header=header)
    assert (first.refused, await on_hand(db, "A", "S1")) == (0, 7)
    assert await ask(db, "select count(*) from bin_stock") == 3
    second = await baseline(db, "erp", "A,S1,3,b1,l1\nA,S1,3,b1,l1\nB,S1,2,b1,", as_of=at(10), header=header)
    assert await refusals(db, second.feed_id) == [(2, "sku"), (3, "sku")]
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (7, 2)


async def test_cases_are_counted_in_each_and_codes_of_the_source_are_understood(db: Database, net: Net) -> None:
    await change(db, "insert into unit values ($1, 'case', 12)", net.skus["A"])
    await change(db, "insert into sku_alias values ($1, '0042', $2)", net.sources["erp"], net.skus["A"])
    await change(db, "insert into location_alias values ($1, '7', $2)", net.sources["erp"], net.locations["S1"])
    await baseline(db, "erp", "0042,7,3,case", header="sku,location,quantity,uom")
    assert await on_hand(db, "A", "S1") == 36
    done = await baseline(db, "erp", "0042,7,100000000,case", as_of=at(5), header="sku,location,quantity,uom")
    assert (await refusals(db, done.feed_id), await on_hand(db, "A", "S1")) == ([(2, "quantity")], 36)


async def test_a_snapshot_from_the_future_or_without_an_offset_is_refused(db: Database, net: Net) -> None:
    for as_of in (at(60 * 24 * 365), NINE.replace(tzinfo=None)):
        with pytest.raises(FeedRefused):
            await baseline(db, "erp", "A,S1,5", as_of=as_of)
    assert await on_hand(db, "A", "S1") == 0


async def test_nothing_of_a_file_that_breaks_off_is_applied_and_it_may_come_again(db: Database, net: Net) -> None:
    with pytest.raises(FileRefused, match="line 3"):
        await baseline(db, "erp", b"sku,location,quantity\nA,S1,5\nB,S1,\xff\n")
    assert await ask(db, "select state from feed") == "refused"
    assert await on_hand(db, "A", "S1") == 0
    await baseline(db, "erp", "A,S1,5")
    assert await on_hand(db, "A", "S1") == 5


# holds


async def quality(db: Database, net: Net) -> None:
    """The erp reports units in quality inspection, blocked ones, and some to be left out."""
    rows = [
        ("QI", "hold", "inspection"),
        ("BL", "hold", "blocked"),
        ("OK", "on_hand", None),
        ("XX", "ignored", None),
        ("IN", "incoming", None),
    ]
    for value, means, code in rows:
        await change(
            db, "insert into status_map values ($1, 'status', $2, $3, $4)", net.sources["erp"], value, means, code
        )
    await change(db, "update source set sums_rows = true where code = 'erp'")


async def test_reported_holds_are_replaced_by_what_the_source_reports(db: Database, net: Net) -> None:
    await quality(db, net)
    header = "sku,location,quantity,status"
    await baseline(db, "erp", "A,S1,10,OK\nA,S1,3,QI\nA,S1,1,BL\nA,S1,50,XX\nA,S1,6,IN", header=header)
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "held")) == (14, 4)
    assert await ask(db, "select quantity from incoming") == 6
    await baseline(db, "erp", "A,S1,13,OK\nA,S1,2,QI", header=header, as_of=at(10))
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "held")) == (15, 2)
    await baseline(db, "erp", "A,S1,15,OK", header=header, as_of=at(20))
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "held")) == (15, 0)


async def test_incoming_that_a_later_snapshot_no_longer_names_is_not_expected_any_more(db: Database, net: Net) -> None:
    await quality(db, net)
    header = "sku,location,quantity,status"
    await baseline(db, "erp", "A,S1,1,OK\nA,S1,6,IN\nB,S1,1,OK\nB,S1,2,IN", header=header)
    await baseline(db, "erp", "A,S1,7,OK\nB,S1,1,OK\nB,S1,3,IN", header=header, as_of=at(10))
    assert await ask(db, "select sum(quantity) from incoming") == 3


async def test_a_hold_that_lives_with_a_movement_is_lifted_only_by_a_snapshot_that_contains_it(
    db: Database, net: Net
) -> None:
    await baseline(db, "erp", "A,W1,5", watermark={"wms": 0})
    await say(db, "wms", message("r", "receipt", "A", "W1", 4, at=at(1), sequence=3))
    assert (await on_hand(db, "A", "W1"), await stock(db, "A", "W1", "held")) == (9, 4)
    await baseline(db, "erp", "A,W1,5", as_of=at(10), watermark={"wms": 2})
    assert (await on_hand(db, "A", "W1"), await stock(db, "A", "W1", "held")) == (9, 4)
    await baseline(db, "erp", "A,W1,9", as_of=at(20), watermark={"wms": 3})
    assert (await on_hand(db, "A", "W1"), await stock(db, "A", "W1", "held")) == (9, 0)


async def test_a_hold_code_that_the_source_does_not_report_stays(db: Database, net: Net) -> None:
    await quality(db, net)
    await change(db, "insert into ownership values ($1, 'hold', $2)", net.locations["S1"], net.sources["pos"])
    await baseline(db, "erp", "A,S1,9,OK", header="sku,location,quantity,status", watermark={"pos": 0})
    await say(db, "pos", message("h", "hold", "A", "S1", 2, at=at(1), sequence=1, hold="shop window"))
    await baseline(db, "erp", "A,S1,9,OK", header="sku,location,quantity,status", as_of=at(10), watermark={"pos": 1})
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "held")) == (9, 2)


# gates


async def gated(db: Database, **gates: Any) -> None:
    await change(db, "update source set gates = $1 where code = 'erp'", {"keys_min": 1, **gates})


async def test_a_gate_parks_the_suspect_location_and_the_rest_goes_on(db: Database, net: Net) -> None:
    await gated(db)
    await baseline(db, "erp", "A,S1,10\nB,S1,10\nA,S2,10\nB,S2,10")
    done = await baseline(db, "erp", "A,S1,1\nB,S1,0\nA,S2,9\nB,S2,9", as_of=at(10))
    assert (done.parked, done.parts) == (["S1"], {"parked": 1, "staged": 1})
    assert [await on_hand(db, sku, place) for place in ("S1", "S2") for sku in "AB"] == [10, 10, 9, 9]
    await say(db, "pos", sale("m", "A", "S1", 1, at=at(11)))
    assert await on_hand(db, "A", "S1") == 9
    assert [kind for kind, _ in await exceptions(db)] == ["feed_parked"]


async def test_two_different_people_release_a_parked_part_and_the_worker_applies_it(db: Database, net: Net) -> None:
    await gated(db)
    await baseline(db, "erp", "A,S1,10\nA,S2,10")
    done = await baseline(db, "erp", "A,S1,1\nA,S2,9", as_of=at(10), watermark={"pos": 0})
    await say(db, "pos", sale("m", "A", "S1", 1, at=at(11), sequence=1))
    part = await ask(db, "select baseline_id from baseline where state = 'parked'")
    assert not await apply.release(db, baseline_id=part, who="ann")
    assert not await apply.release(db, baseline_id=part, who="ann")
    assert await apply.release(db, baseline_id=part, who="bob")
    with pytest.raises(Conflict):
        await apply.release(db, baseline_id=part, who="eve")
    assert [u.feed_id for u in await apply.unfinished(db)] == [done.feed_id]
    await apply.apply(db, feed_id=done.feed_id, who="oms")
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "A", "S2")) == (0, 9)
    assert (await apply.unfinished(db), await exceptions(db)) == ([], [])


async def test_a_parked_part_that_a_newer_snapshot_overtook_changes_nothing_when_it_is_released(
    db: Database, net: Net
) -> None:
    await gated(db)
    await baseline(db, "erp", "A,S1,10")
    old = await baseline(db, "erp", "A,S1,1", as_of=at(10))
    await baseline(db, "erp", "A,S1,8", as_of=at(20))
    part = await ask(db, "select baseline_id from baseline where state = 'parked'")
    for who in ("ann", "bob"):
        await apply.release(db, baseline_id=part, who=who)
    await apply.apply(db, feed_id=old.feed_id, who="oms")
    assert await on_hand(db, "A", "S1") == 8
    assert await ask(db, "select state from baseline where baseline_id = $1", part) == "superseded"


async def test_a_parked_part_may_be_given_up(db: Database, net: Net) -> None:
    await gated(db)
    await baseline(db, "erp", "A,S1,10")
    await baseline(db, "erp", "A,S1,1", as_of=at(10))
    part = await ask(db, "select baseline_id from baseline where state = 'parked'")
    await apply.dismiss(db, baseline_id=part, who="ann", why="a wrong file")
    assert (await exceptions(db), await on_hand(db, "A", "S1"), await apply.unfinished(db)) == ([], 10, [])
    with pytest.raises(Conflict):
        await apply.release(db, baseline_id=part, who="ann")


async def test_many_unknown_skus_park_their_location(db: Database, net: Net) -> None:
    await gated(db)
    done = await baseline(db, "erp", "A,S1,10\nY,S1,1\nZ,S1,1\nA,S2,4")
    assert (done.parked, await on_hand(db, "A", "S1"), await on_hand(db, "A", "S2")) == (["S1"], 0, 4)


# taking it back


async def test_a_reverted_baseline_leaves_what_was_and_the_movements_since_then(db: Database, net: Net) -> None:
    await quality(db, net)
    header = "sku,location,quantity,status"
    await baseline(db, "erp", "A,S1,10,OK\nA,S1,1,QI\nB,S1,5,OK", header=header, watermark={"pos": 0})
    await say(db, "pos", sale("m1", "A", "S1", 1, at=at(1), sequence=1))
    await baseline(db, "erp", "A,S1,3,OK\nA,S1,2,QI\nB,S1,5,OK", header=header, as_of=at(10), watermark={"pos": 2})
    await say(
        db, "pos", sale("m2", "A", "S1", 1, at=at(2), sequence=2), sale("m3", "A", "S1", 1, at=at(11), sequence=3)
    )
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "held")) == (4, 2)
    part = await ask(db, "select max(baseline_id) from baseline")
    assert await apply.revert(db, baseline_id=part, who="ann", why="wrong") is None
    assert await apply.revert(db, baseline_id=part, who="ann", why="wrong") is None
    assert await apply.revert(db, baseline_id=part, who="bob", why="wrong") is not None
    # 11 less all three sales; the one that the reverted snapshot had absorbed counts again
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "held"), await on_hand(db, "B", "S1")) == (8, 1, 5)
    with pytest.raises(Conflict):
        await apply.revert(db, baseline_id=part, who="ann", why="again")
    await baseline(db, "erp", "A,S1,9,OK\nB,S1,5,OK", header=header, as_of=at(20), watermark={"pos": 2})
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "held")) == (8, 0)


async def test_only_the_snapshot_in_force_can_be_reverted(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,10")
    await baseline(db, "erp", "A,S1,9", as_of=at(10))
    first = await ask(db, "select min(baseline_id) from baseline")
    with pytest.raises(Conflict):
        await apply.revert(db, baseline_id=first, who="ann", why="wrong")


async def test_the_first_snapshot_of_a_location_can_be_reverted_too(db: Database, net: Net) -> None:
    await say(db, "pos", sale("m", "A", "S1", 1, at=at(-5), sequence=1))
    await baseline(db, "erp", "A,S1,10", watermark={"pos": 1})
    assert await on_hand(db, "A", "S1") == 10
    part = await ask(db, "select max(baseline_id) from baseline")
    for who in ("ann", "bob"):
        await apply.revert(db, baseline_id=part, who=who, why="wrong")
    assert await on_hand(db, "A", "S1") == -1


# promises stay


async def test_allocated_units_are_deducted_from_every_snapshot(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,10")
    await allocated(db, net, "N1", ("A", 3, "S1"))
    await baseline(db, "erp", "A,S1,10", as_of=at(10))
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "allocated")) == (10, 3)
    assert await ask(db, "select sum(s) from availability a, unnest(a.supply) s where sku_id = $1", net.skus["A"]) == 7


async def test_a_load_that_a_newer_snapshot_overtook_does_not_bring_the_older_one_back(db: Database, net: Net) -> None:
    older = await staged(db, "erp", "A,S1,5\nB,S1,5\nC,S1,5")

    def kill(*_: object) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        await apply.apply(db, feed_id=older.feed_id, who="test", chunk_keys=1, progress=kill)
    await baseline(db, "erp", "A,S1,7\nB,S1,7\nC,S1,7", as_of=at(10))
    for left in await apply.unfinished(db):
        await apply.apply(db, feed_id=left.feed_id, who="test")
    assert [await on_hand(db, sku, "S1") for sku in "ABC"] == [7, 7, 7]
    assert await apply.unfinished(db) == []


async def test_a_feed_that_two_processes_apply_at_once_is_applied_once(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,5\nB,S1,5\nC,S1,5", watermark={"pos": 0})
    done = await staged(db, "erp", "A,S1,7\nB,S1,7\nC,S1,7", as_of=at(10), watermark={"pos": 0})

    async def sell() -> None:
        for n, sku in enumerate("ABCABC", start=1):
            await say(db, "pos", sale(f"m{n}", sku, "S1", 1, at=at(11), sequence=n))

    await asyncio.gather(*(apply.apply(db, feed_id=done.feed_id, who=f"w{n}", chunk_keys=1) for n in range(3)), sell())
    assert [await on_hand(db, sku, "S1") for sku in "ABC"] == [5, 5, 5]
    assert await ask(db, "select count(*) from movement where kind = 'baseline' and feed_id = $1", done.feed_id) == 3


async def test_an_available_source_has_its_deductions_added_back_so_that_they_are_deducted_once(
    db: Database, net: Net
) -> None:
    await change(
        db,
        "update source set quantity_kind = 'available', deducted_holds = '{damaged}', deducts_at = 'accept' where code = 'erp'",
    )
    await baseline(db, "erp", "A,S1,10")
    await say(db, "erp", message("h", "hold", "A", "S1", 2, at=at(1), hold="damaged", sequence=1))
    work = await allocated(db, net, "N1", ("A", 3, "S1"))
    await acknowledge.posted(db, source="erp", references=work.references, at=at(5), who="test")
    # of 10 it has deducted the two that are damaged and the three that it works on
    await baseline(db, "erp", "A,S1,5", as_of=at(10), watermark={"erp": 1})
    seen = [await stock(db, "A", "S1", column) for column in ("on_hand", "held", "allocated")]
    assert seen == [10, 2, 3]
    await ship(db, work, now=at(15))
    await baseline(db, "erp", "A,S1,5", as_of=at(20), watermark={"erp": 1})
    seen = [await stock(db, "A", "S1", column) for column in ("on_hand", "held", "allocated")]
    assert seen == [7, 2, 0]


async def test_a_partial_snapshot_can_be_reverted_by_two_people(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,10\nB,S1,10", watermark={"pos": 0})
    await say(db, "pos", sale("m1", "A", "S1", 1, at=at(1), sequence=1))
    await baseline(db, "erp", "A,S1,3", as_of=at(10), scope="partial", watermark={"pos": 1})
    assert await on_hand(db, "A", "S1") == 3
    part = await ask(db, "select max(baseline_id) from baseline")
    for who in ("ann", "bob"):
        await apply.revert(db, baseline_id=part, who=who, why="wrong")
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (9, 10)
    await baseline(db, "erp", "A,S1,9\nB,S1,10", as_of=at(20), watermark={"pos": 1})
    assert await on_hand(db, "A", "S1") == 9


async def test_reservations_and_a_load_at_once_never_promise_more_than_there_is(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,50\nA,W1,50")
    done = await staged(db, "erp", "A,S1,10\nA,W1,10", as_of=at(10))

    async def sell(n: int) -> None:
        await captured(db, order(net, f"N{n}", ("A", 1)))

    await asyncio.gather(*(sell(n) for n in range(10)), apply.apply(db, feed_id=done.feed_id, who="test"))
    assert await on_hand(db, "A", "S1") + await on_hand(db, "A", "W1") == 20
    assert await ask(db, "select reserved[1] from availability where sku_id = $1", net.skus["A"]) == 10


async def test_a_parts_gate_numbers_say_what_was_measured(db: Database, net: Net) -> None:
    await gated(db)
    await baseline(db, "erp", "A,S1,10\nB,S1,10")
    await baseline(db, "erp", "A,S1,10", as_of=at(10))
    numbers = await ask(db, "select numbers from baseline where state = 'parked'")
    assert (numbers["keys_before"], numbers["present"], numbers["closed"][0]["gate"]) == (
        2,
        1,
        "keys_present_min_share",
    )


async def test_a_first_load_never_scans_what_grows_under_it(db: Database, net: Net) -> None:
    done = await staged(db, "erp", "A,S1,10")
    async with db.transaction() as tx:
        await ledger.plan_for_chunks(tx)  # a plan of now, while there is no stock, is kept for every chunk
        block = ledger.sql.blocks["rebase_chunk"]
        given = {"feed_id": done.feed_id, "after": 0, "upto": 5, "who": "test"}
        plan = [r[0] for r in await tx.fetch("explain " + block.text, *(given[name] for name in block.parameters))]
    assert any("on stock" in line for line in plan)
    assert not [line for line in plan if "Seq Scan" in line]


async def test_a_chunk_keeps_no_row_locked_for_the_disk_and_the_end_of_the_load_waits_for_it(
    db: Database, net: Net
) -> None:
    async with db.transaction() as tx:
        await ledger.plan_for_chunks(tx)
        assert await tx.fetchval("show synchronous_commit") == "off"
        await ledger.plan_for_lookups(tx)
        assert await tx.fetchval("show synchronous_commit") == "off"
    async with db.connection() as tx:
        assert await tx.fetchval("show synchronous_commit") == "on"
