"""Expected receipts that are overdue back no promise: a person is told, and what leaned on them is promised again."""

from collections.abc import Sequence
from datetime import date, datetime
from itertools import groupby
from uuid import UUID

import msgspec

from oms import ledger, numbers, record
from oms.db import Connection, Database, Sql
from oms.domain.promise import THERE, Waiting, days_of

sql = Sql("promise")

LINES_MAX = 2_000
"""Open lines of a sku that are given a day; those beyond them wait without one."""


class _Overdue(msgspec.Struct, frozen=True):
    subject: str
    source: str
    reference: str
    sku: str
    location: str
    quantity: int
    due_on: date
    sku_id: int
    is_new: bool


class _Line(msgspec.Struct, frozen=True):
    line_id: int
    order_id: UUID
    line: str
    sku_id: int
    pool_id: int
    open: int
    promised_on: date | None
    waits: bool


overdue_incoming = sql.rows("overdue_incoming", _Overdue)
settled_overdue = sql.rows("settled_overdue", str)
served_oversold = sql.rows("served_oversold", str)
leaning_lines = sql.rows("leaning_lines", _Line)
promise_lines = sql.rows("promise_lines", int)


async def watch(db: Database, *, now: datetime) -> int:
    """Opens and closes exceptions of overdue receipts, and gives open lines their days anew; gives how many changed.

    Exceptions of oversold orders end when none of their lines waits any more.
    """
    today = now.date()
    async with db.transaction() as tx:
        late = await overdue_incoming(tx, today=today)
        await record.raise_exceptions(
            tx,
            [
                record.Trouble(
                    kind="incoming_overdue", subject=n.subject,
                    detail=f"{n.quantity} of {n.sku} at {n.location} were expected from {n.source} ({n.reference}) on "
                    f"{n.due_on}: they back no promise any more. Ask for a new date, or end it with quantity 0.",
                    payload={"source": n.source, "reference": n.reference, "sku": n.sku, "location": n.location},
                )
                for n in late if n.is_new
            ],
        )  # fmt: skip
        ended = await settled_overdue(tx, today=today)
        await record.settle_exceptions(
            tx, who="oms", resolution="It came, ended, or has a new date.", of=[("incoming_overdue", s) for s in ended]
        )
        await ledger.touch(tx, {n.sku_id for n in late if n.is_new})
    changed = await promise_again(db, today=today)
    async with db.transaction() as tx:
        served = await served_oversold(tx)
        await record.settle_exceptions(
            tx, who="oms", resolution="There is enough by now.", of=[("oversold", s) for s in served]
        )
    return changed


async def promise_again(db: Database, *, today: date, skus_of: UUID | None = None) -> int:
    """Gives each open line that present stock does not serve the day from which it can be served; gives how many changed.

    Lines are served by the day that they were promised, then by priority, then as they came. `skus_of`: only skus of this order.
    """
    async with db.connection() as tx, tx.transaction(isolation="repeatable_read", readonly=True):
        lines = await leaning_lines(tx, limit=LINES_MAX, order_id=skus_of)
        skus = sorted({n.sku_id for n in lines})
        shelf = await numbers.read(tx, skus, today=today) if skus else None
    changed: list[tuple[_Line, date | None, bool]] = []
    for sku_id, of_sku in groupby(lines, key=lambda n: n.sku_id):
        assert shelf is not None
        row = shelf.rows[shelf.codes[sku_id]]
        mine = list(of_sku)
        days = days_of(
            shelf.layouts[row.layout_id], row.supply, row.reserved, row.coming,
            [Waiting(n.pool_id, n.open) for n in mine], today=today,
        )  # fmt: skip
        for n, day in zip(mine, days, strict=True):
            said, waits = (None, False) if day == THERE else (day, True)
            if (said, waits) != (n.promised_on, n.waits):
                changed.append((n, said, waits))
    for start in range(0, len(changed), 500):
        async with db.transaction() as tx:
            await _say(tx, changed[start : start + 500])
    return len(changed)


async def _say(tx: Connection, changed: Sequence[tuple[_Line, date | None, bool]]) -> None:
    said = await promise_lines(
        tx, lines=[n.line_id for n, _, _ in changed], days=[day for _, day, _ in changed],
        waits=[waits for _, _, waits in changed], before=[n.promised_on for n, _, _ in changed],
    )  # fmt: skip
    steps = []
    for n, day, waits in changed:
        if n.line_id not in said or day == n.promised_on:
            continue
        detail = {"line": n.line, "on": day, "was": n.promised_on} | ({} if waits else {"there": True})
        steps.append(record.Step("order", str(n.order_id), "promised", detail=detail))
    await record.keep(tx, who="oms", steps=steps)
