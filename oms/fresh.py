"""What this process has committed itself and Redis may not show yet: who writes here reads here what was written."""

import time
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from oms import ledger
from oms.cache import Projection
from oms.db import Database

KEPT_SECONDS = 30.0
"""By then the projector has shown it, or Redis is refilled from PostgreSQL."""
KEPT_MAX = 20_000


class Fresh:
    """The newest availability rows that this process wrote, by sku."""

    def __init__(self) -> None:
        self._rows: OrderedDict[int, tuple[float, ledger.Availability]] = OrderedDict()

    def learn(self, news: Iterable[Any]) -> None:
        """Rows that are committed; an older version never replaces a newer one."""
        now = time.monotonic()
        for row in news:
            if not isinstance(row, ledger.Availability):
                continue
            known = self._rows.get(row.sku_id)
            if known is None or known[1].version < row.version:
                self._rows[row.sku_id] = now, row
                self._rows.move_to_end(row.sku_id)
        while self._rows and (len(self._rows) > KEPT_MAX or next(iter(self._rows.values()))[0] < now - KEPT_SECONDS):
            self._rows.popitem(last=False)

    def newest(self, row: Projection) -> Projection:
        """The projection, with numbers of this process where they are newer."""
        known = self._rows.get(row.sku_id)
        if known is None or known[1].version <= row.version or row.parts:
            return row
        mine = known[1]
        coming = row.coming if mine.layout_id == row.layout_id else []
        return Projection(
            version=mine.version, sku_id=row.sku_id, layout_id=mine.layout_id, supply=mine.supply,
            reserved=mine.reserved, coming=coming,
            taken={int(channel): units for channel, units in mine.taken.items() if units},
        )  # fmt: skip


_fresh: "weakref.WeakKeyDictionary[Database, Fresh]" = weakref.WeakKeyDictionary()


def of(db: Database) -> Fresh:
    """What was committed through this door since it was first asked for."""
    found = _fresh.get(db)
    if found is None:
        found = _fresh[db] = Fresh()
        db.listeners.append(found.learn)
    return found
