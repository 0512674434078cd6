"""Channels and customers' systems are told of each step of an order, once, by signed webhooks, in order."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from oms.db import Database, Sql
from oms.domain.telling import LEASE_SECONDS, Deliver, Delivery, after_attempt
from oms.errors import Conflict, NotFound
from oms.record import Step, Trouble, keep, raise_exceptions

sql = Sql("updates")

ROUNDS_MAX = 20


class _Due(msgspec.Struct, frozen=True):
    update_id: UUID
    event: str
    subject: str
    at: datetime
    detail: Any
    attempts: int
    made_at: datetime
    channel: str
    is_on: bool
    url: str
    secrets: list[str]
    order_id: UUID
    number: str


class ParcelLine(msgspec.Struct, frozen=True):
    """Units of a line in a fulfillment."""

    location: str
    line: str
    part: int
    sku: str
    quantity: int


class Update(msgspec.Struct, frozen=True):
    """An update as people see it."""

    id: UUID
    channel: str
    number: str
    order_id: UUID
    event: str
    state: str
    at: datetime
    attempts: int
    answer: str | None


take_updates = sql.rows("take_updates", _Due)
parcel_of = sql.rows("parcel_of", ParcelLine)
settle_update = sql.run("settle_update")
updates_page = sql.rows("updates_page", Update)
replay_update = sql.maybe("replay_update", UUID)
has_update = sql.one("has_update", bool)
forget_updates = sql.run("forget_updates")


async def tell_due(
    db: Database, *, deliver: Deliver, now: datetime, chance: Callable[[], float], limit: int = 100
) -> int:
    """Delivers what is due to be told, outside any transaction; gives how many were taken by their receivers.

    Each is leased while it is under way; what a killed process left is taken up after the lease, under the same id. What
    nobody takes for a week is dead, and an exception.
    """
    taken = 0
    for _ in range(ROUNDS_MAX):  # the next update of an order is due when the one before it is told
        told = await _tell(db, deliver=deliver, now=now, chance=chance, limit=limit)
        taken += told
        if not told:
            break
    return taken


async def _tell(db: Database, *, deliver: Deliver, now: datetime, chance: Callable[[], float], limit: int) -> int:
    async with db.transaction() as tx:
        due = await take_updates(tx, now=now, limit=limit, lease_seconds=LEASE_SECONDS)
        parcels = {
            u.update_id: await parcel_of(tx, id=UUID(u.subject)) for u in due if u.event in WITH_PARCEL
        }  # fmt: skip
    taken = 0
    for u in due:
        if u.is_on and u.url:
            delivery = await deliver(u.url, body_of(u, parcels.get(u.update_id)), f"upd_{u.update_id}", u.secrets)
        else:
            delivery = Delivery(False, "the channel is off, or has no updates_url any more")
        state, not_before = after_attempt(
            delivery, attempts=u.attempts, made_at=u.made_at, is_on=u.is_on and bool(u.url), now=now, chance=chance()
        )
        taken += state == "done"
        async with db.transaction() as tx:
            await settle_update(
                tx, update_id=u.update_id, attempts=u.attempts, state=state, answer=delivery.answer[:500],
                not_before=not_before,
            )  # fmt: skip
            if state == "dead":
                await raise_exceptions(tx, [_dead(u, delivery)])
    return taken


WITH_PARCEL = ("order.ready", "order.shipped", "order.handed_over")


def body_of(u: _Due, parcel: list[ParcelLine] | None) -> bytes:
    """What a receiver gets."""
    about: dict[str, Any] = {"id": u.order_id, "number": u.number, "channel": u.channel}
    body: dict[str, Any] = {"type": u.event, "id": u.update_id, "timestamp": u.at, "order": about}
    if parcel is not None:
        body["fulfillment"] = {
            "id": u.subject, "location": parcel[0].location if parcel else None,
            "lines": [{"line": n.line, "part": n.part, "sku": n.sku, "quantity": n.quantity} for n in parcel],
        }  # fmt: skip
    if u.detail is not None:
        body["detail"] = u.detail
    return msgspec.json.encode(body)


def _dead(u: _Due, delivery: Delivery) -> Trouble:
    return Trouble(
        kind="update_dead", subject=f"{u.channel}/{u.number} {u.event}",
        detail=f"Nobody takes {u.event} of order {u.number} of {u.channel}: {delivery.answer[:200]}. Mend the receiver or "
        f"the channel's updates_url, then POST /v1/updates/{u.update_id}/replay.",
        payload={"update": str(u.update_id)},
    )  # fmt: skip


async def listed(
    db: Database, *, state: str | None, channel: str | None, number: str | None, before: UUID | None, limit: int
) -> list[Update]:
    """Updates, newest first."""
    async with db.connection() as tx:
        return await updates_page(tx, state=state, channel=channel, number=number, before=before, limit=limit)


async def replay(db: Database, *, update_id: UUID, who: str) -> None:
    """A dead update is told again. Raises Conflict where it is not dead, NotFound where there is none."""
    async with db.transaction() as tx:
        if await replay_update(tx, id=update_id) is None:
            if not await has_update(tx, id=update_id):
                raise NotFound(f"no update has the id {update_id}")
            raise Conflict("only what is dead is told again")
        await keep(tx, who=who, steps=[Step("update", str(update_id), "replayed")])


async def forget(db: Database, *, before: datetime) -> int:
    """Drops what was told before a moment; gives how many."""
    async with db.transaction() as tx:
        return await forget_updates(tx, before=before)
