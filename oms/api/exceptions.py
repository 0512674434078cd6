"""What needs a person: seen, resolved, tried again, approved."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import QueryParameter

from oms.access import Actor
from oms.api.paging import PAGE_MAX, Page, read_cursor, write_cursor
from oms.cache import Cache
from oms.db import Database
from oms.errors import BadInput, Conflict
from oms.flows import govern
from oms.flows.broker import policy
from oms.flows.govern import Exceptional
from oms.flows.ingest import apply, messages
from oms.flows.network import rules
from oms.flows.order.remedies import Kind, ShortLine, remedies
from oms.flows.order.resolve import Chosen, carry_out
from oms.flows.push import outbox
from oms.flows.stock import writeoff

READERS = frozenset({"planner", "operator", "approver", "admin"})

Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=2000, pattern=r"^[^\x00]*$")]


class RemedyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A remedy that an oversold order's exception proposes: of one line, or of all that are short."""

    kind: Kind
    line: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    pool: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    sku: Annotated[str, msgspec.Meta(max_length=200)] | None = None


class Resolution(msgspec.Struct, forbid_unknown_fields=True):
    """How it was settled: in words; or by a remedy (or its kind alone), which is carried out."""

    why: Reason | None = None
    remedy: RemedyBody | Kind | None = None


class ExceptionView(Exceptional, frozen=True):
    """An exception; of an oversold order with the lines that are short now, and what may be done about each."""

    remedies: list[ShortLine]


class Replayed(msgspec.Struct):
    """How many messages or pushes were taken up again and acted."""

    acted: int


class Approved(msgspec.Struct):
    """Whether it is in force now, or waits for a second person."""

    done: bool
    detail: str


@get("/v1/exceptions", opt={"roles": READERS}, tags=["exceptions"])
async def list_exceptions(
    *,
    db: Database,
    actor: Actor,
    wanted: Annotated[str | None, QueryParameter(name="state", description="open or resolved; else both")] = None,
    kind: str | None = None,
    cursor: Annotated[str | None, QueryParameter(max_length=1000)] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=PAGE_MAX)] = 100,
) -> Page[Exceptional]:
    """Exceptions that the key may see, newest first."""
    before = read_cursor(cursor, UUID)
    found = await govern.listed(db, actor=actor, state=wanted, kind=kind, before=before, limit=limit + 1)
    shown = found[:limit]
    return Page(items=shown, next=write_cursor(shown[-1].id) if len(found) > limit else None)


@get("/v1/exceptions/{exception_id:uuid}", opt={"roles": READERS}, tags=["exceptions"])
async def get_exception(*, db: Database, actor: Actor, now: datetime, exception_id: UUID) -> ExceptionView:
    """One exception; of an oversold order with remedies by what is true now."""
    found = await govern.show(db, actor=actor, exception_id=exception_id)
    order_id = order_of(found)
    proposed = [] if order_id is None or found.state != "open" else await remedies(db, order_id=order_id, now=now)
    return ExceptionView(**msgspec.structs.asdict(found), remedies=proposed)


def order_of(found: Exceptional) -> UUID | None:
    """The order of which an exception says that there is not enough."""
    return UUID(found.payload["order"]) if found.kind == "oversold" else None


@post(
    "/v1/exceptions/{exception_id:uuid}/resolve", opt={"roles": frozenset({"operator", "approver", "admin"})},
    status_code=200, tags=["exceptions"],
)  # fmt: skip
async def resolve(
    *, db: Database, cache: Cache, actor: Actor, now: datetime, exception_id: UUID, data: Resolution
) -> Exceptional:
    """A person says that it is settled, and how; or chooses a remedy, which is carried out now."""
    if data.remedy is None:
        if data.why is None:
            raise BadInput("why, remedy: say how it was settled, or which remedy is to be carried out")
        return await govern.resolve(db, actor=actor, exception_id=exception_id, why=data.why)
    found = await govern.show(db, actor=actor, exception_id=exception_id)
    order_id = order_of(found)
    if order_id is None or found.state != "open":
        raise Conflict(f"an exception of kind {found.kind} that is {found.state} has no remedies")
    chosen = Chosen(data.remedy) if isinstance(data.remedy, str) else Chosen(**msgspec.structs.asdict(data.remedy))
    await carry_out(db, order_id=order_id, chosen=chosen, why=data.why, who=actor.who, now=now)
    await cache.wake("project")
    await cache.wake("broker")
    return await govern.show(db, actor=actor, exception_id=exception_id)


@post(
    "/v1/exceptions/{exception_id:uuid}/replay", opt={"roles": frozenset({"operator", "admin"})}, status_code=200,
    tags=["exceptions"],
)  # fmt: skip
async def replay(*, db: Database, cache: Cache, actor: Actor, exception_id: UUID) -> Replayed:
    """What waits under it is tried again: parked messages whose codes are known by now, or a dead push."""
    found = await govern.show(db, actor=actor, exception_id=exception_id)
    if found.kind in ("unknown_sku", "unknown_location", "unknown_unit"):
        acted = await messages.replay_parked(db, who=actor.who)
        for name in ("project", "parked"):
            await cache.wake(name)
        return Replayed(acted)
    if found.kind == "push_dead":
        await outbox.replay(db, push_id=UUID(found.payload["push_id"]), who=actor.who)
        await cache.wake(f"push:{found.payload['channel']}")
        return Replayed(1)
    raise Conflict(f"nothing waits under an exception of kind {found.kind}; it can be resolved")


@post(
    "/v1/exceptions/{exception_id:uuid}/approve", opt={"roles": frozenset({"approver", "admin"})}, status_code=200,
    tags=["exceptions"],
)  # fmt: skip
async def approve(*, db: Database, cache: Cache, actor: Actor, now: datetime, exception_id: UUID) -> Approved:
    """A person's yes: to a parked part of a feed (two people), to a fact that its source does not own, or to a
    write-off (one, where another asked)."""
    found = await govern.show(db, actor=actor, exception_id=exception_id)
    person = govern.person_of(actor)
    if found.kind == "feed_parked":
        agreed = await apply.release(db, baseline_id=int(found.subject), who=person)
        if agreed:
            await cache.wake("ingest")
        detail = "two people agreed: it is applied now" if agreed else "a second person must approve it too"
        return Approved(agreed, detail)
    if found.kind == "not_owner":
        acted = await govern.apply_reviewed(db, actor=actor, exception_id=exception_id, now=now)
        await cache.wake("project")
        return Approved(True, f"{acted} applied as an adjustment")
    if found.kind == "rule_waiting":
        await rules.approve(db, cache, code=found.subject, who=actor.who, now=now)
        await cache.wake("project")
        return Approved(True, "it is in force")
    if found.kind == "policy_waiting":
        version = await policy.decide(db, code=found.subject, is_agreed=True, who=person)
        return Approved(True, f"version {version} is approved")
    if found.kind == "write_off_waiting":
        await writeoff.decide(db, write_off_id=UUID(found.subject), agrees=True, actor=actor, now=now, cache=cache)
        return Approved(True, "it is written off")
    raise Conflict(f"an exception of kind {found.kind} asks for no approval; it can be resolved")


routes: list[Any] = [list_exceptions, get_exception, resolve, replay, approve]
