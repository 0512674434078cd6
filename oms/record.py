"""History and exceptions, written inside the caller's transaction."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from oms.db import Connection, Sql

sql = Sql("record")


class Step(msgspec.Struct, frozen=True):
    """One step of one object: what happened, and why."""

    kind: str
    id: str
    step: str
    why: str | None = None
    detail: Any = None


class Trouble(msgspec.Struct, frozen=True):
    """What needs a person. `detail` is a sentence: what, where, what to do. One is open per kind and subject."""

    kind: str
    subject: str
    detail: str
    payload: dict[str, Any] = {}
    owner: str = "operator"
    due_hours: int = 24


class Opened(msgspec.Struct, frozen=True):
    """An exception that is open now."""

    kind: str
    subject: str
    exception_id: UUID


class PastStep(msgspec.Struct, frozen=True):
    """A kept step."""

    history_id: int
    at: datetime
    who: str
    step: str
    why: str | None
    detail: Any


write_history = sql.run("write_history")
open_exceptions = sql.rows("open_exceptions", Opened)
resolve_exceptions = sql.rows("resolve_exceptions", UUID)
end_approvals = sql.run("end_approvals")
agree = sql.one("agree", bool)
history_of = sql.rows("history_of", PastStep)


async def keep(tx: Connection, *, who: str, steps: Sequence[Step]) -> None:
    """Keeps steps in the history; it is never edited."""
    if steps:
        await write_history(
            tx, who=who, kinds=[s.kind for s in steps], ids=[s.id for s in steps], steps=[s.step for s in steps],
            whys=[s.why for s in steps], details=[s.detail for s in steps],
        )  # fmt: skip


async def raise_exceptions(tx: Connection, troubles: Sequence[Trouble]) -> dict[tuple[str, str], UUID]:
    """Opens an exception for each trouble, or counts it again where it is open; gives their ids."""
    if not troubles:
        return {}
    opened = await open_exceptions(
        tx, kinds=[t.kind for t in troubles], subjects=[t.subject for t in troubles],
        details=[t.detail for t in troubles], payloads=[t.payload for t in troubles],
        owners=[t.owner for t in troubles], due_hours=[t.due_hours for t in troubles],
    )  # fmt: skip
    return {(o.kind, o.subject): o.exception_id for o in opened}


async def settle_exceptions(tx: Connection, *, who: str, resolution: str, of: Sequence[tuple[str, str]]) -> list[UUID]:
    """Resolves what is open of these (kind, subject) pairs."""
    if not of:
        return []
    return await resolve_exceptions(
        tx, who=who, resolution=resolution, kinds=[kind for kind, _ in of], subjects=[subject for _, subject in of]
    )


async def two_people_agree(tx: Connection, *, act: str, subject: str, payload: Any, who: str, hours: int = 24) -> bool:
    """True when `who` is the second person to say yes to exactly this act; a first yes is kept for `hours`."""
    digest = hashlib.sha256(msgspec.json.encode(payload, order="sorted")).digest()
    await end_approvals(tx, act=act, subject=subject, payload_hash=digest)
    return await agree(tx, act=act, subject=subject, payload_hash=digest, who=who, hours=hours)
