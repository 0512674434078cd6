"""Pieces of a run are done by whoever is there: other workers, killed ones, none at all; the plan is the same."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brokering import Plan, Problem, audit, broker, engine
from brokering.numbering import compile_problem
from brokering.tasks import Task, do, packed
from oms.cache import Cache
from oms.db import Database
from oms.flows import broker as flow
from oms.flows.broker import crew, planning
from oms.settings import Settings
from tests.brokering.small import random_problem
from tests.demand import captured, order
from tests.feeding import NOW, ask
from tests.world import set_stock, small_network

pytestmark = pytest.mark.xdist_group("crew")
PROJECT = Path(__file__).parent.parent.parent
FEW: dict[str, Any] = {"steps_max": 6, "pieces_max": 2, "explain": False}
WORKERS = 3
SHARD_ORDERS = 300


@pytest.fixture(scope="session")
def problem() -> Problem:
    return random_problem(4, orders=2000, locations=6, skus=200)


@pytest.fixture(scope="session")
def alone(problem: Problem) -> Plan:
    """What one process plans."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "SHARD_ORDERS", SHARD_ORDERS)
        return broker(problem, processes=1, **FEW)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SHARD_ORDERS", SHARD_ORDERS)


@pytest.fixture
async def joined(redis_url: str) -> AsyncIterator[crew.Crew]:
    own = await crew.Crew.open(redis_url)
    yield own
    await own.close()


@pytest.fixture
def workers(settings: Settings) -> Iterator[list[subprocess.Popen[bytes]]]:
    told = os.environ | {"OMS_DATABASE_URL": settings.database_url, "OMS_REDIS_URL": settings.redis_url}
    found = [
        subprocess.Popen([sys.executable, "-c", "from oms.house import part; part('worker')"], cwd=PROJECT, env=told)
        for _ in range(WORKERS)
    ]
    yield found
    for one in found:
        one.kill()
        one.wait()


def test_numbers_texts_and_arrays_travel_and_nothing_else_does() -> None:
    sent = {
        "a": np.arange(6, dtype=np.int32).reshape(2, 3),
        "b": [1.5, "x", None, True],
        "c": np.float32(2.5),
        "d": np.zeros(0),
    }
    back = crew.unpacked(crew.packed(sent))
    assert (back["a"] == sent["a"]).all() and back["a"].dtype == np.int32 and back["d"].shape == (0,)
    assert (back["b"], back["c"]) == (sent["b"], 2.5)
    with pytest.raises(TypeError, match="does not travel"):
        crew.packed({"a": object()})


async def test_without_a_single_helper_the_run_does_all_itself(
    joined: crew.Crew, problem: Problem, alone: Plan
) -> None:
    found = await asyncio.to_thread(broker, problem, executor=joined, **FEW)
    assert (found.assignments, found.bound) == (alone.assignments, alone.bound)
    assert set(joined.who) == {"here"}


async def test_three_workers_do_a_run_and_one_that_is_killed_half_way_is_not_missed(
    joined: crew.Crew,
    workers: list[subprocess.Popen[bytes]],
    problem: Problem,
    alone: Plan,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slowly(*given: Any) -> Any:
        time.sleep(0.1)
        return do(*given)

    monkeypatch.setattr(crew, "do", slowly)  # so that there is something for the others to do
    await helping(redis_url, workers)
    victim, killed = workers[0], []

    def kill(phase: str, at: int, of: int) -> None:
        if phase == "prices":
            os.kill(victim.pid, signal.SIGKILL)  # what it has claimed is nobody's when the claim ends
            killed.append(victim.pid)

    found = await asyncio.to_thread(broker, problem, executor=joined, progress=kill, **FEW)
    assert killed
    assert (found.assignments, found.bound) == (alone.assignments, alone.bound)
    assert audit(problem, found) == []
    assert len(joined.who) == WORKERS + 1, joined.who


async def helping(redis_url: str, workers: list[subprocess.Popen[bytes]]) -> None:
    """Returns when each of the workers has done a task."""
    joined = await crew.Crew.open(redis_url)
    m = compile_problem(random_problem(1, orders=30))
    joined.share("matrix", packed(m))
    joined.share("orders-0", {"orders": np.arange(m.orders)})
    seen: set[str] = set()
    until = time.monotonic() + 60
    while len(seen) < len(workers):
        assert time.monotonic() < until, f"only {seen} help"
        first = joined._number
        joined._number += 6
        await asyncio.to_thread(joined._offer, {first + n: Task("wanted", 0, 0, {}) for n in range(6)})
        seen |= {who for _, who, *_ in await asyncio.to_thread(joined._answers, is_idle=True)}
    await joined.close()


async def test_redis_that_goes_away_leaves_the_run_alone_with_its_work(
    joined: crew.Crew, problem: Problem, alone: Plan
) -> None:
    def lose(phase: str, at: int, of: int) -> None:
        if phase == "prices":
            joined._redis.connection_pool.connection_kwargs.update(path="/nowhere", port=1)
            joined._redis.connection_pool.disconnect()

    found = await asyncio.to_thread(broker, problem, executor=joined, progress=lose, **FEW)
    assert (found.assignments, found.bound) == (alone.assignments, alone.bound)


async def test_a_task_that_fails_at_a_helper_fails_the_run_with_its_words(joined: crew.Crew, redis_url: str) -> None:
    hand = crew.Hand(redis_url, "far")
    await asyncio.to_thread(joined._offer, {0: Task("nonsense", 0, 0, {})})
    joined.share("matrix", {})
    assert hand.do(joined.run_id, 0) is True
    assert hand.do(joined.run_id, 0) is False, "it is done"
    with pytest.raises(RuntimeError, match="a task failed at far"):
        joined._number = 0
        await asyncio.to_thread(joined.run, [Task("nonsense", 0, 0, {})])
    hand.close()


async def test_a_large_run_of_the_service_says_who_did_its_tasks(
    db: Database, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "ORDERS_MIN", 1)
    net = await small_network(db)
    await set_stock(db, sku="A", location="W1", quantity=5)
    await captured(db, order(net, "N1", ("A", 2)))
    run = await flow.run(db, who="test", now=NOW, seconds=2, cache=cache, with_crew=True)
    assert run.summary["tasks"]["here"] > 0
    assert await ask(db, "select count(*) from fulfillment") == 1
