"""Feeds in: snapshots and movements, as files and uploads hold them."""

from typing import Protocol


class Feed(Protocol):
    """What a source promises of its snapshots."""

    @property
    def quantity_kind(self) -> str:
        """physical (knows nothing of our brokering) or available (has deducted some of what we deduct)."""
        ...

    @property
    def order_level(self) -> str:
        """sequence, clock or window: what tells whether a snapshot contains a movement."""
        ...

    @property
    def absent_is_zero(self) -> bool:
        """Whether a key that a full snapshot leaves out is zero."""
        ...


class RowRefused:
    """A row that cannot be read: line (the header is line 1), field, reason, value."""

    __slots__ = ("field", "line", "reason", "value")

    def __init__(self, line: int, field: str, reason: str, value: str | None = None) -> None:
        self.line, self.field, self.reason = line, field, reason
        self.value = None if value is None else value[:200].replace("\x00", "�")

    def __repr__(self) -> str:
        return f"RowRefused(line={self.line}, field={self.field!r}, reason={self.reason!r}, value={self.value!r})"


class FileRefused(Exception):
    """A file that cannot be taken as a whole: where, why, and what to do."""

    def __init__(
        self, name: str, reason: str, remedy: str, *, line: int | None = None, field: str | None = None
    ) -> None:
        where = name + (f", line {line}" if line is not None else "") + (f", {field}" if field else "")
        super().__init__(f"{where}: {reason}. {remedy}")
        self.name, self.reason, self.remedy, self.line, self.field = name, reason, remedy, line, field
