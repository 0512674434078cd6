"""The network as it is and as it was; secrets are never shown."""

from collections.abc import Callable
from typing import Any

import msgspec

from oms.db import Database, Sql
from oms.domain import network
from oms.domain.network import KINDS, Kind
from oms.errors import NotFound
from oms.record import PastStep, history_of

sql = Sql("network")


class Kept(msgspec.Struct, frozen=True):
    """An object of the network under its code."""

    code: str
    body: dict[str, Any]


class Page(msgspec.Struct, frozen=True):
    """Some objects, and the code after which the next page begins; None at the end."""

    items: list[dict[str, Any]]
    next: str | None


READ = {name: sql.rows(name, Kept) for name in KINDS}


async def show(db: Database, *, kind: str, code: str) -> dict[str, Any]:
    """One object by its code; NotFound where there is none."""
    described = _kind(kind)
    async with db.connection() as connection:
        found = await READ[kind](connection, codes=[code], after="", limit=1)
    if not found:
        raise NotFound(f"no {described.one} has the code {code!r}")
    return network.masked(found[0].body)


async def listed(
    db: Database, *, kind: str, after: str, limit: int, visible: Callable[[str], bool] | None = None
) -> Page:
    """Objects of a kind by code; `visible` leaves out what the caller may not see."""
    described = _kind(kind)
    filters: dict[str, Any] = {"codes": None} if len(described.key) == 1 else {"rows": None}
    async with db.connection() as connection:
        found = await READ[kind](connection, **filters, after=after, limit=limit + 1)
    shown = found[:limit]
    return Page(
        items=[network.masked(kept.body) for kept in shown if visible is None or visible(kept.code)],
        next=shown[-1].code if len(found) > limit else None,
    )


async def past(db: Database, *, kind: str, code: str, after: int, limit: int) -> list[PastStep]:
    """The kept steps of an object, oldest first."""
    async with db.connection() as connection:
        return await history_of(connection, kind=_kind(kind).one, id=code, after=after, limit=limit)


def _kind(kind: str) -> Kind:
    described = KINDS.get(kind)
    if described is None:
        raise NotFound(f"there is no list of {kind!r}; there are {', '.join(KINDS)}")
    return described
