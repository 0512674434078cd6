"""What was asked and said: promises and refused reservations one by one, ATP reads as counts. For comparison with what
happened.

Kept in memory while an answer is made, written behind it (`flows.promise.asked`): nothing of it slows an answer. A process
that is killed loses what it had not written yet.
"""

import asyncio
import weakref
from collections import Counter, deque
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from oms.db import Database

WAITING_MAX = 50_000
"""Of each kind; beyond it the oldest are dropped, and counted."""


class Asked(msgspec.Struct, frozen=True):
    """A promise that was asked for: what was said, and by which rules and stock (version and number by sku)."""

    at: datetime
    channel_id: int
    rules: int
    asked: dict[str, Any]
    said: dict[str, Any]
    stock: dict[str, dict[str, int]]


class Refused(msgspec.Struct, frozen=True):
    """A sku of a cart that was refused: what was asked, what there was, and by which rules and rows."""

    at: datetime
    channel_id: int
    location: str | None
    sku: str
    quantity: int
    atp: int
    versions: list[int]
    rules: int


class Enquiries:
    """What this process has still to write."""

    def __init__(self) -> None:
        self.asked: deque[Asked] = deque(maxlen=WAITING_MAX)
        self.refused: deque[Refused] = deque(maxlen=WAITING_MAX)
        self.reads: Counter[tuple[datetime, int, str, int]] = Counter()
        self.dropped = 0
        self.writing = asyncio.Lock()

    def learn(self, news: Iterable[Any]) -> None:
        """Refusals of a transaction that is committed."""
        for one in news:
            if isinstance(one, Refused):
                self.dropped += len(self.refused) == WAITING_MAX
                self.refused.append(one)

    def read(self, minute: datetime, channel_id: int, sku: str, atp: int) -> None:
        """A number was given."""
        self.reads[minute, channel_id, sku, atp] += 1

    def promised(self, one: Asked) -> None:
        """A promise was given."""
        self.dropped += len(self.asked) == WAITING_MAX
        self.asked.append(one)

    def forget(self, asked: Iterable[Asked], refused: Iterable[Refused]) -> None:
        """These, the oldest, are written; some may have been dropped meanwhile."""
        for waiting, done in ((self.asked, asked), (self.refused, refused)):
            for one in done:
                if waiting and waiting[0] is one:
                    waiting.popleft()


_enquiries: "weakref.WeakKeyDictionary[Database, Enquiries]" = weakref.WeakKeyDictionary()


def of(db: Database) -> Enquiries:
    """What was asked through this door and is still to be written."""
    found = _enquiries.get(db)
    if found is None:
        found = _enquiries[db] = Enquiries()
        db.listeners.append(found.learn)
    return found
