"""A file of movements, CSV or JSON Lines, as messages in batches."""

import csv
from collections.abc import Iterator
from typing import Any

import msgspec

from connectors.feeds import FileRefused, RowRefused
from connectors.feeds.message import BadMessage, Message, read_message
from connectors.feeds.stream import Source
from connectors.feeds.tabular import DELIMITERS, _chain, _decoded, _lines

MESSAGES_PER_BATCH = 1000
NEEDED = ("id", "sku", "location", "kind", "quantity", "occurred_at")


class MessageBatch(msgspec.Struct, frozen=True):
    """Messages in the file's order, those that cannot be understood, and how far the file is read."""

    messages: list[Message]
    refused: list[RowRefused]
    bytes_read: int
    bytes_total: int | None


def read_movements(source: Source) -> Iterator[MessageBatch]:
    """Reads a file of movements in constant memory. Raises FileRefused when the whole cannot be taken."""
    blocks = _decoded(source)
    first = next(blocks, "")
    if not first.strip():
        raise FileRefused(source.name, "the file is empty", "Send a header and rows, or JSON Lines.")
    chained = _chain(first, blocks)
    rows = _json_rows(chained) if first.lstrip().startswith("{") else _csv_rows(source.name, first, chained)
    messages: list[Message] = []
    refused: list[RowRefused] = []
    for line, row in rows:
        if isinstance(row, RowRefused):
            refused.append(row)
        else:
            try:
                messages.append(read_message(row))
            except BadMessage as bad:
                refused.append(RowRefused(line, bad.field, bad.reason, bad.value))
        if len(messages) >= MESSAGES_PER_BATCH:
            yield MessageBatch(messages, refused, source.bytes_read, source.bytes_total)
            messages, refused = [], []
    if messages or refused:
        yield MessageBatch(messages, refused, source.bytes_read, source.bytes_total)


def _json_rows(blocks: Iterator[str]) -> Iterator[tuple[int, Any]]:
    decode = msgspec.json.Decoder().decode
    for line, raw in enumerate(_lines(blocks), 1):
        if not raw.strip():
            continue
        try:
            row = decode(raw)
        except msgspec.DecodeError as error:
            yield line, RowRefused(line, "row", f"is not JSON: {error}", raw.strip())
            continue
        yield line, row if isinstance(row, dict) else RowRefused(line, "row", "is not an object", raw.strip())


def _csv_rows(name: str, first: str, blocks: Iterator[str]) -> Iterator[tuple[int, Any]]:
    delimiter = max(DELIMITERS, key=first.split("\n", 1)[0].count)
    read = csv.reader(_lines(blocks), delimiter=delimiter, strict=True)
    header = [h.strip().lower() for h in next(read)]
    missing = [column for column in NEEDED if column not in header]
    if missing or len(set(header)) != len(header):
        raise FileRefused(
            name, f"the header lacks {', '.join(missing)}" if missing else "a column stands twice in the header",
            f"The first line names the columns: {', '.join(Message.__struct_fields__)}.", line=1,
        )  # fmt: skip
    while True:
        line = read.line_num + 1
        try:
            row = next(read)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, RowRefused(line, "row", f"cannot be read: {error}")
            continue
        if row and len(row) != len(header):
            yield line, RowRefused(line, "row", f"has {len(row)} fields, the header {len(header)}")
        elif row:
            yield line, dict(zip(header, row, strict=True))
