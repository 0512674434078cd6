"""Open lines are brokered: read, planned by the engine, audited, then allocated order by order under guard."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from brokering import broker
from oms import record
from oms.cache import Cache
from oms.db import Database, Sql
from oms.errors import NotFound
from oms.flows.broker.allocate import apply, take_run
from oms.flows.broker.planning import ALL_OPEN, Progress, Which, kept_prices, plan, planned, read_problem
from oms.flows.broker.policy import in_force

sql = Sql("broker")

AHEAD_MIN = timedelta(hours=6)
"""Prices look at least so far ahead."""
NO_RUN = UUID(int=0)


class Run(msgspec.Struct, frozen=True):
    """A brokering run. `mode` joint: all that is open in one plan; online: orders of a moment; prices: nothing else."""

    id: UUID
    mode: str
    state: str
    dry_run: bool
    policy: str | None
    policies: list[dict[str, Any]]
    seconds_max: float
    seed: int
    asked_by: str
    started_at: datetime
    finished_at: datetime | None
    summary: dict[str, Any]


class Decided(msgspec.Struct, frozen=True):
    """A decision as it is kept: what was planned, why, and what became of it."""

    order_id: UUID
    channel: str
    number: str
    state: str
    plan: list[dict[str, Any]]
    why: dict[str, Any]
    result: str | None


class CellSaving(msgspec.Struct, frozen=True):
    """What one more unit of a sku at a location would have saved, about, in cents."""

    sku: str
    location: str
    cents: float


class WorkSaving(msgspec.Struct, frozen=True):
    """What one more order, and one more item, of a location's capacity would have saved, about, in cents."""

    location: str
    order_cents: float
    item_cents: float


begin_run = sql.one("begin_run", UUID)
hold_run = sql.one("hold_run", bool)
let_run = sql.one("let_run", bool)
unfinished_runs = sql.rows("unfinished_runs", UUID)
fail_run = sql.run("fail_run")
run_row = sql.maybe("run_row", Run)
runs_page = sql.rows("runs_page", Run)
decisions_of = sql.rows("decisions_of", Decided)
prices_of = sql.rows("prices_of", CellSaving)
work_prices_of = sql.rows("work_prices_of", WorkSaving)
location_codes = sql.rows("location_codes", tuple)


async def run(
    db: Database,
    *,
    who: str,
    now: datetime,
    seconds: float,
    seed: int = 0,
    dry_run: bool = False,
    policy: str | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
    which: Which = ALL_OPEN,
    with_crew: bool = False,
) -> Run:
    """One brokering run over everything that is open: planned, kept as decisions, then allocated.

    A run that is killed goes on from its rows (`resume`); what no longer fits when it is written stays open.
    `policy` names one for all orders, a dry run its newest draft; without it each order has that of those in force whose
    scope it is in, or the engine's own weights. Raises NotFound, Conflict, BadInput.
    """
    async with db.connection() as tx:
        policies = await in_force(tx, code=policy, now=now, drafts=dry_run)
    named = [{"code": p.code, "version": p.version} for p in policies]
    async with db.connection() as session:  # its lock says that a worker is at the run, and ends with it
        async with session.transaction():
            run_id = await begin_run(
                session,
                dry_run=dry_run,
                policy=policy,
                policies=named,
                seconds=seconds,
                seed=seed,
                who=who,
                mode="joint",
            )
            await hold_run(session, run_id=run_id)
        try:
            await plan(
                db, run_id=run_id, seconds=seconds, seed=seed, now=now, dry_run=dry_run, policies=policies,
                is_for_all=policy is not None, progress=progress, which=which,
                crew_at=cache.url if with_crew and cache is not None else None,
            )  # fmt: skip
        except Exception as error:
            await _failed(db, run_id=run_id, error=error)
            raise
        if not dry_run:
            await apply(db, run_id=run_id, who=who, now=now, cache=cache, progress=progress)
        await let_run(session, run_id=run_id)
    return await read(db, run_id=run_id)


async def reprice(db: Database, *, who: str, now: datetime, seconds: float) -> Run | None:
    """Prices for the orders that are decided at once: yesterday's from this time of day on, planned on what is left now.

    Nothing is allocated, and no decision kept: a run of mode `prices`. None where yesterday had no orders then.
    """
    day = timedelta(days=1)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + day
    until = max(midnight, now + AHEAD_MIN)
    async with db.connection() as tx:
        policies = await in_force(tx, code=None, now=now, drafts=False)
    problem, _ = await read_problem(
        db, run_id=NO_RUN, now=now, policies=policies, which=Which(captured=(now - day, until - day))
    )
    if not problem.orders:
        return None
    found = await asyncio.to_thread(broker, problem, seconds=seconds, pieces_max=0, explain=False)
    named = [{"code": p.code, "version": p.version} for p in policies]
    async with db.transaction() as tx:
        run_id = await begin_run(
            tx, dry_run=True, policy=None, policies=named, seconds=seconds, seed=0, who=who, mode="prices"
        )
        summary = {"orders": len(problem.orders), "lines": len(problem.lines), "phases": found.phases}
        await planned(tx, run_id=run_id, summary=summary, prices=kept_prices(found.prices))
    return await read(db, run_id=run_id)


async def _failed(db: Database, *, run_id: UUID, error: Exception) -> None:
    trouble = record.Trouble(kind="run_failed", subject=str(run_id), detail=f"Brokering run {run_id} failed: {error}")
    async with db.transaction() as tx:
        await fail_run(tx, run_id=run_id, summary={"failed": f"{type(error).__name__}: {error}"})
        await record.raise_exceptions(tx, [trouble])


async def resume(db: Database, *, who: str, now: datetime, cache: Cache | None = None) -> int:
    """Takes up runs whose worker is gone: planned ones are applied, those that were still reading are given up."""
    resumed = 0
    async with db.connection() as tx:
        runs = await unfinished_runs(tx, after=UUID(int=0))
    for run_id in runs:
        async with db.connection() as session:
            if not await hold_run(session, run_id=run_id):
                continue
            async with session.transaction():
                taken = await take_run(session, run_id=run_id)
                if taken is not None and taken.state == "reading":
                    await fail_run(
                        session, run_id=run_id, summary={"failed": "its worker was lost before it had a plan"}
                    )
            if taken is not None and taken.state == "planned":
                await apply(db, run_id=run_id, who=who, now=now, cache=cache)
            await let_run(session, run_id=run_id)
            resumed += taken is not None
    return resumed


async def read(db: Database, *, run_id: UUID) -> Run:
    """A run; raises NotFound."""
    async with db.connection() as tx:
        found = await run_row(tx, run_id=run_id)
    if found is None:
        raise NotFound(f"There is no run {run_id}.")
    return found


async def listed(db: Database, *, before: UUID | None, limit: int, mode: str | None = None) -> list[Run]:
    """Runs, newest first: of a mode, or all but the online ones."""
    async with db.connection() as tx:
        return await runs_page(tx, before=before, limit=limit, mode=mode)


async def why(db: Database, *, run_id: UUID, number: str | None, after: UUID | None, limit: int) -> list[Decided]:
    """The decisions of a run with their candidates, locations by code."""
    await read(db, run_id=run_id)
    async with db.connection() as tx:
        rows = await decisions_of(tx, run_id=run_id, number=number, after=after, limit=limit)
        codes: dict[int, str] = dict(await location_codes(tx))
    for row in rows:
        flip = row.why.get("flip")
        for part in (*row.plan, *row.why.get("candidates", []), *([flip] if flip else [])):
            part["location"] = codes.get(part.pop("location_id"))
    return rows


async def savings(db: Database, *, run_id: UUID, limit: int) -> tuple[list[CellSaving], list[WorkSaving]]:
    """Where one more unit, and one more order of capacity, would have saved a run most: what to rebalance. Raises NotFound."""
    await read(db, run_id=run_id)
    async with db.connection() as tx:
        return (
            await prices_of(tx, run_id=run_id, limit=limit),
            await work_prices_of(tx, run_id=run_id, limit=limit),
        )  # fmt: skip
