"""Redis is speed, not truth: it may be emptied or be gone at any moment."""

import asyncio
import socket
from datetime import date

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import parse_url

from oms import cache as door
from oms.cache import Cache, KitPart, Projection
from oms.domain.shape import Coming


def row(sku: str, atp: int, version: int) -> dict[str, Projection]:
    return {sku: Projection(version, 1, 1, [atp], [0])}


async def figures(cache: Cache, *skus: str) -> dict[str, int]:
    return {sku: found.supply[0] for sku, found in (await cache.get(skus)).rows.items()}


async def test_what_is_written_is_read_back_in_one_piece(cache: Cache) -> None:
    rows = {
        "A": Projection(7, 11, 2, [4, 0], [1], {3: 5}, [Coming(date(2026, 12, 1), 1, 40)]),
        "B c|д": Projection(9, 12, 2, [0, 0], [0], {}, [], [KitPart("A", 2), KitPart('"x"', 1)]),
    }
    assert await cache.put(rows, epoch=await cache.epoch()) == 2
    assert (await cache.get(["A", "B c|д", "none"])).rows == rows


async def test_the_version_of_rules_never_falls_and_a_flush_takes_it_along(cache: Cache) -> None:
    await cache.rules_are(7)
    await cache.rules_are(5)
    await cache.projected_upto(1234.5)
    seen = await cache.get(["A"])
    assert (seen.rules, seen.upto) == (7, 1234.5)
    await cache._redis.flushdb()
    seen = await cache.get(["A"])
    assert (seen.rules, seen.upto) == (0, None)


async def test_an_older_version_never_overwrites_a_newer_one(cache: Cache) -> None:
    epoch = await cache.epoch()
    await cache.put(row("A", 5, 10) | row("B", 5, 9), epoch=epoch)
    assert await cache.put(row("A", 9, 9) | row("B", 8, 10), epoch=epoch) == 1
    assert await figures(cache, "A", "B") == {"A": 5, "B": 8}


async def test_the_same_version_is_written_by_the_projector_and_not_by_a_reader(cache: Cache) -> None:
    epoch = await cache.epoch()
    await cache.put(row("A", 5, 10), epoch=epoch)
    await cache.put(row("A", 4, 10), epoch=epoch, fills=True)
    assert await figures(cache, "A") == {"A": 5}
    await cache.put(row("A", 3, 10), epoch=epoch)
    assert await figures(cache, "A") == {"A": 3}


async def test_after_a_flush_nobody_writes_what_it_remembers(cache: Cache) -> None:
    before = await cache.get(["A"])
    assert before.epoch is not None
    await cache._redis.flushdb()
    assert await cache.put(row("A", 5, 1), epoch=before.epoch) is None
    seen = await cache.get(["A"])
    assert seen.rows == {} and seen.epoch not in (None, before.epoch)
    assert await cache.put(row("A", 4, 2), epoch=seen.epoch, fills=True) == 1
    assert await figures(cache, "A") == {"A": 4}


async def test_a_projection_has_a_maximum_age(cache: Cache) -> None:
    await cache.put(row("A", 5, 1), epoch=await cache.epoch())
    keys = [key async for key in cache._redis.scan_iter("sku:*")]
    assert [0 < await cache._redis.ttl(key) <= door.PROJECTION_SECONDS_MAX for key in keys] == [True]


async def test_many_calls_wake_once_and_none_is_lost_before_the_waiting(cache: Cache) -> None:
    for _ in range(5):
        await cache.wake("broker")
    assert await cache.wait(["push", "broker"], 5) == "broker"
    assert await cache.wait(["push", "broker"], 0.05) is None


async def test_one_who_waits_is_woken(cache: Cache) -> None:
    waiting = asyncio.create_task(cache.wait(["broker"], 30))
    await asyncio.sleep(0.05)
    await cache.wake("broker")
    assert await asyncio.wait_for(waiting, 10) == "broker"


async def test_without_redis_nothing_raises_and_nothing_is_found() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        cache = await Cache.open(f"redis://127.0.0.1:{taken.getsockname()[1]}/0")
        assert await cache.ping() is False
        await cache.wake("broker")
        assert await cache.wait(["broker"], 0.05) is None
        seen = await cache.get(["A"])
        assert seen.epoch is None and seen.rows == {}
        assert await cache.epoch() is None
        assert await cache.put(row("A", 1, 1), epoch=None) is None
        assert await cache.put(row("A", 1, 1), epoch="of another time") is None
        await cache.close()


async def test_a_redis_that_comes_back_is_used_again(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "GONE_SECONDS", 0.01)
    where = parse_url(redis_url)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await (
            asyncio.open_unix_connection(where["path"])
            if "path" in where
            else asyncio.open_connection(where["host"], where["port"])
        )

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                target.write(data)
            target.close()

        await asyncio.gather(pump(reader, inner[1]), pump(inner[0], writer))

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cache = await Cache.open(f"redis://127.0.0.1:{port}/0")
    assert await cache.epoch() is None
    server = await asyncio.start_server(relay, "127.0.0.1", port)
    await asyncio.sleep(0.02)
    assert await cache.put(row("Z", 1, 1), epoch=await cache.epoch()) is not None
    await cache.close()
    server.close()


async def test_killed_connections_are_made_anew(cache: Cache, redis_url: str) -> None:
    await cache.wake("x")
    other = Redis.from_url(redis_url)
    await other.client_kill_filter(_type="normal", skipme=True)
    await other.aclose()
    found = [await cache.epoch() for _ in range(2)]
    if None in found:  # the first call may have met the dead connection
        await asyncio.sleep(door.GONE_SECONDS + 0.05)
    assert await cache.epoch() is not None


async def test_those_who_ask_at_one_moment_share_a_round_trip_and_get_their_own(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = await cache.epoch()
    await cache.put({sku: one for n in range(50) for sku, one in row(f"S{n}", n, 1).items()}, epoch=epoch)
    trips: list[int] = []
    mget = cache._redis.mget

    async def counted(keys: list[str]) -> object:
        trips.append(len(keys))
        return await mget(keys)

    monkeypatch.setattr(cache._redis, "mget", counted)
    asked = [[f"S{n}", "nobody", f"S{49 - n}"] for n in range(50)]
    seen = await asyncio.gather(*(cache.get(skus) for skus in asked))
    assert len(trips) == 1
    for skus, found in zip(asked, seen, strict=True):
        expected = {sku: int(sku[1:]) for sku in skus if sku != "nobody"}
        assert {sku: one.supply[0] for sku, one in found.rows.items()} == expected


async def test_one_who_gives_up_does_not_hurt_those_who_asked_with_it(cache: Cache) -> None:
    await cache.put(row("A", 3, 1), epoch=await cache.epoch())
    tasks = [asyncio.create_task(cache.get(["A"])) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    found = await asyncio.gather(*tasks[1:])
    assert [f.rows["A"].supply[0] for f in found] == [3, 3]
    assert await figures(cache, "A") == {"A": 3}
