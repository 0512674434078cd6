"""What a process remembers of Redis is right until Redis says that it changed, and is forgotten where nobody says so."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from oms import near
from oms.cache import Cache, Projection
from oms.near import Near


def row(version: int) -> Projection:
    return Projection(version, 1, 1, [version], [0])


async def until(true: Callable[[], Awaitable[bool] | bool]) -> None:
    for _ in range(500):
        found = true()
        if found is True or (not isinstance(found, bool) and await found):
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never came true")


@pytest.fixture
async def other(redis_url: str) -> AsyncIterator[Cache]:
    """Another process's door to the same Redis."""
    opened = await Cache.open(redis_url)
    yield opened
    await opened.close()


@pytest.fixture
async def memory(cache: Cache, other: Cache) -> AsyncIterator[Near]:
    made = Near(cache)
    made.start()
    await other.put({"A": row(1), "B": row(1)}, epoch=await other.epoch())
    await other.rules_are(1)

    async def remembers() -> bool:
        await made.get(["A", "B"])
        return made.seen(["A", "B"]) is not None

    await until(remembers)
    yield made
    await made.stop()


async def test_what_was_asked_for_is_remembered_and_not_asked_again(
    memory: Near, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(keys: object) -> None:
        pytest.fail("Redis was asked")

    monkeypatch.setattr(cache._redis, "mget", never)
    seen = await memory.get(["A", "B"])
    assert (seen.rows["A"], seen.rules) == (row(1), 1)
    assert memory.seen(["A", "C"]) is None


async def test_what_another_process_writes_is_forgotten_here_and_the_rest_is_kept(memory: Near, other: Cache) -> None:
    await other.put({"A": row(2)}, epoch=await other.epoch())
    await until(lambda: memory.seen(["A"]) is None)
    assert memory.seen(["B"]) is not None
    assert (await memory.get(["A"])).rows["A"] == row(2)
    assert memory.seen(["A"]) is not None


async def test_a_change_of_the_rules_is_known_before_the_next_answer(memory: Near, other: Cache) -> None:
    await other.rules_are(2)
    await until(lambda: (seen := memory.seen(["A"])) is None or seen.rules == 2)
    assert (await memory.get(["A"])).rules == 2


async def test_the_moment_up_to_which_all_is_projected_is_followed(memory: Near, other: Cache) -> None:
    await other.projected_upto(1000.0)
    await until(lambda: (seen := memory.seen(["A"])) is not None and seen.upto == 1000.0)


async def test_an_emptied_redis_empties_the_memory(memory: Near, other: Cache) -> None:
    await other._redis.flushall()
    await until(lambda: memory.seen(["B"]) is None)
    assert (await memory.get(["B"])).rows == {}


async def test_an_answer_that_was_on_its_way_while_its_key_was_written_is_not_remembered(
    memory: Near, cache: Cache, other: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    await other.put({"A": row(2)}, epoch=await other.epoch())
    await until(lambda: memory.seen(["A"]) is None)
    really, may_answer = cache._redis.mget, asyncio.Event()

    async def late(keys: list[str]) -> object:
        found = await really(keys)
        await may_answer.wait()
        return found

    monkeypatch.setattr(cache._redis, "mget", late)
    asked = asyncio.create_task(memory.get(["A"]))
    await asyncio.sleep(0.05)
    before = memory._changes
    await other.put({"A": row(3)}, epoch=await other.epoch())
    await until(lambda: memory._changes > before)
    may_answer.set()
    assert (await asked).rows["A"] == row(2)
    monkeypatch.undo()
    assert memory.seen(["A"]) is None
    assert (await memory.get(["A"])).rows["A"] == row(3)


async def test_nothing_is_remembered_where_nothing_has_been_heard_for_a_while(
    memory: Near, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near, "HEARD_SECONDS_MAX", 0.0)
    await asyncio.sleep(0.01)
    assert memory.seen(["A"]) is None


async def test_a_lost_connection_empties_the_memory_until_it_is_made_anew(
    memory: Near, other: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near, "AGAIN_SECONDS", 0.05)
    await other._redis.client_kill_filter(_type="normal", skipme=True)
    await until(lambda: memory.seen(["A"]) is None)

    async def remembers() -> bool:
        await memory.get(["A"])
        return memory.seen(["A"]) is not None

    await until(remembers)


async def test_the_memory_has_a_bound(memory: Near, other: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "ROWS_MAX", 3)
    await other.put({f"S{n}": row(1) for n in range(9)}, epoch=await other.epoch())
    for n in range(9):
        await memory.get([f"S{n}"])
    assert len(memory._rows) <= 3


async def test_without_redis_nothing_is_remembered_and_nothing_raises() -> None:
    gone = Cache("redis://127.0.0.1:1/0")
    memory = Near(gone)
    memory.start()
    assert (await memory.get(["A"])).rows == {}
    assert memory.seen(["A"]) is None
    await memory.stop()
    await gone.close()
