"""Lines that wait for receipts are brokered in the order of their promises: only as many as have landed."""

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import groupby, zip_longest

import msgspec

from brokering import Line
from oms import numbers
from oms.db import Connection, Sql
from oms.domain.promise import THERE, Waiting, days_of

sql = Sql("broker")

TURNS_MAX = 2_000
"""Open lines of a sku that some wait for of which a run looks whose turn it is; those beyond wait for the next run."""


class Turn(msgspec.Struct, frozen=True):
    """An open line of a sku of which some are promised for a day, in the order in which they are served."""

    line_id: int
    sku_id: int
    pool_id: int
    open: int


class Waited(msgspec.Struct, frozen=True):
    """The lines that may be brokered now, how many are left out, and units by (sku, pool) of those whose turn has not come."""

    lines: list[Line]
    left: int
    units: dict[tuple[int, int], int]


lines_in_turn = sql.rows("lines_in_turn", Turn)


async def whose_turn_it_is(
    tx: Connection, lines: Sequence[Line], *, splits: Mapping[str, str], today: date
) -> Waited:  # fmt: skip
    """Leaves out lines that present stock does not serve in turn, and what goes only together with them.

    Of skus of which no line is promised for a day, every line may be brokered. A line's turn comes when it can be served without breaking
    a promise before it; a promised day holds also those units that are still expected (domain/promise.py).
    """
    turns = await lines_in_turn(tx, skus=sorted({n.sku_id for n in lines}))
    if not turns:
        return Waited(list(lines), 0, {})
    shelf = await numbers.read(tx, {t.sku_id for t in turns}, today=today)
    late: set[int] = set()
    units: dict[tuple[int, int], int] = {}
    for sku_id, of_sku in groupby(turns, key=lambda t: t.sku_id):
        mine = list(of_sku)
        row = shelf.rows[shelf.codes[sku_id]]
        days = days_of(
            shelf.layouts[row.layout_id], row.supply, row.reserved, row.coming,
            [Waiting(t.pool_id, t.open) for t in mine[:TURNS_MAX]], today=today,
        )  # fmt: skip
        for t, day in zip_longest(mine, days):
            if day != THERE:
                late.add(t.line_id)
                units[sku_id, t.pool_id] = units.get((sku_id, t.pool_id), 0) + t.open
    bound = {(n.order_id, n.together) for n in lines if n.line_id in late and n.together is not None}
    whole = {n.order_id for n in lines if n.line_id in late and splits.get(n.order_id) in ("complete", "keep_together")}
    kept = [
        n for n in lines if n.line_id not in late and (n.order_id, n.together) not in bound and n.order_id not in whole
    ]
    return Waited(kept, len(lines) - len(kept), units)
