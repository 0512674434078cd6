"""What is open becomes a plan: read in one snapshot, planned by the engine, audited, kept as decisions."""

import asyncio
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from brokering import (
    Barred,
    CellPrice,
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
from oms.db import Database, Sql
from oms.domain import places
from oms.domain.acceptance import Asked, shares
from oms.domain.promise import Hours, ships_on
from oms.flows.broker import kept

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
    """A location with what its day still has room for, and when it works."""

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


open_orders = sql.rows("open_orders", Order)
open_lines = sql.rows("open_lines", Line)
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
last_prices = sql.maybe("last_prices", dict)


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
) -> None:
    """Reads what is open, plans it, audits the plan and keeps it as decisions."""
    problem, told = await read_problem(db, run_id=run_id, now=now, policies=policies, is_for_all=is_for_all)

    def tell(phase: str, at: int, of: int) -> None:
        if progress:
            progress(f"plan: {phase}", at, of)

    async with db.connection() as tx:
        warm = warm_of(await last_prices(tx))
    found = await asyncio.to_thread(broker, problem, seconds=seconds, seed=seed, progress=tell, warm=warm)
    faults = await asyncio.to_thread(audit, problem, found)
    assert not faults, f"the plan breaks the law: {faults[:5]}"
    summary = await asyncio.to_thread(summarize, problem, found)
    summary["hints"] = told
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
    packed = await asyncio.to_thread(kept.pack, problem)
    async with db.transaction() as tx:
        await kept.keep(tx, run_id=run_id, packed=packed)
        for start in range(0, len(found.decisions), DECISIONS_AT_ONCE):
            some = found.decisions[start : start + DECISIONS_AT_ONCE]
            # a plan is a list, which an array of jsonb would take for a second dimension: it travels as text
            await keep_decisions(
                tx, run_id=run_id, orders=[d.order_id for d in some],
                plans=[msgspec.json.encode(by_order[d.order_id]).decode() for d in some],
                whys=[{**msgspec.to_builtins(d), "unfilled": reasons.get(d.order_id, {})} for d in some],
            )  # fmt: skip
        await record.raise_exceptions(tx, [_somewhere(o) for o in problem.orders if None in (o.lat, o.lon)])
        await planned(tx, run_id=run_id, summary=summary, prices=kept_prices(found.prices))


def kept_prices(prices: Shadow) -> dict[str, Any]:
    """Prices as a run keeps them, largest first: [sku, location, cents, day] and [location, order, item, share, slot]."""
    return {
        "stock": [[p.sku_id, p.location_id, p.cents, p.day] for p in prices.stock[:PRICES_MAX]],
        "work": [[p.location_id, p.order_cents, p.item_cents, p.share, p.slot] for p in prices.work[:PRICES_MAX]],
    }  # fmt: skip


def warm_of(kept: dict[str, Any] | None) -> Shadow | None:
    """The prices of a run, where one is kept."""
    if kept is None:
        return None
    return Shadow([CellPrice(*p) for p in kept["stock"]], [WorkPrice(*p) for p in kept["work"]])


def _somewhere(order: Order) -> record.Trouble:
    """Nobody knows where an order goes."""
    return record.Trouble(
        kind="address_unknown", subject=order.order_id,
        detail="Its address has no coordinates and a postal code that is not known here: brokering takes it for as far "
        "away as the farthest zone. Have the channel send lat and lon.",
    )  # fmt: skip


async def read_problem(
    db: Database, *, run_id: UUID, now: datetime, policies: list[Version], is_for_all: bool = False
) -> tuple[Problem, list[str]]:
    """Everything that is open and may be brokered, with stock, capacity and what must not be broken; and hints.

    Each order is planned by the first of the policies whose scope it is in (by the only one, where that `is_for_all`),
    by the engine's own weights where there is none. How often a location rejects is learned from 90 days.
    """
    async with db.pool.acquire() as tx, tx.transaction(isolation="repeatable_read", readonly=True):
        orders = await open_orders(tx, run_id=run_id, limit=ORDERS_MAX)
        ids = [o.order_id for o in orders]
        addresses = {
            a.order_id: a for a in await addresses_of(tx, orders=[o.order_id for o in orders if o.lat is None])
        }
        lines = await open_lines(tx, orders=ids, now=now)
        skus = sorted({n.sku_id for n in lines})
        sites = await locations(tx, now=now)
        stock = await stock_of(tx, skus=skus)
        reserved = await reserved_of(tx, skus=skus)
        members: dict[int, tuple[int, ...]] = {}
        codes: dict[int, str] = {}
        for pool_id, location_id, code in await pool_members(tx):
            members[pool_id] = (*members.get(pool_id, ()), location_id)
            codes[pool_id] = code
        not_again = await barred(tx, now=now, orders=ids)
        subjects = await subjects_of(tx, orders=ids) if policies else []
        rejected = shares(await asked_of(tx, skus=skus, now=now))
    inside: dict[tuple[int, int], int] = {}
    for n in lines:
        inside[n.sku_id, n.pool_id] = inside.get((n.sku_id, n.pool_id), 0) + n.quantity
    protected = [
        Protected(r.sku_id, r.pool_id, r.quantity - inside.get((r.sku_id, r.pool_id), 0))
        for r in reserved
        if r.quantity > inside.get((r.sku_id, r.pool_id), 0)
    ]
    with_lines = {n.order_id for n in lines}
    policy_of = {s.order_id: 0 if is_for_all else policy_for(policies, s) for s in subjects}
    groups: dict[int, tuple[str, ...]] = {}
    for pool_id, here in members.items():
        for location_id in here:
            groups[location_id] = (*groups.get(location_id, ()), codes[pool_id])
    problem = Problem(
        [
            msgspec.structs.replace(located(o, addresses.get(o.order_id)), policy=policy_of.get(o.order_id))
            for o in orders if o.order_id in with_lines
        ],
        lines,
        [location_at(s, groups.get(s.location_id, ()), rejected.places.get(s.location_id, rejected.mean), now=now) for s in sites],
        [
            msgspec.structs.replace(n, reject_share=rejected.of_sku[n.sku_id, n.location_id])
            if (n.sku_id, n.location_id) in rejected.of_sku else n
            for n in stock
        ],
        members,
        protected,
        not_again,
        policies=tuple(p.body.costs() for p in policies),
    )  # fmt: skip
    return problem, [] if is_for_all else hints(policies, subjects)


def location_at(site: Site, groups: tuple[str, ...], rejected: float, *, now: datetime) -> Location:
    """A location as the engine takes it: when what is asked now leaves, by its calendar and cut-off."""
    leaves = ships_on(Hours(site.time_zone, site.work_days, site.cut_off, site.handling_days, 0, site.holidays), now)
    today = now.astimezone(ZoneInfo(site.time_zone)).date()
    return Location(
        site.location_id, site.kind, site.lat, site.lon, site.capacity_orders, site.capacity_items, site.capacity_cents,
        site.package_cents, site.line_cents, rejected,
        leave_days=((leaves - today).days if leaves is not None else NEVER_DAYS,), groups=groups,
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
