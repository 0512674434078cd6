"""The network as it is and as it was, for those who may see it; secrets are never shown."""

from collections.abc import Sequence
from typing import Any

import msgspec

from oms.access import Actor
from oms.db import Connection, Database, Sql
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
CODES = {name: sql.rows(f"codes_of_{name}", str) for name in ("locations", "channels", "sources")}
SEEN_BY_ALL = frozenset({"skus", "units", "kits"})
"""Kinds of which a key that is bound to a part of the network sees everything."""

SEEN_WHOLE = frozenset({"stock_owners"})
"""Kinds of which such a key sees nothing, and which no single code names."""


async def show(db: Database, *, actor: Actor, kind: str, code: str) -> dict[str, Any]:
    """One object by its code; NotFound where there is none, or it is not theirs."""
    page = await listed(db, actor=actor, kind=kind, codes=[code], after="", limit=1)
    if not page.items:
        raise NotFound(f"no {_kind(kind).one} has the code {code!r}")
    return page.items[0]


async def listed(db: Database, *, actor: Actor, kind: str, codes: Sequence[str] | None, after: str, limit: int) -> Page:
    """Objects of a kind in order of their code, of those that the actor may see; `codes` narrows it to these."""
    described = _kind(kind)
    async with db.connection() as connection:
        theirs = await _theirs(connection, actor=actor, kind=kind)
        if theirs is not None:
            if kind in SEEN_WHOLE:
                return Page([], None)
            codes = sorted(theirs if codes is None else theirs & set(codes))
        filters: dict[str, Any] = {"codes": codes} if len(described.key) == 1 else {"rows": None}
        found = await READ[kind](connection, **filters, after=after, limit=limit + 1)
    shown = found[:limit]
    return Page(
        items=[network.masked(kept.body) for kept in shown],
        next=shown[-1].code if len(found) > limit else None,
    )


async def past(db: Database, *, actor: Actor, kind: str, code: str, after: int, limit: int) -> list[PastStep]:
    """The kept steps of an object that the actor may see, oldest first."""
    await show(db, actor=actor, kind=kind, code=code)
    async with db.connection() as connection:
        return await history_of(connection, kind=_kind(kind).one, id=code, after=after, limit=limit)


async def _theirs(connection: Connection, *, actor: Actor, kind: str) -> set[str] | None:
    """The codes of a kind that a bound key sees; None is all."""
    if not actor.is_bound or kind in SEEN_BY_ALL:
        return None
    own = {"locations": actor.location_id, "channels": actor.channel_id, "sources": actor.source_id}
    reached = {"locations": actor.location_ids, "channels": actor.channel_ids}
    if kind not in own:
        return set()
    mine = own[kind]
    ids = [mine] if mine is not None else sorted(reached.get(kind, ()))
    return set(await CODES[kind](connection, ids=ids))


def _kind(kind: str) -> Kind:
    described = KINDS.get(kind)
    if described is None:
        raise NotFound(f"there is no list of {kind!r}; there are {', '.join(KINDS)}")
    return described
