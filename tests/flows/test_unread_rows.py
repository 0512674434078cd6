"""A row that cannot be read never makes a key zero: its own stays, and where its own is not known, every absent one."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from oms.db import Database
from oms.flows.ingest import apply
from tests.feeding import ask, at, baseline, change, check, exceptions, message, on_hand, sale, say, staged
from tests.world import Net, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    net = await small_network(db)
    await change(db, "update source set absent_is_zero = true where code = 'erp'")
    await baseline(db, "erp", "\n".join(f"{sku},{place},5" for sku in "ABC" for place in ("S1", "S2")))
    yield net
    await check(db)


async def held_by(db: Database) -> list[int]:
    return [await on_hand(db, sku, place) for place in ("S1", "S2") for sku in "ABC"]


@pytest.mark.parametrize(
    ("row", "left", "kept"),
    [
        ("B,S1,", [1, 5, 0, 1, 0, 0], []),  # the key is known: it stays, others that are absent are zero
        ("B,S1,0x10", [1, 5, 0, 1, 0, 0], []),
        ("B,S1,1_000", [1, 5, 0, 1, 0, 0], []),
        ("B,S1,99999999999", [1, 5, 0, 1, 0, 0], []),
        (",S1,3", [1, 5, 5, 1, 0, 0], ["S1"]),  # any key of the location
        ("B,,3", [1, 5, 5, 1, 5, 5], ["S1", "S2"]),  # any key
        ("B,S1", [1, 5, 5, 1, 5, 5], ["S1", "S2"]),
        ("B,S1,3,4", [1, 5, 5, 1, 5, 5], ["S1", "S2"]),
        ('"B"x,S1,3', [1, 5, 5, 1, 5, 5], ["S1", "S2"]),
    ],
)
async def test_a_row_that_cannot_be_read_makes_no_key_zero_that_it_may_name(
    db: Database, net: Net, row: str, left: list[int], kept: list[str]
) -> None:
    done = await baseline(db, "erp", f"A,S1,1\n{row}\nA,S2,1", as_of=at(10))
    assert await held_by(db) == left
    assert (done.rows, done.refused) == (3, 1)
    assert done.keeps_absent == kept
    assert await ask(db, "select totals -> 'keeps_absent' from feed order by feed_id desc limit 1") == kept
    assert [kind for kind, _ in await exceptions(db)] == (["rows_unread"] if kept else [])


async def test_the_next_snapshot_that_can_be_read_makes_absent_keys_zero_and_ends_the_exception(
    db: Database, net: Net
) -> None:
    await baseline(db, "erp", "A,S1,1\nB\nA,S2,1", as_of=at(10))
    assert await exceptions(db) == [("rows_unread", "erp")]
    await baseline(db, "erp", "A,S1,1\nA,S2,1", as_of=at(20))
    assert (await held_by(db), await exceptions(db)) == ([1, 0, 0, 1, 0, 0], [])


async def test_absent_keys_that_are_kept_still_hear_of_late_movements_and_so_do_keys_that_come_to_be(
    db: Database, net: Net
) -> None:
    await baseline(db, "erp", "A,S1,1\nB\nA,S2,1", as_of=at(60), watermark={"pos": 9})
    assert await say(db, "pos", sale("a", "A", "S1", 1, at=at(30), sequence=5)) == ["absorbed"]
    late = [sale("b", "B", "S1", 1, at=at(30), sequence=6), message("d", "return", "D", "S1", 2, at=at(30), sequence=7)]
    assert await say(db, "pos", *late) == ["applied", "applied"]
    assert [await on_hand(db, sku, "S1") for sku in "ABD"] == [1, 4, 2]


async def test_a_refused_key_that_had_no_stock_yet_hears_of_its_movements(db: Database, net: Net) -> None:
    await baseline(db, "erp", "A,S1,1\nD,S1,?", as_of=at(60), watermark={"pos": 9})
    assert await say(db, "pos", message("d", "return", "D", "S1", 2, at=at(30), sequence=7)) == ["applied"]
    assert await on_hand(db, "D", "S1") == 2


async def test_a_location_of_which_no_row_can_be_believed_is_not_covered(db: Database, net: Net) -> None:
    done = await baseline(db, "erp", "A,S1,1\nB,S2,?", as_of=at(10))
    assert (done.parts, await held_by(db)) == ({"staged": 1}, [1, 0, 0, 5, 5, 5])


async def test_more_faults_than_are_kept_are_counted_and_make_nothing_zero(
    db: Database, net: Net, monkeypatch: Any
) -> None:
    monkeypatch.setattr("oms.flows.ingest.stage.REFUSALS_KEPT_MAX", 2)
    done = await baseline(db, "erp", "A,S1,1\nB,S1,\nB,S1,\nC,S1,\nA,S2,1", as_of=at(10))
    assert (done.rows, done.refused, await held_by(db)) == (5, 3, [1, 5, 5, 1, 5, 5])
    assert await ask(db, "select count(*) from feed_refusal") == 2


async def test_a_parked_part_that_is_released_later_keeps_its_absent_keys_too(db: Database, net: Net) -> None:
    await change(db, "update source set gates = $1 where code = 'erp'", {"keys_min": 1})
    done = await baseline(db, "erp", "A,S1,1\nB", as_of=at(60))
    assert done.parked == ["S1"]
    await say(db, "pos", message("d", "return", "D", "S1", 2, at=at(30)))
    part = await ask(db, "select baseline_id from baseline where state = 'parked'")
    for who in ("ann", "bob"):
        await apply.release(db, baseline_id=part, who=who)
    await apply.apply(db, feed_id=done.feed_id, who="oms")
    assert [await on_hand(db, sku, "S1") for sku in "ABCD"] == [1, 5, 5, 2]


async def test_rows_that_sum_to_more_than_a_key_may_have_are_refused(db: Database, net: Net) -> None:
    await change(db, "update source set sums_rows = true where code = 'erp'")
    header = "sku,location,quantity,bin"
    done = await baseline(db, "erp", "A,S1,1000000000,b1\nA,S1,1,b2\nB,S1,999999999,b1\nB,S1,1,b2", header=header,
                          as_of=at(10))  # fmt: skip
    assert (done.refused, await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (2, 5, 1_000_000_000)
    assert await ask(db, "select array_agg(line order by line) from feed_refusal") == [2, 3]


async def test_a_dry_run_opens_no_exception(db: Database, net: Net) -> None:
    await change(db, "update source set gates = $1 where code = 'erp'", {"keys_min": 1})
    done = await staged(db, "erp", "A,S1,1\nB\nA,W2,1", as_of=at(10), dry_run=True)
    assert (done.parked, done.keeps_absent, await exceptions(db)) == (["S1"], ["S1"], [])
    await apply.show(db, feed_id=done.feed_id)


async def test_a_key_with_a_newer_snapshot_of_its_own_keeps_it_though_a_full_one_left_it_out(
    db: Database, net: Net
) -> None:
    await change(db, "update source set absent_is_zero = false where code = 'erp'")
    await baseline(db, "erp", "A,S1,3", as_of=at(20), scope="partial")
    await baseline(db, "erp", "B,S1,9", as_of=at(10))
    await baseline(db, "erp", "A,S1,8\nB,S1,8", as_of=at(15))
    assert [await on_hand(db, sku, "S1") for sku in "AB"] == [3, 8]
