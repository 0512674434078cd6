"""Pick lists: one person's round over several orders, by bin, with every barcode; nobody else's while it lasts."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec

from oms import record
from oms.access import Actor, sees_location
from oms.db import Connection, Database, Sql
from oms.domain.fulfillment import UNPICKED
from oms.errors import Conflict, NotFound
from oms.flows.fulfill import hands
from oms.flows.fulfill.steps import enter_states, take

sql = Sql("work")

ORDERS_MAX = 100
"""Fulfillments of one pick list."""
TRIES = 3


class Head(msgspec.Struct, frozen=True):
    """Whose pick list it is."""

    id: UUID
    location: str
    location_id: int
    who: str
    device: str | None
    started_at: datetime


class _Line(msgspec.Struct, frozen=True):
    bin: str
    sku: str
    name: str
    barcodes: list[str]
    fulfillment_id: UUID
    number: str
    line: str
    quantity: int
    picked: int
    state: str


class Stop(msgspec.Struct, frozen=True):
    """A sku at its bin: how many to take, and for whom."""

    bin: str
    sku: str
    name: str
    barcodes: list[str]
    quantity: int
    picked: int
    orders: list[dict[str, Any]]


class PickList(msgspec.Struct, frozen=True):
    """A round: where to stop and what to take, in the order of bins."""

    id: UUID
    location: str
    who: str
    device: str | None
    started_at: datetime
    stops: list[Stop]


candidates = sql.rows("candidates", UUID)
pick_list_head = sql.maybe("pick_list_head", Head)
pick_list_lines = sql.rows("pick_list_lines", _Line)
give_back_list = sql.run("give_back_list")
give_back_tasks = sql.run("give_back_tasks")


async def claim(
    db: Database,
    *,
    location_id: int,
    fulfillments: Sequence[UUID] | None,
    limit: int,
    actor: Actor,
    now: datetime,
    device: str | None = None,
) -> PickList:
    """Makes a pick list of this work, or of the most urgent that is nobody's; what was released is accepted.

    Raises NotFound where there is nothing to pick, Conflict where another person has what was named.
    """
    pick_list_id = uuid4()
    for _ in range(TRIES):
        async with db.transaction() as tx:
            ids = list(fulfillments or await candidates(tx, location_id=location_id, limit=min(limit, ORDERS_MAX)))
            mine = await _claim(
                tx, ids, pick_list_id, named=fulfillments is not None, actor=actor, now=now, device=device
            )
            if mine:
                return await _read(tx, pick_list_id)
            if not ids:
                break
    raise NotFound("There is nothing to pick that is nobody's.")


async def _claim(
    tx: Connection, ids: list[UUID], pick_list_id: UUID, *, named: bool, actor: Actor, now: datetime, device: str | None
) -> list[UUID]:
    if not ids:
        return []
    found = await take(tx, ids, actor)
    fit = [f for f in found if f.state in UNPICKED]
    if named and len(fit) < len(found):
        other = next(f for f in found if f not in fit)
        raise Conflict(f"Fulfillment {other.fulfillment_id} is {other.state}; only what is not picked can be picked.")
    mine = set(
        await hands.begin(
            tx, [f.fulfillment_id for f in fit], step="pick", actor=actor, now=now, device=device,
            pick_list_id=pick_list_id,
        )
    )  # fmt: skip
    if named and len(mine) < len(fit):
        for p in await hands.progress(tx, ids=[f.fulfillment_id for f in fit if f.fulfillment_id not in mine]):
            raise Conflict(f"{p.picker} has the pick of fulfillment {p.fulfillment_id} in hand.")
    accepted = [f for f in fit if f.fulfillment_id in mine and f.state == "released"]
    await enter_states(
        tx, accepted, {f.fulfillment_id: "accepted" for f in accepted}, who=actor.who, now=now, device=device
    )
    return sorted(mine)


async def show(db: Database, *, pick_list_id: UUID, actor: Actor) -> PickList:
    """A pick list as it stands; NotFound where it is unknown or of another store."""
    async with db.connection() as tx:
        head = await pick_list_head(tx, id=pick_list_id)
        if head is None or not sees_location(actor, head.location_id):
            raise NotFound(f"There is no pick list {pick_list_id}.")
        return await _read(tx, pick_list_id)


async def give_back(db: Database, *, pick_list_id: UUID, actor: Actor, now: datetime) -> int:
    """What of a pick list is not done is nobody's again; gives how many fulfillments. What was picked stays picked."""
    async with db.transaction() as tx:
        head = await pick_list_head(tx, id=pick_list_id)
        if head is None or not sees_location(actor, head.location_id):
            raise NotFound(f"There is no pick list {pick_list_id}.")
        if head.who != actor.who and actor.role not in hands.MAY_TAKE_OVER:
            raise Conflict(f"{head.who} has this pick list in hand.")
        given = await give_back_list(tx, id=pick_list_id, at=now)
        if given:
            steps = [record.Step("pick list", str(pick_list_id), "given back", detail={"fulfillments": given})]
            await record.keep(tx, who=actor.who, steps=steps)
    return given


async def give_back_one(db: Database, *, fulfillment: UUID, actor: Actor, now: datetime) -> int:
    """A fulfillment's open tasks are nobody's again; gives how many. Conflict where they are another person's."""
    async with db.transaction() as tx:
        await take(tx, [fulfillment], actor)
        for p in await hands.progress(tx, ids=[fulfillment]):
            for step in ("pick", "pack"):
                hands.check_holder(p, step, actor)
        given = await give_back_tasks(tx, id=fulfillment, at=now)
        if given:
            await record.keep(tx, who=actor.who, steps=[record.Step("fulfillment", str(fulfillment), "given back")])
    return given


async def _read(tx: Connection, pick_list_id: UUID) -> PickList:
    head = await pick_list_head(tx, id=pick_list_id)
    assert head is not None
    stops: dict[tuple[str, str], Stop] = {}
    for n in await pick_list_lines(tx, id=pick_list_id):
        key = n.bin, n.sku
        stop = stops.get(key) or Stop(n.bin, n.sku, n.name, n.barcodes, 0, 0, [])
        order = {"fulfillment": n.fulfillment_id, "number": n.number, "line": n.line, "quantity": n.quantity,
                 "picked": n.picked}  # fmt: skip
        stops[key] = msgspec.structs.replace(
            stop, quantity=stop.quantity + n.quantity, picked=stop.picked + n.picked, orders=[*stop.orders, order]
        )
    return PickList(head.id, head.location, head.who, head.device, head.started_at, list(stops.values()))
