"""Policies of brokering: their versions, who approves them, and the way back. Drafts come by `PUT /v1/policies`."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import get, post

from oms.access import Actor
from oms.db import Database
from oms.errors import BadInput
from oms.flows import govern
from oms.flows.broker import policy
from oms.flows.broker.policy import VersionView

READERS = frozenset({"planner", "operator", "approver", "admin"})
PLANNERS = frozenset({"planner", "admin"})
APPROVERS = frozenset({"approver", "admin"})
Note = Annotated[str, msgspec.Meta(min_length=1, max_length=2000, pattern=r"^[^\x00]*$")]


class AskBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From when it is to be in force (at once where not given), and why."""

    from_at: datetime | None = None
    note: Note | None = None


class DecideBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Yes or no."""

    agreed: bool = True


class BackBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which version it should be again, and why."""

    version: int
    note: Note | None = None


class Versions(msgspec.Struct, frozen=True):
    """The versions of a policy, newest first."""

    items: list[VersionView]


class Moved(msgspec.Struct, frozen=True):
    """The version that was moved."""

    version: int


@get("/v1/policies/{code:str}/versions", opt={"roles": READERS}, tags=["runs"])
async def list_versions(*, db: Database, now: datetime, code: str) -> Versions:
    """Every version with its state, who made and approved it, and what it says in sentences."""
    return Versions(await policy.versions(db, code=code, now=now))


@post("/v1/policies/{code:str}/ask", status_code=200, opt={"roles": PLANNERS}, tags=["runs"])
async def ask(*, db: Database, actor: Actor, now: datetime, code: str, data: AskBody | None = None) -> Moved:
    """The newest draft waits for another person's approval."""
    data = data or AskBody()
    if data.from_at is not None and data.from_at.tzinfo is None:
        raise BadInput("from_at: a moment with its offset is expected")
    return Moved(await policy.ask(db, code=code, from_at=data.from_at, note=data.note, who=actor.who, now=now))


@post("/v1/policies/{code:str}/decide", status_code=200, opt={"roles": APPROVERS}, tags=["runs"])
async def decide(*, db: Database, actor: Actor, code: str, data: DecideBody | None = None) -> Moved:
    """Another person than who made it approves the version that waits, or refuses it."""
    person = govern.person_of(actor)
    return Moved(await policy.decide(db, code=code, is_agreed=(data or DecideBody()).agreed, who=person))


@post("/v1/policies/{code:str}/rollback", status_code=200, opt={"roles": PLANNERS}, tags=["runs"])
async def roll_back(*, db: Database, actor: Actor, now: datetime, code: str, data: BackBody) -> Moved:
    """An earlier approved version waits for approval again, as the newest one."""
    return Moved(await policy.roll_back(db, code=code, version=data.version, note=data.note, who=actor.who, now=now))


routes: list[Any] = [list_versions, ask, decide, roll_back]
