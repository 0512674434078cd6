"""ATP as channels ask for it: from the projection in Redis, with PostgreSQL behind it."""

import time
from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime

import msgspec

from oms import fresh, named, numbers
from oms.cache import Cache, Projection
from oms.db import Database
from oms.domain.shape import Rule
from oms.errors import NotFound
from oms.flows.promise import known
from oms.numbers import Shelf

SKUS_MAX = 1_000
CELLS_MAX = 10_000
STALE_SECONDS = 5.0
"""Numbers may be older than this only while the projector is behind: then they say so."""


class Atp(msgspec.Struct, frozen=True):
    """What a channel may sell of a sku (by the code that was asked), and when it next becomes more."""

    sku: str
    atp: int
    version: int
    next: tuple[date, int] | None


class Found(msgspec.Struct, frozen=True):
    """Numbers in the order of the question, by channel, and the codes that nobody knows.

    All that was committed `age_seconds` ago, and earlier, is in them.
    """

    channels: dict[str, list[Atp]]
    unknown: list[str]
    age_seconds: float

    @property
    def stale(self) -> bool:
        """Whether the numbers may be older than they should be."""
        return self.age_seconds > STALE_SECONDS


async def atp(db: Database, cache: Cache, *, channels: Sequence[str], skus: Sequence[str], now: datetime) -> Found:
    """What channels may sell of each sku. A kit is what its scarcest component allows. Raises NotFound.

    What Redis has not is read from PostgreSQL and filled; what this process has committed itself is in the numbers.
    """
    asked = list(dict.fromkeys(skus))
    seen = await cache.get(asked)
    rows = seen.rows
    if parts := {part.sku for row in rows.values() for part in row.parts} - rows.keys():
        rows |= (await cache.get(sorted(parts))).rows
    book = await known.rules_of(db, version=seen.rules)
    rules = [_rule(book, code) for code in channels]
    absent = [code for code in asked if code not in rows]
    torn = [code for code in asked if code in rows and any(p.sku not in rows for p in rows[code].parts)]
    names = {code: code for code in asked}
    age = 0.0 if absent or torn or seen.upto is None else max(0.0, time.time() - seen.upto)
    if absent or torn:
        called, read = await _read(db, rules=rules, skus=[*absent, *torn], now=now)
        await cache.put(read, epoch=seen.epoch, fills=True)
        rows |= read
        names |= called
    mine = fresh.of(db)
    rows = {code: mine.newest(row) for code, row in rows.items()}
    shelf = Shelf(rows, await known.layouts_of(db, {row.layout_id for row in rows.values()}))
    found = [code for code in asked if names[code] in rows]
    return Found(
        {rule.code: [_atp(shelf, names[code], code, rule, now) for code in found] for rule in rules},
        [code for code in asked if names[code] not in rows],
        round(age, 3),
    )


def _rule(book: numbers.RuleBook, code: str) -> Rule:
    found = book.channels.get(code)
    if found is None:
        raise NotFound(f"no channel has the code {code!r}")
    return found


def _atp(shelf: Shelf, ours: str, asked: str, rule: Rule, now: datetime) -> Atp:
    number = shelf.number(ours, rule, now=now)
    return Atp(asked, number, shelf.version(ours), shelf.next(ours, rule, today=now.date()))


async def _read(
    db: Database, *, rules: Iterable[Rule], skus: Collection[str], now: datetime
) -> tuple[dict[str, str], dict[str, Projection]]:
    """What these codes mean to the (first) channel that knows them, by our codes; and projections by our codes."""
    async with db.connection() as tx, tx.transaction(isolation="repeatable_read", readonly=True):
        ids: dict[str, int] = {}
        for rule in rules:
            left = {(rule.channel_id, code) for code in skus if code not in ids}
            ids |= {code: name.sku_id for (_, code), name in (await named.skus_of(tx, left)).items()}
        if not ids:
            return {}, {}
        read = await numbers.read(tx, set(ids.values()), today=now.date())
    return {code: read.codes[sku_id] for code, sku_id in ids.items()}, read.rows
