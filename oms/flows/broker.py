"""Open lines are brokered: read, planned by the engine, audited, then allocated order by order under guard."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import msgspec

from brokering import Barred, Line, Location, Order, Plan, Policy, Problem, Protected, Stock, audit, broker, nearest
from oms import ledger, record
from oms.book import Book
from oms.cache import Cache
from oms.db import Connection, Database, Sql
from oms.domain.allocation import Fate, Planned, bind_split
from oms.domain.calendar import local_day
from oms.errors import BadInput, NotFound

sql = Sql("broker")

ORDERS_MAX = 200_000
ORDERS_PER_CHUNK = 200
LEASE_SECONDS = 600
COMPARED_ORDERS_MAX = 60_000
Progress = Callable[[str, int, int | None], None]


class Run(msgspec.Struct, frozen=True):
    """A brokering run."""

    id: UUID
    state: str
    dry_run: bool
    policy: str | None
    seconds_max: float
    seed: int
    asked_by: str
    started_at: datetime
    finished_at: datetime | None
    summary: dict[str, Any]


class Taken(msgspec.Struct, frozen=True):
    """A run that this worker has."""

    state: str
    seconds_max: float
    seed: int
    policy: str | None
    dry_run: bool
    asked_by: str


class OpenLine(msgspec.Struct, frozen=True):
    """A line under its lock."""

    line_id: int
    order_id: UUID
    line: str
    part: int
    sku_id: int
    pool_id: int
    open: int
    version: int
    hold: str | None
    price_cents: int


class TakenOrder(msgspec.Struct, frozen=True):
    """An order under its lock."""

    order_id: UUID
    split: str
    split_max: int | None
    channel_id: int


class Place(msgspec.Struct, frozen=True):
    """A location as allocation must know it."""

    location_id: int
    code: str
    time_zone: str
    is_on: bool


class Made(msgspec.Struct, frozen=True):
    """A new fulfillment."""

    fulfillment_id: UUID
    order_id: UUID
    location_id: int


class Decided(msgspec.Struct, frozen=True):
    """A decision as it is kept: what was planned, why, and what became of it."""

    order_id: UUID
    channel: str
    number: str
    state: str
    plan: list[dict[str, Any]]
    why: dict[str, Any]
    result: str | None


class OrderPlan(msgspec.Struct, frozen=True):
    """What a run planned for an order."""

    order_id: UUID
    plan: list[Planned]


begin_run = sql.one("begin_run", UUID)
unfinished_runs = sql.rows("unfinished_runs", tuple)
take_run = sql.maybe("take_run", Taken)
open_orders = sql.rows("open_orders", Order)
open_lines = sql.rows("open_lines", Line)
locations = sql.rows("locations", Location)
stock_of = sql.rows("stock_of", Stock)
pool_members = sql.rows("pool_members", tuple)
reserved_of = sql.rows("reserved_of", Protected)
barred = sql.rows("barred", Barred)
keep_decisions = sql.run("keep_decisions")
planned = sql.maybe("planned", UUID)
next_decisions = sql.rows("next_decisions", tuple)
take_orders = sql.rows("take_orders", TakenOrder)
take_decisions = sql.rows("take_decisions", UUID)
take_lines = sql.rows("take_lines", OpenLine)
places_on = sql.rows("places_on", Place)
allocate_lines = sql.run("allocate_lines")
make_fulfillments = sql.rows("make_fulfillments", Made)
make_fulfillment_lines = sql.run("make_fulfillment_lines")
decided = sql.run("decided")
finish_run = sql.maybe("finish_run", dict)
fail_run = sql.run("fail_run")
run_row = sql.maybe("run_row", Run)
runs_page = sql.rows("runs_page", Run)
decisions_of = sql.rows("decisions_of", Decided)
policy_body = sql.maybe("policy_body", dict)
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
) -> Run:
    """One brokering run over everything that is open: planned, kept as decisions, then allocated.

    A run that is killed goes on from its rows (`resume`); what no longer fits when it is written stays open.
    `policy` names one that is kept (the engine's own weights without it); raises NotFound, BadInput.
    """
    weights = await read_policy(db, code=policy)
    async with db.transaction() as tx:
        run_id = await begin_run(
            tx, dry_run=dry_run, policy=policy, seconds=seconds, seed=seed, who=who, lease_seconds=LEASE_SECONDS
        )
    try:
        await plan(
            db, run_id=run_id, seconds=seconds, seed=seed, now=now, dry_run=dry_run, policy=weights, progress=progress
        )
    except Exception as error:
        async with db.transaction() as tx:
            await fail_run(tx, run_id=run_id, summary={"failed": f"{type(error).__name__}: {error}"})
            await record.raise_exceptions(
                tx,
                [
                    record.Trouble(
                        kind="run_failed", subject=str(run_id), detail=f"Brokering run {run_id} failed: {error}"
                    )
                ],
            )
        raise
    if not dry_run:
        await apply(db, run_id=run_id, who=who, now=now, cache=cache, progress=progress)
    return await read(db, run_id=run_id)


async def resume(db: Database, *, who: str, now: datetime, cache: Cache | None = None) -> int:
    """Takes up runs whose worker is gone: planned ones are applied, those that were still reading are given up."""
    resumed = 0
    async with db.connection() as tx:
        runs = await unfinished_runs(tx, after=UUID(int=0))
    for run_id, state in runs:
        async with db.transaction() as tx:
            taken = await take_run(tx, run_id=run_id, lease_seconds=LEASE_SECONDS, mine=False)
            if taken is not None and state == "reading":
                await fail_run(tx, run_id=run_id, summary={"failed": "its worker was lost before it had a plan"})
        if taken is not None and state == "planned":
            await apply(db, run_id=run_id, who=who, now=now, cache=cache)
        resumed += taken is not None
    return resumed


async def plan(
    db: Database,
    *,
    run_id: UUID,
    seconds: float,
    seed: int,
    now: datetime,
    dry_run: bool,
    policy: Policy,
    progress: Progress | None,
) -> None:
    """Reads what is open, plans it, audits the plan and keeps it as decisions."""
    problem = await read_problem(db, run_id=run_id, now=now, policy=policy)

    def tell(phase: str, at: int, of: int) -> None:
        if progress:
            progress(f"plan: {phase}", at, of)

    found = await asyncio.to_thread(broker, problem, seconds=seconds, seed=seed, progress=tell)
    faults = await asyncio.to_thread(audit, problem, found)
    assert not faults, f"the plan breaks the law: {faults[:5]}"
    summary = await asyncio.to_thread(summarize, problem, found)
    versions = {n.line_id: n for n in problem.lines}
    by_order: dict[str, list[dict[str, Any]]] = {o.order_id: [] for o in problem.orders}
    for a in found.assignments:
        line = versions[a.line_id]
        by_order[line.order_id].append(
            {"line_id": a.line_id, "version": line.version, "location_id": a.location_id, "quantity": a.quantity}
        )
    reasons: dict[str, dict[str, str]] = {}
    for u in found.unfilled:
        reasons.setdefault(versions[u.line_id].order_id, {})[str(u.line_id)] = u.reason
    async with db.transaction() as tx:
        for start in range(0, len(found.decisions), 2000):
            some = found.decisions[start : start + 2000]
            # a plan is a list, which an array of jsonb would take for a second dimension: it travels as text
            await keep_decisions(
                tx, run_id=run_id, orders=[d.order_id for d in some],
                plans=[msgspec.json.encode(by_order[d.order_id]).decode() for d in some],
                whys=[{**msgspec.to_builtins(d), "unfilled": reasons.get(d.order_id, {})} for d in some],
            )  # fmt: skip
        await planned(tx, run_id=run_id, summary=summary, lease_seconds=LEASE_SECONDS)


async def read_policy(db: Database, *, code: str | None) -> Policy:
    """The weights of a policy that is kept; those it does not name are the engine's. Raises NotFound, BadInput."""
    if code is None:
        return Policy()
    async with db.connection() as tx:
        body = await policy_body(tx, code=code)
    if body is None:
        raise NotFound(f"There is no policy {code!r}.")
    try:
        unknown = sorted(body.keys() - set(Policy.__struct_fields__))
        if unknown:
            raise BadInput(f"policy {code}: {unknown[0]} is no weight; {', '.join(Policy.__struct_fields__)} are")
        return msgspec.convert(body, Policy)
    except msgspec.ValidationError as error:
        raise BadInput(f"policy {code}: {error}") from error


async def read_problem(db: Database, *, run_id: UUID, now: datetime, policy: Policy) -> Problem:
    """Everything that is open and may be brokered, with stock, capacity and what must not be broken."""
    async with db.pool.acquire() as tx, tx.transaction(isolation="repeatable_read", readonly=True):
        orders = await open_orders(tx, run_id=run_id, limit=ORDERS_MAX)
        ids = [o.order_id for o in orders]
        lines = await open_lines(tx, orders=ids, now=now)
        skus = sorted({n.sku_id for n in lines})
        places = await locations(tx, now=now)
        stock = await stock_of(tx, skus=skus)
        reserved = await reserved_of(tx, skus=skus)
        members: dict[int, tuple[int, ...]] = {}
        for pool_id, location_id in await pool_members(tx):
            members[pool_id] = (*members.get(pool_id, ()), location_id)
        not_again = await barred(tx, now=now, orders=ids)
    inside: dict[tuple[int, int], int] = {}
    for n in lines:
        inside[n.sku_id, n.pool_id] = inside.get((n.sku_id, n.pool_id), 0) + n.quantity
    protected = [
        Protected(r.sku_id, r.pool_id, r.quantity - inside.get((r.sku_id, r.pool_id), 0))
        for r in reserved
        if r.quantity > inside.get((r.sku_id, r.pool_id), 0)
    ]
    with_lines = {n.order_id for n in lines}
    return Problem(
        [o for o in orders if o.order_id in with_lines], lines, places, stock, members, protected, not_again, policy
    )


def summarize(problem: Problem, found: Plan) -> dict[str, Any]:
    """What a person wants to know of a plan, with the usual rule beside it."""
    lines = {n.line_id: n for n in problem.lines}
    where: dict[str, set[int]] = {}
    for a in found.assignments:
        where.setdefault(lines[a.line_id].order_id, set()).add(a.location_id)
    unfilled: dict[str, int] = {}
    for u in found.unfilled:
        unfilled[u.reason] = unfilled.get(u.reason, 0) + 1
    summary: dict[str, Any] = {
        "orders": len(problem.orders), "lines": len(problem.lines), "assigned_lines": len(found.assignments),
        "unfilled": unfilled, "cost_cents": found.cost, "bound_cents": found.bound, "gap": round(found.gap, 6),
        "packages": found.packages,
        "split_rate": round(sum(len(p) > 1 for p in where.values()) / max(1, len(where)), 4),
        "cost_by_term": found.cost_by_term, "phases": found.phases, "protected": len(problem.protected),
    }  # fmt: skip
    if 0 < len(problem.orders) <= COMPARED_ORDERS_MAX:
        summary["nearest_cents"] = nearest(problem).cost
    return summary


async def apply(
    db: Database, *, run_id: UUID, who: str, now: datetime, cache: Cache | None = None, progress: Progress | None = None
) -> None:
    """Writes a run's decisions, a chunk of orders per transaction; each is done once, whoever does it."""
    done = 0
    while True:
        async with db.transaction() as tx:
            taken = await take_run(tx, run_id=run_id, lease_seconds=LEASE_SECONDS, mine=True)
            if taken is None or taken.state != "planned" or taken.dry_run:
                return
            chunk = await next_decisions(tx, run_id=run_id, limit=ORDERS_PER_CHUNK)
            if not chunk:
                summary = await finish_run(tx, run_id=run_id)
                await record.keep(tx, who=who, steps=[record.Step("run", str(run_id), "applied", detail=summary)])
                break
            plans = [OrderPlan(order_id, msgspec.convert(plan, list[Planned])) for order_id, plan in chunk]
            await allocate(tx, run_id=run_id, plans=plans, who=who, now=now)
        done += len(chunk)
        if progress:
            progress("allocate", done, None)
    if cache is not None:
        await cache.wake("project")


async def allocate(tx: Connection, *, run_id: UUID, plans: Sequence[OrderPlan], who: str, now: datetime) -> None:
    """Allocates a chunk of orders; what no longer fits, and what its split rule binds to it, stays open."""
    ids = [p.order_id for p in plans]
    orders = {o.order_id: o for o in await take_orders(tx, orders=ids)}
    mine = set(await take_decisions(tx, run_id=run_id, orders=ids))
    plans = sorted((p for p in plans if p.order_id in mine), key=lambda p: p.order_id)
    lines = {n.line_id: n for n in await take_lines(tx, orders=[p.order_id for p in plans])}
    wanted = [(w, lines[w.line_id]) for p in plans for w in p.plan if w.line_id in lines]
    places = {p.location_id: p for p in await places_on(tx, locations=list({w.location_id for w, _ in wanted}))}
    days = {i: local_day(now, p.time_zone) for i, p in places.items()}
    book = await Book.open(tx, skus={n.sku_id for _, n in wanted}, keys={(n.sku_id, w.location_id) for w, n in wanted})
    room = await ledger.capacity(tx, {(i, days[i]) for i in places})
    works: list[ledger.Work] = []
    fates: dict[UUID, tuple[list[Planned], list[Fate]]] = {}
    for p in plans:
        fate = [_fits(book, w, lines.get(w.line_id), places) for w in p.plan]
        kept = bind_split(
            orders[p.order_id].split,
            p.plan,
            fate,
            open_lines={n.line_id: f"{n.line}" for n in lines.values() if n.order_id == p.order_id and n.open > 0},
        )
        kept, more = _with_capacity(kept, lines, room, days, works, split=orders[p.order_id].split)
        for w in kept:
            line = lines[w.line_id]
            book.keep(line.sku_id, line.pool_id, -w.quantity)
            book.allocate(line.sku_id, w.location_id, w.quantity, pool_id=line.pool_id, channel_id=None)
        fates[p.order_id] = (kept, [*fate, *more])
    await book.write(tx, capped=())
    await ledger.work(tx, works)
    done = [(order_id, w) for order_id, (kept, _) in fates.items() for w in kept]
    await allocate_lines(tx, lines=[w.line_id for _, w in done], quantities=[w.quantity for _, w in done])
    await _fulfillments(tx, run_id=run_id, done=done, lines=lines, days=days)
    await _conclude(tx, run_id=run_id, plans=plans, fates=fates, places=places, who=who)


def _fits(book: Book, w: Planned, line: OpenLine | None, places: Mapping[int, Place]) -> Fate:
    """Whether a planned line may be allocated now: open as it was read, location on, stock there, no promise broken."""
    if line is None or line.version != w.version or line.open < w.quantity or line.hold is not None:
        return Fate(w.line_id, "changed since it was read")
    place = places.get(w.location_id)
    if place is None or not place.is_on:
        return Fate(w.line_id, "the location is off")
    return Fate(w.line_id, book.may_allocate(line.sku_id, w.location_id, line.pool_id, w.quantity))


def _with_capacity(
    kept: Sequence[Planned],
    lines: Mapping[int, OpenLine],
    room: dict[tuple[int, date], ledger.Capacity],
    days: Mapping[int, date],
    works: list[ledger.Work],
    *,
    split: str,
) -> tuple[list[Planned], list[Fate]]:
    """Takes the work of each package from its location's day; packages that do not fit are dropped."""
    packages: dict[int, list[Planned]] = {}
    for w in kept:
        packages.setdefault(w.location_id, []).append(w)
    needs = {
        at: ledger.Work(
            at, days[at], 1, sum(w.quantity for w in ws), sum(w.quantity * lines[w.line_id].price_cents for w in ws)
        )
        for at, ws in packages.items()
    }  # fmt: skip
    full = {at for at, need in needs.items() if not room[at, days[at]].fits(need)}
    if full and split in ("complete", "keep_together"):
        full = set(packages)
    for at, need in needs.items():
        if at not in full:
            used = room[at, days[at]]
            room[at, days[at]] = msgspec.structs.replace(
                used, orders=used.orders + need.orders, items=used.items + need.items, cents=used.cents + need.cents
            )
            works.append(need)
    dropped = [Fate(w.line_id, "its location's day is full") for at in full for w in packages[at]]
    return [w for w in kept if w.location_id not in full], dropped


async def _fulfillments(
    tx: Connection,
    *,
    run_id: UUID,
    done: Sequence[tuple[UUID, Planned]],
    lines: Mapping[int, OpenLine],
    days: Mapping[int, date],
) -> None:
    """A fulfillment per order and location, with its lines."""
    pairs = sorted({(order_id, w.location_id) for order_id, w in done})
    made = {
        (f.order_id, f.location_id): f.fulfillment_id
        for f in await make_fulfillments(
            tx, run_id=run_id, orders=[p[0] for p in pairs], locations=[p[1] for p in pairs],
            days=[days[p[1]] for p in pairs],
        )
    }  # fmt: skip
    await make_fulfillment_lines(
        tx, fulfillments=[made[order_id, w.location_id] for order_id, w in done], lines=[w.line_id for _, w in done],
        skus=[lines[w.line_id].sku_id for _, w in done], quantities=[w.quantity for _, w in done],
    )  # fmt: skip


async def _conclude(
    tx: Connection,
    *,
    run_id: UUID,
    plans: Sequence[OrderPlan],
    fates: Mapping[UUID, tuple[list[Planned], list[Fate]]],
    places: Mapping[int, Place],
    who: str,
) -> None:
    """Keeps what became of each decision, and the orders' history."""
    states, results, steps = [], [], []
    for p in plans:
        kept, fate = fates[p.order_id]
        why = sorted({f.refused for f in fate if f.refused})
        states.append("applied" if len(kept) == len(p.plan) else "partly" if kept else "dropped")
        results.append("; ".join(why) or None)
        if kept:
            at = sorted({places[w.location_id].code for w in kept})
            steps.append(
                record.Step("order", str(p.order_id), "allocated", why=f"run {run_id}",
                            detail={"lines": len(kept), "locations": at})
            )  # fmt: skip
    await decided(tx, run_id=run_id, orders=[p.order_id for p in plans], states=states, results=results)
    await record.keep(tx, who=who, steps=steps)


async def read(db: Database, *, run_id: UUID) -> Run:
    """A run; raises NotFound."""
    async with db.connection() as tx:
        found = await run_row(tx, run_id=run_id)
    if found is None:
        raise NotFound(f"There is no run {run_id}.")
    return found


async def listed(db: Database, *, before: UUID | None, limit: int) -> list[Run]:
    """Runs, newest first."""
    async with db.connection() as tx:
        return await runs_page(tx, before=before, limit=limit)


async def why(db: Database, *, run_id: UUID, number: str | None, after: UUID | None, limit: int) -> list[Decided]:
    """The decisions of a run with their candidates, locations by code."""
    await read(db, run_id=run_id)
    async with db.connection() as tx:
        rows = await decisions_of(tx, run_id=run_id, number=number, after=after, limit=limit)
        codes: dict[int, str] = dict(await location_codes(tx))
    for row in rows:
        for part in (*row.plan, *row.why.get("candidates", [])):
            part["location"] = codes.get(part.pop("location_id"))
    return rows
