"""Systems that run a location: set up, shown, and what they answer by signed webhook."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get, post, put

from connectors.fulfillers import SaidUnreadable, read_said
from connectors.signing import NotSigned, SecretWrong, signers, verify
from oms.access import Actor
from oms.api import PUBLIC
from oms.cache import Cache
from oms.db import Database
from oms.errors import BadInput, NotAllowed, Unauthenticated
from oms.flows.fulfill import answers, handoff


class FulfillerBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the system is reached: webhook by url and secrets, file by folder; and in what time it takes work over."""

    kind: Literal["webhook", "file"]
    settings: dict[str, Any]
    acknowledge_minutes: Annotated[int, msgspec.Meta(ge=1, le=10080)] = 15
    is_on: bool = True


class Fulfillers(msgspec.Struct, frozen=True):
    """Every system that runs a location."""

    items: list[handoff.Runner]


class Taken(msgspec.Struct, frozen=True):
    """What became of each answer, in order: applied, duplicate, changed."""

    outcomes: list[str]


def check_unbound(actor: Actor) -> None:
    """Raises NotAllowed for a key that is bound to a part of the network."""
    if actor.is_bound:
        raise NotAllowed("this key is bound to a part of the network; the network is changed by an unbound one")


@get("/v1/fulfillers", opt={"roles": frozenset({"planner", "operator", "admin"})}, tags=["fulfillers"])
async def list_fulfillers(*, db: Database, actor: Actor) -> Fulfillers:
    """Every system that runs a location, its secrets masked."""
    check_unbound(actor)
    return Fulfillers(await handoff.shown(db))


@put("/v1/fulfillers/{code:str}", opt={"roles": frozenset({"admin"})}, tags=["fulfillers"])
async def put_fulfiller(*, db: Database, actor: Actor, code: str, data: FulfillerBody) -> handoff.Runner:
    """A system runs the location of this code: its work goes there from now on."""
    check_unbound(actor)
    return await handoff.change(
        db, location=code, kind=data.kind, settings=data.settings, acknowledge_minutes=data.acknowledge_minutes,
        is_on=data.is_on, who=actor.who,
    )  # fmt: skip


@post("/v1/hooks/fulfiller/{code:str}", status_code=200, opt={"roles": PUBLIC}, tags=["fulfillers"])
async def hook(*, db: Database, cache: Cache, now: datetime, request: Request[Any, Any, Any], code: str) -> Taken:
    """What the system of a location answers, one answer or a list, signed by one of its live secrets."""
    body = await request.body()
    runner = await handoff.runner(db, code)
    try:
        verify(body, request.headers, by=signers(runner.settings.get("secrets") or []), now=now)
    except (NotSigned, SecretWrong) as error:
        raise Unauthenticated(f"the answer is not signed: {error}") from None
    try:
        said = read_said(body)
    except SaidUnreadable as error:
        raise BadInput(f"the answer cannot be read: {error}") from None
    return Taken(await answers.take_in(db, runner=runner, said=said, now=now, cache=cache))


routes: list[Any] = [list_fulfillers, put_fulfiller, hook]
