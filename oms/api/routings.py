"""Order routings of HotWax, imported to be compared with the joint plan, and to become draft policies."""

from typing import Annotated, Any

import msgspec
from litestar import get, put
from litestar.params import QueryParameter

from oms.access import Actor
from oms.api.runs import check_unbound
from oms.db import Database
from oms.errors import BadInput
from oms.flows.broker import routings

READERS = frozenset({"planner", "operator", "approver", "admin"})
BRINGERS = frozenset({"planner", "operator", "admin"})
NAME_CHARS_MAX = 100
After = Annotated[str, QueryParameter(max_length=200, pattern=r"^[^\x00]*$", description="The name that they follow.")]


class Names(msgspec.Struct, frozen=True):
    """Names of imported routings."""

    items: list[routings.Listed]


class Drafts(msgspec.Struct, frozen=True):
    """Draft policies made from routings, as `PUT /v1/policies` takes them."""

    items: list[routings.DraftPolicy]


@put("/v1/routings/{code:str}", opt={"roles": BRINGERS}, tags=["runs"])
async def put_routings(*, db: Database, actor: Actor, code: str, data: routings.Import) -> routings.Said:
    """Keeps routings under a name. Nothing is brokered by them: a what-if compares them."""
    check_unbound(actor)
    if len(code) > NAME_CHARS_MAX or "\x00" in code:
        raise BadInput(f"code: a name of at most {NAME_CHARS_MAX} characters is expected")
    return await routings.bring(db, code=code, given=data, who=actor.who)


@get("/v1/routings", opt={"roles": READERS}, tags=["runs"])
async def list_routings(*, db: Database, actor: Actor, after: After = "") -> Names:
    """Imported routings by name, two hundred that follow `after`."""
    check_unbound(actor)
    return Names(await routings.listed(db, after=after))


@get("/v1/routings/{code:str}", opt={"roles": READERS}, tags=["runs"])
async def get_routings(*, db: Database, actor: Actor, code: str) -> routings.Said:
    """Routings as they were given, what is left out of them, and what is odd about them in this network."""
    check_unbound(actor)
    return await routings.read(db, code=code)


@get("/v1/routings/{code:str}/policies", opt={"roles": READERS}, tags=["runs"])
async def draft_policies(*, db: Database, actor: Actor, code: str) -> Drafts:
    """A draft policy for each routing, in sentences, and what could not be carried over and why."""
    check_unbound(actor)
    return Drafts(await routings.drafted(db, code=code))


routes: list[Any] = [put_routings, list_routings, get_routings, draft_policies]
"""The doors of imported routings."""
