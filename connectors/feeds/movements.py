"""A file of movements, CSV or JSON Lines, as messages in batches."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import msgspec

from connectors.feeds import FileRefused, RowRefused
from connectors.feeds.message import BadMessage, Message, read_message
from connectors.feeds.stream import Source, check_rows
from connectors.feeds.text import Records, after_header, begin, is_json, read_header

MESSAGES_PER_BATCH = 1000
NEEDED = ("id", "sku", "location", "kind", "quantity", "occurred_at")


class MessageBatch(msgspec.Struct, frozen=True):
    """At most 1,000 rows, in the file's order: messages, those that cannot be understood, how far the file is read."""

    messages: list[Message]
    refused: list[RowRefused]
    bytes_read: int
    bytes_total: int | None


def read_movements(source: Source, *, rows_expected: int | None = None) -> Iterator[MessageBatch]:
    """Reads a file of movements in constant memory. Raises FileRefused when the whole cannot be taken.

    `rows_expected` is what the sender says that the file holds; that it does not is known after the last batch.
    """
    first, rest = begin(source)
    rows = _json_rows(chain((first,), rest)) if is_json(first) else _csv_rows(source.name, first, rest)
    messages: list[Message] = []
    refused: list[RowRefused] = []
    count = 0
    for line, row in rows:
        count += 1
        if isinstance(row, RowRefused):
            refused.append(row)
        else:
            try:
                messages.append(read_message(row))
            except BadMessage as bad:
                refused.append(RowRefused(line, bad.field, bad.reason, bad.value))
        if len(messages) + len(refused) >= MESSAGES_PER_BATCH:
            yield MessageBatch(messages, refused, source.bytes_read, source.bytes_total)
            messages, refused = [], []
    if messages or refused:
        yield MessageBatch(messages, refused, source.bytes_read, source.bytes_total)
    check_rows(source, count, rows_expected)


def _json_rows(blocks: Iterator[str]) -> Iterator[tuple[int, Any]]:
    decode = msgspec.json.Decoder().decode
    line = 0
    for block in blocks:
        for raw in block.removesuffix("\n").split("\n"):
            line += 1
            if not raw.strip():
                continue
            try:
                row = decode(raw)
            except (msgspec.DecodeError, RecursionError) as error:
                yield line, RowRefused(line, "row", f"is not JSON: {error}", raw.strip())
                continue
            yield line, row if isinstance(row, dict) else RowRefused(line, "row", "is not an object", raw.strip())


def _csv_rows(name: str, first: str, rest: Iterator[str]) -> Iterator[tuple[int, Any]]:
    """Rows by column. A column that is none of a message's is refused: misspelled, it would be missed silently."""
    known = Message.__struct_fields__
    header = read_header(first, name=name, needed=NEEDED, known=known)
    if unknown := next((column for column in header.columns if column not in known), None):
        raise FileRefused(
            name, "unknown column", f"Leave it out; a movement has {', '.join(known)}.", line=1, field=unknown
        )
    places = {field: place for field in known if (place := header.place(field)) is not None}
    records = Records(rest, header=header, name=name)
    for block in chain((after_header(first, header),), rest):
        for line, row in records.of(block):
            yield line, row if isinstance(row, RowRefused) else {field: row[at] for field, at in places.items()}
