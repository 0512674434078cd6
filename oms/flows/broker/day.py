"""A past day as it was: its orders from their first capture, its stock from its first minute, what came and went meanwhile."""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from brokering import Assignment, Line, Location, Order, Plan, Problem, Protected, Shadow, Stock
from brokering.policies import Subject
from brokering.replay import Change
from oms.db import Database, Sql
from oms.domain.acceptance import shares
from oms.flows.broker.planning import (
    ORDERS_MAX,
    Site,
    addresses_of,
    asked_of,
    located,
    location_at,
    pool_members,
    subjects_of,
    warm_of,
)

sql = Sql("what_if")

PRICED_BY_RUNS = 3

day_orders = sql.rows("day_orders", Order)
day_arrivals = sql.rows("day_arrivals", tuple)
day_lines = sql.rows("day_lines", Line)
day_stock = sql.rows("day_stock", Stock)
day_changes = sql.rows("day_changes", Change)
day_locations = sql.rows("day_locations", Site)
day_promised = sql.rows("day_promised", Protected)
day_went = sql.rows("day_went", Assignment)
prices_before = sql.rows("prices_before", dict)


class Day(msgspec.Struct, frozen=True):
    """A day: its problem at its first minute with all its orders, when they came, what changed, and where they went."""

    problem: Problem
    arrives: dict[str, float]
    changes: list[Change]
    prices: list[Shadow]
    went: list[Assignment]
    subjects: list[Subject]
    places: Callable[[float], list[Location]]
    minutes: float

    def in_all(self, problem: Problem) -> Problem:
        """The problem with all that came and went in the day: what stores are left with is counted by it."""
        rows = {(s.sku_id, s.location_id): s for s in problem.stock}
        units = {key: s.available for key, s in rows.items()}
        for c in self.changes:
            units[c.sku_id, c.location_id] = units.get((c.sku_id, c.location_id), 0) + c.units
        return msgspec.structs.replace(
            problem, stock=[Stock(sku, at, left) for (sku, at), left in sorted(units.items()) if left > 0]
        )

    def as_it_was(self) -> Plan:
        """Where its lines really went, as far as it is known."""
        known, lines = {n.location_id for n in self.problem.locations}, {n.line_id for n in self.problem.lines}
        went = [a for a in self.went if a.location_id in known and a.line_id in lines]
        return Plan(went, [], 0, 0, [], {}, {}, 0)


def span_of(day: date, time_zone: str) -> tuple[datetime, datetime]:
    """The first moment of a local day and of the next."""
    zone = ZoneInfo(time_zone)
    return datetime.combine(day, time(), zone), datetime.combine(day + timedelta(days=1), time(), zone)


async def read_day(db: Database, *, from_at: datetime, until_at: datetime) -> Day:
    """A day as the ledger and the past have it, read in one snapshot. Settings of today, where no past is kept of them."""
    async with db.pool.acquire() as tx, tx.transaction(isolation="repeatable_read", readonly=True):
        orders = await day_orders(tx, from_at=from_at, until_at=until_at, limit=ORDERS_MAX)
        ids = [o.order_id for o in orders]
        addresses = {
            a.order_id: a for a in await addresses_of(tx, orders=[o.order_id for o in orders if o.lat is None])
        }
        arrives: dict[str, float] = dict(await day_arrivals(tx, orders=ids, from_at=from_at))
        lines = await day_lines(tx, orders=ids)
        skus = sorted({n.sku_id for n in lines})
        stock = await day_stock(tx, skus=skus, at=from_at)
        changes = await day_changes(tx, skus=skus, from_at=from_at, until_at=until_at)
        sites = await day_locations(tx, at=from_at)
        protected = await day_promised(tx, skus=skus, at=from_at)
        members = [tuple(row) for row in await pool_members(tx)]
        rejected = shares(await asked_of(tx, skus=skus, now=from_at))
        subjects = await subjects_of(tx, orders=ids)
        went = await day_went(tx, orders=ids)
        before: list[dict[str, Any]] = await prices_before(tx, at=from_at, limit=PRICED_BY_RUNS)
    pools: dict[int, tuple[int, ...]] = {}
    groups: dict[int, tuple[str, ...]] = {}
    for pool_id, location_id, code in members:
        pools[pool_id] = (*pools.get(pool_id, ()), location_id)
        groups[location_id] = (*groups.get(location_id, ()), code)

    def places(minute: float) -> list[Location]:
        now = from_at + timedelta(minutes=minute)
        return [
            location_at(s, groups.get(s.location_id, ()), rejected.places.get(s.location_id, rejected.mean), now=now)
            for s in sites
        ]

    problem = Problem(
        [located(o, addresses.get(o.order_id)) for o in orders], lines, places(0),
        [
            msgspec.structs.replace(n, reject_share=rejected.of_sku.get((n.sku_id, n.location_id)))
            for n in stock
        ],
        pools, protected,
    )  # fmt: skip
    prices = [shadow for kept in before if (shadow := warm_of(kept)) is not None]
    minutes = (until_at - from_at).total_seconds() / 60
    return Day(problem, arrives, changes, prices, went, subjects, places, minutes)
