"""Policies are tried on what a run saw and on what is open now, and nothing of it is done."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest

from oms import access, worker
from oms.app import create_app
from oms.cache import Cache
from oms.commands.tried import comparison_lines, read_policy
from oms.db import Database
from oms.errors import BadInput, Conflict, NotFound
from oms.flows import broker
from oms.flows.broker import kept, what_if
from oms.flows.broker.planning import read_problem
from oms.flows.broker.trials import Trial
from oms.flows.broker.what_if import Ask
from oms.settings import Settings
from tests.demand import captured, order
from tests.feeding import NOW, ask, check, exceptions
from tests.world import Net, bearer, make_key, set_stock, small_network

ENGINE = {"name": "engine", "body": {}}
NO_STORES = {"name": "no stores", "body": {"limits": [{"kinds": ["warehouse"]}]}}
LIVE = (
    "stock", "availability", "reservation", "orders", "order_line", "fulfillment", "fulfillment_line", "decision", "run",
    "capacity", "movement", "history", "exception", "rejected_before", "stock_past", "line_past", "touched",
)  # fmt: skip


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    yield await small_network(db)
    await check(db)


async def orders_of(db: Database, net: Net, *, count: int = 3) -> list[UUID]:
    """Orders in New York of a unit of A, which the store beside them and the warehouse in Chicago have."""
    await set_stock(db, sku="A", location="W1", quantity=9)
    await set_stock(db, sku="A", location="S1", quantity=9)
    return [await captured(db, order(net, f"N{n}", ("A", 1), promise_days=2)) for n in range(count)]


async def tried(db: Database, *policies: Any, **on: Any) -> dict[str, Any]:
    """What a what-if finds, asked for and worked on."""
    given = msgspec.convert({"on": on, "policies": list(policies), "seconds": 2}, Ask)
    what_if_id = await what_if.ask(db, given, who="test", now=NOW, seconds=2, seed=0)
    assert await what_if.work(db, clock=lambda: NOW) == 1
    found = await what_if.read(db, what_if_id=what_if_id)
    assert (found.state, found.failed) == ("done", None)
    return by_name(found.result)


def by_name(result: dict[str, Any] | None) -> dict[str, Any]:
    """A result with its plans and moves by name."""
    assert result is not None
    plans = {p.pop("name"): p for p in result["plans"]}
    return {**result, "plans": plans, "moves": {m.pop("to"): m for m in result["moves"]}}


async def everything(db: Database) -> dict[str, list[str]]:
    """Every row of what is live, with where it lies: rewritten rows differ, too."""
    async with db.connection() as tx:
        return {
            name: [r[0] for r in await tx.fetch(f"select xmin::text || ctid::text || n::text from {name} n order by 1")]
            for name in LIVE
        }


async def test_a_what_if_leaves_everything_as_it_was_bit_for_bit(db: Database, net: Net) -> None:
    await orders_of(db, net)
    run = await broker.run(db, who="test", now=NOW, seconds=2, dry_run=True)
    before = await everything(db)
    assert all(before[name] for name in ("stock", "availability", "orders", "run", "decision"))
    await tried(db, ENGINE, NO_STORES, open=True)
    await tried(db, ENGINE, NO_STORES, run=str(run.id))
    assert await everything(db) == before


async def test_the_same_policy_twice_moves_no_order(db: Database, net: Net) -> None:
    await orders_of(db, net)
    found = await tried(db, ENGINE, {"name": "again", "body": {}}, open=True)
    assert found["moves"]["again"] == {"orders": 0, "cents_more": 0, "why": {}, "shown": []}
    assert found["plans"]["engine"] == found["plans"]["again"]


async def test_a_policy_that_forbids_stores_moves_orders_and_says_why(db: Database, net: Net) -> None:
    await orders_of(db, net, count=2)
    found = await tried(db, ENGINE, NO_STORES, open=True)
    moves = found["moves"]["no stores"]
    assert (moves["orders"], moves["why"]) == (2, {"the policy does not allow it": 2})
    one = moves["shown"][0]
    assert (one["channel"], one["was"], one["becomes"]) == ("web", {"S1": 1}, {"W1": 1})
    assert one["why"] == [{"location": "S1", "why": "the policy does not allow it"}]
    assert one["cents_becomes"]["parcel"] > one["cents_was"]["parcel"]
    plans = found["plans"]
    assert plans["no stores"]["load"] == [{"location": "W1", "packages": 2, "units": 2}]
    assert plans["no stores"]["cost_cents"] - plans["engine"]["cost_cents"] == moves["cents_more"]
    assert plans["engine"]["unfilled_units"] == plans["no stores"]["unfilled_units"] == 0


async def test_a_past_run_is_planned_again_from_what_it_saw_then(db: Database, net: Net) -> None:
    made = await orders_of(db, net)
    saw, _ = await read_problem(db, run_id=UUID(int=0), now=NOW, policies=[])
    run = await broker.run(db, who="test", now=NOW, seconds=2)
    packed = await ask(db, "select problem from run_problem where run_id = $1", run.id)
    assert kept.unpack(packed) == saw
    assert await ask(db, "select count(*) from order_line where open > 0") == 0
    found = await tried(db, ENGINE, NO_STORES, run=str(run.id))
    assert found["plans"]["engine"]["orders"] == len(made)
    assert found["moves"]["as it was"]["orders"] == 0
    assert found["moves"]["no stores"]["orders"] == len(made)


async def test_policies_in_force_are_tried_each_for_its_scope(db: Database, net: Net) -> None:
    await orders_of(db, net)
    async with db.transaction() as tx:
        policy_id = await tx.fetchval("insert into policy (code) values ('far') returning policy_id")
        await tx.execute(
            "insert into policy_version (policy_id, version, body, state, made_by, from_at, approved_by, approved_at)"
            " values ($1, 1, $2, 'approved', 'a', '-infinity', 'b', now())", policy_id,
            {"scope": {"channels": ["local"]}, "limits": [{"kinds": ["warehouse"]}]},
        )  # fmt: skip
    found = await tried(db, {"in_force": True}, "far", {"code": "far", "version": 1, "name": "one"}, open=True)
    assert list(found["plans"]) == ["in force", "far 1", "one"]
    assert [found["moves"][name]["orders"] for name in ("far 1", "one")] == [3, 3]


async def test_what_cannot_be_tried_is_refused_by_its_place(db: Database, net: Net) -> None:
    await orders_of(db, net)
    run = await broker.run(db, who="test", now=NOW, seconds=2)
    await kept.forget(db, before=NOW + timedelta(days=9999))
    wrong: list[tuple[dict[str, Any], list[Any], type[Exception], str]] = [
        ({}, [ENGINE], BadInput, "on: give one of"),
        ({"open": True, "run": str(run.id)}, [ENGINE], BadInput, "on: give one of"),
        ({"run": str(uuid4())}, [ENGINE], NotFound, "on.run: there is no run"),
        ({"run": str(run.id)}, [ENGINE], Conflict, "OMS_RUNS_KEPT_DAYS"),
        ({"open": True}, [], BadInput, "policies: one to 5"),
        ({"open": True}, [{"name": f"p{n}", "body": {}} for n in range(6)], BadInput, "6 were given"),
        ({"open": True}, [ENGINE, "gone"], NotFound, r"policies\[1\]: there is no policy 'gone'"),
        ({"open": True}, [ENGINE, ENGINE], BadInput, r"policies\[1\].name: 'engine' is taken"),
        ({"open": True}, [{"name": "x"}], BadInput, r"policies\[0\]: give one of"),
        ({"open": True}, [{"body": {}, "version": 2}], BadInput, r"policies\[0\].version: belongs to a code"),
        ({"open": True}, [{"body": {"weights": {"moon": 2}}}], BadInput, r"policies\[0\].body: weights: 'moon'"),
    ]
    for on, policies, refusal, words in wrong:
        with pytest.raises(refusal, match=words):
            await what_if.ask(
                db, msgspec.convert({"on": on, "policies": policies}, Ask), who="test", now=NOW, seconds=1, seed=0
            )
    assert await ask(db, "select count(*) from what_if") == 0


async def test_a_what_if_whose_worker_was_lost_is_taken_up_again_and_at_last_given_up(db: Database, net: Net) -> None:
    await orders_of(db, net)
    given = msgspec.convert({"on": {"open": True}, "policies": [ENGINE]}, Ask)
    one, other = [await what_if.ask(db, given, who="test", now=NOW, seconds=2, seed=0) for _ in range(2)]
    async with db.connection() as session:
        await what_if.begin_what_if(session, what_if_id=one)
        for _ in range(3):
            await what_if.begin_what_if(session, what_if_id=other)
        assert await what_if.hold_what_if(session, what_if_id=one)
        assert await what_if.work(db, clock=lambda: NOW) == 1  # the other: somebody is at this one
    assert await what_if.work(db, clock=lambda: NOW) == 1
    assert (await what_if.read(db, what_if_id=one)).state == "done"
    lost = await what_if.read(db, what_if_id=other)
    assert lost.state == "failed" and "lost 3 times" in str(lost.failed)


async def test_a_what_if_that_fails_says_why_and_hinders_no_other(db: Database, net: Net) -> None:
    await orders_of(db, net)
    tariff = {"miles": [10], "parcel_cents": [1, 2], "pound_cents": [1, 2], "days": [1, 2]}
    async with db.transaction() as tx:
        for code, body in (("one", {"tariff": tariff, "scope": {"channels": ["web"]}}), ("two", {})):
            policy_id = await tx.fetchval("insert into policy (code) values ($1) returning policy_id", code)
            await tx.execute(
                "insert into policy_version (policy_id, version, body, state, made_by, from_at, approved_by, approved_at)"
                " values ($1, 1, $2, 'approved', 'a', '-infinity', 'b', now())", policy_id, body,
            )  # fmt: skip
    asked = [
        await what_if.ask(db, msgspec.convert({"on": {"open": True}, "policies": [p]}, Ask), who="test", now=NOW,
                          seconds=2, seed=0)
        for p in ({"in_force": True}, ENGINE)
    ]  # fmt: skip
    assert await what_if.work(db, clock=lambda: NOW) == 2
    first, second = [await what_if.read(db, what_if_id=i) for i in asked]
    assert first.state == "failed" and "limits in miles" in str(first.failed)
    assert second.state == "done" and await exceptions(db) == []


async def test_the_api_takes_it_and_a_worker_answers(db: Database, net: Net, cache: Cache, settings: Settings) -> None:
    await orders_of(db, net)
    access.forget()
    transport = httpx.ASGITransport(create_app(settings=settings, db=db, cache=cache))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://oms.test") as client:
        client.headers.update(bearer(await make_key(db, "planner")))
        bad = await client.post("/v1/what-if", json={"on": {"open": True}, "policies": [{"bodi": {}}]})
        assert bad.status_code == 400 and "bodi" in bad.text
        bad = await client.post("/v1/what-if", json={"on": {"open": True}, "policies": ["gone"]})
        assert bad.status_code == 404 and "policies[0]" in bad.json()["detail"]
        said = await client.post("/v1/what-if", json={"on": {"open": True}, "policies": [ENGINE, NO_STORES]})
        assert said.status_code == 202, said.text
        assert (await client.get(said.json()["url"])).json()["state"] == "waiting"
        await what_if.work(db, clock=lambda: NOW)
        done = (await client.get(said.json()["url"])).json()
        assert (done["state"], by_name(done["result"])["moves"]["no stores"]["orders"]) == ("done", 3)
        assert (await client.get(f"/v1/what-if/{uuid4()}")).status_code == 404


async def test_the_worker_is_woken_by_a_what_if_and_works_on_it(db: Database, net: Net, cache: Cache) -> None:
    await orders_of(db, net)
    loop = asyncio.create_task(worker.follow_what_ifs({"db": db, "cache": cache}))
    await asyncio.sleep(0.2)
    given = msgspec.convert({"on": {"open": True}, "policies": [ENGINE]}, Ask)
    what_if_id = await what_if.ask(db, given, who="test", now=NOW, seconds=1, seed=0)
    await cache.wake("what-if")
    for _ in range(160):  # 8 s: less than the sweep
        await asyncio.sleep(0.05)
        if (found := await what_if.read(db, what_if_id=what_if_id)).state == "done":
            break
    assert found.state == "done"
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)


async def test_a_comparison_reads_as_a_table_with_a_column_for_each_policy(db: Database, net: Net) -> None:
    await orders_of(db, net)
    given = msgspec.convert({"on": {"open": True}, "policies": [ENGINE, NO_STORES]}, Ask)
    asked = await what_if.readied(db, given, now=NOW, seconds=2, seed=0)
    lines = comparison_lines(await what_if.find(db, asked, now=NOW))
    assert lines[0].split() == ["engine", "no", "stores"]
    assert next(n for n in lines if n.startswith("orders that move")).split()[-2:] == ["–", "3"]
    assert "no stores: 3 × the policy does not allow it" in lines
    moved = next(n for n in lines if "web N0" in n)
    assert "1 from S1 → 1 from W1" in moved and "parcel" in moved and moved.endswith("S1: the policy does not allow it")


def test_a_policy_is_named_at_the_command_line_by_code_by_version_or_by_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"late_cents": 9}')
    assert read_policy("express") == Trial(code="express")
    assert read_policy("express@2") == Trial(code="express", version=2)
    assert read_policy(str(file)) == Trial(name="mine", body={"late_cents": 9})
    file.write_text('{"code": "x", "body": {}}')
    assert read_policy(str(file)) == Trial(name="x", body={})
    file.write_text("[1]")
    with pytest.raises(BadInput, match="a policy's body is expected"):
        read_policy(str(file))
