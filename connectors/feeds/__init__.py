"""Feeds in: snapshots and movements, as files and uploads hold them."""


class RowRefused:
    """A row that cannot be read: line (the header is line 1), field, reason, value.

    `sku` and `location` are the codes that it names all the same, None where that cannot be told for sure.
    """

    __slots__ = ("field", "line", "location", "reason", "sku", "value")

    def __init__(
        self, line: int, field: str, reason: str, value: str | None = None, *, sku: str | None = None,
        location: str | None = None,
    ) -> None:  # fmt: skip
        self.line, self.field, self.reason, self.sku, self.location = line, field, reason, sku, location
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
