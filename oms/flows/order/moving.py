"""Units of an order's lines move between open, parked, allocated and cancelled: decided on the book, written once."""

from collections.abc import Collection, Sequence

import msgspec

from oms import ledger, named
from oms.book import Book
from oms.db import Connection, Sql
from oms.flows.order.rows import Given, Taken, TakenLine, Work

sql = Sql("order")


class Recalled(msgspec.Struct, frozen=True):
    """Units of a line that are taken back from a location."""

    work: Work
    given: Given
    quantity: int


class Change(msgspec.Struct, frozen=True):
    """By how many units each state of a line changes; what falls from allocated is recalled from somewhere."""

    line: TakenLine
    open: int = 0
    parked: int = 0
    cancelled: int = 0
    recalled: tuple[Recalled, ...] = ()

    @property
    def allocated(self) -> int:
        return -sum(r.quantity for r in self.recalled)

    @property
    def demand(self) -> int:
        """What is promised more than before."""
        return self.open + self.allocated


move_units = sql.run("move_units")
recall_lines = sql.run("recall_lines")
let_wait = sql.run("let_wait")


async def open_book(tx: Connection, changes: Sequence[Change], *, skus: Collection[int] = ()) -> Book:
    """Takes what these changes touch, and these skus: availability, stock, then the capacity of days."""
    keys = {(r.given.sku_id, r.work.location_id) for c in changes for r in c.recalled}
    own = {c.line.sku_id for c in changes if c.line.sku_id is not None}
    book = await Book.open(tx, skus=own | set(skus), keys=keys)
    await ledger.capacity(tx, {(r.work.location_id, r.work.capacity_day) for c in changes for r in c.recalled})
    return book


def decide(book: Book, taken: Taken, changes: Sequence[Change]) -> dict[int, int]:
    """Puts changes on the book, those that give first; says of how many new units of a line nobody can promise now."""
    short: dict[int, int] = {}
    channel_id = taken.order.channel_id
    for c in sorted(changes, key=lambda c: c.demand):
        line = c.line
        if line.sku_id is None:
            continue
        for r in c.recalled:
            book.allocate(line.sku_id, r.work.location_id, -r.quantity, pool_id=line.pool_id, channel_id=None)
        if c.allocated:
            book.keep(line.sku_id, line.pool_id, -c.allocated)
        if c.demand > 0:
            missing = c.demand - max(0, book.atp_pool(line.sku_id, line.pool_id))
            if missing > 0:
                short[line.line_id] = missing
        if c.demand:
            book.reserve(line.sku_id, line.pool_id, c.demand, channel_id=channel_id)
    return short


async def write(
    tx: Connection, book: Book, taken: Taken, changes: Sequence[Change], *, short: Collection[int] = ()
) -> None:
    """Writes lines, fulfillments, the book and the capacity that work gives back, once in a transaction.

    Lines that are `short` wait for what comes.
    """
    recalled = [(r, c.line) for c in changes for r in c.recalled]
    back = {(r.given.fulfillment_id, r.given.line_id): r.quantity for r, _ in recalled}
    left = {
        g.fulfillment_id for g in taken.given if g.quantity > back.get((g.fulfillment_id, g.line_id), 0)
    }  # fmt: skip
    touched = {r.work.fulfillment_id: r.work for r, _ in recalled}
    empty = sorted(touched.keys() - left)
    await move_units(
        tx, ids=[c.line.line_id for c in changes], open=[c.open for c in changes], parked=[c.parked for c in changes],
        allocated=[c.allocated for c in changes], cancelled=[c.cancelled for c in changes],
    )  # fmt: skip
    if short:
        await let_wait(tx, lines=sorted(short))
    if recalled:
        await recall_lines(
            tx, fulfillments=[r.given.fulfillment_id for r, _ in recalled], lines=[r.given.line_id for r, _ in recalled],
            quantities=[r.quantity for r, _ in recalled], empty=empty,
        )  # fmt: skip
    rules = await named.rules_of(tx, [taken.order.channel_id])
    await book.write(tx, capped=named.capped(rules.values()))
    works = [
        ledger.Work(r.work.location_id, r.work.capacity_day, 0, -r.quantity, -r.quantity * (line.price_cents or 0))
        for r, line in recalled
    ]
    works += [ledger.Work(touched[f].location_id, touched[f].capacity_day, -1, 0, 0) for f in empty]
    await ledger.work(tx, works)


def fall(taken: Taken, line: TakenLine, units: int, *, recallable: Collection[str]) -> tuple[Change, int]:
    """Cancels units of a line: open ones first, then parked, then from work in these states; and how many it cannot."""
    of_open = min(units, line.open)
    of_parked = min(units - of_open, line.parked)
    recalled = recall(taken, line, units - of_open - of_parked, recallable=recallable)
    taken_back = sum(r.quantity for r in recalled)
    change = Change(line, -of_open, -of_parked, of_open + of_parked + taken_back, tuple(recalled))
    return change, units - of_open - of_parked - taken_back


def recall(taken: Taken, line: TakenLine, units: int, *, recallable: Collection[str]) -> list[Recalled]:
    """As many units of a line as are at work in these states, least advanced first, at most so many."""
    found = []
    for work, given in taken.at_work(line):
        quantity = min(units, given.quantity)
        if quantity and work.state in recallable:
            found.append(Recalled(work, given, quantity))
            units -= quantity
    return found
