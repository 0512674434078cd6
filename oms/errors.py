"""The tree of refusals: every "no" of the house by name. Their HTTP statuses are known in app.py alone."""

from typing import Any


class Refusal(Exception):
    """A request that is understood and not granted; nothing of it was applied.

    `detail` says what, where and what to do; `items` holds one entry per failing line where lines fail.
    """

    type = "refused"
    title = "Refused"

    def __init__(self, detail: str, *, items: list[dict[str, Any]] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.items = items or []
        self.extra = extra


class BadInput(Refusal):
    """A value that cannot be understood; names the field and what is expected."""

    type, title = "bad-input", "The input is not valid"


class NotFound(Refusal):
    """Nothing of that name that the caller may see."""

    type, title = "not-found", "Not found"


class OutOfStock(Refusal):
    """Not enough may be promised; `items` says what was short and by how much."""

    type, title = "out-of-stock", "Out of stock"


class Conflict(Refusal):
    """The state of the thing does not allow this step."""

    type, title = "conflict", "Not possible in this state"


class KeyReused(Refusal):
    """The idempotency key came before with another body."""

    type, title = "idempotency-key-reused", "The idempotency key was used for another request"


class NotAllowed(Refusal):
    """The caller is known, the object visible, and the role does not allow the act."""

    type, title = "not-allowed", "Not allowed"


class Unauthenticated(Refusal):
    """No key, or one that is not known or has ended."""

    type, title = "unauthenticated", "A valid API key is needed"


class Busy(Refusal):
    """A bounded queue is full; try again after `retry_after_seconds`."""

    type, title = "busy", "Busy, try again shortly"


class FeedRefused(Refusal):
    """A whole feed that cannot be taken; nothing of it was applied."""

    type, title = "feed-refused", "The feed was refused"
