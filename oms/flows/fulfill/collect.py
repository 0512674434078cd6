"""What customers collect: ready, reminded, handed over with proof, or not collected and back to stock."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from oms import ledger, named, record
from oms.access import Actor
from oms.book import Book
from oms.cache import Cache
from oms.db import Connection, Database, Sql
from oms.domain.fulfillment import Fulfillment
from oms.errors import BadInput, Conflict, NotFound

sql = Sql("work")

PROOFS = ("code", "signature", "id_document", "known_person")
REMINDED_AT_ONCE = 500


class Collection(msgspec.Struct, frozen=True):
    """What a customer collects at a location, and since when."""

    fulfillment_id: UUID
    location: str
    number: str
    channel: str
    state: str
    shipped_from: str | None
    ready_at: datetime | None
    collect_by: datetime | None
    reminded_at: datetime | None
    ended_at: datetime | None
    proof_kind: str | None


class Taken(msgspec.Struct, frozen=True):
    """A collection whose row is taken, with its order and its fulfillment."""

    fulfillment_id: UUID
    order_id: UUID
    channel_id: int
    number: str
    location_id: int
    location: str
    from_id: int
    state: str
    code: str
    work_state: str
    capacity_day: Any


class Reminded(msgspec.Struct, frozen=True):
    """A collection that waits too long."""

    fulfillment_id: UUID
    location: str
    number: str
    is_overdue: bool


class Left(msgspec.Struct, frozen=True):
    """Units of a line that nobody collected."""

    line_id: int
    line: str
    sku_id: int
    sku: str
    pool_id: int
    quantity: int
    price_cents: int


collections_of = sql.rows("collections_of", Collection)
order_of = sql.rows("order_of", UUID)
take_collection = sql.maybe("take_collection", Taken)
make_ready = sql.run("make_ready")
expect_collections = sql.run("expect_collections")
arrived = sql.run("arrived")
collected = sql.run("collected")
tell = sql.run("tell")
remind_due = sql.rows("remind_due", Reminded)
left_lines = sql.rows("left_lines", Left)
undo_lines = sql.run("undo_lines")
recall_fulfillment = sql.run("recall_fulfillment")
expect_back = sql.run("expect_back")


async def follow(tx: Connection, moving: Sequence[Fulfillment], states: Mapping[UUID, str], *, now: datetime) -> None:
    """A pick-up that is packed is to be collected here; what was shipped to a store is to be collected there."""
    ready = [f.fulfillment_id for f in moving if states[f.fulfillment_id] == "ready"]
    if ready:
        await make_ready(tx, ids=ready, at=now)
        await tell(tx, kind="pickup_ready", ids=ready)
    shipped = [f.fulfillment_id for f in moving if states[f.fulfillment_id] == "shipped"]
    if shipped:
        await expect_collections(tx, ids=shipped)
    handed_over = [f.fulfillment_id for f in moving if states[f.fulfillment_id] == "handed_over"]
    if handed_over:
        await collected(tx, ids=handed_over, state="handed_over", proof_kind=None, proof=None, at=now)


async def listed(
    db: Database, *, actor: Actor, location: str | None, state: str | None, limit: int
) -> list[Collection]:
    """What customers collect at the locations that the caller sees, those that wait longest first."""
    own = [actor.location_id] if actor.location_id is not None else sorted(actor.location_ids)
    async with db.connection() as tx:
        return await collections_of(
            tx, locations=own if actor.is_bound else None, code=location, state=state, id=None, limit=limit
        )


async def _take(tx: Connection, fulfillment: UUID, actor: Actor) -> Taken:
    await order_of(tx, id=fulfillment)
    found = await take_collection(tx, id=fulfillment)
    if found is None or (actor.is_bound and found.location_id not in _own(actor)):
        raise NotFound(f"Nothing of fulfillment {fulfillment} is to be collected.")
    return found


def _own(actor: Actor) -> frozenset[int]:
    return frozenset([actor.location_id]) if actor.location_id is not None else actor.location_ids


async def arrive(db: Database, *, fulfillment: UUID, actor: Actor, now: datetime, device: str | None = None) -> str:
    """What was shipped to this store has come: it waits for its customer. Raises NotFound, Conflict."""
    async with db.transaction() as tx:
        found = await _take(tx, fulfillment, actor)
        if found.state not in ("expected", "ready"):
            raise Conflict(f"Fulfillment {fulfillment} is {found.state}; nothing of it can arrive.")
        if found.state == "expected":
            await arrived(tx, id=fulfillment, at=now)
            await tell(tx, kind="pickup_ready", ids=[fulfillment])
            await _keep(tx, found, "ready", actor, device)
    return "ready"


async def check_proof(found: Taken, kind: str, proof: str) -> None:
    """Raises BadInput where this is no proof that the customer was here."""
    if kind not in PROOFS:
        raise BadInput(f"proof.kind: {kind!r} is none of {', '.join(PROOFS)}")
    if kind == "code" and proof.strip() != found.code:
        raise BadInput("proof.value: this is not the code that the customer was given; ask again, or see a document")


async def hand_over(
    db: Database,
    *,
    fulfillment: UUID,
    kind: Literal["code", "signature", "id_document", "known_person"] | str,
    proof: str,
    actor: Actor,
    now: datetime,
    device: str | None = None,
) -> str:
    """What was shipped to this store goes to its customer, with proof. Raises NotFound, BadInput, Conflict.

    A pick-up that was packed here takes its last step by `oms.flows.fulfill.handover`.
    """
    async with db.transaction() as tx:
        found = await _take(tx, fulfillment, actor)
        if found.state == "handed_over":
            return "handed_over"
        if found.state != "ready" or found.work_state != "shipped":
            raise Conflict(f"Fulfillment {fulfillment} is {found.state}; it can be handed over when it is ready.")
        await check_proof(found, kind, proof)
        await collected(tx, ids=[fulfillment], state="handed_over", proof_kind=kind, proof=proof, at=now)
        await _keep(tx, found, "handed_over", actor, device, proof=kind)
    return "handed_over"


async def not_collected(
    db: Database,
    *,
    fulfillment: UUID,
    why: str,
    actor: Actor,
    now: datetime,
    device: str | None = None,
    cache: Cache | None = None,
) -> str:
    """Nobody came: the units are back in stock, their lines cancelled, and the refund is due, told once.

    What was shipped here from elsewhere comes back as a return that is to be received and inspected here.
    """
    async with db.transaction() as tx:
        found = await _take(tx, fulfillment, actor)
        if found.state == "not_collected":
            return "not_collected"
        if found.state != "ready":
            raise Conflict(f"Fulfillment {fulfillment} is {found.state}; only what waits ready can be put back.")
        if found.work_state == "shipped":
            await expect_back(tx, id=fulfillment, location_id=found.location_id, who=actor.who, at=now)
        else:
            await _put_back(tx, found)
            await tell(tx, kind="refund_due", ids=[fulfillment])
        await collected(tx, ids=[fulfillment], state="not_collected", proof_kind=None, proof=None, at=now)
        await _keep(tx, found, "not collected", actor, device, why=why)
        await record.settle_exceptions(
            tx, who=actor.who, resolution="put back", of=[("pickup_overdue", str(fulfillment))]
        )
    if cache is not None:
        await cache.wake("broker")
        await cache.wake("project")
    return "not_collected"


async def _put_back(tx: Connection, found: Taken) -> None:
    lines = await left_lines(tx, id=found.fulfillment_id)
    book = await Book.open(tx, skus={n.sku_id for n in lines}, keys={(n.sku_id, found.from_id) for n in lines})
    await ledger.capacity(tx, [(found.from_id, found.capacity_day)])
    for n in lines:
        book.allocate(n.sku_id, found.from_id, -n.quantity, pool_id=n.pool_id, channel_id=found.channel_id)
    await undo_lines(tx, lines=[n.line_id for n in lines], quantities=[n.quantity for n in lines])
    await recall_fulfillment(tx, id=found.fulfillment_id)
    rules = await named.rules_of(tx, [found.channel_id])
    await book.write(tx, capped=named.capped(rules.values()))
    cents = sum(n.quantity * n.price_cents for n in lines)
    work = ledger.Work(found.from_id, found.capacity_day, -1, -sum(n.quantity for n in lines), -cents)
    await ledger.work(tx, [work])


async def remind(db: Database, *, now: datetime) -> int:
    """Customers of what waits too long are reminded, once; what nobody collected in time is an exception."""
    async with db.transaction() as tx:
        due = await remind_due(tx, now=now, limit=REMINDED_AT_ONCE)
        await tell(tx, kind="pickup_reminder", ids=[d.fulfillment_id for d in due])
        await record.raise_exceptions(
            tx,
            [
                record.Trouble(
                    kind="pickup_overdue", subject=str(d.fulfillment_id),
                    detail=f"Order {d.number} waits at {d.location} longer than it may. Put it back as not collected, or "
                    "call the customer.",
                    payload={"location": d.location, "fulfillment": str(d.fulfillment_id)},
                )
                for d in due if d.is_overdue
            ],
        )  # fmt: skip
    return len(due)


async def _keep(
    tx: Connection, found: Taken, step: str, actor: Actor, device: str | None, *, why: str | None = None,
    proof: str | None = None,
) -> None:  # fmt: skip
    detail = {name: said for name, said in (("device", device), ("proof", proof), ("at", found.location)) if said}
    steps = [record.Step("fulfillment", str(found.fulfillment_id), step, why, detail)]
    if step == "not collected":
        steps.append(record.Step("order", str(found.order_id), "refund due", f"{found.location}: {why}", detail))
    await record.keep(tx, who=actor.who, steps=steps)
