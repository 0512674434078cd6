"""A baseline feed is read as it is written, whole or with named refusals, in constant memory."""

import csv
import gzip
import io
import json
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.feeds import FileRefused, RowRefused
from connectors.feeds.stream import Source
from connectors.feeds.tabular import COLUMNS, Reader
from oms.db import Database

Row = tuple[int, dict[str, str]]
_BACK = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}


def uncopied(copy: bytes) -> Iterator[Row]:
    """Rows of COPY text as PostgreSQL reads them."""
    for line in copy.decode().removesuffix("\n").split("\n") if copy else []:
        number, *fields = line.split("\t")
        assert len(fields) == len(COLUMNS)
        yield (
            int(number),
            {column: unescaped(field) for column, field in zip(COLUMNS, fields, strict=True) if field != "\\N"},
        )


def unescaped(field: str) -> str:
    out, k = "", 0
    while k < len(field):
        width = 2 if field[k] == "\\" else 1
        out += _BACK[field[k : k + 2]] if width == 2 else field[k]
        k += width
    return out


def read(content: bytes | str, *, blocks: int = 1 << 18, **more: Any) -> tuple[list[Row], list[RowRefused]]:
    raw = content.encode() if isinstance(content, str) else content
    pieces = (raw[k : k + blocks] for k in range(0, len(raw), blocks))
    rows: list[Row] = []
    refused: list[RowRefused] = []
    for batch in Reader(Source(pieces, name="stock.csv"), **more):
        made = list(uncopied(batch.copy))
        assert len(made) == batch.rows
        rows += made
        refused += batch.refused
    return rows, refused


def values(rows: Iterable[Row], *columns: str) -> list[tuple[str | None, ...]]:
    return [tuple(row.get(column) for column in columns) for _, row in rows]


def whys(refused: Iterable[RowRefused]) -> list[tuple[int, str, str]]:
    return [(r.line, r.field, r.reason) for r in refused]


def refusal(content: bytes | str, **more: Any) -> FileRefused:
    with pytest.raises(FileRefused) as found:
        read(content, **more)
    return found.value


KEY = ("sku", "location", "quantity")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("quoted", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_every_usual_way_of_writing_a_csv_gives_the_same_rows(
    delimiter: str, end: str, bom: bytes, quoted: Any
) -> None:
    text = io.StringIO()
    out = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoted)
    out.writerows([["SKU", " Location", "quantity", "Status"], ["0012", "S 1", "5", ""], ["7", "S2", "0", "QI"]])
    rows, refused = read(bom + text.getvalue().encode())
    assert rows == [
        (2, {"sku": "0012", "location": "S 1", "quantity": "5"}),
        (3, {"sku": "7", "location": "S2", "quantity": "0", "status": "QI"}),
    ]
    assert refused == []


def test_columns_stand_in_any_order_among_others_that_are_not_ours() -> None:
    rows, _ = read("note,quantity,location,uom,sku\nx,3,L,case,A\n,4,M,,B\n")
    assert values(rows, *KEY, "uom") == [("A", "L", "3", "case"), ("B", "M", "4", None)]


def test_the_last_line_needs_no_end_and_blank_lines_are_no_rows() -> None:
    rows, refused = read("\n\nsku,location,quantity\nA,L,1\n\nB,L,2")
    assert rows == [(4, {"sku": "A", "location": "L", "quantity": "1"}),
                    (6, {"sku": "B", "location": "L", "quantity": "2"})]  # fmt: skip
    assert refused == []


def test_a_file_of_a_header_alone_has_no_rows() -> None:
    assert read("sku,location,quantity\n") == ([], [])
    assert read("sku,location,quantity") == ([], [])


def test_text_is_trimmed_and_codes_keep_their_leading_zeros() -> None:
    rows, _ = read("sku,location,quantity\n 007 ,\tL 1 , 5\n\u00a0Ä9\u00a0,L,6\n")
    assert values(rows, *KEY) == [("007", "L 1", "5"), ("Ä9", "L", "6")]


def test_what_copy_must_escape_arrives_as_it_was_written() -> None:
    rows, _ = read('sku,location,quantity,bin\nA\\1,"L\t2",1,\\N\n')
    assert rows == [(2, {"sku": "A\\1", "location": "L\t2", "quantity": "1", "bin": "\\N"})]


def test_a_line_break_inside_quotes_in_a_column_that_is_not_ours_is_text() -> None:
    rows, refused = read('sku,text,location,quantity\nA,"two\nlines",L,1\nB,"a ""quote""",L,2\n')
    assert rows == [(2, {"sku": "A", "location": "L", "quantity": "1"}),
                    (4, {"sku": "B", "location": "L", "quantity": "2"})]  # fmt: skip
    assert refused == []


@pytest.mark.parametrize(
    ("delimiter", "written", "meant"),
    [
        (",", "12.0", "12"), (",", "12.000", "12"), (",", "-3.00", "-3"), (",", "12.5", "12.5"), (",", "12.", "12."),
        (",", '"12,0"', "12"), (",", '"1,000"', "1,000"), (",", "1e3", "1e3"), (",", "x.0", "x.0"),
        (";", "12,0", "12"), (";", "12,000", "12"), (";", "12.0", "12"), (";", "1.000", "1.000"),
        (";", "1.000,00", "1.000,00"), ("|", "12,0", "12"), ("|", "1,000", "1,000"), ("\t", "12.000", "12"),
    ],
)  # fmt: skip
def test_a_whole_number_written_with_decimals_is_whole_and_a_possible_thousand_is_never_guessed(
    delimiter: str, written: str, meant: str
) -> None:
    header = delimiter.join(KEY)
    for beside in ("", delimiter.join(("B", '"L"', "1")) + "\n"):  # the fast way, and the careful one
        rows, _ = read(f"{header}\n{delimiter.join(('A', 'L', written))}\n{beside}")
        assert rows[0][1]["quantity"] == meant


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("A,L", (3, "row", "has 2 fields, the header 3")),
        ("A,L,1,2", (3, "row", "has 4 fields, the header 3")),
        (",L,1", (3, "sku", "is missing")),
        ("A, ,1", (3, "location", "is missing")),
        ("A,L,", (3, "quantity", "is missing")),
        ("A" * 201 + ",L,1", (3, "sku", "is longer than 200 characters")),
        ("A\x00,L,1", (3, "sku", "holds a NUL character")),
        ('"A"x,L,1', (3, "row", "cannot be read: ',' expected after '\"'")),
    ],
)
def test_a_bad_row_is_refused_with_line_field_and_reason_and_the_others_are_read(
    row: str, why: tuple[int, str, str]
) -> None:
    rows, refused = read(f"sku,location,quantity\nY,L,1\n{row}\nZ,L,2\n")
    assert values(rows, *KEY) == [("Y", "L", "1"), ("Z", "L", "2")]
    assert [line for line, _ in rows] == [2, 4]
    assert whys(refused) == [why]
    assert "\x00" not in (refused[0].value or "")
    assert len(refused[0].value or "") <= 200


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        ("", None, "the file is empty"),
        (" \r\n\n", None, "the file is empty"),
        ("A,L,1\nB,L,2\n", 1, "no column sku, location, quantity (it has: a, l, 1)"),
        ("sku,place,quantity\nA,L,1\n", 1, "no column location"),
        ("sku,location,quantity,sku\nA,L,1,A\n", 1, "stands twice"),
        ("sku,location,quantity,bin,Bin\n", 1, "bin: the column stands twice"),
        ('[{"sku":"A","location":"L","quantity":1}]', 1, "one JSON list"),
        ("sku,location,quantity\rA,L,1\r", 1, "lines that end with LF"),
        ("sku,location,quantity\nA,L,1\n".encode("utf-16"), 1, "is not UTF-8"),
        (b"sku,location,quantity\nA,L,1\nB,L,2\n" + b"\xc4,L,3\n", 4, "is not UTF-8"),
        ('sku,location,quantity\nA,L,1\n"B,L,2\nC,L,3\n', 3, "a quote is left open: lines 3 to 4"),
        ('sku,location,quantity\nA,"L\nB,M",2\nC,L,3\n', 2, "a quote is left open: lines 2 to 3"),
        (gzip.compress(b"sku,location,quantity\nA,L,1\n", mtime=0)[:-9], None, "the gzip ends in the middle"),
        (gzip.compress(b"sku,location,quantity\nA,L,1\n" * 50, mtime=0)[:-30] + b"x" * 30, None, "the gzip is damaged"),
        (b"sku,location,quantity\n" + b"A" * (17 << 20), None, "a line is longer than 16 MB"),
        (b"PAR1\x15\x04\xff\x00", None, "is a Parquet file. Send CSV or JSON Lines"),
        (b"ISA*00*          *00*~IEA*1~", None, "is an X12 interchange"),
        (b"PK\x03\x04\x14\x00\xff", None, "is a ZIP archive"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_taken_as_a_whole_says_where_why_and_what_to_do(
    content: bytes | str, line: int | None, says: str
) -> None:
    error = refusal(content)
    assert error.line == line
    assert says in str(error) and str(error).startswith("stock.csv") and error.remedy


def test_a_line_that_is_not_utf8_is_counted_across_blocks() -> None:
    content = b"sku,location,quantity\n" + b"A,L,1\n" * 500 + b"\xff,L,1\n"
    assert refusal(content, blocks=100).line == 502


def test_a_quote_that_is_left_open_refuses_the_file_whatever_block_it_closes_in() -> None:
    content = 'sku,location,quantity\nA,L,1\n"B,L,2\n' + "C,L,3\n" * 300 + '"D",L,4\n'
    assert refusal(content, blocks=64).line == 3


def test_json_lines_give_the_same_rows_as_csv() -> None:
    rows, refused = read(
        '{"sku":"007","location":"L","quantity":5,"note":"x"}\n\n'
        '{"location":" M ","sku":8,"quantity":"6","status":null,"lot":"é"}\r\n'
        '{"sku":"C","location":"L\\t1","quantity":12.0}'
    )
    assert rows == [
        (1, {"sku": "007", "location": "L", "quantity": "5"}),
        (3, {"sku": "8", "location": "M", "quantity": "6", "lot": "é"}),
        (4, {"sku": "C", "location": "L\t1", "quantity": "12"}),
    ]
    assert refused == []


@pytest.mark.parametrize(
    ("row", "field", "says"),
    [
        ('{"sku":"A","location":"L","quantity":1', "row", "is not JSON"),
        ("[1]", "row", "is not an object"),
        ('{"sku":"A","location":"L","quantity":true}', "quantity", "must be text or a number"),
        ('{"sku":1.5,"location":"L","quantity":1}', "sku", "must be text or a whole number"),
        ('{"sku":"A","location":["L"],"quantity":1}', "location", "must be text or a whole number"),
        ('{"sku":"A","location":"L"}', "quantity", "is missing"),
        ('{"sku":null,"location":"L","quantity":1}', "sku", "is missing"),
        ('{"sku":"\\u0000","location":"L","quantity":1}', "sku", "NUL"),
        ('{"sku":"\\ud800","location":"L","quantity":1}', "row", "is not JSON"),
        ("[" * 5000 + "]" * 5000, "row", ""),
    ],
)
def test_a_bad_json_line_is_refused_with_line_field_and_reason_and_the_others_are_read(
    row: str, field: str, says: str
) -> None:
    good = '{"sku":"Y","location":"L","quantity":1}'
    rows, refused = read(f"{good}\n{row}\n{good}\n")
    assert [line for line, _ in rows] == [1, 3]
    assert [(r.line, r.field) for r in refused] == [(2, field)]
    assert says in refused[0].reason


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("sku,location,quantity\nA,L,\n", ("A", "L")),
        (f"sku,location,quantity,status\nA,L,1,{'x' * 201}\n", ("A", "L")),
        ("sku,location,quantity\n,L,1\n", (None, "L")),
        ("sku,location,quantity\nA,,1\n", ("A", None)),
        (f"sku,location,quantity\n{'A' * 201},L,1\n", (None, "L")),
        ("sku,location,quantity\nA,L\x00,1\n", ("A", None)),
        # fields are missing or too many, two rows may have become one: who knows whose they are
        ("sku,location,quantity\nA,L\n", (None, None)),
        ("sku,location,quantity\nA,L,1B,M,2\n", (None, None)),
        ('{"sku":"A","location":7,"quantity":[]}', ("A", "7")),
        ('{"sku":["A"],"location":"L","quantity":1}', (None, "L")),
        ('{"sku":"A","location":"L","quantity":', (None, None)),
        ("[1]\n", None),
    ],
)
def test_a_refused_row_tells_which_key_it_names_where_that_is_sure(
    content: str, names: tuple[str | None, str | None] | None
) -> None:
    if names is None:
        content, names = '{"sku":"Y","location":"L","quantity":1}\n' + content, (None, None)
    _, [refused] = read(content)
    assert (refused.sku, refused.location) == names


def test_gzip_is_unpacked_also_in_several_members_with_padding() -> None:
    content = (
        gzip.compress(b"sku,location,quantity\nA,L,1\n", mtime=0) + gzip.compress(b"B,L,2\n", mtime=0) + bytes(512)
    )
    for blocks in (1, 7, 1 << 18):
        rows, _ = read(content, blocks=blocks)
        assert values(rows, "sku") == [("A",), ("B",)]


def test_a_file_is_hashed_counted_and_followed_while_it_is_read(tmp_path: Path) -> None:
    from hashlib import sha256

    path = tmp_path / "stock.csv.gz"
    path.write_bytes(gzip.compress(b"sku,location,quantity\n" + b"A,L,1\n" * 90_000 + b"A,L\n", mtime=0))
    reader = Reader(Source(path))
    batches = [(batch.rows, batch.bytes_read, batch.bytes_total) for batch in reader]
    size = path.stat().st_size
    assert len(batches) > 2 and batches[-1][1:] == (size, size)
    assert sum(rows for rows, _, _ in batches) == 90_000
    assert reader.rows == 90_001
    assert reader.sha256 == sha256(path.read_bytes()).hexdigest()


def test_a_file_that_holds_other_rows_than_announced_is_refused() -> None:
    content = "sku,location,quantity\nA,L,1\nB,L\n"
    assert read(content, rows_expected=2)[0]
    assert "holds 2 rows where 3 were announced" in str(refusal(content, rows_expected=3))


def rows_of(count: int) -> Iterator[bytes]:
    yield b"sku,location,quantity,status\n"
    for start in range(0, count, 1000):
        yield "".join(
            f"{k:08d},S{k % 500},{k % 90},{'' if k % 3 else 'QI'}\n" for k in range(start, start + 1000)
        ).encode()


@pytest.mark.parametrize(
    "change",
    [(b"", b""), (b"QI", b'"QI"'), (b"000,S0,0,QI\n", b"000,S0,0,QI,\n")],
    ids=["plain", "quoted", "with bad rows"],
)
def test_memory_does_not_grow_with_the_file(change: tuple[bytes, bytes]) -> None:
    def peak(count: int) -> int:
        blocks = (block.replace(*change) for block in rows_of(count))
        tracemalloc.start()
        try:
            assert sum(batch.rows + len(batch.refused) for batch in Reader(Source(blocks))) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small, large = peak(20_000), peak(80_000)
    assert large < small * 1.2 + 1_000_000
    assert large < 30_000_000


TEXT = st.text(
    st.one_of(st.sampled_from("\",;|\t\\ .'aZ09é"), st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"))),
    max_size=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(st.tuples(TEXT, TEXT, st.one_of(TEXT, st.integers(-5, 10**9).map(str)), TEXT, TEXT), max_size=12),
    order=st.permutations(("sku", "location", "quantity", "bin", "note")),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    blocks=st.sampled_from([1, 30, 1 << 18]),
)
def test_whatever_pythons_csv_writes_is_read_as_python_reads_it(
    rows: list[tuple[str, ...]], order: list[str], delimiter: str, end: str, quoting: Any, blocks: int
) -> None:
    names = ("sku", "location", "quantity", "bin", "note")
    text = io.StringIO()
    out = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting)
    out.writerow(order)
    for row in rows:
        named = dict(zip(names, row, strict=True))
        out.writerow([named[column] for column in order])
    expected = []
    theirs = csv.reader(io.StringIO(text.getvalue(), newline="\n"), delimiter=delimiter, skipinitialspace=True)
    next(theirs)
    for line, row in enumerate(theirs, 2):
        named = {column: value.strip() for column, value in zip(order, row, strict=True)}
        del named["note"]
        if all(named[column] for column in KEY):
            expected.append((line, {column: value for column, value in named.items() if value}))
    got, refused = read(text.getvalue(), blocks=blocks)
    assert len(got) + len(refused) == len(rows)
    assert [(line, {**row, "quantity": ""}) for line, row in got] == [
        (line, {**row, "quantity": ""}) for line, row in expected
    ]
    for (_, mine), (_, written) in zip(got, expected, strict=True):
        mine_is, written_is = mine["quantity"], written["quantity"]
        assert mine_is == written_is or (mine_is == written_is.replace(",", ".").partition(".")[0]
                                         and not written_is[len(mine_is) + 1 :].strip("0"))  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=st.one_of(
    st.binary(max_size=200),
    st.text('"\n\r,;|\t\\AL1.0é\x00', max_size=120).map(lambda t: ("sku,location,quantity\n" + t).encode()),
    st.text('"\n{}[]:,\\u08skulocationquantity1', max_size=120).map(
        lambda t: ('{"sku":"A","location":"L","quantity":1}\n' + t).encode()),
), blocks=st.sampled_from([1, 17, 1 << 18]))  # fmt: skip
def test_any_bytes_are_read_or_refused_and_leave_copy_text_that_postgresql_takes(content: bytes, blocks: int) -> None:
    try:
        rows, refused = read(content, blocks=blocks)
    except FileRefused as error:
        assert error.reason and error.remedy
        return
    assert all(all(row[column] for column in KEY) for _, row in rows)
    lines = [line for line, _ in rows] + [r.line for r in refused]
    assert len(set(lines)) == len(lines)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(st.fixed_dictionaries(
    {"sku": TEXT, "location": TEXT, "quantity": st.one_of(st.integers(), TEXT)}, optional={"bin": TEXT}
), min_size=1, max_size=10))  # fmt: skip
def test_json_lines_hold_what_json_says(rows: list[dict[str, Any]]) -> None:
    content = "\n".join(json.dumps(row, ensure_ascii=len(rows) % 2 == 0) for row in rows)
    got, refused = read(content)
    kept = [row for row in rows if all(str(row[column]).strip() for column in KEY)]
    assert [(row["sku"], row["location"]) for _, row in got] == [
        (r["sku"].strip(), r["location"].strip()) for r in kept
    ]
    assert len(got) + len(refused) == len(rows)


async def test_postgresql_copies_the_batches_as_they_are(db: Database) -> None:
    content = 'sku,location,quantity,bin\n007,"L ""1""",5,\\N\n"a\tb",é\\.,6,\n\\.,L,7,x\n'
    async with db.connection() as tx:
        await tx.execute(
            "create temp table came (line bigint, sku text, location text, quantity text, status text, bin text,"
            " lot text, uom text)"
        )
        for batch in Reader(Source([content.encode()])):
            await tx.copy_to_table("came", source=io.BytesIO(batch.copy), format="text")
        came = await tx.fetch("select line, sku, location, quantity, status, bin from came order by line")
    assert [tuple(row) for row in came] == [
        (2, "007", 'L "1"', "5", None, "\\N"), (3, "a\tb", "é\\.", "6", None, None), (4, "\\.", "L", "7", None, "x"),
    ]  # fmt: skip
