"""Identifiers that are made by a door, before the database knows of them."""

from datetime import datetime
from random import Random
from uuid import UUID

_TAIL_BITS = 62


def time_ordered(*, unix_ms: int, chance: Random) -> UUID:
    """A UUID of version 7 (RFC 9562, 5.7): what is made together lies together in the index, so less of it is written."""
    tail = chance.getrandbits(12 + _TAIL_BITS)
    return UUID(
        int=unix_ms << 80 | 0x7 << 76 | (tail >> _TAIL_BITS) << 64 | 0b10 << _TAIL_BITS | tail & (1 << _TAIL_BITS) - 1
    )


def ids_from(moment: datetime) -> UUID:
    """The least time-ordered identifier of a moment: what was made from then on has a greater one."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
