"""A baseline feed, CSV or JSON Lines, as batches that go into PostgreSQL as they are (COPY text format)."""

import csv
import io
from collections.abc import Iterator
from typing import Any

import msgspec

from connectors.feeds import FileRefused, RowRefused
from connectors.feeds.stream import Source

COLUMNS = ("sku", "location", "quantity", "status", "bin", "lot", "uom")
NEEDED = ("sku", "location", "quantity")
FIELD_CHARS_MAX = 200
ROWS_PER_BATCH = 20_000
DELIMITERS = ",;\t|"
_ESCAPE = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class Batch:
    """Rows as COPY text: line, then COLUMNS; what was refused among them; and how far the stream is."""

    __slots__ = ("bytes_read", "bytes_total", "copy", "refused", "rows")

    def __init__(
        self, copy: bytes, rows: int, refused: list[RowRefused], bytes_read: int, bytes_total: int | None
    ) -> None:
        self.copy, self.rows, self.refused = copy, rows, refused
        self.bytes_read, self.bytes_total = bytes_read, bytes_total


class Reader:
    """Reads a source as batches, once, in constant memory. Raises FileRefused when the whole cannot be taken.

    The format is seen from the first byte: `{` begins JSON Lines, anything else a CSV header. Quantities keep their
    text: whether they are whole numbers is judged where the rows are resolved. `12,0` in a file whose delimiter is not
    a comma means 12.0.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.rows = 0

    @property
    def sha256(self) -> str:
        """The hash of the raw bytes, complete when the batches have ended."""
        return self._source.sha256

    def __iter__(self) -> Iterator[Batch]:
        blocks = _decoded(self._source)
        first = next(blocks, "")
        if not first.strip():
            raise FileRefused(self._source.name, "the file is empty", "Send a header and rows, or JSON Lines.")
        chained = _chain(first, blocks)
        rows = self._json(chained) if first.lstrip().startswith("{") else self._csv(first, chained)
        yield from rows

    def _batch(self, lines: list[str], refused: list[RowRefused]) -> Batch:
        self.rows += len(lines) + len(refused)
        source = self._source
        return Batch("".join(lines).encode(), len(lines), refused, source.bytes_read, source.bytes_total)

    def _csv(self, first: str, blocks: Iterator[str]) -> Iterator[Batch]:
        name = self._source.name
        header_line = first.split("\n", 1)[0]
        delimiter = max(DELIMITERS, key=header_line.count)
        read = csv.reader(_lines(blocks), delimiter=delimiter, strict=True)
        try:
            header = [h.strip().lower() for h in next(read)]
        except csv.Error as error:
            raise FileRefused(name, f"the header cannot be read ({error})", "Send column names.", line=1) from None
        places = _places(header, name)
        width = len(header)
        decimal_comma = delimiter != ","
        # the plain case: exactly the needed columns first, in any order, nothing to escape
        s, l, q = (places[c] for c in NEEDED)  # noqa: E741
        others = [places.get(c) for c in COLUMNS[3:]]
        tail = None if any(p is not None for p in others) else "\t\\N\t\\N\t\\N\t\\N\n"
        lines: list[str] = []
        refused: list[RowRefused] = []
        while True:
            begin = read.line_num + 1
            try:
                row = next(read)
            except StopIteration:
                break
            except csv.Error as error:
                refused.append(RowRefused(begin, "row", f"cannot be read: {error}"))
                continue
            if len(row) != width:
                if row:
                    refused.append(RowRefused(begin, "row", f"has {len(row)} fields, the header {width}"))
                continue
            sku, location, quantity = row[s], row[l], row[q]
            text = (
                f"{begin}\t{sku}\t{location}\t{quantity}{tail}"
                if tail is not None
                and sku.isalnum()
                and location.isalnum()
                and quantity.isdigit()
                and len(sku) < 99 > len(location)
                else self._line(begin, {c: row[p] for c, p in places.items()}, refused, decimal_comma)
            )
            if text is not None:
                lines.append(text)
            if len(lines) >= ROWS_PER_BATCH:
                yield self._batch(lines, refused)
                lines, refused = [], []
        yield self._batch(lines, refused)

    def _json(self, blocks: Iterator[str]) -> Iterator[Batch]:
        lines: list[str] = []
        refused: list[RowRefused] = []
        decode = msgspec.json.Decoder().decode
        for number, raw in enumerate(_lines(blocks), 1):
            if not raw.strip():
                continue
            try:
                row: Any = decode(raw)
            except msgspec.DecodeError as error:
                refused.append(RowRefused(number, "row", f"is not JSON: {error}", raw.strip()))
                continue
            if not isinstance(row, dict):
                refused.append(RowRefused(number, "row", "is not an object", raw.strip()))
                continue
            values: dict[str, str] = {}
            fault = None
            for column in COLUMNS:
                value = row.get(column)
                if value is None:
                    continue
                if isinstance(value, bool) or not isinstance(value, str | int | float):
                    fault = RowRefused(number, column, "must be text or a number", str(value))
                    break
                values[column] = str(value)
            if fault is None:
                text = self._line(number, values, refused, False)
                if text is not None:
                    lines.append(text)
            else:
                refused.append(fault)
            if len(lines) >= ROWS_PER_BATCH:
                yield self._batch(lines, refused)
                lines, refused = [], []
        yield self._batch(lines, refused)

    def _line(self, number: int, values: dict[str, str], refused: list[RowRefused], decimal_comma: bool) -> str | None:
        """A row as COPY text, or None when it is refused."""
        fields = [str(number)]
        for column in COLUMNS:
            value = values.get(column, "").strip()
            if not value:
                if column in NEEDED:
                    refused.append(RowRefused(number, column, "is missing"))
                    return None
                fields.append("\\N")
                continue
            if len(value) > FIELD_CHARS_MAX or "\x00" in value:
                refused.append(
                    RowRefused(number, column, f"longer than {FIELD_CHARS_MAX} characters, or with NUL", value)
                )
                return None
            if column == "quantity":
                value = _quantity(value, decimal_comma)
            fields.append(value.translate(_ESCAPE))
        return "\t".join(fields) + "\n"


def _quantity(text: str, decimal_comma: bool) -> str:
    """12.0 (or 12,0 where commas do not separate fields) is 12; anything else stays as it is."""
    whole, point, part = text.partition("," if decimal_comma and "," in text else ".")
    return whole if point and part and not part.strip("0") else text


def _places(header: list[str], name: str) -> dict[str, int]:
    for column in COLUMNS:
        if header.count(column) > 1:
            raise FileRefused(name, "the column stands twice in the header", "Send it once.", line=1, field=column)
    missing = [column for column in NEEDED if column not in header]
    if missing:
        raise FileRefused(
            name, f"the header has no column {', '.join(missing)} (it has {', '.join(h for h in header if h)[:200]})",
            f"The first line names the columns: {', '.join(COLUMNS)}.", line=1,
        )  # fmt: skip
    return {column: header.index(column) for column in COLUMNS if column in header}


def _decoded(source: Source) -> Iterator[str]:
    line = 1
    for block in source.whole_lines():
        try:
            text = block.decode("utf-8")
        except UnicodeDecodeError as error:
            at = line + block[: error.start].count(b"\n")
            raise FileRefused(source.name, "is not UTF-8", "Save it as UTF-8 and send it again.", line=at) from None
        line += block.count(b"\n")
        yield text


def _lines(blocks: Iterator[str]) -> Iterator[str]:
    for block in blocks:
        yield from io.StringIO(block, newline="\n")


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest
