"""Stock at a location by its own people: receipts, transfers, counts, write-offs."""

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import QueryParameter

from oms.access import Actor
from oms.api.feeds import locations_seen
from oms.api.fulfillments import Device, Reason
from oms.api.paging import PAGE_MAX, Page, read_cursor, write_cursor
from oms.api.scope import known_location, location_of
from oms.cache import Cache
from oms.db import Database
from oms.errors import NotFound
from oms.flows.stock import count, plan, receive, transfer, writeoff

READERS = frozenset({"associate", "planner", "operator", "approver", "admin"})
WORKERS = frozenset({"associate", "operator", "approver", "admin"})
APPROVERS = frozenset({"approver", "admin"})
LINES_MAX = 1000

Code = Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]
Short = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Some = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Any0 = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Cents = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
Cursor = Annotated[str | None, QueryParameter(max_length=1000, description="`next` of the page before.")]
Limit = Annotated[int, QueryParameter(ge=1, le=PAGE_MAX, description="Items of a page.")]


class CameLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units that came, by scanned code; some of them may be damaged."""

    code: Code
    quantity: Some
    damaged: Any0 = 0


class ReceiptBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A delivery: of what was expected under `reference` (a purchase order, a transfer's id), or of nothing expected.

    `final`: nothing more of it comes."""

    lines: Annotated[list[CameLine], msgspec.Meta(max_length=LINES_MAX)]
    location: Short | None = None
    reference: Short | None = None
    final: bool = False
    labor_cents: Cents = 0


class UnitsLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units by scanned code."""

    code: Code
    quantity: Some


class TransferBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which units go from where to where, and for which order, where they serve one."""

    from_location: Short
    to_location: Short
    lines: Annotated[list[UnitsLine], msgspec.Meta(min_length=1, max_length=LINES_MAX)]
    why: Reason | None = None
    order: UUID | None = None
    due_on: date | None = None
    labor_cents: Cents = 0
    transport_cents: Cents = 0


class SendBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What leaves (all where nothing is named), by whom, and what that cost."""

    lines: Annotated[list[UnitsLine], msgspec.Meta(max_length=LINES_MAX)] | None = None
    carrier: Short | None = None
    tracking: Short | None = None
    labor_cents: Cents = 0
    transport_cents: Cents = 0


class WhyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why."""

    why: Reason


class CountBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A count: of these skus (cycle), or of all that is there (full)."""

    kind: Literal["cycle", "full"]
    location: Short | None = None
    skus: Annotated[list[Code], msgspec.Meta(max_length=LINES_MAX)] | None = None
    why: Reason | None = None


class SeenLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units on the shelf, by scanned code; what is picked for orders is not among them."""

    code: Code
    quantity: Any0
    reason: Reason | None = None


class SeenBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was counted, at a moment (now where none is given)."""

    lines: Annotated[list[SeenLine], msgspec.Meta(min_length=1, max_length=LINES_MAX)]
    at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class CountView(msgspec.Struct, frozen=True):
    """A count and its lines; what we believe to be there is not told before it is counted."""

    count: plan.Count
    lines: list[plan.ToCount]


class Counted(msgspec.Struct, frozen=True):
    """What became of a line: applied, recount (by another person), waiting (for a second one), superseded."""

    sku: str
    counted: int
    state: str
    variance: int | None


class GoneLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units that are gone, by scanned code, and why."""

    code: Code
    quantity: Some
    reason: Reason


class WriteOffBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is written off."""

    lines: Annotated[list[GoneLine], msgspec.Meta(min_length=1, max_length=LINES_MAX)]
    location: Short | None = None


@post("/v1/receipts", status_code=201, opt={"roles": WORKERS}, tags=["stock"])
async def receive_units(
    *, db: Database, cache: Cache, actor: Actor, now: datetime, data: ReceiptBody, device: Device = None
) -> receive.Received:
    """Units come in, against what was expected; when they may be sold follows the rule of their source."""
    location_id = await location_of(db, actor, data.location)
    return await receive.receive(
        db, location_id=location_id, reference=data.reference, is_final=data.final, actor=actor, now=now, device=device,
        lines=[receive.Came(n.code, n.quantity, n.damaged) for n in data.lines], labor_cents=data.labor_cents, cache=cache,
    )  # fmt: skip


@get("/v1/receipts", opt={"roles": READERS}, tags=["stock"])
async def list_receipts(
    *, db: Database, actor: Actor, location: str | None = None, cursor: Cursor = None, limit: Limit = 100
) -> Page[receive.Receipt]:
    """What was received, newest first."""
    found = await receive.listed(
        db, locations=locations_seen(actor), code=location, before=read_cursor(cursor, UUID), limit=limit + 1
    )
    return Page(found[:limit], write_cursor(found[limit - 1].id) if len(found) > limit else None)


@post("/v1/transfers", status_code=201, opt={"roles": WORKERS}, tags=["stock"])
async def ask_transfer(*, db: Database, actor: Actor, now: datetime, data: TransferBody) -> transfer.View:
    """Asks for a transfer; a store's key asks for what leaves it or comes to it."""
    from_id, to_id = await known_location(db, data.from_location), await known_location(db, data.to_location)
    if actor.is_bound and not {from_id, to_id} & set(locations_seen(actor) or []):
        raise NotFound(f"no location has the code {data.from_location!r}")
    transfer_id = await transfer.ask(
        db, from_id=from_id, to_id=to_id, lines=[transfer.Wanted(n.code, n.quantity) for n in data.lines], actor=actor,
        now=now, why=data.why, order_id=data.order, due_on=data.due_on, labor_cents=data.labor_cents,
        transport_cents=data.transport_cents,
    )  # fmt: skip
    return await transfer.show(db, locations=locations_seen(actor), transfer_id=transfer_id)


@get("/v1/transfers", opt={"roles": READERS}, tags=["stock"])
async def list_transfers(
    *,
    db: Database,
    actor: Actor,
    wanted: Annotated[Literal["asked", "sent", "received", "cancelled"] | None, QueryParameter(name="state")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[transfer.View]:
    """Transfers with what is in transit and what they cost, newest first."""
    found = await transfer.listed(
        db, locations=locations_seen(actor), state=wanted, before=read_cursor(cursor, UUID), limit=limit + 1
    )
    return Page(found[:limit], write_cursor(found[limit - 1].id) if len(found) > limit else None)


@get("/v1/transfers/{transfer_id:uuid}", opt={"roles": READERS}, tags=["stock"])
async def get_transfer(*, db: Database, actor: Actor, transfer_id: UUID) -> transfer.View:
    """One transfer."""
    return await transfer.show(db, locations=locations_seen(actor), transfer_id=transfer_id)


@post("/v1/transfers/{transfer_id:uuid}/send", status_code=200, opt={"roles": WORKERS}, tags=["stock"])
async def send_transfer(
    *,
    db: Database,
    cache: Cache,
    actor: Actor,
    now: datetime,
    transfer_id: UUID,
    data: SendBody | None = None,
    device: Device = None,
) -> transfer.View:
    """It leaves, all of it or what is named: it is in transit. The other end takes it in as a receipt of its id."""
    said = data or SendBody()
    lines = None if said.lines is None else [transfer.Wanted(n.code, n.quantity) for n in said.lines]
    await transfer.send(
        db, transfer_id=transfer_id, actor=actor, now=now, lines=lines, carrier=said.carrier, tracking=said.tracking,
        labor_cents=said.labor_cents, transport_cents=said.transport_cents, device=device, cache=cache,
    )  # fmt: skip
    return await transfer.show(db, locations=locations_seen(actor), transfer_id=transfer_id)


@post("/v1/transfers/{transfer_id:uuid}/cancel", status_code=200, opt={"roles": WORKERS}, tags=["stock"])
async def cancel_transfer(*, db: Database, actor: Actor, transfer_id: UUID, data: WhyBody) -> transfer.View:
    """It does not leave."""
    await transfer.cancel(db, transfer_id=transfer_id, actor=actor, why=data.why)
    return await transfer.show(db, locations=locations_seen(actor), transfer_id=transfer_id)


@post("/v1/counts", status_code=201, opt={"roles": WORKERS}, tags=["stock"])
async def make_count(*, db: Database, actor: Actor, now: datetime, data: CountBody) -> CountView:
    """Asks for a count; where a WMS owns the quantities, it is the WMS that is asked."""
    location_id = await location_of(db, actor, data.location)
    count_id = await plan.make(
        db, location_id=location_id, kind=data.kind, codes=data.skus, why=data.why, actor=actor, now=now
    )
    return await view_of(db, actor, count_id)


async def view_of(db: Database, actor: Actor, count_id: UUID) -> CountView:
    """A count that the caller sees; raises NotFound."""
    lines = await plan.show(db, count_id=count_id, actor=actor)
    found = await plan.listed(db, locations=None, code=None, state=None, limit=1, count_id=count_id)
    return CountView(found[0], lines)


@get("/v1/counts", opt={"roles": READERS}, tags=["stock"])
async def list_counts(
    *,
    db: Database,
    actor: Actor,
    location: str | None = None,
    wanted: Annotated[Literal["open", "closed"] | None, QueryParameter(name="state")] = None,
    limit: Limit = 100,
) -> list[plan.Count]:
    """Counts, those that are due first."""
    return await plan.listed(db, locations=locations_seen(actor), code=location, state=wanted, limit=limit)


@get("/v1/counts/{count_id:uuid}", opt={"roles": READERS}, tags=["stock"])
async def get_count(*, db: Database, actor: Actor, count_id: UUID) -> CountView:
    """One count, blind."""
    return await view_of(db, actor, count_id)


@post("/v1/counts/{count_id:uuid}/lines", status_code=200, opt={"roles": WORKERS}, tags=["stock"])
async def enter_count(
    *, db: Database, cache: Cache, actor: Actor, now: datetime, count_id: UUID, data: SeenBody, device: Device = None
) -> list[Counted]:
    """What was counted on the shelf; what is picked and has not left is added by us."""
    verdicts = await count.enter(
        db, count_id=count_id, lines=[count.Seen(n.code, n.quantity, n.reason) for n in data.lines], actor=actor, now=now,
        at=data.at, device=device, cache=cache,
    )  # fmt: skip
    return [Counted(v.sku, v.counted, v.state, None if v.state == "recount" else v.variance) for v in verdicts]


@post("/v1/counts/{count_id:uuid}/close", status_code=200, opt={"roles": WORKERS}, tags=["stock"])
async def close_count(
    *, db: Database, cache: Cache, actor: Actor, now: datetime, count_id: UUID, device: Device = None
) -> CountView:
    """It is done: what nobody counted is untouched, and of a full count it is not there."""
    await count.close(db, count_id=count_id, actor=actor, now=now, device=device, cache=cache)
    return await view_of(db, actor, count_id)


@get("/v1/variances", opt={"roles": READERS}, tags=["stock"])
async def list_variances(*, db: Database, actor: Actor, since: datetime, until: datetime) -> list[plan.Variance]:
    """What counts found in a period, by location and reason."""
    return await plan.variances(db, locations=locations_seen(actor), since=since, until=until)


@post("/v1/write-offs", status_code=201, opt={"roles": WORKERS}, tags=["stock"])
async def write_off(
    *, db: Database, cache: Cache, actor: Actor, now: datetime, data: WriteOffBody, device: Device = None
) -> writeoff.WriteOff:
    """Units are gone; above the person's limit of the day they wait for another person's yes, and are not sold."""
    location_id = await location_of(db, actor, data.location)
    write_off_id = await writeoff.ask(
        db, location_id=location_id, lines=[writeoff.Gone(n.code, n.quantity, n.reason) for n in data.lines], actor=actor,
        now=now, device=device, cache=cache,
    )  # fmt: skip
    return await shown(db, actor, write_off_id)


async def shown(db: Database, actor: Actor, write_off_id: UUID) -> writeoff.WriteOff:
    """A write-off that the caller sees; raises NotFound."""
    found = await writeoff.listed(
        db, locations=locations_seen(actor), state=None, before=None, limit=1, write_off_id=write_off_id
    )
    if not found:
        raise NotFound(f"There is no write-off {write_off_id}.")
    return found[0]


@get("/v1/write-offs", opt={"roles": READERS}, tags=["stock"])
async def list_write_offs(
    *,
    db: Database,
    actor: Actor,
    wanted: Annotated[Literal["waiting", "applied", "refused"] | None, QueryParameter(name="state")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[writeoff.WriteOff]:
    """What was written off, and what waits for a second person, newest first."""
    found = await writeoff.listed(
        db, locations=locations_seen(actor), state=wanted, before=read_cursor(cursor, UUID), limit=limit + 1
    )
    return Page(found[:limit], write_cursor(found[limit - 1].id) if len(found) > limit else None)


def decision(name: Literal["approve", "refuse"]) -> Any:
    """The handler of another person's yes or no."""

    @post(
        f"/v1/write-offs/{{write_off_id:uuid}}/{name}", status_code=200, opt={"roles": APPROVERS}, tags=["stock"],
        name=f"{name}_write_off", summary=f"{name.capitalize()} a write-off",
        description="Another person than the one who asked decides.",
    )  # fmt: skip
    async def decide(
        *, db: Database, cache: Cache, actor: Actor, now: datetime, write_off_id: UUID
    ) -> writeoff.WriteOff:
        await writeoff.decide(
            db, write_off_id=write_off_id, agrees=name == "approve", actor=actor, now=now, cache=cache
        )
        return await shown(db, actor, write_off_id)

    return decide


routes: list[Any] = [
    receive_units, list_receipts, ask_transfer, list_transfers, get_transfer, send_transfer, cancel_transfer, make_count,
    list_counts, get_count, enter_count, close_count, list_variances, write_off, list_write_offs, decision("approve"),
    decision("refuse"),
]  # fmt: skip
