"""Posters: sources (ERP, SIM, WMS, 3PL) that own a quantity, and are told what began with us there.

    answer = await poster.post(Batch(id="…", source="ERP", made_at=…, movements=(…,)))

A batch stays what it is and keeps its id until it has arrived; a source takes each movement once, by its id, and names it
when it acknowledges it: as the `reference` of a movement of its own, or in its posted list.
"""

from datetime import datetime
from typing import Protocol

import msgspec

from connectors.channels import Answer


class Moved(msgspec.Struct, frozen=True, omit_defaults=True):
    """A movement of ours in the source's own codes.

    `quantity` is signed as its on hand changes (of a count, its variance); `held` is the signed change of the units
    under the hold code `hold`. `about` names our order, receipt, count or transfer. An id that ends in `/undone` takes
    back what was told before under the id without it.
    """

    id: str
    kind: str
    sku: str
    location: str
    quantity: int
    occurred_at: datetime
    hold: str | None = None
    held: int = 0
    reason: str | None = None
    about: str | None = None


class Batch(msgspec.Struct, frozen=True):
    """Movements in the order in which they were, together."""

    id: str
    source: str
    made_at: datetime
    movements: tuple[Moved, ...]


class Posted(msgspec.Struct, frozen=True):
    """The source has it; `posted` are the ids that its answer names as posted, None where it names none."""

    answer: str = ""
    posted: tuple[str, ...] | None = None


class Poster(Protocol):
    """What every kind of poster can do."""

    async def post(self, batch: Batch) -> Posted | Answer:
        """Tells the source; never raises for what the source or the network does."""

    async def close(self) -> None:
        """Ends its connections."""
