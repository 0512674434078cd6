"""Text of a feed: blocks of whole lines, the header with its delimiter, and CSV records with the line they begin on."""

import csv
import io
from collections.abc import Iterator, Sequence

import msgspec

from connectors.feeds import FileRefused, RowRefused
from connectors.feeds.stream import Source

DELIMITERS = ",;\t|"
FOREIGN = {
    b"PAR1": "a Parquet file", b"ISA*": "an X12 interchange", b"ISA|": "an X12 interchange",
    b"PK\x03\x04": "a ZIP archive (a spreadsheet is one, too)", b"<?xml": "XML", b"%PDF": "a PDF",
}  # fmt: skip
"""What is sent by mistake, by its first bytes."""
LISTED_MAX = 200


class Header(msgspec.Struct, frozen=True):
    """The columns of a CSV by place, what separates them, and the lines that the header takes."""

    columns: list[str]
    delimiter: str
    lines: int

    def place(self, column: str) -> int | None:
        """Where a column stands; None where the file has none of that name."""
        return self.columns.index(column) if column in self.columns else None


def decoded(source: Source) -> Iterator[str]:
    """Blocks of whole lines as text, empty ones at the start left out. Raises FileRefused where it is not UTF-8."""
    line = 1
    for block in source.whole_lines():
        try:
            text = block.decode("utf-8")
        except UnicodeDecodeError as error:
            at = line + block[: error.start].count(b"\n")
            raise FileRefused(source.name, "is not UTF-8", "Save it as UTF-8 and send it again.", line=at) from None
        line += block.count(b"\n")
        yield text


def begin(source: Source) -> tuple[str, Iterator[str]]:
    """The first block and the rest. Raises FileRefused for a file without any text, and for a JSON list."""
    blocks = decoded(source)
    try:
        first = next(blocks, "")
    except FileRefused as refused:
        raise _of_kind(source) or refused from None
    if (strange := _of_kind(source)) is not None:
        raise strange
    if not first.strip():
        raise FileRefused(source.name, "the file is empty", "Send a header and rows, or JSON Lines.")
    if first.lstrip().startswith("["):
        raise FileRefused(source.name, "is one JSON list", "Send JSON Lines: one object per line.", line=1)
    return first, blocks


def _of_kind(source: Source) -> FileRefused | None:
    """A file of a kind that is not read here, told by its first bytes."""
    kind = next((kind for head, kind in FOREIGN.items() if source.head.startswith(head)), None)
    if kind is None:
        return None
    return FileRefused(source.name, f"is {kind}", "Send CSV or JSON Lines, gzip or not.")


def is_json(first: str) -> bool:
    """Whether a file that begins so holds JSON Lines."""
    return first.lstrip().startswith("{")


def read_header(first: str, *, name: str, needed: Sequence[str], known: Sequence[str]) -> Header:
    """The header, with the delimiter that makes the needed columns of it. Raises FileRefused, saying what it lacks."""
    blank = len(first) - len(first.lstrip("\r\n"))
    skipped = first.count("\n", 0, blank)
    best: Header | None = None
    for delimiter in sorted(DELIMITERS, key=first[blank:].split("\n", 1)[0].count, reverse=True):
        read = csv.reader(
            io.StringIO(first[blank:], newline="\n"), delimiter=delimiter, strict=True, skipinitialspace=True
        )
        try:
            columns = [column.strip().lower() for column in next(read)]
        except csv.Error as error:
            raise FileRefused(
                name, f"the header cannot be read ({error})", "Send column names, and lines that end with LF or CRLF.",
                line=skipped + 1,
            ) from None  # fmt: skip
        found = Header(columns, delimiter, skipped + read.line_num)
        best = best or found
        if all(column in columns for column in needed):
            best = found
            break
    assert best is not None
    for column in known:
        if best.columns.count(column) > 1:
            raise FileRefused(
                name, "the column stands twice in the header", "Send it once.", line=skipped + 1, field=column
            )
    missing = [column for column in needed if column not in best.columns]
    if missing:
        has = ", ".join(column for column in best.columns if column).replace("\x00", "�")[:LISTED_MAX]
        raise FileRefused(
            name, f"the header has no column {', '.join(missing)} (it has: {has})",
            f"The first line names the columns: {', '.join(known)}.", line=skipped + 1,
        )  # fmt: skip
    return best


def after_header(first: str, header: Header) -> str:
    """What follows the header in the first block."""
    at = 0
    for _ in range(header.lines):
        at = first.find("\n", at) + 1
        if not at:
            return ""
    return first[at:]


class Records:
    """CSV records one by one, each with the line that it begins on; the slow, careful way.

    A record whose quotes are wrong on one line is refused alone. Where it runs over several, nobody can say which rows
    it swallowed, and a key that seems absent may count as zero: then the whole file is refused.
    """

    def __init__(self, blocks: Iterator[str], *, header: Header, name: str) -> None:
        self._blocks, self._name, self._width = blocks, name, len(header.columns)
        self._lines: Iterator[str] = iter(())
        self._is_within = False
        self.line = header.lines
        self._read = csv.reader(self, delimiter=header.delimiter, strict=True, skipinitialspace=True)

    def __iter__(self) -> "Records":
        return self

    def __next__(self) -> str:
        """The next line for the csv reader, which asks on into the next block only while a quote is open."""
        line = next(self._lines, None)
        while line is None:
            if not self._is_within:
                raise StopIteration
            self._lines = io.StringIO(next(self._blocks), newline="\n")
            line = next(self._lines, None)
        self._is_within = True
        self.line += 1
        return line

    def of(self, block: str) -> Iterator[tuple[int, list[str] | RowRefused]]:
        """The records that begin in a block; its first line comes after the last one that was read."""
        self._lines = io.StringIO(block, newline="\n")
        while True:
            begins, self._is_within = self.line + 1, False
            try:
                row = next(self._read)
            except StopIteration:
                return
            except csv.Error as error:
                self._one_line(begins)
                yield begins, RowRefused(begins, "row", f"cannot be read: {error}")
                continue
            if len(row) == self._width:
                yield begins, row
            elif row:
                self._one_line(begins)
                yield begins, RowRefused(begins, "row", f"has {len(row)} fields, the header {self._width}")

    def _one_line(self, begins: int) -> None:
        if self.line > begins:
            raise open_quote(self._name, begins, self.line)


def open_quote(name: str, first: int, last: int) -> FileRefused:
    """Rows that cannot be told apart."""
    return FileRefused(
        name, f"a quote is left open: lines {first} to {last} cannot be told apart",
        "Close it, or double a quote that belongs to the text, and send the file again.", line=first,
    )  # fmt: skip
