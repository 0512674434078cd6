"""Scans verify picks and packs: the right code counts, a wrong one is refused and counted as a mis-pick."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from oms import record
from oms.access import Actor
from oms.db import Connection, Database, Sql
from oms.domain.codes import Code, CodeUnreadable, read_code
from oms.domain.fulfillment import Fulfillment
from oms.errors import BadInput, Conflict
from oms.flows.fulfill import hands
from oms.flows.fulfill.hands import TaskStep
from oms.flows.fulfill.steps import enter_states, take

sql = Sql("work")

NEEDS = {"pick": ("released", "accepted"), "pack": ("picked",)}
"""The states in which a step is scanned."""


class Line(msgspec.Struct, frozen=True):
    """A line of a fulfillment and what of it is in hand."""

    line_id: int
    line: str
    sku_id: int
    sku: str
    quantity: int
    picked: int
    packed: int

    def room(self, step: str) -> int:
        """Units that are still to be scanned."""
        return self.quantity - self.picked if step == "pick" else self.picked - self.packed


class Meant(msgspec.Struct, frozen=True):
    """A sku that a code may mean."""

    sku_id: int
    code: str


class Scanned(msgspec.Struct, frozen=True):
    """What a scan was, and what is still to be scanned of its line and of all."""

    fulfillment: UUID
    line: str
    sku: str
    counted: int
    line_left: int
    left: int


class _Wrong(msgspec.Struct, frozen=True):
    why: str
    sku_id: int | None = None


skus_of_code = sql.rows("skus_of_code", Meant)
scan_lines = sql.rows("scan_lines", Line)
serial_scans = sql.rows("serial_scans", UUID)
keep_scan = sql.run("keep_scan")
count_mispick = sql.run("count_mispick")
in_hand = sql.run("in_hand")
make_parcel = sql.one("make_parcel", UUID)
put_in_parcel = sql.run("put_in_parcel")


async def scan(
    db: Database,
    *,
    fulfillment: UUID,
    step: TaskStep,
    text: str,
    quantity: int,
    actor: Actor,
    now: datetime,
    device: str | None = None,
    parcel: int = 1,
) -> Scanned:
    """Units of a scanned code are in the actor's hands (pick) or in a parcel (pack); the first scan begins the task.

    The same tag again changes nothing. Raises Conflict for what does not belong here, which is counted as a mis-pick,
    and where another person has the task.
    """
    try:
        code = read_code(text)
    except CodeUnreadable as error:
        code = Code(text, ())
        unreadable: str | None = str(error)
    else:
        unreadable = None
    if code.serial is not None and quantity != 1:
        raise BadInput("quantity: a tag with a serial number is one piece; leave the quantity out")
    async with db.transaction() as tx:
        (found,) = await take(tx, [fulfillment], actor)
        await _begin(tx, found, step, actor=actor, now=now, device=device)
        lines = await scan_lines(tx, id=fulfillment)
        if code.serial is not None:
            places = await serial_scans(tx, serial=code.serial, step=step)
            if fulfillment in places:
                return _told(found, lines, step, await _first(tx, lines, code), 0)
        else:
            places = []
        right = _Wrong(unreadable) if unreadable else await _match(tx, lines, code, step, quantity, places)
        wrong = right if isinstance(right, _Wrong) else None
        sku_id = right.sku_id
        await keep_scan(
            tx, id=fulfillment, step=step, code=text, serial=code.serial, sku_id=sku_id, quantity=quantity, who=actor.who,
            line_id=None if isinstance(right, _Wrong) else right.line_id, device=device, at=now,
        )  # fmt: skip
        if isinstance(right, _Wrong):
            await count_mispick(tx, id=fulfillment, step=step)
            detail = {"code": text[:200], "device": device}
            await record.keep(
                tx,
                who=actor.who,
                steps=[record.Step("fulfillment", str(fulfillment), f"mis-{step}", right.why, detail)],
            )
        else:
            await in_hand(tx, id=fulfillment, line_id=right.line_id, step=step, quantity=quantity)
            if step == "pack":
                parcel_id = await make_parcel(
                    tx, id=fulfillment, number=parcel, carrier=None, tracking=None, weight_grams=None, who=actor.who
                )
                await put_in_parcel(tx, parcel_id=parcel_id, lines=[right.line_id], quantities=[quantity])
    if wrong is not None:
        raise Conflict(wrong.why)
    assert not isinstance(right, _Wrong)
    return _told(found, lines, step, right, quantity)


async def _begin(
    tx: Connection, found: Fulfillment, step: TaskStep, *, actor: Actor, now: datetime, device: str | None
) -> None:
    """The step is the actor's task; what was released is accepted. Raises Conflict."""
    if found.state not in NEEDS[step]:
        raise Conflict(f"Fulfillment {found.fulfillment_id} is {found.state}; nothing of it is to be {step}ed.")
    (p,) = await hands.progress(tx, ids=[found.fulfillment_id])
    hands.check_holder(p, step, actor)
    await hands.begin(tx, [found.fulfillment_id], step=step, actor=actor, now=now, device=device)
    if found.state == "released":
        await enter_states(tx, [found], {found.fulfillment_id: "accepted"}, who=actor.who, now=now, device=device)


async def _match(
    tx: Connection, lines: Sequence[Line], code: Code, step: str, quantity: int, places: Sequence[UUID]
) -> Line | _Wrong:
    """The line that takes these units, or why none does."""
    meant = await skus_of_code(tx, codes=list(code.candidates))
    if not meant:
        return _Wrong(f"Nobody knows the code {code.text[:100]}.")
    here = [n for n in lines if n.sku_id in {m.sku_id for m in meant}]
    names = ", ".join(m.code for m in meant)
    if not here:
        wanted = ", ".join(sorted({n.sku for n in lines if n.room(step)})) or "nothing more"
        return _Wrong(f"This is {names}, which does not belong here; wanted: {wanted}.", meant[0].sku_id)
    if places:
        return _Wrong(f"This piece of {names} is in hand for another order ({places[0]}).", here[0].sku_id)
    line = next((n for n in here if n.room(step) >= quantity), None)
    if line is None:
        left = max(n.room(step) for n in here)
        return _Wrong(f"{left} of {names} are still to be {step}ed here, not {quantity}.", here[0].sku_id)
    return line


async def _first(tx: Connection, lines: Sequence[Line], code: Code) -> Line:
    meant = {m.sku_id for m in await skus_of_code(tx, codes=list(code.candidates))}
    return next(n for n in lines if n.sku_id in meant)


def _told(found: Fulfillment, lines: Sequence[Line], step: str, line: Line, counted: int) -> Scanned:
    return Scanned(
        found.fulfillment_id, line.line, line.sku, counted, line.room(step) - counted,
        sum(n.room(step) if step == "pick" else n.quantity - n.packed for n in lines) - counted,
    )  # fmt: skip
