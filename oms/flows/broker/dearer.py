"""What units cost their seller more where they are another's than where they are its own, by the transfer prices."""

from collections.abc import Sequence
from datetime import date

import msgspec

from brokering import Line
from oms.db import Connection, Sql

sql = Sql("broker")


class Dearer(msgspec.Struct, frozen=True):
    """Cents that a unit of a sku at a location costs more."""

    sku_id: int
    location_id: int
    cents: int


has_transfer_prices = sql.one("has_transfer_prices", bool)
dearer_than_own = sql.rows("dearer_than_own", Dearer)


async def dearer_at(tx: Connection, *, lines: Sequence[Line], today: date) -> dict[tuple[int, int], int]:
    """Cents by (sku, location) for whoever sells these lines; nothing where a price or the sku's cost is not known."""
    found = await dearer_than_own(tx, lines=[n.line_id for n in lines], today=today)
    return {(d.sku_id, d.location_id): d.cents for d in found}
