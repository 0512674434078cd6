"""What is open becomes a plan: read in one snapshot, planned by the engine, audited, kept as decisions."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from brokering import (
    Barred,
    Line,
    Location,
    Order,
    Plan,
    Policy,
    Problem,
    Protected,
    Stock,
    audit,
    broker,
    nearest,
)
from oms import record
from oms.db import Database, Sql
from oms.domain import places
from oms.errors import BadInput, NotFound

sql = Sql("broker")

ORDERS_MAX = 200_000
DECISIONS_AT_ONCE = 2000
COMPARED_ORDERS_MAX = 60_000
Progress = Callable[[str, int, int | None], None]


class Address(msgspec.Struct, frozen=True):
    """Where an order goes, as its channel said it."""

    order_id: str
    postal_code: str
    country: str


open_orders = sql.rows("open_orders", Order)
open_lines = sql.rows("open_lines", Line)
locations = sql.rows("locations", Location)
stock_of = sql.rows("stock_of", Stock)
pool_members = sql.rows("pool_members", tuple)
reserved_of = sql.rows("reserved_of", Protected)
barred = sql.rows("barred", Barred)
addresses_of = sql.rows("addresses_of", Address)
policy_body = sql.maybe("policy_body", dict)
keep_decisions = sql.run("keep_decisions")
planned = sql.maybe("planned", UUID)


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
        for start in range(0, len(found.decisions), DECISIONS_AT_ONCE):
            some = found.decisions[start : start + DECISIONS_AT_ONCE]
            # a plan is a list, which an array of jsonb would take for a second dimension: it travels as text
            await keep_decisions(
                tx, run_id=run_id, orders=[d.order_id for d in some],
                plans=[msgspec.json.encode(by_order[d.order_id]).decode() for d in some],
                whys=[{**msgspec.to_builtins(d), "unfilled": reasons.get(d.order_id, {})} for d in some],
            )  # fmt: skip
        await record.raise_exceptions(tx, [_somewhere(o) for o in problem.orders if None in (o.lat, o.lon)])
        await planned(tx, run_id=run_id, summary=summary)


def _somewhere(order: Order) -> record.Trouble:
    """Nobody knows where an order goes."""
    return record.Trouble(
        kind="address_unknown", subject=order.order_id,
        detail="Its address has no coordinates and a postal code that is not known here: brokering takes it for as far "
        "away as the farthest zone. Have the channel send lat and lon.",
    )  # fmt: skip


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
        addresses = {
            a.order_id: a for a in await addresses_of(tx, orders=[o.order_id for o in orders if o.lat is None])
        }
        lines = await open_lines(tx, orders=ids, now=now)
        skus = sorted({n.sku_id for n in lines})
        sites = await locations(tx, now=now)
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
        [located(o, addresses.get(o.order_id)) for o in orders if o.order_id in with_lines],
        lines,
        sites,
        stock,
        members,
        protected,
        not_again,
        policy,
    )


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
