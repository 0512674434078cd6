"""Parcels of a fulfillment: what is in each, who carries it, by what number it is found."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from oms import record
from oms.access import Actor
from oms.db import Database, Sql
from oms.errors import BadInput, Conflict
from oms.flows.fulfill import hands, look
from oms.flows.fulfill.scan import in_hand, make_parcel, put_in_parcel, scan_lines
from oms.flows.fulfill.steps import take

sql = Sql("work")


class Parcel(msgspec.Struct, frozen=True):
    """A parcel and what is in it."""

    number: int
    carrier: str | None
    tracking: str | None
    weight_grams: int | None
    lines: list[dict[str, Any]]


class Doing(msgspec.Struct, frozen=True):
    """A task: who did it, with what, from when to when, and how often a wrong code was scanned."""

    step: str
    who: str
    device: str | None
    started_at: datetime
    ended_at: datetime | None
    ended_how: str | None
    mispicks: int


class Packed(msgspec.Struct, frozen=True):
    """Units of a line that go into a parcel."""

    line: str
    quantity: int


parcels_of = sql.rows("parcels_of", Parcel)
tasks_of = sql.rows("tasks_of", Doing)


async def put(
    db: Database,
    *,
    fulfillment: UUID,
    number: int,
    carrier: str | None,
    tracking: str | None,
    weight_grams: int | None,
    lines: Sequence[Packed],
    actor: Actor,
    now: datetime,
    device: str | None = None,
) -> list[Parcel]:
    """Makes a parcel or tells more of it; `lines` are further units that go into it. Gives all parcels.

    Raises NotFound, BadInput where a line has not so many picked and unpacked units, Conflict.
    """
    async with db.transaction() as tx:
        (found,) = await take(tx, [fulfillment], actor)
        if found.state not in ("picked", "packed", "ready", "shipped"):
            raise Conflict(f"Fulfillment {fulfillment} is {found.state}; it has parcels when it is picked.")
        if lines:
            if found.state != "picked":
                raise Conflict(f"Fulfillment {fulfillment} is {found.state}; its parcels are closed.")
            (p,) = await hands.progress(tx, ids=[fulfillment])
            hands.check_holder(p, "pack", actor)
            await hands.begin(tx, [fulfillment], step="pack", actor=actor, now=now, device=device)
        parcel_id = await make_parcel(
            tx, id=fulfillment, number=number, carrier=carrier, tracking=tracking, weight_grams=weight_grams,
            who=actor.who,
        )  # fmt: skip
        there = {n.line: n for n in await scan_lines(tx, id=fulfillment)}
        wanted: dict[str, int] = {}
        for n in lines:
            wanted[n.line] = wanted.get(n.line, 0) + n.quantity
        faults = [
            {"line": line, "reason": f"{there[line].room('pack') if line in there else 0} units can be packed"}
            for line, units in wanted.items()
            if line not in there or not 0 < units <= there[line].room("pack")
        ]
        if faults:
            raise BadInput(
                "Name lines of this fulfillment, each with units that are picked and in no parcel.", items=faults
            )
        for line, units in wanted.items():
            await in_hand(tx, id=fulfillment, line_id=there[line].line_id, step="pack", quantity=units)
        if wanted:
            ids = [there[line].line_id for line in wanted]
            await put_in_parcel(tx, parcel_id=parcel_id, lines=ids, quantities=list(wanted.values()))
        said = {"parcel": number, "carrier": carrier, "tracking": tracking, "lines": wanted or None, "device": device}
        detail = {name: value for name, value in said.items() if value is not None}
        await record.keep(
            tx, who=actor.who, steps=[record.Step("fulfillment", str(fulfillment), "parcel", detail=detail)]
        )
        return await parcels_of(tx, id=fulfillment)


async def listed(db: Database, *, fulfillment: UUID, actor: Actor) -> tuple[list[Parcel], list[Doing]]:
    """The parcels and tasks of a fulfillment that the caller sees; raises NotFound."""
    await look.task(db, actor=actor, fulfillment=fulfillment)
    async with db.connection() as tx:
        return await parcels_of(tx, id=fulfillment), await tasks_of(tx, id=fulfillment)
