"""What each channel may sell follows what happened, in the order in which it happened."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from oms import ledger, numbers
from oms.cache import Cache
from oms.db import Database
from oms.domain import atp
from oms.flows.promise import known
from oms.flows.push import projector
from oms.flows.push.projector import Projected, project
from tests.world import Net, set_stock, small_network

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)


@pytest_asyncio.fixture(loop_scope="session")
async def net(db: Database) -> Net:
    return await small_network(db)


async def everything(db: Database, cache: Cache) -> Projected:
    total = Projected(0, 0, 0, 0)
    while (done := await project(db, cache, now=NOW)).rows:
        total = Projected(*(a + b for a, b in zip(_tuple(total), _tuple(done), strict=True)))
    return total


def _tuple(done: Projected) -> tuple[int, ...]:
    return done.rows, done.skus, done.changed, done.deficits


async def currents(db: Database, channel: str = "web") -> dict[str, int]:
    async with db.connection() as connection:
        return dict(
            await connection.fetch(
                "select k.code, c.current from channel_stock c join sku k using (sku_id)"
                " join channel using (channel_id) where channel.code = $1",
                channel,
            )
        )


async def shown(db: Database, cache: Cache, *skus: str, channel: str = "web") -> dict[str, int]:
    async with db.connection() as connection:
        rule = (await numbers.read_rules(connection)).channels[channel]
    rows = (await cache.get(skus)).rows
    found = list(rows)
    rows |= (await cache.get([part.sku for row in rows.values() for part in row.parts])).rows
    shelf = numbers.Shelf(rows, await known.layouts_of(db, {row.layout_id for row in rows.values()}))
    return {sku: shelf.number(sku, rule, now=NOW) for sku in found}


async def reserve(db: Database, net: Net, sku: str, pool: str, quantity: int) -> None:
    async with db.transaction() as tx:
        rows = await ledger.lock(tx, [net.skus[sku]])
        await ledger.write(tx, rows, demand=[ledger.Demand(net.skus[sku], net.pools[pool], quantity)])


async def run(db: Database, statement: str, *arguments: Any) -> Any:
    async with db.transaction() as tx:
        return await tx.fetch(statement, *arguments)


async def exceptions(db: Database, kind: str) -> list[tuple[str, str]]:
    rows = await run(db, "select subject, state from exception where kind = $1 order by opened_at", kind)
    return [tuple(row) for row in rows]


async def test_each_channel_follows_its_pool_its_buffer_and_its_cap(db: Database, net: Net, cache: Cache) -> None:
    await run(db, "update channel set buffer = 2 where code = 'web'")
    await run(db, "update channel set cap = 3 where code = 'local'")
    await set_stock(db, sku="A", location="W1", quantity=4)
    await set_stock(db, sku="A", location="S1", quantity=3)
    await set_stock(db, sku="A", location="S2", quantity=5)
    await everything(db, cache)
    assert (await currents(db, "web"))["A"] == 4 + 3 - 2
    assert (await currents(db, "local"))["A"] == 3
    assert await shown(db, cache, "A") == {"A": 5}
    assert await shown(db, cache, "A", channel="local") == {"A": 3}


async def test_a_unit_that_two_pools_share_is_not_sold_twice(db: Database, net: Net, cache: Cache) -> None:
    await set_stock(db, sku="A", location="S1", quantity=2)
    await reserve(db, net, "A", "web", 2)
    await everything(db, cache)
    assert (await currents(db, "web"))["A"] == 0
    assert (await currents(db, "local"))["A"] == 0


async def test_a_burst_of_changes_is_computed_once(db: Database, net: Net, cache: Cache) -> None:
    await everything(db, cache)
    for quantity in range(1, 8):
        await set_stock(db, sku="A", location="W1", quantity=quantity)
    done = await project(db, cache, now=NOW)
    assert (done.rows, done.skus) == (7, 1)
    assert (await currents(db))["A"] == 7
    assert (await project(db, cache, now=NOW)).rows == 0


async def test_a_batch_takes_no_more_skus_than_it_may_and_leaves_none_behind(
    db: Database, net: Net, cache: Cache
) -> None:
    await everything(db, cache)
    for sku in ("A", "B", "C"):
        for quantity in (1, 2):
            await set_stock(db, sku=sku, location="W1", quantity=quantity)
    first = await project(db, cache, now=NOW, limit=2)
    assert (first.rows, first.skus) == (4, 2)
    assert (await project(db, cache, now=NOW, limit=2)).skus == 1
    assert {sku: (await currents(db))[sku] for sku in "ABC"} == {"A": 2, "B": 2, "C": 2}


async def test_an_older_computation_never_overwrites_a_newer_one(
    db: Database, net: Net, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    await everything(db, cache)
    read, may_go = asyncio.Event(), asyncio.Event()
    computed = projector.write_current

    async def slowly(tx: Any, **given: Any) -> Any:
        if not read.is_set():
            read.set()
            await may_go.wait()
        return await computed(tx, **given)

    monkeypatch.setattr(projector, "write_current", slowly)
    await set_stock(db, sku="A", location="W1", quantity=9)
    slow = asyncio.create_task(project(db, cache, now=NOW))
    await read.wait()
    await set_stock(db, sku="A", location="W1", quantity=1)
    await project(db, cache, now=NOW)
    may_go.set()
    assert (await slow).changed == 0
    assert (await currents(db))["A"] == 1
    assert await shown(db, cache, "A") == {"A": 1}


async def test_a_projector_that_dies_loses_nothing(
    db: Database, net: Net, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)

    async def dies(*given: Any, **more: Any) -> None:
        raise RuntimeError("killed before its commit")

    with monkeypatch.context() as killed:
        killed.setattr(cache, "put", dies)
        with pytest.raises(RuntimeError):
            await project(db, cache, now=NOW)
    assert await currents(db) == {}
    await everything(db, cache)
    assert (await currents(db))["A"] == 5


async def test_stock_follows_without_redis(db: Database, net: Net) -> None:
    gone = Cache("redis://127.0.0.1:1/0")
    await set_stock(db, sku="A", location="W1", quantity=5)
    await everything(db, gone)
    assert (await currents(db))["A"] == 5
    await gone.close()


async def test_a_kit_is_worth_its_scarcest_component_and_follows_each(db: Database, net: Net, cache: Cache) -> None:
    await run(db, "update sku set is_kit = true where code = 'E'")
    await run(
        db,
        "insert into kit select e.sku_id, c.sku_id, case c.code when 'A' then 1 else 2 end from sku e, sku c"
        " where e.code = 'E' and c.code in ('A', 'B')",
    )
    await set_stock(db, sku="A", location="W1", quantity=5)
    await set_stock(db, sku="B", location="W1", quantity=7)
    await everything(db, cache)
    assert (await currents(db))["E"] == 3
    await set_stock(db, sku="A", location="W1", quantity=1)
    await everything(db, cache)
    assert (await currents(db))["E"] == 1
    assert await shown(db, cache, "E") == {"E": 1}


async def test_a_kits_version_never_falls_though_a_component_leaves_it(db: Database, net: Net, cache: Cache) -> None:
    await run(db, "update sku set is_kit = true where code = 'E'")
    await run(
        db, "insert into kit select e.sku_id, c.sku_id, 1 from sku e, sku c where e.code = 'E' and c.code in ('A', 'B')"
    )
    await set_stock(db, sku="A", location="W1", quantity=5)
    for quantity in range(1, 6):
        await set_stock(db, sku="B", location="W1", quantity=6 - quantity)
    await everything(db, cache)
    assert (await currents(db))["E"] == 1
    await run(db, "delete from kit where component_id = $1", net.skus["B"])
    await everything(db, cache)
    assert (await currents(db))["E"] == 5
    assert await shown(db, cache, "E") == {"E": 5}


async def test_a_changed_rule_of_a_channel_is_followed(db: Database, net: Net, cache: Cache) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    await everything(db, cache)
    await run(db, "update channel set buffer = 4 where code = 'web'")
    await everything(db, cache)
    assert (await currents(db))["A"] == 1
    assert await shown(db, cache, "A") == {"A": 1}


async def test_a_new_channel_is_given_every_sku(db: Database, net: Net, cache: Cache) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    await everything(db, cache)
    await run(db, "insert into channel (code, pool_id) values ('market', $1)", net.pools["web"])
    await everything(db, cache)
    assert await currents(db, "market") == {"A": 5, "B": 0, "C": 0, "D": 0, "E": 0}


async def test_stock_below_zero_is_an_exception_shows_zero_and_is_cured(db: Database, net: Net, cache: Cache) -> None:
    await set_stock(db, sku="A", location="W1", quantity=-3)
    await everything(db, cache)
    assert (await currents(db))["A"] == 0
    assert await exceptions(db, "negative_stock") == [("A at W1", "open")]
    [[detail]] = await run(db, "select detail from exception")
    assert "-3" in detail and "set-" in detail
    await set_stock(db, sku="A", location="W1", quantity=2)
    await everything(db, cache)
    assert await exceptions(db, "negative_stock") == [("A at W1", "resolved")]


async def test_promises_beyond_what_there_is_are_an_exception_until_kept(db: Database, net: Net, cache: Cache) -> None:
    await set_stock(db, sku="A", location="W1", quantity=3)
    await reserve(db, net, "A", "web", 3)
    await set_stock(db, sku="A", location="W1", quantity=1)
    assert (await everything(db, cache)).deficits == 1
    assert await exceptions(db, "pool_deficit") == [("A", "open")]
    [[units]] = await run(db, "select (payload ->> 'units')::int from exception")
    assert units == 2
    await set_stock(db, sku="B", location="W1", quantity=1)
    await everything(db, cache)
    assert await exceptions(db, "pool_deficit") == [("A", "open")], "another sku's change cures nothing"
    await set_stock(db, sku="A", location="W1", quantity=3)
    await everything(db, cache)
    assert await exceptions(db, "pool_deficit") == [("A", "resolved")]


async def test_readers_see_the_next_receipt_at_the_pools_locations(db: Database, net: Net, cache: Cache) -> None:
    for days, location, units in ((-2, "W1", 50), (3, "S2", 20), (5, "W1", 7), (5, "S1", 1), (9, "W1", 4)):
        await run(
            db,
            "insert into incoming (source_id, reference, sku_id, location_id, kind, quantity, due_on)"
            " values (1, $1, $2, $3, 'purchase', $4, $5)",
            f"PO{days}{location}", net.skus["A"], net.locations[location], units, NOW.date() + timedelta(days=days),
        )  # fmt: skip
    await set_stock(db, sku="A", location="W1", quantity=1)
    await everything(db, cache)
    rows = (await cache.get(["A"])).rows
    shelf = numbers.Shelf(rows, await known.layouts_of(db, {rows["A"].layout_id}))
    async with db.connection() as connection:
        rules = (await numbers.read_rules(connection)).channels
    nexts = [shelf.next("A", rules[channel], today=NOW.date()) for channel in ("web", "local")]
    assert nexts == [(date(2026, 11, 28), 8), (date(2026, 11, 26), 20)]


async def test_many_projectors_at_once_end_with_the_truth(db: Database, net: Net, cache: Cache) -> None:
    async def follow() -> None:
        for _ in range(12):
            await project(db, cache, now=NOW, limit=2)

    async def change(sku: str) -> None:
        for quantity in (9, 2, 6, 1, 4):
            await set_stock(db, sku=sku, location="S1", quantity=quantity)

    await asyncio.gather(*(change(sku) for sku in "ABCDE"), *(follow() for _ in range(3)))
    await everything(db, cache)
    assert await currents(db) == dict.fromkeys("ABCDE", 4)
    assert await shown(db, cache, *"ABCDE") == dict.fromkeys("ABCDE", 4)
    rows = await run(db, "select c.version, a.version from channel_stock c join availability a using (sku_id)")
    assert rows and all(a == b for a, b in rows)


async def test_channel_stock_is_what_the_pure_function_says(db: Database, net: Net, cache: Cache) -> None:
    for number, sku in enumerate("ABCDE"):
        for position, location in enumerate(("W1", "S1", "S2")):
            await set_stock(db, sku=sku, location=location, quantity=(number * 3 + position * 2) % 5)
    await reserve(db, net, "B", "web", 2)
    await reserve(db, net, "C", "local", 1)
    await everything(db, cache)
    async with db.transaction() as tx:
        rows = await ledger.lock(tx, list(net.skus.values()))
        layouts = await ledger.layouts_of(tx, rows)
    for channel, pool in (("web", "web"), ("local", "local")):
        found = await currents(db, channel)
        for sku, sku_id in net.skus.items():
            layout = layouts[rows[sku_id].layout_id]
            position = layout.pools.index(net.pools[pool])
            assert found[sku] == atp.atp_pool(layout, rows[sku_id].supply, rows[sku_id].reserved, position)
