"""Entries as they were made, and who owes whom in a period."""

import re
from datetime import date, datetime
from typing import Any
from uuid import UUID

import msgspec

from oms.db import Connection, Database, Sql
from oms.domain.settlement import Balance, Debt, Sum, balances_of, debts_of
from oms.errors import BadInput

sql = Sql("settlement")

_PERIOD = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


class Entry(msgspec.Struct, frozen=True):
    """`buyer` owes `owner` so many cents, negative where it is given back.

    `month` is when it happened, `period` whose report it is in: a later one where that month was closed already.
    """

    id: int
    kind: str
    owner: str
    buyer: str
    sku: str | None
    location: str | None
    channel: str | None
    order: str | None
    line: str | None
    fulfillment_id: UUID | None
    return_id: UUID | None
    quantity: int
    cents: int
    currency: str
    price: str | None
    month: str
    period: str
    happened_at: datetime
    made_at: datetime
    made_by: str
    corrects: int | None
    why: str | None


class Late(msgspec.Struct, frozen=True):
    """Entries of a month that was closed when they were made."""

    month: str
    entries: int
    units: int


class WaitsFor(msgspec.Struct, frozen=True):
    """Units whose entry is not made yet, and what it waits for: the subject of an exception."""

    subject: str
    entries: int
    units: int


class Period(msgspec.Struct, frozen=True):
    """A period that somebody asked to close, and the sums that they saw."""

    period: str
    state: str
    totals: list[dict[str, Any]]
    asked_by: str
    asked_at: datetime
    approved_by: str | None
    approved_at: datetime | None


class Report(msgspec.Struct, frozen=True):
    """Who owes whom in a period (`open`, `asked` to be closed, or `closed`), what each gets in all, what came late."""

    period: str
    state: str
    debts: list[Debt]
    balances: list[Balance]
    late: list[Late]
    waiting: list[WaitsFor]
    asked_by: str | None = None
    approved_by: str | None = None
    closed_at: datetime | None = None


entries = sql.rows("entries", Entry)
sums = sql.rows("sums", Sum)
late = sql.rows("late", Late)
waiting_units = sql.rows("waiting_units", WaitsFor)
period_of = sql.maybe("period_of", Period)


async def listed(
    db: Database,
    *,
    limit: int,
    before: int | None = None,
    owner: str | None = None,
    buyer: str | None = None,
    period: str | None = None,
    from_on: date | None = None,
    until_on: date | None = None,
    id: int | None = None,
) -> list[Entry]:
    """Entries, newest first: of what happened on days (both included, UTC), of an owner, of a buyer, of a period."""
    if period is not None:
        check_period(period)
    async with db.connection() as tx:
        return await entries(
            tx, owner=owner, buyer=buyer, period=period, from_on=from_on, until_on=until_on, before=before, id=id,
            limit=limit,
        )  # fmt: skip


async def report(db: Database, *, period: str) -> Report:
    """Who owes whom in a period like 2026-11. Raises BadInput."""
    check_period(period)
    async with db.connection() as tx:
        return await report_in(tx, period)


async def report_in(tx: Connection, period: str) -> Report:
    """The report of a period, as the transaction sees it."""
    debts = debts_of(await sums(tx, period=period))
    known = await period_of(tx, period=period)
    came_late = await late(tx, period=period)
    waits = await waiting_units(tx, period=period)
    balances = balances_of(debts)
    if known is None:
        return Report(period, "open", debts, balances, came_late, waits)
    return Report(
        period, known.state, debts, balances, came_late, waits, known.asked_by, known.approved_by, known.approved_at
    )


def check_period(period: str) -> None:
    """Raises BadInput where it is no month."""
    if not _PERIOD.fullmatch(period):
        raise BadInput(f"period: {period!r} is no month; one like 2026-11 is expected")
