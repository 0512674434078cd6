"""Steps that people take at the same moment, settled in one transaction: each gets its own answer."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from oms import ledger
from oms.access import Actor
from oms.cache import Cache
from oms.db import Connection, Database
from oms.domain.fulfillment import Fulfillment
from oms.errors import NotFound, Refusal
from oms.flows.fulfill import hands
from oms.flows.fulfill.look import sees
from oms.flows.fulfill.steps import (
    Step,
    enter_states,
    following,
    ship,
    take_fulfillments,
    take_lines,
    take_orders,
)
from oms.settle import shared


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A fulfillment that takes a step; asked again, it has taken it."""

    fulfillment: UUID
    step: Step
    actor: Actor
    now: datetime
    device: str | None = None


async def advance_one(db: Database, asked: Asked, *, cache: Cache) -> str:
    """A fulfillment takes a step together with what others do now; gives its state. Raises NotFound, Conflict."""
    if asked.step != "ship":
        state: str = await shared(db, advance_many, of=(advance_many, "hands")).ask(asked)
        return state

    async def wake() -> None:
        await cache.wake("project")

    state = await shared(db, advance_many, of=(advance_many, "ship"), after=wake).ask(asked)
    return state


async def advance_many(tx: Connection, asked: Sequence[Asked]) -> list[str | Refusal]:
    """Takes steps of several people; each gets its fulfillment's state or why not, and none hinders another.

    Orders, fulfillments, lines and skus of all are taken first, each in their order.
    """
    ids = sorted({a.fulfillment for a in asked})
    await take_orders(tx, ids=ids)
    found = {f.fulfillment_id: f for f in await take_fulfillments(tx, ids=ids)}
    if len({a.actor for a in asked if a.step == "ship"}) > 1:
        shipping = sorted({a.fulfillment for a in asked if a.step == "ship" and a.fulfillment in found})
        await ledger.lock(tx, {n.sku_id for n in await take_lines(tx, ids=shipping)})
    answers: dict[int, str | Refusal] = {}
    left = list(range(len(asked)))
    while left:
        # a fulfillment that is asked for twice takes its steps in turn
        first = {asked[k].fulfillment: k for k in reversed(left)}
        groups: dict[tuple[Step, Actor, str | None], list[int]] = {}
        for k in sorted(first.values()):
            groups.setdefault((asked[k].step, asked[k].actor, asked[k].device), []).append(k)
        for (step, actor, device), places in groups.items():
            now = max(asked[k].now for k in places)
            wanted = {k: asked[k].fulfillment for k in places}
            answers |= await _advance(tx, found, wanted, step=step, actor=actor, device=device, now=now)
        left = [k for k in left if k not in answers]
    return [answers[k] for k in range(len(asked))]


async def _advance(
    tx: Connection,
    found: dict[UUID, Fulfillment],
    wanted: Mapping[int, UUID],
    *,
    step: Step,
    actor: Actor,
    device: str | None,
    now: datetime,
) -> dict[int, str | Refusal]:
    """What one person does with one device: a step of several fulfillments, those that can take it."""
    answers: dict[int, str | Refusal] = {}
    moving: dict[UUID, int] = {}
    states: dict[UUID, str] = {}
    for k, fulfillment in wanted.items():
        f = found.get(fulfillment)
        if f is None or not sees(actor, f):
            answers[k] = NotFound(f"There is no fulfillment {fulfillment}.")
            continue
        try:
            answers[k] = states[fulfillment] = following(f, step)
        except Refusal as refusal:
            answers[k] = refusal
            continue
        if states[fulfillment] != f.state:
            moving[fulfillment] = k
    if step in ("pick", "pack") and moving:
        for p in await hands.progress(tx, ids=list(moving)):
            try:
                hands.check_done(p, step, actor)
            except Refusal as refusal:
                answers[moving.pop(p.fulfillment_id)] = refusal
    some = [found[i] for i in moving]
    if not some:
        return answers
    if step in ("pick", "pack"):
        await hands.end(tx, list(moving), step=step, who=actor.who, device=device, now=now)
    if step == "ship":
        await ship(tx, some, now=now, who=actor.who)
    await enter_states(tx, some, states, who=actor.who, device=device, now=now)
    for f in some:
        found[f.fulfillment_id] = msgspec.structs.replace(f, state=states[f.fulfillment_id])
    return answers
