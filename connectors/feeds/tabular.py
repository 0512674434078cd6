"""A baseline feed, CSV or JSON Lines, as batches that go into PostgreSQL as they are (COPY text format)."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from operator import attrgetter
from types import NoneType
from typing import Any

import msgspec

from connectors.feeds import RowRefused
from connectors.feeds.stream import Source, check_rows
from connectors.feeds.text import Header, Records, after_header, begin, is_json, open_quote, read_header

COLUMNS = ("sku", "location", "quantity", "status", "bin", "lot", "uom")
NEEDED = ("sku", "location", "quantity")
SKU, LOCATION, QUANTITY = (COLUMNS.index(column) for column in NEEDED)
FIELD_CHARS_MAX = 200
NULL = "\\N"
_ESCAPE = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_PLAIN = {
    column: re.compile(rf"(?:[^\x00-\x1f\\]{{{1 if column in NEEDED else 0},{FIELD_CHARS_MAX}}}+\n)++")
    for column in COLUMNS
}
_SPECIAL = re.compile(r"[\\\t\n\r\x00]")


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

    The format is seen from the first character: `{` begins JSON Lines, anything else a CSV header. Quantities keep
    their text, whether they are whole numbers is judged where the rows are resolved; but 12.0 is 12, and so is 12,0
    where commas do not separate fields. `rows_expected` is what the sender says that the file holds.
    """

    def __init__(self, source: Source, *, rows_expected: int | None = None) -> None:
        self._source, self._rows_expected = source, rows_expected
        self.rows = 0

    @property
    def sha256(self) -> str:
        """The hash of the raw bytes, complete when the batches have ended."""
        return self._source.sha256

    def __iter__(self) -> Iterator[Batch]:
        first, rest = begin(self._source)
        yield from self._json(chain((first,), rest)) if is_json(first) else self._csv(first, rest)
        check_rows(self._source, self.rows, self._rows_expected)

    def _batch(self, copy: str, rows: int, refused: list[RowRefused]) -> Batch:
        self.rows += rows + len(refused)
        return Batch(copy.encode(), rows, refused, self._source.bytes_read, self._source.bytes_total)

    def _csv(self, first: str, rest: Iterator[str]) -> Iterator[Batch]:
        name = self._source.name
        header = read_header(first, name=name, needed=NEEDED, known=COLUMNS)
        plain = _Plain(header)
        records = Records(rest, header=header, name=name)
        places = [header.place(column) for column in COLUMNS]
        for block in chain((after_header(first, header),), rest):
            lines = block.count("\n") + (not block.endswith("\n") and block != "")
            if (copy := plain.copy(block, records.line + 1)) is not None:
                records.line += lines
                yield self._batch(copy, lines, [])
                continue
            out = _Rows(name, header.delimiter)
            if (rows := _one_per_line(block, header, lines)) is not None:
                columns = (
                    [None if place is None else [row[place] for row in rows] for place in places] if all(rows) else []
                )
                if columns and (copy := _by_column(columns, records.line + 1, header.delimiter)) is not None:
                    records.line += lines
                    yield self._batch(copy, lines, [])
                    continue
                numbered: Iterator[tuple[int, list[str] | RowRefused]] = enumerate(rows, records.line + 1)
                records.line += lines
            else:
                numbered = records.of(block)
            for line, row in numbered:
                if isinstance(row, RowRefused):
                    out.refused.append(row)
                elif row:
                    out.add(line, ["" if place is None else row[place].strip() for place in places])
            yield self._batch(*out.done())

    def _json(self, blocks: Iterator[str]) -> Iterator[Batch]:
        line = 1
        for block in blocks:
            out = _Rows(self._source.name, ",")
            lines = block.removesuffix("\n").split("\n")
            rows = _decode_lines(block, lines)
            if (copy := _by_column(_json_columns(rows), line, ",")) is not None:
                line += len(lines)
                yield self._batch(copy, len(lines), [])
                continue
            for number, row in enumerate(rows, line):
                if isinstance(row, _Row):
                    out.add(number, [_text(value) for value in msgspec.structs.astuple(row)])
                elif row is not None:
                    row.line = number
                    out.refused.append(row)
            line += len(lines)
            yield self._batch(*out.done())


class _Plain:
    """The fast way for blocks in which every line is plain: no quotes, nothing to trim, escape or refuse.

    One pattern looks at the whole block, so that no Python runs per row to check it.
    """

    def __init__(self, header: Header) -> None:
        d = header.delimiter
        self._delimiter, self._width = d, len(header.columns)
        self._places = [header.place(column) for column in COLUMNS]
        text = rf'[^\x00-\x1f\x7f"\\{re.escape(d)}]'
        point = {",": r"\.", ";": ","}.get(d, "")
        # any text passes where the column is none of ours; possessive, for no other way to match exists
        patterns = dict.fromkeys(range(self._width), rf"{text}*+")
        for column, place in zip(COLUMNS, self._places, strict=True):
            if place is not None:
                patterns[place] = rf"{text}{{{1 if column in NEEDED else 0},{FIELD_CHARS_MAX}}}+"
        quantity = self._places[QUANTITY]
        assert quantity is not None
        patterns[quantity] = r"-?+[0-9]{1,18}+" + (rf"(?:{point}0{{1,9}}+)?+" if point else "")
        line = re.escape(d).join(patterns[place] for place in range(self._width))
        self._lines = re.compile(rf"(?:{line}\n)++")
        self._beside = [" " + d, d + " ", "\n ", " \n"]

    def copy(self, block: str, line: int) -> str | None:
        """The block as COPY text, its first line numbered `line`; None when it is not plain."""
        if not block.isascii():
            return None
        text = block.replace("\r\n", "\n") if "\r" in block else block
        text = text if text.endswith("\n") else text + "\n"
        if " " in text and (text[0] == " " or any(pair in text for pair in self._beside)):
            return None
        if self._lines.fullmatch(text) is None:
            return None
        d, width = self._delimiter, self._width
        fields = text[:-1].replace("\n", d).split(d)
        columns: list[Any] = [repeat(NULL) if place is None else fields[place::width] for place in self._places]
        for k, (column, place) in enumerate(zip(COLUMNS, self._places, strict=True)):
            if column not in NEEDED and place is not None:
                columns[k] = [value or NULL for value in columns[k]]
        point = "," if d == ";" else "."
        if point in text:
            columns[QUANTITY] = [value.partition(point)[0] for value in columns[QUANTITY]]
        numbers = map(str, range(line, line + len(fields) // width))
        return "\n".join(map("\t".join, zip(numbers, *columns, strict=False))) + "\n"


class _Rows:
    """Rows as COPY text, checked one by one."""

    def __init__(self, name: str, delimiter: str) -> None:
        self._name, self._delimiter = name, delimiter
        self._copy: list[str] = []
        self.refused: list[RowRefused] = []

    def add(self, line: int, values: list[str]) -> None:
        """Takes or refuses a row of trimmed values in the order of COLUMNS; empty is absent."""
        sku, location = values[SKU], values[LOCATION]

        def refuse(column: str, reason: str, value: str | None = None) -> None:
            self.refused.append(RowRefused(line, column, reason, value, sku=_code(sku), location=_code(location)))

        for k, value in enumerate(values):
            if not value:
                if k <= QUANTITY:
                    return refuse(COLUMNS[k], "is missing")
                values[k] = NULL
            elif len(value) > FIELD_CHARS_MAX:
                return refuse(COLUMNS[k], f"is longer than {FIELD_CHARS_MAX} characters", value)
            elif _SPECIAL.search(value):
                if "\x00" in value:
                    return refuse(COLUMNS[k], "holds a NUL character", value)
                if "\n" in value:
                    raise open_quote(self._name, line, line + value.count("\n"))
                values[k] = value.translate(_ESCAPE)
        values[QUANTITY] = _whole(values[QUANTITY], self._delimiter)
        self._copy.append(f"{line}\t" + "\t".join(values) + "\n")

    def done(self) -> tuple[str, int, list[RowRefused]]:
        """COPY text, how many rows it has, and the refused ones."""
        return "".join(self._copy), len(self._copy), self.refused


def _by_column(columns: Sequence[Sequence[str] | None], line: int, delimiter: str) -> str | None:
    """Rows, given by column, as COPY text, when nothing in them is to be escaped or refused; else None."""
    quantities = columns[QUANTITY] if columns else None
    if quantities is None:
        return None
    made: list[Any] = [repeat(NULL)] * len(columns)
    for k, column in enumerate(columns):
        if column is None:
            continue
        values = [value.strip() for value in column]
        if _PLAIN[COLUMNS[k]].fullmatch("\n".join(values) + "\n") is None:
            return None
        made[k] = values
        if k == QUANTITY and not all(map(str.isdecimal, values)):
            made[k] = [_whole(value, delimiter) for value in values]
        elif k > QUANTITY:
            made[k] = [value or NULL for value in values]
    numbers = map(str, range(line, line + len(quantities)))
    return "\n".join(map("\t".join, zip(numbers, *made, strict=False))) + "\n"


def _one_per_line(block: str, header: Header, lines: int) -> list[list[str]] | None:
    """The records of a block when each takes one line and has the header's fields; else None."""
    read = csv.reader(io.StringIO(block, newline="\n"), delimiter=header.delimiter, strict=True, skipinitialspace=True)
    try:
        rows = list(read)
    except csv.Error:
        return None
    width = len(header.columns)
    return rows if len(rows) == lines and set(map(len, rows)) <= {width, 0} else None


def _whole(text: str, delimiter: str) -> str:
    """12.0 is 12, and 12,0 where commas separate no fields; what may be a thousand stays as it is, to be refused."""
    for point in ",.":
        whole, found, zeros = text.partition(point)
        if not found or not zeros or zeros.strip("0") or not whole.removeprefix("-").isdecimal():
            continue
        # with semicolons the comma is the decimal sign: there 1.000 may be a thousand; elsewhere 1,000 may
        is_decimal = (point == ",") == (delimiter == ";")
        return whole if is_decimal or len(zeros) != 3 else text
    return text


class _Row(msgspec.Struct):
    """A row of JSON Lines."""

    sku: str | int | None = None
    location: str | int | None = None
    quantity: str | int | float | None = None
    status: str | int | None = None
    bin: str | int | None = None
    lot: str | int | None = None
    uom: str | int | None = None


def _json_columns(rows: Sequence[Any]) -> list[list[str] | None]:
    """The columns of rows that were all understood; none where one was not."""
    if set(map(type, rows)) != {_Row}:
        return []
    columns: list[list[str] | None] = []
    for column in COLUMNS:
        values = list(map(attrgetter(column), rows))
        kinds = set(map(type, values))
        if kinds == {NoneType}:
            columns.append(None)
        else:
            columns.append(values if kinds == {str} else [_text(value) for value in values])
    return columns


_ROWS = msgspec.json.Decoder(_Row)


def _text(value: str | int | float | None) -> str:
    return "" if value is None else str(value).strip()


def _decode_lines(block: str, lines: list[str]) -> list[Any]:
    """Per line a _Row, None for a blank one, or a RowRefused whose line is not known here."""
    try:
        rows = _ROWS.decode_lines(block)
        if len(rows) == len(lines):
            return rows
    except (msgspec.DecodeError, RecursionError):
        pass
    return [_decode_line(line) for line in lines]


def _decode_line(line: str) -> _Row | RowRefused | None:
    if not line.strip():
        return None
    try:
        return _ROWS.decode(line)
    except msgspec.ValidationError as error:
        _, found, field = str(error).partition(" - at `$.")
        field = field.rstrip("`") if found else "row"
        reason = "must be text or a number" if field == "quantity" else "must be text or a whole number"
        sku, location = _key(line) if found else (None, None)
        reason = reason if found else "is not an object"
        return RowRefused(0, field, reason, line.strip(), sku=sku, location=location)
    except (msgspec.DecodeError, RecursionError) as error:
        return RowRefused(0, "row", f"is not JSON: {error}", line.strip())


def _key(line: str) -> tuple[str | None, str | None]:
    """The codes that a JSON object names, each None where it is none."""
    found = msgspec.json.decode(line)
    codes = (found.get(NEEDED[SKU]), found.get(NEEDED[LOCATION]))
    sku, location = (_code(_text(code)) if type(code) in (str, int) else None for code in codes)
    return sku, location


def _code(text: str) -> str | None:
    """A code as it may be looked up, or None."""
    return text if 0 < len(text) <= FIELD_CHARS_MAX and "\x00" not in text and "\n" not in text else None
