"""The network is loaded whole or not at all, kept in history, and followed by what depends on it."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from oms import access, ledger
from oms.db import Database
from oms.domain.network import MASK
from oms.embedded import Running
from oms.errors import BadInput, NotFound
from oms.flows import network
from oms.flows.network.follow import renumber
from tests.world import set_stock, small_network

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)


async def load(db: Database, kind: str, *rows: dict[str, Any], who: str = "ann") -> network.Loaded:
    return await network.load(db, kind=kind, rows=list(rows), who=who, now=NOW)


async def values(db: Database, query: str, *arguments: Any) -> list[Any]:
    async with db.connection() as connection:
        return [tuple(row) if len(row) > 1 else row[0] for row in await connection.fetch(query, *arguments)]


async def show(db: Database, kind: str, code: str) -> dict[str, Any]:
    return await network.show(db, actor=access.house, kind=kind, code=code)


async def past(db: Database, kind: str, code: str) -> list[tuple[str, str, Any]]:
    steps = await network.past(db, actor=access.house, kind=kind, code=code, after=0, limit=50)
    return [(step.who, step.step, step.detail) for step in steps]


@pytest.fixture(scope="module")
async def shared(servers: Running, template: str) -> AsyncIterator[Database]:
    """One database with the small network, for tests that change nothing."""
    name = f"test_network_{os.getpid()}"
    connection = await asyncpg.connect(servers.database_url)
    await connection.execute(f"create database {name} template {template} strategy file_copy")
    database = await Database.open(servers.database_url.replace("/postgres?", f"/{name}?"))
    await small_network(database)
    yield database
    await database.close()
    await connection.execute(f"drop database {name} with (force)")
    await connection.close()


STORE = {"code": "N1", "name": "North", "kind": "store", "lat": "40.5", "lon": "-73.25", "on": "true"}


async def test_a_file_of_text_cells_becomes_a_location(db: Database) -> None:
    loaded = await load(db, "locations", {**STORE, "capacity_orders": "", "safety_stock": "2", "time_zone": "UTC"})
    assert (loaded.created, loaded.refused) == (1, [])
    seen = await show(db, "locations", "N1")
    assert seen["lat"] == 40.5
    assert (seen["safety_stock"], seen["capacity_orders"], seen["on"]) == (2, None, True)


async def test_the_same_rows_again_change_nothing_and_leave_no_trace(db: Database) -> None:
    await load(db, "locations", STORE)
    again = await load(db, "locations", STORE)
    assert (again.created, again.changed, again.unchanged) == (0, 0, 1)
    assert len(await past(db, "locations", "N1")) == 1


async def test_every_change_is_kept_with_what_was_and_what_is(db: Database) -> None:
    await load(db, "locations", STORE)
    await load(db, "locations", {"code": "N1", "name": "Northern"}, who="bob")
    assert (await past(db, "locations", "N1"))[-1] == (
        "bob", "changed", {"before": {"name": "North"}, "after": {"name": "Northern"}},
    )  # fmt: skip


async def test_a_column_that_is_not_given_keeps_what_is_there_and_an_empty_one_clears_it(db: Database) -> None:
    await load(db, "locations", {**STORE, "capacity_orders": "40", "postal_code": "10001"})
    await load(db, "locations", {"code": "N1", "postal_code": ""})
    seen = await show(db, "locations", "N1")
    assert (seen["capacity_orders"], seen["postal_code"], seen["kind"]) == (40, None, "store")


GOOD: dict[str, dict[str, Any]] = {
    "locations": {**STORE, "code": "GOOD"}, "pools": {"code": "GOOD"}, "channels": {"code": "GOOD", "pool": "web"},
    "sources": {"code": "GOOD", "kind": "erp"}, "skus": {"code": "GOOD"},
    "kits": {"kit": "B", "component": "C", "quantity": "1"}, "units": {"sku": "B", "uom": "CS", "quantity": "2"},
    "sku_aliases": {"source": "erp", "code": "GOOD", "sku": "A"},
    "incoming": {"source": "erp", "reference": "GOOD", "sku": "A", "location": "W1", "quantity": 1,
                 "due_on": "2026-12-01"},
    "listeners": {"url": "https://good.example/", "secrets": ["s"]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "row", "field"),
    [
        ("locations", {**STORE, "lat": "91"}, "lat"),
        ("locations", {**STORE, "lat": "", "lon": "1"}, "lat"),
        ("locations", {**STORE, "kind": "castle"}, "kind"),
        ("locations", {"code": "N1"}, "kind"),
        ("locations", {**STORE, "time_zone": "Mars/Olympus"}, "time_zone"),
        ("locations", {**STORE, "capacity_orders": "-1"}, "capacity_orders"),
        ("locations", {**STORE, "capacity_orders": "many"}, "capacity_orders"),
        ("locations", {**STORE, "capcity_orders": "1"}, "capcity_orders"),
        ("locations", {**STORE, "code": " "}, "code"),
        ("locations", {**STORE, "name": "a\x00b"}, "name"),
        ("locations", {"name": "no code"}, "code"),
        ("pools", {"code": "p", "locations": ["nowhere"]}, "locations"),
        ("channels", {"code": "c", "pool": "none"}, "pool"),
        ("channels", {"code": "c"}, "pool"),
        ("channels", {"code": "c", "pool": "web", "settings": "{not json"}, "settings"),
        ("sources", {"code": "oms", "kind": "erp"}, "code"),
        ("sources", {"code": "s", "kind": "erp", "morning_at": "25:00"}, "morning_at"),
        ("sources", {"code": "s", "kind": "erp", "additions": {"sale": "at_once"}}, "additions.sale"),
        ("sources", {"code": "s", "kind": "erp", "owns": [{"facts": ["quantity"]}]}, "owns[0]"),
        ("sources", {"code": "s", "kind": "erp", "owns": [{"location": "W1", "facts": ["gold"]}]}, "owns[0].facts[0]"),
        ("sources", {"code": "s", "kind": "erp", "owns": [{"location": "??", "facts": ["cost"]}]}, "owns"),
        (
            "sources",
            {"code": "s", "kind": "erp", "status_map": [{"field": "status", "value": "Q", "means": "hold"}]},
            "status_map[0].hold_code",
        ),
        ("skus", {"code": "X", "price_cents": "1.5"}, "price_cents"),
        ("skus", {"code": "X", "weight_grams": "99999999999"}, "weight_grams"),
        ("kits", {"kit": "A", "component": "A", "quantity": "1"}, "component"),
        ("kits", {"kit": "A", "component": "??", "quantity": "1"}, "component"),
        ("units", {"sku": "A", "uom": "CS", "quantity": "0"}, "quantity"),
        ("sku_aliases", {"source": "??", "code": "1", "sku": "A"}, "source"),
        ("incoming", {"source": "erp", "reference": "P", "sku": "A", "location": "W1", "quantity": "5",
                      "due_on": "tomorrow"}, "due_on"),
        ("listeners", {"url": "https://x.example/", "secrets": [MASK]}, ""),
        ("listeners", {"url": "ftp://x", "secrets": ["s"]}, "url"),
    ],
)  # fmt: skip
async def test_a_bad_row_is_refused_by_row_and_field_and_nothing_of_its_file_is_applied(
    shared: Database, kind: str, row: dict[str, Any], field: str
) -> None:
    before = await values(shared, "select count(*) from history")
    loaded = await load(shared, kind, GOOD[kind], row)
    assert [(fault.row, fault.field) for fault in loaded.refused] == [(2, field)], loaded.refused
    assert (loaded.created, loaded.changed) == (0, 0)
    assert await values(shared, "select count(*) from history") == before


async def test_the_rows_beside_bad_ones_are_good(db: Database) -> None:
    await small_network(db)
    for kind, row in GOOD.items():
        assert (await load(db, kind, row)).created == 1, kind


async def test_the_same_object_twice_in_one_file_is_refused(db: Database) -> None:
    loaded = await load(db, "locations", STORE, STORE)
    assert [(fault.row, fault.field) for fault in loaded.refused] == [(2, "code")]


async def test_one_fact_at_one_location_has_one_owner_in_a_file(db: Database) -> None:
    await small_network(db)
    owns = [{"location": "W1", "facts": ["quantity"]}]
    loaded = await load(
        db, "sources", {"code": "x", "kind": "erp", "owns": owns}, {"code": "y", "kind": "wms", "owns": owns}
    )
    assert [(fault.row, fault.field) for fault in loaded.refused] == [(2, "owns")]


async def test_a_source_that_takes_over_a_fact_says_from_whom(db: Database) -> None:
    await small_network(db)
    await load(db, "sources", {"code": "wms", "owns": [{"locations": ["W1"], "facts": ["quantity", "receipt"]}]})
    assert await values(
        db, "select s.code from ownership join source s using (source_id) join location l using (location_id)"
        " where l.code = 'W1' and fact = 'quantity'",
    ) == ["wms"]  # fmt: skip
    (_, _, detail) = (await past(db, "sources", "wms"))[-1]
    assert {"location": "W1", "fact": "quantity", "was": "erp"} in detail["taken_over"]


async def test_pools_may_be_given_a_row_per_location(db: Database) -> None:
    await load(db, "locations", STORE, {**STORE, "code": "N2"})
    await load(db, "pools", {"code": "p", "name": "P", "location": "N2"}, {"code": "p", "name": "P", "location": "N1"})
    assert (await show(db, "pools", "p"))["locations"] == ["N1", "N2"]


async def test_secrets_are_never_shown_and_survive_being_written_back_masked(db: Database) -> None:
    await small_network(db)
    settings = {"url": "https://shop.example/", "secrets": ["whsec_x"]}
    await load(db, "channels", {"code": "web", "settings": settings})
    seen = await show(db, "channels", "web")
    assert seen["settings"]["secrets"] == [MASK]
    assert "whsec_x" not in str(await past(db, "channels", "web"))
    again = await load(db, "channels", seen)
    assert again.unchanged == 1
    assert (await values(db, "select settings from channel where code = 'web'")) == [settings]


async def test_rows_with_reservations_move_to_the_layout_of_a_new_pool(db: Database) -> None:
    net = await small_network(db)
    for location, quantity in (("W1", 10), ("S1", 4), ("S2", 3)):
        await set_stock(db, sku="A", location=location, quantity=quantity)
    a, local = net.skus["A"], net.pools["local"]
    async with db.transaction() as tx:
        locked = await ledger.lock(tx, [a])
        await ledger.write(tx, locked, demand=[ledger.Demand(sku_id=a, pool_id=local, quantity=5)])
    # the new pool splits what was one segment, and its id sorts behind the others
    await load(db, "pools", {"code": "east", "locations": ["S2", "W1"]})
    async with db.transaction() as tx:
        row = (await ledger.lock(tx, [a]))[a]
        layout = await ledger.layout(tx, row.layout_id)
        segments = await ledger.segments(tx, row.layout_id)
    east = (await values(db, "select pool_id from pool where code = 'east'"))[0]
    assert dict(zip(layout.pools, row.reserved, strict=True)) == {net.pools["web"]: 0, local: 5, east: 0}
    supply = {code: row.supply[segments[net.locations[code]]] for code in ("W1", "S1", "S2")}
    assert supply == {"W1": 10, "S1": 4, "S2": 3}
    assert await values(db, "select distinct layout_id from availability") == [row.layout_id]


async def test_a_change_that_moves_no_membership_makes_no_layout(db: Database) -> None:
    await small_network(db)
    before = await values(db, "select max(layout_id) from layout")
    await load(db, "pools", {"code": "web", "name": "renamed"})
    assert await values(db, "select max(layout_id) from layout") == before


async def test_a_move_that_was_killed_half_way_is_finished_by_the_next(db: Database) -> None:
    net = await small_network(db)
    for sku in net.skus:
        await set_stock(db, sku=sku, location="W1", quantity=7)
    async with db.transaction() as tx:  # the change, and its first chunk only
        await tx.execute("insert into pool_location values ($1, $2)", net.pools["local"], net.locations["W1"])
        layout_id = await renumber(tx, who="test")
        assert layout_id is not None
        await ledger.relayout(tx, layout_id=layout_id, after=0, limit=2)
    assert len(await values(db, "select distinct layout_id from availability")) == 2
    assert await network.move_layouts(db, chunk=2) == 2
    assert await values(db, "select distinct layout_id from availability") == [layout_id]
    assert await network.move_layouts(db) == 0


async def test_reservations_that_go_on_while_rows_move_are_neither_lost_nor_doubled(db: Database) -> None:
    net = await small_network(db)
    for sku in net.skus:
        await set_stock(db, sku=sku, location="S1", quantity=1_000)

    async def reserve(sku: int, pool: int) -> None:
        async with db.transaction() as tx:
            locked = await ledger.lock(tx, [sku])
            await ledger.write(tx, locked, demand=[ledger.Demand(sku_id=sku, pool_id=pool, quantity=1)])

    async def change() -> None:
        for members in (["S1"], ["S1", "S2"], ["W1"]):
            await load(db, "pools", {"code": "other", "locations": members})

    pools = list(net.pools.values())
    await asyncio.gather(
        change(), *(reserve(sku, pools[n % 2]) for n in range(20) for sku in net.skus.values())
    )  # fmt: skip
    async with db.transaction() as tx:
        for row in (await ledger.lock(tx, list(net.skus.values()))).values():
            layout = await ledger.layout(tx, row.layout_id)
            assert {p: n for p, n in zip(layout.pools, row.reserved, strict=True) if n} == dict.fromkeys(pools, 10)
            assert sum(row.supply) == 1_000
    newest = await values(db, "select max(layout_id) from layout")
    assert await values(db, "select distinct layout_id from availability") == newest


async def test_two_who_load_the_same_at_once_make_it_once(db: Database) -> None:
    loads = await asyncio.gather(*(load(db, "locations", STORE) for _ in range(5)))
    assert sorted(one.created for one in loads) == [0, 0, 0, 0, 1]
    assert len(await past(db, "locations", "N1")) == 1


async def supply_of(db: Database, sku: str) -> int:
    return (await values(db, "select (select sum(u) from unnest(supply) u) from availability join sku using (sku_id)"
                             " where code = $1", sku))[0]  # fmt: skip


async def test_a_location_that_is_switched_off_offers_nothing_until_it_is_on_again(db: Database) -> None:
    await small_network(db)
    await set_stock(db, sku="A", location="W1", quantity=10)
    await set_stock(db, sku="A", location="S1", quantity=4)
    await load(db, "locations", {"code": "W1", "on": False})
    assert await supply_of(db, "A") == 4
    await load(db, "locations", {"code": "W1", "on": True})
    assert await supply_of(db, "A") == 14


async def test_safety_stock_of_a_location_is_kept_back_of_each_of_its_skus(db: Database) -> None:
    await small_network(db)
    await set_stock(db, sku="A", location="W1", quantity=10)
    await set_stock(db, sku="B", location="W1", quantity=1)
    await load(db, "locations", {"code": "W1", "safety_stock": 3})
    assert (await supply_of(db, "A"), await supply_of(db, "B")) == (7, 0)


async def test_a_rewrite_that_was_killed_goes_on_where_it_stopped(db: Database) -> None:
    net = await small_network(db)
    for sku in net.skus:
        await set_stock(db, sku=sku, location="W1", quantity=7)
    async with db.transaction() as tx:
        await tx.execute("update location set safety_stock = 2, rewrite_after = 0 where code = 'W1'")
        mark = await ledger.restock(tx, location_id=net.locations["W1"], after=0, limit=2)
        assert mark == sorted(net.skus.values())[1]
    assert [await supply_of(db, sku) for sku in "ABCDE"] == [5, 5, 7, 7, 7]
    await network.rewrite_locations(db, chunk=2)
    assert [await supply_of(db, sku) for sku in "ABCDE"] == [5, 5, 5, 5, 5]
    assert await values(db, "select count(*) from location where rewrite_after is not null") == [0]


async def test_likely_doubles_are_flagged_and_not_refused(db: Database) -> None:
    await small_network(db)
    loaded = await load(
        db, "skus",
        {"code": "M1", "name": "Blue Mug", "weight_grams": 300, "barcode": "4001"},
        {"code": "M2", "name": "blue-mug", "weight_grams": 300, "barcode": "4002"},
        {"code": "M3", "name": "Green Mug", "weight_grams": 310, "barcode": "4001"},
        {"code": "M4", "name": "Blue Mug", "weight_grams": 500, "barcode": "4004"},
    )  # fmt: skip
    assert loaded.created == 4
    payloads = await values(db, "select payload from exception where kind = 'sku_double' order by subject")
    assert sorted(payload["skus"] for payload in payloads) == [["M1", "M2"], ["M1", "M3"]]


async def test_an_alias_that_is_another_skus_own_code_is_flagged(db: Database) -> None:
    await small_network(db)
    await load(db, "sku_aliases", {"source": "erp", "code": "B", "sku": "A"})
    assert await values(db, "select count(*) from exception where kind = 'sku_double'") == [1]


async def test_a_kit_in_a_kit_is_refused(db: Database) -> None:
    await small_network(db)
    assert (await load(db, "kits", {"kit": "A", "components": [{"component": "B", "quantity": 2}]})).created == 1
    assert [f.field for f in (await load(db, "kits", {"kit": "C", "component": "A", "quantity": 1})).refused] == [
        "component"
    ]
    assert [f.field for f in (await load(db, "kits", {"kit": "B", "component": "D", "quantity": 1})).refused] == ["kit"]


async def test_a_new_code_of_a_source_wakes_what_was_parked(db: Database) -> None:
    class Woken:
        names: list[str] = []  # noqa: RUF012

        async def rules_are(self, version: int) -> None:
            """Nobody remembers any."""

        async def wake(self, name: str) -> None:
            self.names.append(name)

    await small_network(db)
    woken: Any = Woken()
    rows = [{"source": "erp", "code": "0001", "sku": "A"}]
    await network.load(db, kind="sku_aliases", rows=rows, who="ann", now=NOW, cache=woken)
    assert "parked" in woken.names


async def test_what_shapes_a_channels_numbers_has_every_sku_looked_at_again(db: Database) -> None:
    await small_network(db)
    async with db.transaction() as tx:
        await tx.execute("delete from touched")
    await load(db, "channels", {"code": "web", "buffer": 2})
    assert await values(db, "select count(distinct sku_id) from touched") == [5]


async def test_aliases_are_of_skus_or_of_locations_by_their_columns(db: Database) -> None:
    await small_network(db)
    assert (await load(db, "aliases", {"source": "erp", "code": "0001", "sku": "A"})).kind == "sku_aliases"
    loaded = await load(db, "aliases", {"source": "erp", "code": "ST-1", "location": "S1"})
    assert (loaded.kind, loaded.created) == ("location_aliases", 1)


async def test_an_unknown_kind_and_an_unknown_code_are_said_so(db: Database) -> None:
    with pytest.raises(BadInput, match="castles"):
        await load(db, "castles", {"code": "x"})
    with pytest.raises(NotFound):
        await show(db, "locations", "nowhere")
