"""What an associate finds for a customer."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

import pytest

from oms.db import Database, parse_blocks, sql_folder
from oms.domain.search import word_query, words_of
from oms.errors import BadInput, NotFound
from oms.flows.promise.aisle import Found, aisle_of, search
from tests.balance import check_balance
from tests.world import Net, set_stock, small_network

NOW = datetime(2026, 11, 23, 15, tzinfo=UTC)


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    made = await small_network(db)
    async with db.transaction() as tx:
        for code, name in (
            ("A", "Wool scarf, red"),
            ("B", "Wool hat red"),
            ("C", "Silk scarf blue"),
            ("D", "Gift set"),
        ):
            await tx.execute("update sku set name = $2 where code = $1", code, name)
        await tx.execute("insert into sku_barcode select '036000291452', sku_id from sku where code = 'A'")
        await tx.execute(
            "insert into sku_alias select source_id, 'ERP-7', sku_id from source o, sku s where o.code = 'erp' and s.code = 'C'"
        )
    yield made
    await check_balance(db)


async def find(db: Database, text: str, *, location: str = "S1", channel: str = "web", **more: Any) -> list[Found]:
    async with db.connection() as tx:
        location_id = await tx.fetchval("select location_id from location where code = $1", location)
    store, selling = await aisle_of(db, location_id=location_id, channel=channel)
    given = {"to": None, "limit": 10, "now": NOW} | more
    return await search(db, store=store, channel_id=selling.channel_id, text=text, **given)


def skus(found: list[Found]) -> list[str]:
    return [f.sku for f in found]


@pytest.mark.parametrize(
    ("text", "expected", "by"),
    [
        ("A", ["A"], "code"),
        ("a", ["A"], "code"),
        ("036000291452", ["A"], "barcode"),
        ("0036000291452", ["A"], "barcode"),
        ("https://id.example.com/01/00036000291452", ["A"], "barcode"),
        ("ERP-7", ["C"], "alias"),
        ("wool", ["B", "A"], "words"),
        ("RED wo", ["B", "A"], "words"),
        ("scarf blue", ["C"], "words"),
        ("scarf green", [], None),
        ("'; drop table sku; --", [], None),
        ("!!!", [], None),
    ],
)
async def test_a_code_comes_first_and_alone_and_words_find_all_that_bear_them(
    *, db: Database, net: Net, text: str, expected: list[str], by: str | None
) -> None:
    found = await find(db, text)
    assert skus(found) == expected
    assert {f.found_by for f in found} == ({by} if by else set())


@pytest.mark.parametrize("text", ["", "   ", "x" * 201, "a\0b"])
async def test_what_is_no_search_is_told(db: Database, net: Net, text: str) -> None:
    with pytest.raises(BadInput, match=r"^q"):
        await find(db, text)


async def test_each_sku_says_what_is_here_what_is_near_and_when_it_is_at_home(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=2)
    await set_stock(db, sku="A", location="W1", quantity=5)
    async with db.transaction() as tx:
        await tx.execute(
            "insert into bin_stock (location_id, sku_id, bin, lot, status, quantity, feed_id)"
            " values ($1, $2, 'R-04', '', '', 2, 0)",
            net.locations["S1"], net.skus["A"],
        )  # fmt: skip
    (found,) = await find(db, "A")
    assert (found.here.available, found.here.bin, found.available, found.next) == (2, "R-04", 7, None)
    assert [(n.location, n.available) for n in found.nearby] == [("W1", 5)]
    assert found.nearby[0].pickup_from
    assert (found.ship.why, found.ship.location) == ("in stock", "S1")
    assert found.ship.arrives_on is not None and found.ship.arrives_on >= NOW.date()
    (far,) = await find(db, "A", to=(41.9, -87.6))
    assert far.ship.location == "W1"


async def test_where_there_is_none_the_next_receipt_is_told(db: Database, net: Net) -> None:
    async with db.transaction() as tx:
        await tx.execute(
            "insert into incoming (source_id, reference, sku_id, location_id, kind, quantity, due_on)"
            " values ($1, 'PO', $2, $3, 'purchase', 9, $4)",
            net.sources["erp"], net.skus["B"], net.locations["W1"], date(2026, 12, 1),
        )  # fmt: skip
    (found,) = await find(db, "B")
    assert (found.here.available, found.nearby, found.available) == (0, [], 0)
    assert found.next is not None and (found.next.on, found.next.quantity) == (date(2026, 12, 1), 9)
    assert found.ship.why == "expected on 2026-12-01"


async def test_a_kit_is_here_as_often_as_its_scarcest_part(db: Database, net: Net) -> None:
    async with db.transaction() as tx:
        await tx.execute("update sku set is_kit = true where code = 'D'")
        await tx.execute("insert into kit values ($1, $2, 2), ($1, $3, 1)", net.skus["D"], net.skus["A"], net.skus["B"])
    await set_stock(db, sku="A", location="S1", quantity=5)
    await set_stock(db, sku="B", location="S1", quantity=9)
    (found,) = await find(db, "gift set")
    assert found.parts == [{"sku": "A", "quantity": 2}, {"sku": "B", "quantity": 1}]
    assert found.here.available == 2


async def test_the_channel_is_the_one_that_is_named_or_marked_or_the_only_one(db: Database, net: Net) -> None:
    here = net.locations
    assert (await aisle_of(db, location_id=here["W1"], channel=None))[1].code == "web"
    with pytest.raises(BadInput, match=r"several sell from S1 \(local, web\)"):
        await aisle_of(db, location_id=here["S1"], channel=None)
    async with db.transaction() as tx:
        await tx.execute("""update channel set settings = '{"endless_aisle": true}' where code = 'local'""")
    assert (await aisle_of(db, location_id=here["S1"], channel=None))[1].code == "local"
    assert (await aisle_of(db, location_id=here["S1"], channel="web"))[1].code == "web"
    with pytest.raises(NotFound):
        await aisle_of(db, location_id=here["S2"], channel="web")


async def test_words_and_codes_are_found_by_their_indexes_among_very_many_skus(db: Database, net: Net) -> None:
    async with db.transaction() as tx:
        await tx.execute(
            "insert into sku (code, name) select 'K' || n, 'thing number ' || n || case when n % 5000 = 7 then ' rarity' else '' end"
            " from generate_series(1, 20000) n"
        )
        await tx.execute("analyze sku, sku_barcode, sku_alias")
    blocks = parse_blocks((sql_folder() / "aisle.sql").read_text(encoding="utf-8"))
    asked: dict[str, list[Any]] = {
        "by_words": [word_query("rarity thing"), 200, 10], "exact": [["K77"], ["K77"], 10],
    }  # fmt: skip
    async with db.connection() as tx:
        await tx.execute("set plan_cache_mode = force_custom_plan")
        for name, arguments in asked.items():
            lines = await tx.fetch(f"explain analyze {blocks[name].text}", *arguments)
            plan = "\n".join(line[0] for line in lines)
            assert "Seq Scan on sku " not in plan, plan
            assert "sku_by_words" in plan or name == "exact", plan
    assert sorted(skus(await find(db, "rarit thing"))) == ["K10007", "K15007", "K5007", "K7"]
    assert skus(await find(db, "K77")) == ["K77"]


def test_words_are_cut_where_the_index_cuts_them() -> None:
    assert words_of("T-shirt, red/blue 2.5") == ["T", "shirt", "red", "blue", "2", "5"]
    assert word_query("x") is None
    assert word_query("red sh") == "'red':* & 'sh':*"
