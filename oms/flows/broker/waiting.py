"""Lines that wait for receipts are brokered in the order of their promises: only as many as have landed."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from functools import partial
from itertools import groupby, zip_longest

import msgspec

from brokering import Line
from oms import numbers
from oms.db import Connection, Sql
from oms.domain.promise import THERE, Waiting, days_of

sql = Sql("broker")

Served = Callable[[Sequence[Waiting]], Sequence[date | None]]
"""The day of each of these units, which are served in this order (domain/promise.py)."""
TURNS_MAX = 2_000
"""Open lines of a sku that some wait for of which a run looks whose turn it is; those beyond wait for the next run."""


class Turn(msgspec.Struct, frozen=True):
    """An open line of a sku of which some are promised for a day, in the order in which they are served."""

    line_id: int
    sku_id: int
    pool_id: int
    open: int


class Waited(msgspec.Struct, frozen=True):
    """The lines that may be brokered now, how many wait (some in part), and units by (sku, pool) of those whose turn has not come."""

    lines: list[Line]
    left: int
    units: dict[tuple[int, int], int]


lines_in_turn = sql.rows("lines_in_turn", Turn)


async def whose_turn_it_is(
    tx: Connection, lines: Sequence[Line], *, splits: Mapping[str, str], in_parts: Collection[str], today: date
) -> Waited:  # fmt: skip
    """Leaves out lines that present stock does not serve in turn, and what goes only together with them.

    Of lines of the orders `in_parts`, which may go in parts, the units that present stock serves in turn may be brokered.

    Of skus of which no line is promised for a day, every line may be brokered. A line's turn comes when it can be served without breaking
    a promise before it; a promised day holds also those units that are still expected (domain/promise.py).
    """
    turns = await lines_in_turn(tx, skus=sorted({n.sku_id for n in lines}))
    if not turns:
        return Waited(list(lines), 0, {})
    shelf = await numbers.read(tx, {t.sku_id for t in turns}, today=today)
    late: set[int] = set()
    some: dict[int, int] = {}
    part_of = {n.line_id for n in lines if n.order_id in in_parts and n.together is None and n.quantity > 1}
    units: dict[tuple[int, int], int] = {}
    for sku_id, of_sku in groupby(turns, key=lambda t: t.sku_id):
        mine = list(of_sku)
        row = shelf.rows[shelf.codes[sku_id]]
        served = partial(
            days_of, shelf.layouts[row.layout_id], row.supply, row.reserved, row.coming, today=today
        )  # fmt: skip
        found = _in_turn(served, mine[:TURNS_MAX], part_of)
        for t, now in zip_longest(mine, found, fillvalue=0):
            assert isinstance(t, Turn)
            if now == t.open:
                continue
            units[sku_id, t.pool_id] = units.get((sku_id, t.pool_id), 0) + t.open - now
            if now:
                some[t.line_id] = now
            else:
                late.add(t.line_id)
    bound = {(n.order_id, n.together) for n in lines if n.line_id in late and n.together is not None}
    whole = {n.order_id for n in lines if n.line_id in late and splits.get(n.order_id) in ("complete", "keep_together")}
    kept = [
        n for n in lines if n.line_id not in late and (n.order_id, n.together) not in bound and n.order_id not in whole
    ]
    left = len(lines) - len(kept) + len(some)
    return Waited(
        [msgspec.structs.replace(n, quantity=some[n.line_id]) if n.line_id in some else n for n in kept], left, units
    )


def _in_turn(served: Served, turns: Sequence[Turn], part_of: Collection[int]) -> list[int]:
    """How many units of each line present stock serves in turn: all or none, or some of a line that may go in parts.

    Where one that may go in parts gets some and no more, nothing present is left for those behind it in its pool.
    """
    parts: list[tuple[int, int]] = [(k, t.open) for k, t in enumerate(turns)]
    done: set[int] = set()
    while True:
        days = served([Waiting(turns[k].pool_id, units) for k, units in parts])
        here = next(
            (
                at for at, ((k, units), day) in enumerate(zip(parts, days, strict=True))
                if day != THERE and units > 1 and turns[k].line_id in part_of and turns[k].pool_id not in done
            ), None,
        )  # fmt: skip
        if here is None:
            break
        k, whole = parts[here]
        done.add(turns[k].pool_id)
        least, most = 0, whole - 1
        while least < most:
            middle = (least + most + 1) // 2
            tried = [*parts[:here], (k, middle), (k, whole - middle), *parts[here + 1 :]]
            if served([Waiting(turns[j].pool_id, units) for j, units in tried])[here] == THERE:
                least = middle
            else:
                most = middle - 1
        if least:
            parts[here : here + 1] = [(k, least), (k, whole - least)]
    found = [0] * len(turns)
    for (k, units), day in zip(parts, days, strict=True):
        found[k] += units if day == THERE else 0
    return found
