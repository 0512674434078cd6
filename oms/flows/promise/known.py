"""What a process remembers to answer quickly: the rules in force, and layouts."""

import weakref
from collections.abc import Collection, Mapping

from oms import ledger
from oms.db import Database
from oms.domain.atp import Layout
from oms.numbers import RuleBook, read_rules

_books: "weakref.WeakKeyDictionary[Database, RuleBook]" = weakref.WeakKeyDictionary()
_layouts: "weakref.WeakKeyDictionary[Database, dict[int, Layout]]" = weakref.WeakKeyDictionary()


async def layouts_of(db: Database, wanted: Collection[int]) -> Mapping[int, Layout]:
    """Layouts by id, from this process's memory: they never change."""
    known = _layouts.setdefault(db, {})
    if missing := [layout_id for layout_id in wanted if layout_id not in known]:
        async with db.connection() as connection:
            for layout_id in missing:
                known[layout_id] = await ledger.layout(connection, layout_id)
    return known


async def rules_of(db: Database, *, version: int) -> RuleBook:
    """The rules in force, at least of this version: from this process's memory where that is new enough."""
    book = _books.get(db)
    if book is None or book.version < version or version == 0:
        async with db.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            book = _books[db] = await read_rules(connection)
    return book
