"""What is open becomes a plan: read in one snapshot, planned by the engine, audited, kept as decisions."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from types import MappingProxyType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from brokering import (
    Barred,
    CellPrice,
    Decision,
    Line,
    Location,
    Order,
    Plan,
    Problem,
    Protected,
    Shadow,
    Stock,
    WorkPrice,
    audit,
    broker,
    nearest,
)
from brokering.policies import Subject, Version, hints, policy_for
from oms import record
from oms.db import Connection, Database, Sql
from oms.domain import places
from oms.domain.acceptance import Asked, Shares, shares
from oms.domain.allocation import OrderPlan, Planned
from oms.domain.ids import ids_from
from oms.domain.promise import Hours, ships_on
from oms.flows.broker import kept
from oms.flows.broker.again import Again, joined, moving, read_again, without
from oms.flows.broker.crew import ORDERS_MIN, Crew
from oms.flows.broker.dearer import dearer_at, has_transfer_prices
from oms.flows.broker.waiting import Waited, whose_turn_it_is
from oms.flows.broker.waves import slots_of

sql = Sql("broker")

ORDERS_MAX = 200_000
DECISIONS_AT_ONCE = 2000
COMPARED_ORDERS_MAX = 60_000
PRICES_MAX = 50_000
NEVER_DAYS = 99
"""When a location that never works sends something."""
Progress = Callable[[str, int, int | None], None]


class Address(msgspec.Struct, frozen=True):
    """Where an order goes, as its channel said it."""

    order_id: str
    postal_code: str
    country: str


class Site(msgspec.Struct, frozen=True):
    """A location with what its day still has room for, and when it works; its waves, `limits` of a day, and what is taken."""

    location_id: int
    kind: str
    lat: float | None
    lon: float | None
    capacity_orders: int | None
    capacity_items: int | None
    capacity_cents: int | None
    package_cents: int
    line_cents: int
    time_zone: str
    work_days: str
    cut_off: time | None
    handling_days: int
    holidays: list[date]
    waves: list[dict[str, Any]] = []
    limits: list[int | None] = msgspec.field(default_factory=lambda: [None, None, None])
    taken: list[dict[str, Any]] = []


open_orders = sql.rows("open_orders", Order)
open_lines = sql.rows("open_lines", Line)
captured_orders = sql.rows("captured_orders", Order)
captured_lines = sql.rows("captured_lines", Line)
locations = sql.rows("locations", Site)
stock_of = sql.rows("stock_of", Stock)
pool_members = sql.rows("pool_members", tuple)
reserved_of = sql.rows("reserved_of", Protected)
barred = sql.rows("barred", Barred)
addresses_of = sql.rows("addresses_of", Address)
subjects_of = sql.rows("subjects_of", Subject)
asked_of = sql.rows("asked_of", Asked)
keep_decisions = sql.run("keep_decisions")
planned = sql.maybe("planned", UUID)
newest_due = sql.one("newest_due", int)
drop_planned_due = sql.run("drop_planned_due")
recent_prices = sql.rows("recent_prices", tuple)


class Network(msgspec.Struct, frozen=True):
    """Locations that are on (`here`), pools' members, and how often a (sku, location) is rejected, where that is known."""

    locations: list[Location]
    here: frozenset[int]
    pools: dict[int, tuple[int, ...]]
    rejected: dict[tuple[int, int], float]
    has_prices: bool = False
    """Whether there are transfer prices: units cost their seller more where they are another's."""


class Which(msgspec.Struct, frozen=True):
    """Which open orders: all, or these, or those brokered at a minute of the day (what is left, `every` so many).

    Or, as a forecast of what is to come, all orders `captured` between two moments, whatever became of them.
    """

    orders: list[UUID] | None = None
    minute: int | None = None
    every: int = 1
    captured: tuple[datetime, datetime] | None = None


ALL_OPEN = Which()


async def plan(
    db: Database,
    *,
    run_id: UUID,
    seconds: float,
    seed: int,
    now: datetime,
    dry_run: bool,
    policies: list[Version],
    is_for_all: bool,
    progress: Progress | None,
    which: Which = ALL_OPEN,
    crew_at: str | None = None,
) -> None:
    """Reads what is open, plans it (large runs with helpers at a Redis), audits the plan and keeps it as decisions."""
    async with db.connection() as tx:
        due = await newest_due(tx)
    problem, told, again = await read_with_moves(
        db, run_id=run_id, now=now, policies=policies, is_for_all=is_for_all, which=which
    )

    def tell(phase: str, at: int, of: int) -> None:
        if progress:
            progress(f"plan: {phase}", at, of)

    async with db.connection() as tx:
        warm = next((warm_of(kept) for _, kept in await recent_prices(tx, limit=1)), None)
    if again is not None and again.orders:
        problem, stays = await asyncio.to_thread(_with_moves, problem, again, seconds=seconds / 2, seed=seed, warm=warm)
        seconds /= 2
    else:
        stays = set()
    crew = await Crew.open(crew_at) if crew_at is not None and len(problem.orders) >= ORDERS_MIN else None
    try:
        found = await asyncio.to_thread(
            broker, problem, seconds=seconds, seed=seed, progress=tell, warm=warm, executor=crew
        )
    finally:
        if crew is not None:
            await crew.close()
    faults = await asyncio.to_thread(audit, problem, found)
    assert not faults, f"the plan breaks the law: {faults[:5]}"
    saves: dict[str, int] = {}
    if again is not None and again.orders:
        mine = again.least.keys() - stays
        saves = moving(problem, again, found, mine)
        found = without(problem, found, mine - saves.keys())
    summary = await asyncio.to_thread(summarize, problem, found)
    summary["hints"] = told
    if again is not None:
        summary["moves"] = {"orders": len(saves), "saves_cents": sum(saves.values()), "of": len(again.orders)}
    if crew is not None:
        summary["tasks"] = crew.who
    packed = await asyncio.to_thread(kept.pack, problem)
    async with db.transaction() as tx:
        await kept.keep(tx, run_id=run_id, packed=packed)
        await keep_plan(tx, run_id=run_id, problem=problem, found=found, saves=saves)
        if not dry_run:
            await drop_planned_due(tx, run_id=run_id, upto=due, is_all=which == ALL_OPEN)
        await planned(tx, run_id=run_id, summary=summary, prices=kept_prices(found.prices))


def _with_moves(
    problem: Problem, again: Again, *, seconds: float, seed: int, warm: Shadow | None
) -> tuple[Problem, set[str]]:
    """The problem with the orders of `again` that a first plan moves; and those that stay where they are."""
    every = again.least.keys()
    whole = joined(problem, again, every)
    first = broker(whole, seconds=seconds, seed=seed, warm=warm, explain=False)
    moves = moving(whole, again, first, every)
    return joined(problem, again, moves.keys()), set(every - moves.keys())


async def keep_plan(
    tx: Connection, *, run_id: UUID, problem: Problem, found: Plan, saves: Mapping[str, int] = MappingProxyType({})
) -> list[OrderPlan]:
    """Keeps a plan as decisions, each with its why; gives what is to be allocated of each order.

    `saves` are the cents that moving an order's work saves.
    """
    versions = {n.line_id: n for n in problem.lines}
    names = {n.location_id: [s.name for s in n.slots] for n in problem.locations if n.slots}
    by_order: dict[str, list[Planned]] = {o.order_id: [] for o in problem.orders}
    for a in found.assignments:
        line = versions[a.line_id]
        wave = None if a.slot is None else datetime.fromisoformat(names[a.location_id][a.slot])
        by_order[line.order_id].append(Planned(a.line_id, line.version, a.location_id, a.quantity, wave))
    reasons: dict[str, dict[str, str]] = {}
    for u in found.unfilled:
        reasons.setdefault(versions[u.line_id].order_id, {})[str(u.line_id)] = u.reason
    for start in range(0, len(found.decisions), DECISIONS_AT_ONCE):
        some = found.decisions[start : start + DECISIONS_AT_ONCE]
        # a plan is a list, which an array of jsonb would take for a second dimension: it travels as text
        await keep_decisions(
            tx, run_id=run_id, orders=[d.order_id for d in some],
            plans=[msgspec.json.encode(by_order[d.order_id]).decode() for d in some],
            whys=[
                {**_told(d, names), "unfilled": reasons.get(d.order_id, {})}
                | ({"saves": saves[d.order_id]} if d.order_id in saves else {})
                for d in some
            ],
        )  # fmt: skip
    await record.raise_exceptions(tx, [_somewhere(o) for o in problem.orders if None in (o.lat, o.lon)])
    return [OrderPlan(UUID(order_id), plan) for order_id, plan in by_order.items() if plan]


def _told(decision: Decision, names: Mapping[int, Sequence[str]]) -> dict[str, Any]:
    """A decision as it is kept, with waves by the moment at which they begin."""
    why: dict[str, Any] = msgspec.to_builtins(decision)
    for candidate in why["candidates"]:
        slot = candidate.pop("slot")
        if slot is not None:
            candidate["wave"] = names[candidate["location_id"]][slot]
    return why


def kept_prices(prices: Shadow) -> dict[str, Any]:
    """Prices as a run keeps them, largest first: [sku, location, cents, day] and [location, order, item, share, slot]."""
    return {
        "stock": [[p.sku_id, p.location_id, p.cents, p.day] for p in prices.stock[:PRICES_MAX]],
        "work": [[p.location_id, p.order_cents, p.item_cents, p.share, p.slot] for p in prices.work[:PRICES_MAX]],
    }  # fmt: skip


def warm_of(kept: dict[str, Any]) -> Shadow:
    """The prices that a run kept."""
    return Shadow([CellPrice(*p) for p in kept["stock"]], [WorkPrice(*p) for p in kept["work"]])


def _somewhere(order: Order) -> record.Trouble:
    """Nobody knows where an order goes."""
    return record.Trouble(
        kind="address_unknown", subject=order.order_id,
        detail="Its address has no coordinates and a postal code that is not known here: brokering takes it for as far "
        "away as the farthest zone. Have the channel send lat and lon.",
    )  # fmt: skip


async def read_problem(
    db: Database,
    *,
    run_id: UUID,
    now: datetime,
    policies: list[Version],
    is_for_all: bool = False,
    which: Which = ALL_OPEN,
    network: Network | None = None,
) -> tuple[Problem, list[str]]:
    """Everything that is open and may be brokered, with stock, capacity and what must not be broken; and hints."""
    problem, told, _ = await read_with_moves(
        db,
        run_id=run_id,
        now=now,
        policies=policies,
        is_for_all=is_for_all,
        which=which,
        network=network,
        may_move=False,
    )
    return problem, told


async def read_with_moves(
    db: Database,
    *,
    run_id: UUID,
    now: datetime,
    policies: list[Version],
    is_for_all: bool = False,
    which: Which = ALL_OPEN,
    network: Network | None = None,
    may_move: bool = True,
) -> tuple[Problem, list[str], Again | None]:
    """What is open as a problem, hints, and the work that its policies let move, which is not in the problem yet.

    Each order is planned by the first of the policies whose scope it is in (by the only one, where that `is_for_all`),
    by the engine's own weights where there is none. `network` is what the caller remembers; what has changed since is
    found when the plan is written.
    """
    async with db.pool.acquire() as tx, tx.transaction(isolation="repeatable_read", readonly=True):
        if which.captured is not None:
            first, last = (ids_from(at) for at in which.captured)
            orders = await captured_orders(tx, first=first, last=last, limit=ORDERS_MAX)
        else:
            orders = await open_orders(
                tx, run_id=run_id, limit=ORDERS_MAX, orders=which.orders, minute=which.minute, every=which.every
            )
        ids = [o.order_id for o in orders]
        subjects = await subjects_of(tx, orders=ids) if policies else []
        policy_of = {s.order_id: 0 if is_for_all else policy_for(policies, s) for s in subjects}
        costs = tuple(p.body.costs() for p in policies)
        splitting = [p.units_split for p in costs]
        if which.captured is None:
            found = await open_lines(tx, orders=ids, now=now)
            splits = {o.order_id: o.split for o in orders}
            in_parts = {i for i, at in policy_of.items() if splits[i] == "free" and at is not None and splitting[at]}
            waited = await whose_turn_it_is(tx, found, splits=splits, in_parts=in_parts, today=now.date())
        else:
            waited = Waited(await captured_lines(tx, orders=ids), 0, {})
        lines = waited.lines
        again = (
            await read_again(tx, run_id=run_id, policies=policies, is_for_all=is_for_all, now=now, limit=ORDERS_MAX)
            if may_move else None
        )  # fmt: skip
        released = [] if again is None else again.orders
        nowhere = [o.order_id for o in (*orders, *released) if o.lat is None]
        addresses = {a.order_id: a for a in await addresses_of(tx, orders=nowhere)}
        skus = sorted({n.sku_id for n in (*lines, *(again.lines if again is not None else ()))})
        stock = await stock_of(tx, skus=skus)
        reserved = await reserved_of(tx, skus=skus)
        not_again = await barred(tx, now=now, orders=[*ids, *(o.order_id for o in released)])
        if network is None:
            network = await read_network(tx, now=now, rejected=shares(await asked_of(tx, skus=skus, now=now)))
        dearer = await dearer_at(tx, lines=lines, today=now.date()) if network.has_prices else {}
    # what waits for its receipts is no promise of present stock
    inside: dict[tuple[int, int], int] = dict(waited.units)
    for n in lines if which.captured is None else ():
        inside[n.sku_id, n.pool_id] = inside.get((n.sku_id, n.pool_id), 0) + n.quantity
    protected = [
        Protected(r.sku_id, r.pool_id, r.quantity - inside.get((r.sku_id, r.pool_id), 0))
        for r in reserved
        if r.quantity > inside.get((r.sku_id, r.pool_id), 0)
    ]
    with_lines = {n.order_id for n in lines}
    problem = Problem(
        [
            msgspec.structs.replace(located(o, addresses.get(o.order_id)), policy=policy_of.get(o.order_id))
            for o in orders if o.order_id in with_lines
        ],
        lines,
        network.locations,
        [_costed(n, network.rejected, dearer) for n in stock if n.location_id in network.here],
        network.pools,
        protected,
        [b for b in not_again if b.order_id in with_lines],
        policies=costs,
    )  # fmt: skip
    if again is not None:
        again = msgspec.structs.replace(
            again, orders=[located(o, addresses.get(o.order_id)) for o in again.orders],
            barred=[b for b in not_again if b.order_id in again.least],
        )  # fmt: skip
    told = [] if is_for_all else hints(policies, subjects)
    return problem, [*told, f"{waited.left} lines wait for their receipts."] if waited.left else told, again


def _costed(stock: Stock, rejected: dict[tuple[int, int], float], dearer: dict[tuple[int, int], int]) -> Stock:
    """Stock with how often its location rejects the sku, where that is known, and what it costs more than one's own."""
    key = stock.sku_id, stock.location_id
    if key not in rejected and key not in dearer:
        return stock
    return msgspec.structs.replace(stock, reject_share=rejected.get(key), transfer_cents=dearer.get(key, 0))


async def read_network(tx: Connection, *, now: datetime, rejected: Shares) -> Network:
    """Locations that are on, with what their day still has room for, when they ship, and how often they reject."""
    members: dict[int, list[int]] = {}
    groups: dict[int, list[str]] = {}
    for pool_id, location_id, code in await pool_members(tx):
        members.setdefault(pool_id, []).append(location_id)
        groups.setdefault(location_id, []).append(code)
    found = [
        location_at(
            s, tuple(groups.get(s.location_id, ())), rejected.places.get(s.location_id, rejected.mean), now=now
        )
        for s in await locations(tx, now=now)
    ]  # fmt: skip
    pools = {pool_id: tuple(here) for pool_id, here in members.items()}
    here = frozenset(n.location_id for n in found)
    return Network(found, here, pools, rejected.of_sku, await has_transfer_prices(tx))


def location_at(site: Site, groups: tuple[str, ...], rejected: float, *, now: datetime) -> Location:
    """A location as the engine takes it: when what is asked now leaves, by its calendar and cut-off."""
    hours = Hours(site.time_zone, site.work_days, site.cut_off, site.handling_days, 0, site.holidays)
    leaves = ships_on(hours, now)
    today = now.astimezone(ZoneInfo(site.time_zone)).date()
    return Location(
        site.location_id, site.kind, site.lat, site.lon, site.capacity_orders, site.capacity_items, site.capacity_cents,
        site.package_cents, site.line_cents, rejected,
        leave_days=((leaves - today).days if leaves is not None else NEVER_DAYS,), groups=groups,
        slots=slots_of(site.waves, site.taken, site.limits, hours, now),
    )  # fmt: skip


def located(order: Order, address: Address | None) -> Order:
    """An order without coordinates, at the center of its postal code where that is known."""
    center = address and places.center_of(address.postal_code, address.country)
    return msgspec.structs.replace(order, lat=center[0], lon=center[1]) if center else order


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
