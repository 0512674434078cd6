"""What needs a person: exceptions seen, resolved and escalated, facts under review applied, listeners told."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from oms import ledger
from oms.access import Actor, make_key
from oms.db import Connection, Database, Sql
from oms.domain.telling import LEASE_SECONDS, Deliver, Delivery, after_attempt
from oms.errors import BadInput, Conflict, NotAllowed, NotFound
from oms.record import Step, keep

sql = Sql("govern")

IDEMPOTENCY_KEPT = timedelta(days=14)
ESCALATED_AT_ONCE = 1_000


class Exceptional(msgspec.Struct, frozen=True):
    """An exception: what happened, whose it is, until when."""

    id: UUID
    kind: str
    subject: str
    detail: str
    payload: dict[str, Any]
    owner: str
    state: str
    count: int
    opened_at: datetime
    due_at: datetime
    escalated_at: datetime | None
    resolved_at: datetime | None
    resolved_by: str | None
    resolution: str | None


class _Escalated(msgspec.Struct, frozen=True):
    exception_id: UUID
    was: str


class Announced(msgspec.Struct, frozen=True):
    """An announcement that is to be delivered now; `attempts` counts this one."""

    announcement_id: UUID
    step: str
    attempts: int
    made_at: datetime
    url: str
    secrets: list[str]
    is_on: bool
    exception_id: UUID
    kind: str
    subject: str
    detail: str
    owner: str
    state: str
    count: int
    opened_at: datetime
    due_at: datetime


class _Review(msgspec.Struct, frozen=True):
    source_id: int
    message_id: str
    payload: dict[str, Any]
    sku_id: int | None
    location_id: int | None
    per: int | None
    is_kit: bool


exceptions = sql.rows("exceptions", Exceptional)
resolve_one = sql.maybe("resolve", UUID)
escalate_due = sql.rows("escalate", _Escalated)
take_announcements = sql.rows("take_announcements", Announced)
settle_announcement = sql.run("settle_announcement")
forget_answers = sql.run("forget_answers")
reviewed = sql.rows("reviewed", _Review)
review_done = sql.run("review_done")


async def listed(
    db: Database, *, actor: Actor, state: str | None, kind: str | None, before: UUID | None, limit: int
) -> list[Exceptional]:
    """Exceptions that the actor may see, newest first."""
    async with db.connection() as connection:
        return await _visible(connection, actor=actor, state=state, kind=kind, before=before, limit=limit)


async def show(db: Database, *, actor: Actor, exception_id: UUID) -> Exceptional:
    """One exception; NotFound where it is unknown or not theirs."""
    async with db.connection() as connection:
        return await _one(connection, actor=actor, exception_id=exception_id)


async def resolve(db: Database, *, actor: Actor, exception_id: UUID, why: str) -> Exceptional:
    """A person says that it is settled, and how; Conflict where it was settled before."""
    async with db.transaction() as tx:
        seen = await _one(tx, actor=actor, exception_id=exception_id)
        if await resolve_one(tx, exception_id=exception_id, who=actor.who, resolution=why) is None:
            raise Conflict(f"this exception was resolved at {seen.resolved_at:%Y-%m-%d %H:%M} by {seen.resolved_by}")
        await keep(tx, who=actor.who, steps=[Step("exception", str(exception_id), "resolved", why=why)])
        return await _one(tx, actor=actor, exception_id=exception_id)


async def escalate(db: Database, *, now: datetime) -> int:
    """Exceptions past their due time go to the admins and are announced; gives how many."""
    async with db.transaction() as tx:
        moved = await escalate_due(tx, now=now, limit=ESCALATED_AT_ONCE)
        await keep(
            tx, who="oms",
            steps=[Step("exception", str(m.exception_id), "escalated", why=f"overdue with {m.was}") for m in moved],
        )  # fmt: skip
    return len(moved)


def person_of(actor: Actor) -> str:
    """The person who acts; NotAllowed for a key that names none."""
    if actor.person is None:
        raise NotAllowed("this key names no person; what needs a person's yes needs a key made with --person")
    return actor.person


async def apply_reviewed(db: Database, *, actor: Actor, exception_id: UUID, now: datetime) -> int:
    """The location's approver applies facts that their source does not own, as an adjustment of ours.

    It is told to the owner of the quantity, and stands over its snapshots until that acknowledges it. Gives how many
    messages acted; Conflict where there is none, or one that cannot be an adjustment.
    """
    person = person_of(actor)
    async with db.transaction() as tx:
        await _one(tx, actor=actor, exception_id=exception_id)
        waiting = await reviewed(tx, exception_id=exception_id)
        if not waiting:
            raise Conflict("nothing waits for review under this exception")
        if any(row.is_kit for row in waiting):
            raise Conflict("it speaks of a kit; count its components instead")
        locked = await ledger.lock(tx, [row.sku_id for row in waiting if row.sku_id is not None])
        places = [(row.sku_id, row.location_id) for row in waiting]
        known = [(sku, location) for sku, location in places if sku is not None and location is not None]
        if len(known) < len(waiting):
            raise Conflict("its sku or location is not known any more: load it first")
        on_hand = {key: row.on_hand for key, row in (await ledger.stock(tx, known)).items()}
        moves = []
        for row, key in zip(waiting, known, strict=True):
            effect = effect_of(row.payload, per=row.per, on_hand=on_hand[key])
            on_hand[key] += effect
            moves.append(
                ledger.Move(
                    sku_id=key[0], location_id=key[1], source_id=ledger.HOUSE,
                    message_id=f"review:{row.source_id}:{row.message_id}", kind="adjustment", quantity=effect,
                    effect=effect, occurred_at=now, reason=f"review of {row.message_id}", is_ours=True,
                    reference=f"review:{row.source_id}:{row.message_id}",
                )
            )  # fmt: skip
            await review_done(
                tx, source_id=row.source_id, message_id=row.message_id, detail=f"applied as an adjustment by {person}"
            )
        await ledger.move(tx, moves, feed_id=None, who=actor.who)
        await ledger.write(tx, locked, resum={move.sku_id for move in moves})
        why = f"applied as an adjustment by {person}"
        await resolve_one(tx, exception_id=exception_id, who=actor.who, resolution=why)
        await keep(tx, who=actor.who, steps=[Step("exception", str(exception_id), "applied", why=why)])
    return len(moves)


_SIGNS = {"sale": -1, "shipment": -1, "return": 1, "receipt": 1, "adjustment": 1}


def effect_of(message: Mapping[str, Any], *, per: int | None, on_hand: int) -> int:
    """What a message under review changes on hand, in each; a count changes to what it says."""
    if per is None:
        raise Conflict(f"the unit {message.get('uom')!r} is not known for this sku: load it first")
    quantity = int(message["quantity"]) * per
    if message["kind"] == "count":
        return quantity - on_hand
    if message["kind"] not in _SIGNS:
        raise Conflict(f"a {message['kind']} cannot be applied as an adjustment; its owner has to send it")
    return _SIGNS[message["kind"]] * quantity


def announcement_body(told: Announced) -> bytes:
    """What a listener gets."""
    return msgspec.json.encode(
        {
            "type": f"exception.{told.step}",
            "id": told.announcement_id,
            "exception": {
                "id": told.exception_id, "kind": told.kind, "subject": told.subject, "detail": told.detail,
                "owner": told.owner, "state": told.state, "count": told.count, "opened_at": told.opened_at,
                "due_at": told.due_at,
            },
        }
    )  # fmt: skip


async def announce_due(
    db: Database, *, deliver: Deliver, now: datetime, chance: Callable[[], float], limit: int = 50
) -> int:
    """Delivers what is due to be told, outside any transaction; gives how many were taken.

    Each is leased while it is under way; what a killed process left is taken up after the lease, under the same id.
    """
    async with db.transaction() as tx:
        due = await take_announcements(tx, now=now, limit=limit, lease_seconds=LEASE_SECONDS)
    taken = 0
    for told in due:
        if told.is_on:
            delivery = await deliver(told.url, announcement_body(told), f"ann_{told.announcement_id}", told.secrets)
        else:
            delivery = Delivery(False, "the listener is off")
        state, not_before = after_attempt(
            delivery, attempts=told.attempts, made_at=told.made_at, is_on=told.is_on, now=now, chance=chance()
        )
        taken += state == "done"
        async with db.transaction() as tx:
            await settle_announcement(
                tx, announcement_id=told.announcement_id, attempts=told.attempts, state=state,
                answer=delivery.answer[:500], not_before=not_before,
            )  # fmt: skip
    return taken


async def create_key(
    db: Database,
    *,
    role: str,
    channel: str | None = None,
    location: str | None = None,
    source: str | None = None,
    person: str | None = None,
    who: str,
) -> str:
    """A new key of a role, given in clear this once. Raises BadInput and NotFound."""
    async with db.transaction() as tx:
        return await make_key(tx, role=role, channel=channel, location=location, source=source, person=person, who=who)


async def forget(db: Database, *, now: datetime) -> int:
    """Drops stored answers of idempotency keys that are older than two weeks; gives how many."""
    async with db.transaction() as tx:
        return await forget_answers(tx, before=now - IDEMPOTENCY_KEPT)


async def _visible(
    tx: Connection, *, actor: Actor, state: str | None = None, kind: str | None = None, before: UUID | None = None,
    exception_id: UUID | None = None, limit: int = 1,
) -> list[Exceptional]:  # fmt: skip
    if state not in (None, "open", "resolved"):
        raise BadInput(f"state {state!r} is unknown; 'open' or 'resolved' is expected")
    return await exceptions(
        tx, state=state, kind=kind, before=before, exception_id=exception_id, limit=limit,
        location_id=actor.location_id, channel_id=actor.channel_id, source_id=actor.source_id,
    )  # fmt: skip


async def _one(tx: Connection, *, actor: Actor, exception_id: UUID) -> Exceptional:
    found = await _visible(tx, actor=actor, exception_id=exception_id)
    if not found:
        raise NotFound(f"no exception has the id {exception_id}")
    return found[0]
