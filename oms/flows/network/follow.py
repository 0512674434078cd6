"""What a change of the network leaves to do: a new numbering of segments, and stock that follows its location's rules.

A change of pools renumbers segments; a change of a location's safety stock or of its on and off changes what may be
promised there. Both are followed in sku-order chunks after the change itself: `follow` goes on where a kill stopped it.
"""

import msgspec

from oms import ledger
from oms.db import Connection, Database, Sql
from oms.domain.atp import Layout
from oms.record import Step, keep

sql = Sql("network")

CHUNK_SKUS = 200
"""Skus whose rows are locked at once while a change is followed."""


class _Members(msgspec.Struct, frozen=True):
    pool_id: int
    locations: list[int]


class _Layout(msgspec.Struct, frozen=True):
    layout_id: int
    pools: list[int]
    segments: list[int]


class _Rewriting(msgspec.Struct, frozen=True):
    location_id: int
    rewrite_after: int


memberships = sql.rows("memberships", _Members)
newest_layout = sql.one("newest_layout", _Layout)
newest_members = sql.rows("newest_members", ledger.Segment)
insert_layout = sql.one("insert_layout", int)
rewriting = sql.maybe("rewriting", _Rewriting)


async def renumber(tx: Connection, *, who: str) -> int | None:
    """Makes a new layout where membership of pools really changed; None where the one in force still holds."""
    pools = {row.pool_id: row.locations for row in await memberships(tx)}
    layout, places = Layout.build(pools, {location for locations in pools.values() for location in locations})
    newest = await newest_layout(tx)
    members = {row.location_id: row.segment for row in await newest_members(tx)}
    if (tuple(newest.pools), tuple(newest.segments), members) == (layout.pools, layout.segments, places):
        return None
    layout_id = await insert_layout(
        tx, pools=layout.pools, segments=layout.segments, locations=list(places), places=list(places.values())
    )
    detail = {"pools": len(layout.pools), "segments": len(layout.segments), "locations": len(places)}
    await keep(tx, who=who, steps=[Step(kind="layout", id=str(layout_id), step="created", detail=detail)])
    return layout_id


async def follow(db: Database) -> int:
    """Finishes what changes of the network left to do, in chunks; gives how many chunks. Safe to call at any time."""
    return await move_layouts(db) + await rewrite_locations(db)


async def move_layouts(db: Database, *, chunk: int = CHUNK_SKUS) -> int:
    """Moves every availability row to the newest layout, a transaction a chunk; gives the number of chunks."""
    async with db.connection() as connection:
        newest = await newest_layout(connection)
    done, after = 0, 0
    while True:
        async with db.transaction() as tx:
            last = await ledger.relayout(tx, layout_id=newest.layout_id, after=after, limit=chunk)
        if last is None:
            return done
        done, after = done + 1, last


async def rewrite_locations(db: Database, *, chunk: int = CHUNK_SKUS) -> int:
    """Has stock follow its location's safety stock and on and off, a transaction a chunk; gives how many."""
    done = 0
    while True:
        async with db.connection() as connection:
            next_one = await rewriting(connection)
        if next_one is None:
            return done
        mark: int | None = next_one.rewrite_after
        while mark is not None:
            async with db.transaction() as tx:
                mark = await ledger.restock(tx, location_id=next_one.location_id, after=mark, limit=chunk)
            done += 1
