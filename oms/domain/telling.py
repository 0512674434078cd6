"""Telling others by webhook: what became of an attempt, and when the next one is. Pure."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Literal

import msgspec

ATTEMPTS_MIN = 14
"""What nobody takes is given up after this many attempts, and not before it is a week old."""
GIVEN_UP_AFTER = timedelta(days=7)
RETRY_SECONDS_FIRST = 30.0
RETRY_SECONDS_MAX = 86_400.0
LEASE_SECONDS = 60.0
"""How long one attempt may take before another worker may begin the next."""


class Delivery(msgspec.Struct, frozen=True):
    """What became of one delivery: taken, or not and why; a receiver may say when to come again."""

    is_taken: bool
    answer: str
    retry_after_seconds: float | None = None


Deliver = Callable[[str, bytes, str, list[str]], Awaitable[Delivery]]
"""Delivers (url, body, message id, secrets), signed; it never raises for what a receiver does."""


def retry_seconds(attempts: int, chance: float) -> float:
    """How long to wait after this many attempts: exponential up to a day, with full jitter by `chance` in 0..1."""
    return chance * min(RETRY_SECONDS_MAX, RETRY_SECONDS_FIRST * 2.0 ** min(attempts, 30))


def after_attempt(
    delivery: Delivery, *, attempts: int, made_at: datetime, is_on: bool, now: datetime, chance: float
) -> tuple[Literal["due", "done", "dead"], datetime]:
    """The state of what is told after an attempt, and when it may be tried again."""
    if delivery.is_taken:
        return "done", now
    if not is_on or (attempts >= ATTEMPTS_MIN and now - made_at >= GIVEN_UP_AFTER):
        return "dead", now
    wait = max(retry_seconds(attempts, chance), delivery.retry_after_seconds or 0.0)
    return "due", now + timedelta(seconds=min(wait, RETRY_SECONDS_MAX))
