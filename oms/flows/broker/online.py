"""Orders decided at once, those of one moment together, at the prices of recent runs: read, audited, kept, allocated.

What is due stands in rows of its own, which the schema fills when a line opens. A worker holds the rows that it takes
until its decisions are committed: killed, it leaves them to the next one.
"""

import time
from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

import msgspec
import structlog

from brokering import CellPrice, Online, Plan, Problem, Shadow, audit
from brokering.online import planned
from oms import record
from oms.cache import Cache
from oms.db import Connection, Database, Sql
from oms.domain.acceptance import Shares, shares
from oms.flows.broker.allocate import allocate, finish_run
from oms.flows.broker.planning import (
    Network,
    Which,
    asked_of,
    keep_plan,
    read_network,
    read_problem,
    recent_prices,
    warm_of,
)
from oms.flows.broker.policy import in_force

sql = Sql("broker")
log = structlog.get_logger("oms.online")

ORDERS_AT_ONCE = 50
JOINTLY_FROM = 1_000
"""So many that wait are planned together: a joint plan of them costs less, and takes no longer."""
RUNS_PRICED = 5
"""The mean of the prices of so many runs: those of one day mislead where stock is ample."""
LEARNED_SECONDS = 900.0
"""How long what locations reject is taken from memory."""
NETWORK_SECONDS = 2.0
"""How long locations, their room and pools are: what has changed meanwhile is found when the decision is written."""
NO_RUN = UUID(int=0)


class Due(msgspec.Struct, frozen=True):
    """A reason to decide an order now."""

    due_id: int
    order_id: UUID


class Known:
    """What a worker remembers between decisions: prices of recent runs, and what locations reject."""

    def __init__(self) -> None:
        self._newest: UUID | None = None
        self._cells: list[dict[int, list[CellPrice]]] = []
        self._work: list[Shadow] = []
        self._shares: Shares | None = None
        self._learned = self._looked = 0.0
        self.network: Network | None = None

    async def refresh(self, tx: Connection, *, now: datetime) -> None:
        """Reads what is newer than what it remembers."""
        newest = await newest_priced(tx)
        if newest != self._newest:
            kept = [warm_of(prices) for _, prices in await recent_prices(tx, limit=RUNS_PRICED)]
            self._cells, self._work = [], []
            for shadow in kept:
                by_sku: dict[int, list[CellPrice]] = {}
                for price in shadow.stock:
                    by_sku.setdefault(price.sku_id, []).append(price)
                self._cells.append(by_sku)
                self._work.append(Shadow([], shadow.work))
            self._newest = newest
        if self._shares is None or time.monotonic() > self._learned + LEARNED_SECONDS:
            self._shares = shares(await asked_of(tx, skus=None, now=now))
            self._learned = time.monotonic()
        if self.network is None or time.monotonic() > self._looked + NETWORK_SECONDS:
            self.network = await read_network(tx, now=now, rejected=self._shares)
            self._looked = time.monotonic()

    def prices(self, skus: Collection[int]) -> list[Shadow]:
        """The prices of recent runs of these skus' stock, and of all work."""
        return [
            Shadow([price for sku in skus for price in cells.get(sku, ())], work.work)
            for cells, work in zip(self._cells, self._work, strict=True)
        ]


take_due = sql.rows("take_due", Due)
count_due = sql.one("count_due", int)
drop_due = sql.run("drop_due")
drop_all_due = sql.run("drop_all_due")
begin_run = sql.one("begin_run", UUID)
newest_priced = sql.maybe("newest_priced", UUID)


async def decide_due(db: Database, known: Known, *, who: str, now: datetime, cache: Cache | None = None) -> int | None:
    """Decides what is due, group by group, until nothing is; gives how many orders, None where a joint plan is better.

    A group that fails is decided order by order: one that fails alone is an exception, and is left to the next run.
    """
    done = 0
    while True:
        async with db.connection() as tx:
            if await count_due(tx, limit=JOINTLY_FROM) >= JOINTLY_FROM:
                return None
        try:
            taken = await _group(db, known, who=who, now=now, most=ORDERS_AT_ONCE)
        except Exception as error:
            log.warning("a group of orders cannot be decided; one by one now", error=repr(error))
            taken = await _one_by_one(db, known, who=who, now=now)
        if not taken:
            return done
        done += taken
        if cache is not None:
            await cache.wake("project")


async def forget_due(db: Database) -> None:
    """All that is due now is planned by a run that reads it afterwards."""
    async with db.transaction() as tx:
        await drop_all_due(tx)


async def _group(db: Database, known: Known, *, who: str, now: datetime, most: int) -> int:
    async with db.transaction() as tx:
        due = await take_due(tx, limit=most)
        if not due:
            return 0
        await _decide(db, tx, known, orders=sorted({d.order_id for d in due}), who=who, now=now)
        await drop_due(tx, ids=[d.due_id for d in due])
    return len(due)


async def _one_by_one(db: Database, known: Known, *, who: str, now: datetime) -> int:
    for _ in range(ORDERS_AT_ONCE):
        try:
            if not await _group(db, known, who=who, now=now, most=1):
                break
        except Exception as error:
            async with db.transaction() as tx:
                for due in await take_due(tx, limit=1):
                    trouble = record.Trouble(
                        kind="run_failed", subject=str(due.order_id),
                        detail=f"Order {due.order_id} cannot be decided at once ({error}); the next run plans it.",
                    )  # fmt: skip
                    await record.raise_exceptions(tx, [trouble])
                    await drop_due(tx, ids=[due.due_id])
    return ORDERS_AT_ONCE


async def _decide(
    db: Database, tx: Connection, known: Known, *, orders: Sequence[UUID], who: str, now: datetime
) -> None:
    """Decides orders in turn on one snapshot, and allocates under guard what was decided."""
    await known.refresh(tx, now=now)
    policies = await in_force(tx, code=None, now=now, drafts=False)
    problem, _ = await read_problem(
        db, run_id=NO_RUN, now=now, policies=policies, which=Which(orders=list(orders)), network=known.network
    )
    if not problem.orders:
        return
    found = decided(problem, known.prices({n.sku_id for n in problem.lines}))
    run_id = await begin_run(
        tx, dry_run=False, policy=None, policies=[{"code": p.code, "version": p.version} for p in policies],
        seconds=0.0, seed=0, who=who, mode="online",
    )  # fmt: skip
    plans = await keep_plan(tx, run_id=run_id, problem=problem, found=found)
    if plans:
        await allocate(tx, run_id=run_id, plans=plans, who=who, now=now)
    await finish_run(tx, run_id=run_id)


def decided(problem: Problem, prices: Sequence[Shadow]) -> Plan:
    """One order after the other, those of a higher priority and of an earlier capture first, as an audited plan."""
    online = Online(problem, prices)
    turns = sorted(problem.orders, key=lambda o: (-o.priority, o.order_id))
    found = planned(problem, [a for o in turns for a in online.decide(o.order_id)], online)
    faults = audit(problem, found)
    assert not faults, f"the plan breaks the law: {faults[:5]}"
    return found
