"""What customers collect at a store: arrived, handed over with proof, or not collected."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import QueryParameter

from oms.access import Actor
from oms.api.fulfillments import READERS, WORKERS, Device, Reason
from oms.cache import Cache
from oms.db import Database
from oms.flows.fulfill import collect, handover

State = Literal["expected", "ready", "handed_over", "not_collected"]


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How we know that the right customer was here: the code that was sent, or what an associate saw."""

    kind: Literal["code", "signature", "id_document", "known_person"]
    value: Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]


class HandOverBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A hand-over's proof."""

    proof: Proof


class WhyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why it goes back."""

    why: Reason


class Collections(msgspec.Struct, frozen=True):
    """What customers collect."""

    items: list[collect.Collection]


class Now(msgspec.Struct, frozen=True):
    """The state that it is in now."""

    fulfillment: UUID
    state: str


@get("/v1/collections", opt={"roles": READERS}, tags=["fulfillments"])
async def list_collections(
    *,
    db: Database,
    actor: Actor,
    location: str | None = None,
    wanted: Annotated[State | None, QueryParameter(name="state")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=500, description="At most so many.")] = 100,
) -> Collections:
    """What customers collect at the stores that the key sees, those that wait longest first."""
    return Collections(await collect.listed(db, actor=actor, location=location, state=wanted, limit=limit))


@post("/v1/collections/{fulfillment_id:uuid}/arrive", status_code=200, opt={"roles": WORKERS}, tags=["fulfillments"])
async def arrive(*, db: Database, actor: Actor, now: datetime, fulfillment_id: UUID, device: Device = None) -> Now:
    """What was shipped to this store for its customer is here."""
    return Now(
        fulfillment_id, await collect.arrive(db, fulfillment=fulfillment_id, actor=actor, now=now, device=device)
    )


@post("/v1/collections/{fulfillment_id:uuid}/hand-over", status_code=200, opt={"roles": WORKERS}, tags=["fulfillments"])
async def hand_over(
    *,
    db: Database,
    cache: Cache,
    actor: Actor,
    now: datetime,
    fulfillment_id: UUID,
    data: HandOverBody,
    device: Device = None,
) -> Now:
    """The customer has it, with proof; done before, it changes nothing."""
    state = await handover.hand_over(
        db, fulfillment=fulfillment_id, kind=data.proof.kind, proof=data.proof.value, actor=actor, now=now, device=device,
        cache=cache,
    )  # fmt: skip
    return Now(fulfillment_id, state)


@post(
    "/v1/collections/{fulfillment_id:uuid}/not-collected", status_code=200, opt={"roles": WORKERS},
    tags=["fulfillments"],
)  # fmt: skip
async def not_collected(
    *,
    db: Database,
    cache: Cache,
    actor: Actor,
    now: datetime,
    fulfillment_id: UUID,
    data: WhyBody,
    device: Device = None,
) -> Now:
    """Nobody came: back to stock, and the refund is due."""
    state = await collect.not_collected(
        db, fulfillment=fulfillment_id, why=data.why, actor=actor, now=now, device=device, cache=cache
    )
    return Now(fulfillment_id, state)


routes: list[Any] = [list_collections, arrive, hand_over, not_collected]
