"""Work in a store: the list by urgency, pick lists, scans, parcels, and how the location works."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import get, post, put
from litestar.params import QueryParameter

from oms.access import Actor
from oms.api.fulfillments import READERS, WORKERS, Device
from oms.api.scope import location_of
from oms.db import Database
from oms.errors import BadInput, NotAllowed
from oms.flows.fulfill import claim, look, parcels, rules, scan
from oms.flows.fulfill.parcels import Doing, Parcel

Code = Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]
Short = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Quantity = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class WorkList(msgspec.Struct, frozen=True):
    """What is to be done, most urgent first."""

    items: list[look.Due]


class ClaimBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which work a pick list takes: these fulfillments, or up to `limit` of the most urgent."""

    location: Short | None = None
    fulfillments: Annotated[list[UUID], msgspec.Meta(min_length=1, max_length=claim.ORDERS_MAX)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=claim.ORDERS_MAX)] = 10


class GivenBack(msgspec.Struct, frozen=True):
    """How much is nobody's again."""

    given_back: int


class ScanBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A code that was scanned: a barcode, a GS1 symbol or link, or an EPC tag; `parcel` when it is packed."""

    step: Literal["pick", "pack"]
    code: Code
    quantity: Quantity = 1
    parcel: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1


class PackedLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units of a line in a parcel."""

    line: Short
    quantity: Quantity


class ParcelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is told of a parcel, and what goes into it."""

    carrier: Short | None = None
    tracking: Short | None = None
    weight_grams: Annotated[int, msgspec.Meta(ge=1, le=100_000_000)] | None = None
    lines: Annotated[list[PackedLine], msgspec.Meta(max_length=1000)] = []


class Parcels(msgspec.Struct, frozen=True):
    """The parcels of a fulfillment, and who picked and packed."""

    parcels: list[Parcel]
    tasks: list[Doing]


@get("/v1/work", opt={"roles": READERS}, tags=["fulfillments"])
async def list_work(
    *,
    db: Database,
    actor: Actor,
    now: datetime,
    location: str | None = None,
    limit: Annotated[int, QueryParameter(ge=1, le=look.WORK_MAX, description="At most so many.")] = 500,
) -> WorkList:
    """What locations have to do, by when it must leave, then by class and age, with who has it in hand."""
    return WorkList(await look.due(db, actor=actor, location=location, now=now, limit=limit))


@post("/v1/pick-lists", status_code=201, opt={"roles": WORKERS}, tags=["fulfillments"])
async def make_pick_list(
    *, db: Database, actor: Actor, now: datetime, data: ClaimBody, device: Device = None
) -> claim.PickList:
    """Takes work in hand: a round over several orders, by bin. What another person has is not taken."""
    location_id = await location_of(db, actor, data.location)
    return await claim.claim(
        db,
        location_id=location_id,
        fulfillments=data.fulfillments,
        limit=data.limit,
        actor=actor,
        now=now,
        device=device,
    )


@get("/v1/pick-lists/{pick_list_id:uuid}", opt={"roles": READERS}, tags=["fulfillments"])
async def get_pick_list(*, db: Database, actor: Actor, pick_list_id: UUID) -> claim.PickList:
    """A pick list as it stands."""
    return await claim.show(db, pick_list_id=pick_list_id, actor=actor)


@post("/v1/pick-lists/{pick_list_id:uuid}/give-back", status_code=200, opt={"roles": WORKERS}, tags=["fulfillments"])
async def give_back_list(*, db: Database, actor: Actor, now: datetime, pick_list_id: UUID) -> GivenBack:
    """What of it is not done is nobody's again."""
    return GivenBack(await claim.give_back(db, pick_list_id=pick_list_id, actor=actor, now=now))


@post(
    "/v1/fulfillments/{fulfillment_id:uuid}/give-back", status_code=200, opt={"roles": WORKERS}, tags=["fulfillments"]
)
async def give_back(*, db: Database, actor: Actor, now: datetime, fulfillment_id: UUID) -> GivenBack:
    """Its pick or pack is nobody's again."""
    return GivenBack(await claim.give_back_one(db, fulfillment=fulfillment_id, actor=actor, now=now))


@post("/v1/fulfillments/{fulfillment_id:uuid}/scans", status_code=200, opt={"roles": WORKERS}, tags=["fulfillments"])
async def scan_code(
    *, db: Database, actor: Actor, now: datetime, fulfillment_id: UUID, data: ScanBody, device: Device = None
) -> scan.Scanned:
    """A code is scanned while picking or packing; one that does not belong there is refused and counted."""
    return await scan.scan(
        db, fulfillment=fulfillment_id, step=data.step, text=data.code, quantity=data.quantity, parcel=data.parcel,
        actor=actor, now=now, device=device,
    )  # fmt: skip


@get("/v1/fulfillments/{fulfillment_id:uuid}/parcels", opt={"roles": READERS}, tags=["fulfillments"])
async def list_parcels(*, db: Database, actor: Actor, fulfillment_id: UUID) -> Parcels:
    """The parcels of a fulfillment with their tracking, and who picked and packed it, with what, from when to when."""
    return Parcels(*await parcels.listed(db, fulfillment=fulfillment_id, actor=actor))


@put("/v1/fulfillments/{fulfillment_id:uuid}/parcels/{number:int}", opt={"roles": WORKERS}, tags=["fulfillments"])
async def put_parcel(
    *,
    db: Database,
    actor: Actor,
    now: datetime,
    fulfillment_id: UUID,
    number: int,
    data: ParcelBody,
    device: Device = None,
) -> list[parcels.Parcel]:
    """Makes a parcel, or tells more of it; its lines go into it beside what is there."""
    lines = [parcels.Packed(n.line, n.quantity) for n in data.lines]
    return await parcels.put(
        db, fulfillment=fulfillment_id, number=parcel_number(number), carrier=data.carrier, tracking=data.tracking,
        weight_grams=data.weight_grams, lines=lines, actor=actor, now=now, device=device,
    )  # fmt: skip


def parcel_number(number: int) -> int:
    """A number that a parcel may have; raises BadInput."""
    if not 1 <= number <= 1000:
        raise BadInput(f"parcels are numbered from 1 to 1000; there is no parcel {number}")
    return number


@get("/v1/locations/{code:str}/work-rules", opt={"roles": READERS}, tags=["network"])
async def get_work_rules(*, db: Database, actor: Actor, code: str) -> rules.WorkRules:
    """How a location works."""
    await location_of(db, actor, code)
    return await rules.show(db, location=code)


@put("/v1/locations/{code:str}/work-rules", opt={"roles": frozenset({"admin"})}, tags=["network"])
async def put_work_rules(*, db: Database, actor: Actor, code: str, data: dict[str, Any]) -> rules.WorkRules:
    """The location works so from now on; what is not given stays."""
    if actor.is_bound:
        raise NotAllowed("this key is bound to a part of the network; the network is changed by an unbound one")
    return await rules.change(db, location=code, said=data, who=actor.who)


routes: list[Any] = [
    list_work, make_pick_list, get_pick_list, give_back_list, give_back, scan_code, list_parcels, put_parcel,
    get_work_rules, put_work_rules,
]  # fmt: skip
