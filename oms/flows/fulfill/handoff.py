"""Work goes to the system that runs a location: released and recalled until it is known to be there, and alarmed."""

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from connectors.channels import Answer, Delivered, Refused, SettingsWrong, SlowDown, Unknown
from connectors.fulfillers import Fulfiller, Order, Piece
from connectors.fulfillers.file import FileFulfiller
from connectors.fulfillers.webhook import WebhookFulfiller
from oms import record
from oms.db import Database, Sql
from oms.errors import BadInput, NotFound

sql = Sql("handoff")

LEASE_SECONDS = 60.0
RETRY_SECONDS_FIRST = 5.0
RETRY_SECONDS_MAX = 3600.0
GIVEN_UP_AFTER = timedelta(days=7)
SENT_AT_ONCE = 100
KINDS: Mapping[str, Callable[[Mapping[str, Any]], Fulfiller]] = {
    "webhook": WebhookFulfiller.of,
    "file": FileFulfiller.of,
}
MASK = "•••"


class Handoff(msgspec.Struct, frozen=True):
    """Work that is told to a fulfiller now."""

    handoff_id: UUID
    fulfillment_id: UUID
    act: str
    version: int
    attempts: int
    made_at: datetime
    kind: str
    settings: dict[str, Any]
    location_id: int
    location: str
    number: str
    method: str
    priority: int
    is_pickup: bool
    ship_to: dict[str, Any]
    lines: list[dict[str, Any]]
    release_state: str


class Late(msgspec.Struct, frozen=True):
    """A release that nobody acknowledged in its time."""

    fulfillment_id: UUID
    location: str
    number: str
    minutes: int
    state: str
    answer: str | None


class Runner(msgspec.Struct, frozen=True):
    """The system that runs a location."""

    location_id: int
    location: str
    kind: str
    settings: dict[str, Any]
    acknowledge_minutes: int
    is_on: bool


take_handoffs = sql.rows("take_handoffs", Handoff)
settle_handoff = sql.run("settle_handoff")
late_releases = sql.rows("late_releases", Late)
fulfiller_of = sql.maybe("fulfiller_of", Runner)
fulfillers = sql.rows("fulfillers", Runner)
write_fulfiller = sql.run("write_fulfiller")


async def send_due(db: Database, *, now: datetime, chance: Callable[[], float], limit: int = SENT_AT_ONCE) -> int:
    """Tells fulfillers what is due, outside any transaction; gives how many have it. What a killed process left is
    taken up after its lease, under the same id."""
    async with db.transaction() as tx:
        due = await take_handoffs(tx, now=now, limit=limit, lease_seconds=LEASE_SECONDS)
    sent = 0
    for work in due:
        answer = await _tell(work)
        state, wait = after_attempt(work, answer, now=now, chance=chance())
        sent += state == "sent"
        async with db.transaction() as tx:
            await settle_handoff(
                tx, handoff_id=work.handoff_id, version=work.version, attempts=work.attempts, state=state,
                answer=str(getattr(answer, "reason", getattr(answer, "answer", "")))[:500],
                not_before=now + timedelta(seconds=wait), now=now,
            )  # fmt: skip
            if state == "sent":
                step = record.Step("fulfillment", str(work.fulfillment_id), f"{work.act} sent")
                await record.keep(tx, who="oms", steps=[step])
    return sent


async def _tell(work: Handoff) -> Answer:
    try:
        fulfiller = KINDS[work.kind](work.settings)
    except SettingsWrong as wrong:
        return Unknown(str(wrong))
    try:
        return await fulfiller.tell(order_of(work))
    finally:
        await fulfiller.close()


def order_of(work: Handoff) -> Order:
    """What a fulfiller is told; each version of a recall has an id of its own."""
    suffix = f"-{work.version}" if work.version > 1 else ""
    return Order(
        id=f"{work.handoff_id}{suffix}", act="release" if work.act == "release" else "recall",
        fulfillment=str(work.fulfillment_id), location=work.location, number=work.number, method=work.method,
        priority=work.priority, is_pickup=work.is_pickup, ship_to=work.ship_to, made_at=work.made_at,
        lines=tuple(Piece(**line) for line in work.lines),
    )  # fmt: skip


def after_attempt(work: Handoff, answer: Answer, *, now: datetime, chance: float) -> tuple[str, float]:
    """The state of a handoff after an attempt, and seconds until the next; capped exponential with full jitter."""
    if isinstance(answer, Delivered):
        return "sent", 0.0
    if isinstance(answer, Refused) and (answer.is_content or now - work.made_at >= GIVEN_UP_AFTER):
        return "dead", 0.0
    wait = chance * min(RETRY_SECONDS_MAX, RETRY_SECONDS_FIRST * 2.0 ** min(work.attempts, 20))
    return "due", max(wait, answer.seconds if isinstance(answer, SlowDown) else 0.0)


async def alarm(db: Database, *, now: datetime) -> int:
    """Releases that nobody acknowledged within their time become exceptions; gives how many."""
    async with db.transaction() as tx:
        late = await late_releases(tx, now=now, limit=500)
        await record.raise_exceptions(
            tx,
            [
                record.Trouble(
                    kind="release_unacknowledged", subject=str(n.fulfillment_id), due_hours=4,
                    detail=f"{n.location} has not taken over order {n.number} within {n.minutes} minutes "
                    f"({n.state}{': ' + n.answer if n.answer else ''}). Call its system's people, or reject it there.",
                    payload={"location": n.location, "fulfillment": str(n.fulfillment_id)},
                )
                for n in late
            ],
        )  # fmt: skip
    return len(late)


async def shown(db: Database) -> list[Runner]:
    """Every system that runs a location, its secrets masked."""
    async with db.connection() as tx:
        return [msgspec.structs.replace(r, settings=masked(r.settings)) for r in await fulfillers(tx)]


def masked(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they may be shown."""
    return {name: [MASK] * len(value) if name == "secrets" else value for name, value in settings.items()}


async def runner(db: Database, code: str) -> Runner:
    """The system that runs a location, with its secrets; raises NotFound."""
    async with db.connection() as tx:
        found = await fulfiller_of(tx, code=code)
    if found is None:
        raise NotFound(f"no system runs a location {code!r}")
    return found


async def change(
    db: Database, *, location: str, kind: str, settings: dict[str, Any], acknowledge_minutes: int, is_on: bool, who: str
) -> Runner:
    """A system runs this location from now on: new work goes to it. Raises NotFound, BadInput."""
    if kind not in KINDS:
        raise BadInput(f"kind: {kind!r} is none of {', '.join(KINDS)}")
    try:
        await KINDS[kind](settings).close()
    except SettingsWrong as wrong:
        raise BadInput(f"settings.{wrong}") from None
    async with db.transaction() as tx:
        written = await write_fulfiller(
            tx, code=location, kind=kind, settings=settings, acknowledge_minutes=acknowledge_minutes, is_on=is_on
        )
        if not written:
            raise NotFound(f"no location has the code {location!r}")
        detail = {"kind": kind, "settings": masked(settings), "minutes": acknowledge_minutes, "is_on": is_on}
        await record.keep(tx, who=who, steps=[record.Step("location", location, "run by a system", detail=detail)])
    return msgspec.structs.replace(await runner(db, location), settings=masked(settings))


def hash_of(content: Any) -> bytes:
    """What makes an answer the same answer."""
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).digest()
