"""A period is closed by two people: nothing is added to it any more. What is wrong is set right by a further entry."""

from datetime import datetime
from typing import Any

import msgspec

from oms import record
from oms.db import Connection, Database, Sql
from oms.errors import BadInput, Conflict, NotFound
from oms.flows.settlement.look import Entry, Report, check_period, entries, period_of, report_in, sums

sql = Sql("settlement")

KIND = "settlement_close"

lock_periods = sql.run("lock_periods")
lock_periods_open = sql.run("lock_periods_open")
ask_for_close = sql.run("ask_to_close")
close_period = sql.run("close_period")
write_correction = sql.maybe("correct", int)


async def ask_to_close(db: Database, *, period: str, person: str, now: datetime) -> Report:
    """A person asks to close a period of what it holds now; another one approves it.

    Asked anew, the last asking counts. Raises BadInput, Conflict for a month that has not ended, or is closed.
    """
    check_period(period)
    if f"{now:%Y-%m}" <= period:
        raise Conflict(f"Period {period} has not ended; it can be closed from the first day of the next month (UTC).")
    async with db.transaction() as tx:
        await lock_periods(tx)
        totals = await _totals(tx, period)
        if not await ask_for_close(tx, period=period, totals=totals, who=person, at=now):
            raise Conflict(f"Period {period} is closed.")
        await record.keep(
            tx, who=person, steps=[record.Step("settlement", period, "close asked", detail={"sums": totals})]
        )
        trouble = record.Trouble(
            kind="settlement_close", subject=period, owner="approver", payload={"period": period, "by": person},
            detail=f"{person} asks to close settlement period {period}: look at its report, and approve it as another "
            "person, or leave it open.",
        )  # fmt: skip
        await record.raise_exceptions(tx, [trouble])
        return await report_in(tx, period)


async def approve(db: Database, *, period: str, person: str, now: datetime) -> Report:
    """Another person agrees to exactly what was asked: the period is closed; what is of it later falls into the next.

    Raises BadInput, NotFound where nobody asked, Conflict for the same person or where its sums have changed since.
    """
    check_period(period)
    async with db.transaction() as tx:
        await lock_periods(tx)
        known = await period_of(tx, period=period)
        if known is None:
            raise NotFound(f"Nobody has asked to close period {period}.")
        if known.state == "closed":
            return await report_in(tx, period)
        if known.asked_by == person:
            raise Conflict(f"{person} asked to close period {period}; another person approves it.")
        if known.totals != await _totals(tx, period):
            raise Conflict(f"Entries were made in period {period} since {known.asked_by} asked to close it: ask anew.")
        await close_period(tx, period=period, who=person, at=now)
        await record.keep(
            tx, who=person, steps=[record.Step("settlement", period, "closed", detail={"sums": known.totals})]
        )
        await record.settle_exceptions(tx, who=person, resolution=f"closed by {person}", of=[(KIND, period)])
        return await report_in(tx, period)


async def correct(db: Database, *, entry: int, cents: int, why: str, who: str, now: datetime) -> Entry:
    """A further entry between the same two sets an entry right, by so many cents more (or less) that the buyer owes.

    It is in this month's period. Raises BadInput, NotFound.
    """
    if cents == 0:
        raise BadInput("cents: a correction is by more or less than nothing")
    async with db.transaction() as tx:
        await lock_periods_open(tx)
        made = await write_correction(tx, id=entry, cents=cents, why=why, who=who, at=now)
        if made is None:
            raise NotFound(f"There is no settlement entry {entry}.")
        steps = [record.Step("settlement", str(entry), "corrected", why=why, detail={"entry": made, "cents": cents})]
        await record.keep(tx, who=who, steps=steps)
        (found,) = await entries(
            tx, owner=None, buyer=None, period=None, from_on=None, until_on=None, before=None, id=made, limit=1
        )
        return found


async def _totals(tx: Connection, period: str) -> list[dict[str, Any]]:
    built: list[dict[str, Any]] = msgspec.to_builtins(await sums(tx, period=period))
    return built
