"""Who yields under overload: feed intake first, then checkout, reads never; and each has connections of its own.

A process is overloaded when its event loop comes late: what it has begun waits for its turn. Then it says so at once, with
a time to come again, and takes nothing of the request.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from oms.errors import Busy

LOOK_SECONDS = 0.05
FORGET_SHARE = 0.8
"""What of the last lag still counts at the next look."""


class Lane(msgspec.Struct, frozen=True):
    """Requests that yield together: beyond this lag of the loop, or so many at once, further ones are refused."""

    name: str
    lag_seconds_max: float | None = None
    at_once_max: int | None = None


FEEDS = Lane("feeds", lag_seconds_max=0.25, at_once_max=16)
CHECKOUT = Lane("checkout", lag_seconds_max=2.0)
ATP = Lane("atp")
LANES = {"feeds": FEEDS, "checkout": CHECKOUT, "orders": CHECKOUT, "atp": ATP}
"""By the tag of a route; what has none shares the rest."""
CONNECTIONS_SHARE = {"feeds": 0.2, "checkout": 0.25, "atp": 0.25}
"""What of a process's connections each lane has for itself."""


class Admission:
    """The lag of this process's loop, and how many requests of each lane are under way."""

    def __init__(self) -> None:
        self.lag_seconds = 0.0
        self.at_once: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Looks at the loop from now on, until `stop`."""
        self._task = asyncio.create_task(self._look(), name="admission")

    def stop(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()

    @contextmanager
    def admitted(self, lane: Lane) -> Iterator[None]:
        """One request of a lane. Raises Busy where the lane yields."""
        if lane.lag_seconds_max is not None and self.lag_seconds > lane.lag_seconds_max:
            raise Busy(
                f"The service is overloaded, and {lane.name} yields; nothing of this request was applied.",
                retry_after_seconds=2,
            )
        if lane.at_once_max is not None and self.at_once[lane.name] >= lane.at_once_max:
            raise Busy(
                f"The service takes {lane.at_once_max} requests of {lane.name} at once; nothing of this one was applied.",
                retry_after_seconds=1,
            )
        self.at_once[lane.name] += 1
        try:
            yield
        finally:
            self.at_once[lane.name] -= 1

    async def _look(self) -> None:
        while True:
            due = time.monotonic() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            self.lag_seconds = max(time.monotonic() - due, self.lag_seconds * FORGET_SHARE)
