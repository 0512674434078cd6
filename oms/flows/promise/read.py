"""ATP as channels ask for it: from the projection in Redis, with PostgreSQL behind it."""

import time
from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime

import msgspec

from oms import enquiries, fresh, named, near, numbers
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


class NextReceipt(msgspec.Struct, frozen=True):
    """When more is expected, and how much."""

    on: date
    quantity: int


class Atp(msgspec.Struct, frozen=True):
    """What a channel may sell of a sku (by the code that was asked), as of a version, and when it next becomes more."""

    sku: str
    atp: int
    version: int
    next: NextReceipt | None


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
    memory = near.of(cache)
    seen = memory.seen(asked) or await memory.get(asked)
    # where nobody knows up to which moment all is projected, PostgreSQL is asked
    rows = seen.rows if seen.upto is not None else {}
    if parts := {part.sku for row in rows.values() if row.parts for part in row.parts if part.sku not in rows}:
        rows |= (await memory.get(sorted(parts))).rows
    book = await known.rules_of(db, version=seen.rules)
    rules = [_rule(book, code).selling(now) for code in channels]
    absent = [code for code in asked if code not in rows or any([p.sku not in rows for p in rows[code].parts])]
    age = 0.0
    names: dict[str, str] = {}
    if absent:
        names, read = await _read(db, rules=rules, skus=absent, now=now)
        await cache.put(read, epoch=seen.epoch, fills=True)
        rows |= read
    if len(absent) < len(asked) and seen.upto is not None:
        age = max(0.0, round(time.time() - seen.upto, 3))
    mine = fresh.of(db)
    rows = {code: mine.newest(row) for code, row in rows.items()}
    shelf = Shelf(rows, await known.layouts_of(db, {row.layout_id for row in rows.values()}))
    told = [(code, names.get(code, code)) for code in asked] if absent else [(code, code) for code in asked]
    today, minute = now.date(), now.replace(second=0, microsecond=0)
    waiting = enquiries.of(db)
    told_of = Found(
        {
            rule.code: [
                Atp(code, shelf.number(ours, rule, now=now), shelf.version(ours), _next(shelf, ours, rule, today))
                for code, ours in told
                if ours in rows
            ]
            for rule in rules
        },
        [code for code, ours in told if ours not in rows] if absent else [],
        age,
    )
    for rule in rules:
        for one in told_of.channels[rule.code]:
            waiting.read(minute, rule.channel_id, one.sku, one.atp)
    return told_of


def _next(shelf: Shelf, sku: str, rule: Rule, today: date) -> NextReceipt | None:
    coming = shelf.next(sku, rule, today=today)
    return None if coming is None else NextReceipt(*coming)


def _rule(book: numbers.RuleBook, code: str) -> Rule:
    found = book.channels.get(code)
    if found is None:
        raise NotFound(f"no channel has the code {code!r}")
    return found


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
