"""Files and lists of movements become messages, or a refusal with its place."""

import gzip
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.feeds import FileRefused, RowRefused
from connectors.feeds.message import KINDS, BadMessage, Message, read_message
from connectors.feeds.movements import read_movements
from connectors.feeds.stream import Source

GOOD: dict[str, Any] = {
    "id": "m1", "sku": "007", "location": "S1", "kind": "sale", "quantity": 2, "occurred_at": "2026-01-31T08:15:00+01:00",
}  # fmt: skip


def read(content: bytes | str, **more: Any) -> tuple[list[Message], list[RowRefused]]:
    raw = content.encode() if isinstance(content, str) else content
    batches = list(read_movements(Source([raw], name="day.csv"), **more))
    return [m for b in batches for m in b.messages], [r for b in batches for r in b.refused]


def test_csv_and_json_lines_and_gzip_give_the_same_messages() -> None:
    from_csv, _ = read(
        "\ufeffid;sku;location;kind;quantity;occurred_at;sequence;reference\r\n"
        "m1;007;S1;sale;2;2026-01-31T08:15:00+01:00;5;\r\n"
    )
    from_json, _ = read(gzip.compress(msgspec.json.encode({**GOOD, "sequence": 5, "reference": None}), mtime=0))
    assert from_csv == from_json == [
        Message(id="m1", sku="007", location="S1", kind="sale", quantity=2, sequence=5,
                occurred_at=datetime.fromisoformat("2026-01-31T07:15:00+00:00"))
    ]  # fmt: skip


def test_a_batch_holds_at_most_a_thousand_rows_and_says_how_far_the_file_is_read() -> None:
    line = msgspec.json.encode(GOOD) + b"\n"
    source = Source([line * 2500], bytes_total=len(line) * 2500)
    batches = list(read_movements(source))
    assert [len(b.messages) for b in batches] == [1000, 1000, 500]
    assert (batches[-1].bytes_read, batches[-1].bytes_total) == (len(line) * 2500, len(line) * 2500)


def test_rows_that_cannot_be_understood_are_refused_with_their_line_and_the_others_are_taken() -> None:
    messages, refused = read(
        "id,sku,location,kind,quantity,occurred_at\n"
        "1,A,L,sale,1,2026-01-31T08:15:00Z\n"
        "2,A,L,sale\n"
        "3,A,L,sold,1,2026-01-31T08:15:00Z\n"
        '4,A,L,sale,"1"x,2026-01-31T08:15:00Z\n'
        "\n"
        "6,A,L,sale,1,yesterday\n"
        "7,A,L,sale,1,2026-01-31T08:15:00Z\n"
    )
    assert [m.id for m in messages] == ["1", "7"]
    assert [(r.line, r.field) for r in refused] == [(3, "row"), (4, "kind"), (5, "row"), (7, "occurred_at")]
    messages, refused = read(b'{"id":1\n[]\n\n' + msgspec.json.encode(GOOD))
    assert [m.id for m in messages] == ["m1"]
    assert [(r.line, r.field) for r in refused] == [(1, "row"), (2, "row")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "empty"),
        ("id,sku,location,kind,quantity\n", "no column occurred_at"),
        ("id,id,sku,location,kind,quantity,occurred_at\n", "stands twice"),
        ("id,sku,location,kind,quantity,occurred_at,refrence\n", "refrence: unknown column"),
        ('id,sku,location,kind,quantity,occurred_at\n1,"A,L\n2,B,L\n', "lines 2 to 3"),
    ],
)
def test_a_file_of_movements_that_cannot_be_taken_as_a_whole_says_why(content: str, says: str) -> None:
    with pytest.raises(FileRefused, match=says):
        read(content)


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"id": ""}, "id", "missing"), ({"id": "  "}, "id", "missing"), ({"id": 5}, "id", "text"),
        ({"sku": None}, "sku", "missing"), ({"location": "L" * 201}, "location", "200"), ({"sku": "a\0"}, "sku", "NUL"),
        ({"kind": "sold"}, "kind", "one of sale, return"), ({"kind": ["sale"]}, "kind", "text"),
        ({"quantity": -1}, "quantity", "below zero"), ({"quantity": 1.5}, "quantity", "whole"),
        ({"quantity": True}, "quantity", "whole"), ({"quantity": "1_000"}, "quantity", "whole"),
        ({"quantity": "1,000"}, "quantity", "whole"), ({"quantity": "٣"}, "quantity", "whole"),
        ({"quantity": 2_000_000_000}, "quantity", "1,000,000,000"), ({"quantity": None}, "quantity", "missing"),
        ({"kind": "adjustment", "quantity": -2_000_000_000}, "quantity", "1,000,000,000"),
        ({"occurred_at": "2026-01-31T08:15:00"}, "occurred_at", "offset"), ({"occurred_at": 5}, "occurred_at", "a time"),
        ({"occurred_at": "2026-W05-1T00:00Z"}, "occurred_at", "a time"),
        ({"occurred_at": "0001-01-01T00:00:00+14:00"}, "occurred_at", "years"), ({"occurred_at": ""}, "occurred_at", "a time"),
        ({"kind": "transfer"}, "to", "where it goes"), ({"kind": "transfer", "to": " "}, "to", "where it goes"),
        ({"sequence": 2**63}, "sequence", "too large"), ({"sequence": "x"}, "sequence", "whole"),
        ({"colour": 1}, "colour", "unknown field"),
    ],
)  # fmt: skip
def test_a_message_that_cannot_be_understood_names_its_field_and_why(
    change: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(BadMessage, match=says) as found:
        read_message(GOOD | change)
    assert found.value.field == field
    assert found.value.value is None or len(found.value.value) <= 200


@pytest.mark.parametrize("written", [2, "2", " 2 ", "2.0", 2.0, "+2"])
def test_a_whole_number_may_be_written_in_the_ways_that_mean_it(written: Any) -> None:
    assert read_message(GOOD | {"quantity": written}).quantity == 2


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_movement_is_understood_and_only_an_adjustment_may_be_below_zero(kind: str) -> None:
    assert read_message(GOOD | {"kind": kind, "to": "S2"}).kind == kind
    if kind == "adjustment":
        assert read_message(GOOD | {"kind": kind, "quantity": -3}).quantity == -3


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*GOOD, "sequence", "to", "x"]), SCALARS | st.lists(SCALARS, max_size=2)))
def test_any_json_object_is_a_message_that_can_be_kept_or_is_refused_by_name(change: dict[str, Any]) -> None:
    try:
        message = read_message(GOOD | change)
    except BadMessage as bad:
        assert bad.field and bad.reason
        return
    assert message.occurred_at.utcoffset() is not None
    assert (0 if message.kind != "adjustment" else -(10**9)) <= message.quantity <= 10**9
    assert msgspec.json.decode(msgspec.json.encode(message), type=Message) == message


def test_a_file_that_holds_other_rows_than_announced_is_refused_after_its_last_row() -> None:
    line = msgspec.json.encode(GOOD) + b"\n"
    assert len(read(line * 2 + b"{\n", rows_expected=3)[0]) == 2
    with pytest.raises(FileRefused, match="holds 3 rows where 4 were announced"):
        read(line * 3, rows_expected=4)
