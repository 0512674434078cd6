"""Who has work in hand: a pick or a pack is one person's task, with device, start and end."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from oms.access import Actor
from oms.db import Connection, Sql
from oms.domain.fulfillment import Fulfillment
from oms.errors import Conflict

sql = Sql("work")

MAY_TAKE_OVER = frozenset({"operator", "admin"})
"""Roles that may end what somebody else has begun."""
TaskStep = Literal["pick", "pack"]


class Progress(msgspec.Struct, frozen=True):
    """How far a fulfillment is in hand, and whose its open tasks are."""

    fulfillment_id: UUID
    scans_are_required: bool
    units: int
    picked: int
    packed: int
    picker: str | None
    packer: str | None

    def holder(self, step: str) -> str | None:
        """Who has this step in hand."""
        return self.picker if step == "pick" else self.packer

    def done(self, step: str) -> int:
        """Units for which this step is done."""
        return self.picked if step == "pick" else self.packed


progress = sql.rows("progress", Progress)
finish_lines = sql.run("finish_lines")
close_tasks = sql.run("close_tasks")
open_tasks = sql.rows("open_tasks", UUID)
keep_tasks = sql.run("keep_tasks")
pack_rest = sql.run("pack_rest")


async def begin(
    tx: Connection,
    fulfillments: Sequence[UUID],
    *,
    step: TaskStep,
    actor: Actor,
    now: datetime,
    device: str | None,
    pick_list_id: UUID | None = None,
) -> list[UUID]:
    """Makes the step of these fulfillments the actor's task; gives those that were nobody's until now."""
    return await open_tasks(
        tx, ids=sorted(fulfillments), step=step, pick_list_id=pick_list_id, who=actor.who, device=device, at=now
    )


def check_holder(p: Progress, step: str, actor: Actor) -> None:
    """Raises Conflict where another person has the step in hand."""
    holder = p.holder(step)
    if holder is not None and holder != actor.who and actor.role not in MAY_TAKE_OVER:
        raise Conflict(
            f"{holder} has the {step} of fulfillment {p.fulfillment_id} in hand; take another, or let them give it back."
        )


async def end_tasks(
    tx: Connection, moving: Sequence[Fulfillment], *, step: str, actor: Actor, device: str | None, now: datetime
) -> None:
    """The pick or pack of these fulfillments is done: all units are in hand, and its task ends.

    Raises Conflict where another person has it, or where units that must be scanned were not.
    """
    if step not in ("pick", "pack") or not moving:
        return
    ids = [f.fulfillment_id for f in moving]
    for p in await progress(tx, ids=ids):
        check_done(p, step, actor)
    await end(tx, ids, step=step, who=actor.who, device=device, now=now)


def check_done(p: Progress, step: str, actor: Actor) -> None:
    """Raises Conflict where another person has the step, or where units that must be scanned were not."""
    check_holder(p, step, actor)
    if p.done(step) < p.units and (p.done(step) or p.scans_are_required):
        raise Conflict(
            f"Fulfillment {p.fulfillment_id}: {p.done(step)} of {p.units} units are {step}ed. Scan the rest, or say what "
            "is missing when you pick it."
        )


async def end(tx: Connection, ids: Sequence[UUID], *, step: str, who: str, device: str | None, now: datetime) -> None:
    """All units of these fulfillments are in hand, and their tasks end; whose they are was checked."""
    await finish_lines(tx, ids=ids, step=step)
    if step == "pack":
        await pack_rest(tx, ids=ids, who=who)
    await close_tasks(tx, ids=ids, step=step, at=now)
    await keep_tasks(tx, ids=ids, step=step, who=who, device=device, at=now)
