"""What-if: up to five policies (or imported routings) tried on what a run saw, on what is open now, or on a whole past day; nothing is allocated.

It is asked for, worked on by a worker in read-only transactions with the engine of the runs, and read when it is done.
"""

import asyncio
from collections.abc import Callable
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import available_timezones

import msgspec
from msgspec import Meta

from brokering import Assignment, Plan, Problem, Unfilled, audit, broker
from brokering.compare import WhyNot, compare
from brokering.policies import Subject
from brokering.replay import Rhythm, replay
from brokering.route import route, without_classes
from brokering.trail import Routed, why_not
from oms.db import Connection, Database, Sql
from oms.errors import BadInput, Conflict, NotFound
from oms.flows.broker import kept, told
from oms.flows.broker.day import read_day, span_of
from oms.flows.broker.planning import read_problem, subjects_of, summarize
from oms.flows.broker.routings import follow_what
from oms.flows.broker.trials import HAPPENED, Read, Trial, read_trials, with_policies

sql = Sql("what_if")

ATTEMPTS_MAX = 3
NO_RUN = UUID(int=0)


class On(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is tried on: what a past run saw, what is open now, or a whole day of a time zone.

    A day is decided order by order as they came, at prices made anew `repriced` times (4 unless said), or with
    `every_minutes` in batches.
    """

    run: UUID | None = None
    open: bool = False
    day: date | None = None
    time_zone: Annotated[str, Meta(max_length=100)] = "UTC"
    every_minutes: Annotated[int, Meta(ge=5, le=1440)] | None = None
    repriced: Annotated[int, Meta(ge=1, le=48)] | None = None


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked: on what, which policies (the first is the base), and how long each may be planned."""

    on: On
    policies: list[Trial | Annotated[str, Meta(min_length=1, max_length=200)]]
    seconds: Annotated[float, Meta(gt=0, le=600)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2_147_483_647)] | None = None


class Asked(msgspec.Struct, frozen=True):
    """What is kept of it: policies as they read when it was asked."""

    on: On
    policies: list[Read]
    seconds: float
    seed: int


class WhatIf(msgspec.Struct, frozen=True):
    """A what-if: waiting, working, done with its result, or failed with why."""

    id: UUID
    state: str
    ask: dict[str, Any]
    asked_by: str
    asked_at: datetime
    finished_at: datetime | None
    failed: str | None
    result: dict[str, Any] | None


class Tried(msgspec.Struct, frozen=True):
    """Plans by name with the problems that they were made from, and the problem that measures them."""

    problem: Problem
    plans: dict[str, Plan]
    problems: dict[str, Problem]
    routed: dict[str, Routed] = {}
    left_out: dict[str, list[str]] = {}
    why_not: dict[str, WhyNot] = {}


class _Begun(msgspec.Struct, frozen=True):
    ask: dict[str, Any]
    attempts: int


class _Decided(msgspec.Struct, frozen=True):
    order_id: str
    plan: list[dict[str, Any]]
    unfilled: dict[str, str] | None


ask_what_if = sql.one("ask_what_if", UUID)
waiting_what_ifs = sql.rows("waiting_what_ifs", UUID)
hold_what_if = sql.one("hold_what_if", bool)
let_what_if = sql.one("let_what_if", bool)
begin_what_if = sql.maybe("begin_what_if", _Begun)
end_what_if = sql.run("end_what_if")
what_if_row = sql.maybe("what_if_row", WhatIf)
knows_run = sql.one("knows_run", bool)
decided_plans = sql.rows("decided_plans", _Decided)


async def readied(db: Database, asked: Ask, *, now: datetime, seconds: float, seed: int) -> Asked:
    """What is asked, with the policies as they read now; `seconds` and `seed` where none are asked.

    Raises BadInput, NotFound, Conflict that say which part cannot be tried.
    """
    on = asked.on
    if (on.run is not None) + on.open + (on.day is not None) != 1:
        raise BadInput('on: give one of {"run": id}, {"open": true} and {"day": "2026-11-20"}')
    if on.day is None and (on.every_minutes is not None or on.repriced is not None or on.time_zone != "UTC"):
        raise BadInput("on: time_zone, every_minutes and repriced belong to a day; give the day")
    if on.every_minutes is not None and on.repriced is not None:
        raise BadInput("on: a day in batches makes prices for each; give one of every_minutes and repriced")
    if on.time_zone not in available_timezones():
        raise BadInput(f"on.time_zone: {on.time_zone!r} is no time zone; a name like America/New_York is expected")
    if on.day is not None and (not 2000 <= on.day.year <= 9000 or span_of(on.day, on.time_zone)[0] > now):
        raise BadInput(f"on.day: {on.day} has not begun in {on.time_zone}; give a past day")
    async with db.pool.acquire() as tx, tx.transaction(readonly=True):
        if on.run is not None:
            await _kept(tx, on.run)
        trials = await read_trials(tx, asked.policies, now=now)
    if on.day is not None and any(t.routings is not None for t in trials):
        raise BadInput("on.day: routings are followed on a run or on what is open, not on a day order by order")
    return Asked(on, trials, asked.seconds or seconds, seed if asked.seed is None else asked.seed)


async def ask(db: Database, asked: Ask, *, who: str, now: datetime, seconds: float, seed: int) -> UUID:
    """Keeps what is asked for a worker. Raises BadInput, NotFound, Conflict."""
    kept_ask = await readied(db, asked, now=now, seconds=seconds, seed=seed)
    async with db.transaction() as tx:
        return await ask_what_if(tx, ask=msgspec.to_builtins(kept_ask), who=who)


async def read(db: Database, *, what_if_id: UUID) -> WhatIf:
    """A what-if; raises NotFound."""
    async with db.connection() as tx:
        found = await what_if_row(tx, what_if_id=what_if_id)
    if found is None:
        raise NotFound(f"There is no what-if {what_if_id}.")
    return found


async def work(db: Database, *, clock: Callable[[], datetime]) -> int:
    """Works on what waits, and on what a lost worker left, one after the other; gives how many were finished."""
    done = 0
    async with db.connection() as tx:
        waiting = await waiting_what_ifs(tx)
    for what_if_id in waiting:
        async with db.connection() as session:  # its lock says that a worker is at it, and ends with it
            if not await hold_what_if(session, what_if_id=what_if_id):
                continue
            begun = await begin_what_if(session, what_if_id=what_if_id)
            if begun is not None:
                result, failed = await _attempt(db, begun, now=clock())
                await end_what_if(session, what_if_id=what_if_id, result=result, failed=failed)
                done += 1
            await let_what_if(session, what_if_id=what_if_id)
    return done


async def _attempt(db: Database, begun: _Begun, *, now: datetime) -> tuple[dict[str, Any] | None, str | None]:
    """The result, or why there is none."""
    if begun.attempts > ATTEMPTS_MAX:
        return None, f"its worker was lost {ATTEMPTS_MAX} times; ask for fewer seconds, or for less at once"
    try:
        return await find(db, msgspec.convert(begun.ask, Asked), now=now), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


async def find(db: Database, asked: Asked, *, now: datetime) -> dict[str, Any]:
    """Plans what is asked by each of its policies and compares them; reads only."""
    found = await _tried(db, asked, now=now)
    comparison = await asyncio.to_thread(
        compare, found.problem, found.plans, problems=found.problems, by_rules=found.why_not
    )
    summaries = {
        name: await asyncio.to_thread(summarize, found.problems[name], plan)
        for name, plan in found.plans.items()
        if name in found.problems and name not in found.routed and asked.on.day is None
    }  # fmt: skip
    result = await told.tell(db, comparison, summaries=summaries)
    if found.routed:
        result["routings"] = await told.tell_routed(db, comparison, found.routed, left_out=found.left_out)
    return result


async def _tried(db: Database, asked: Asked, *, now: datetime) -> Tried:
    if asked.on.day is not None:
        return await _tried_day(db, asked, day=asked.on.day)
    if asked.on.run is not None:
        async with db.connection() as tx:
            packed = await _kept(tx, asked.on.run)
        problem = await asyncio.to_thread(kept.unpack, packed.problem)
    else:
        problem, _ = await read_problem(db, run_id=NO_RUN, now=now, policies=[])
    subjects = await read_subjects(db, problem)
    plans: dict[str, Plan] = {}
    problems: dict[str, Problem] = {}
    routed: dict[str, Routed] = {}
    left_out: dict[str, list[str]] = {}
    why_not_in: dict[str, WhyNot] = {}
    for trial in asked.policies:
        if trial.routings is not None:
            mine = problems[trial.name] = without_classes(with_policies(problem, trial, subjects))
            name = trial.name
            routed[name], left_out[name], why_not_in[name] = await _routed(db, mine, trial.routings)
            plans[trial.name] = routed[trial.name].plan
            continue
        mine = problems[trial.name] = with_policies(problem, trial, subjects)
        plan = await asyncio.to_thread(broker, mine, seconds=asked.seconds, seed=asked.seed)
        faults = await asyncio.to_thread(audit, mine, plan)
        assert not faults, f"the plan of {trial.name} breaks the law: {faults[:5]}"
        plans[trial.name] = plan
    if asked.on.run is not None:
        async with db.connection() as tx:
            plans[HAPPENED] = as_it_was(await decided_plans(tx, run_id=asked.on.run))
    return Tried(problems[asked.policies[0].name], plans, problems, routed, left_out, why_not_in)


async def _routed(db: Database, problem: Problem, given: dict[str, Any]) -> tuple[Routed, list[str], WhyNot]:
    """Routings followed, their plan audited; what of them is not followed, and what tells why not from a location."""
    async with db.connection() as tx:
        routings, asked, left_out = await follow_what(tx, given, orders=[o.order_id for o in problem.orders])
    found = await asyncio.to_thread(route, problem, routings, asked)
    faults = await asyncio.to_thread(audit, problem, found.plan)
    assert not faults, f"the plan of routings breaks the law: {faults[:5]}"
    return found, left_out, why_not(problem, routings, found.trails)


async def _tried_day(db: Database, asked: Asked, *, day: date) -> Tried:
    from_at, until_at = span_of(day, asked.on.time_zone)
    read = await read_day(db, from_at=from_at, until_at=until_at)
    if not read.problem.orders:
        raise Conflict(f"on.day: no order was captured on {day} ({asked.on.time_zone}); give a day with orders")
    rhythm = Rhythm(every_minutes=asked.on.every_minutes, repriced=asked.on.repriced or 4)
    plans: dict[str, Plan] = {}
    problems: dict[str, Problem] = {}
    for trial in asked.policies:
        mine = problems[trial.name] = with_policies(read.problem, trial, read.subjects)
        plans[trial.name] = await asyncio.to_thread(
            replay, mine, read.arrives, read.changes, rhythm=rhythm, places=read.places, prices=read.prices,
            seconds=asked.seconds, seed=asked.seed, minutes=read.minutes,
        )  # fmt: skip
    plans[HAPPENED] = read.as_it_was()
    problems = {name: read.in_all(problem) for name, problem in problems.items()}
    return Tried(problems[asked.policies[0].name], plans, problems)


async def read_subjects(db: Database, problem: Problem) -> list[Subject]:
    """What scopes ask of the orders of a problem."""
    async with db.pool.acquire() as tx, tx.transaction(readonly=True):
        return await subjects_of(tx, orders=[o.order_id for o in problem.orders])


def as_it_was(decided: list[_Decided]) -> Plan:
    """What a run planned, from its decisions."""
    return Plan(
        [Assignment(p["line_id"], p["location_id"], p["quantity"]) for d in decided for p in d.plan],
        [Unfilled(int(line), why) for d in decided for line, why in (d.unfilled or {}).items()], 0, 0, [], {}, {}, 0,
    )  # fmt: skip


async def _kept(tx: Connection, run_id: UUID) -> kept.Kept:
    """What a run saw; raises NotFound, Conflict where it has no plan or is not kept any more."""
    found = await kept.kept_problem(tx, run_id=run_id)
    if found is None:
        if await knows_run(tx, run_id=run_id):
            raise Conflict(
                f"on.run: what run {run_id} saw is not kept: it has no plan, or is older than OMS_RUNS_KEPT_DAYS"
            )
        raise NotFound(f"on.run: there is no run {run_id}.")
    return found
