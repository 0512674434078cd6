"""One movement as a source tells it, and what makes it one that can be understood."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

KINDS = ("sale", "return", "receipt", "shipment", "transfer", "adjustment", "count", "hold", "release")
QUANTITY_MAX = 1_000_000_000
CODE_CHARS_MAX = 200
YEARS = range(1970, 2200)
_WHOLE = re.compile(r"([+-]?[0-9]{1,19})(?:\.0*)?", re.ASCII)


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A movement in its source's own codes.

    `quantity` is in `uom` (each where it is left out): 0 or more, signed for an adjustment, absolute for a count.
    `occurred_at` is the source's clock, with its offset. `reference` names a movement of ours that this acknowledges,
    or what a receipt or release is about; `to` is where a transfer goes; `hold` the code of a hold.
    """

    id: str
    sku: str
    location: str
    kind: str
    quantity: int
    occurred_at: datetime
    sequence: int | None = None
    reason: str | None = None
    reference: str | None = None
    to: str | None = None
    hold: str | None = None
    uom: str | None = None


class BadMessage(Exception):
    """A message that cannot be understood: the field, why, and the value."""

    def __init__(self, field: str, reason: str, value: Any = None) -> None:
        super().__init__(f"{field}: {reason}")
        self.field, self.reason = field, reason
        self.value = None if value is None else str(value)[:CODE_CHARS_MAX]


def read_message(given: Mapping[str, Any]) -> Message:
    """A message from its fields, values as JSON has them or as text. Raises BadMessage."""
    unknown = given.keys() - set(Message.__struct_fields__)
    if unknown:
        field = sorted(map(str, unknown))[0]
        raise BadMessage(field, f"unknown field; a message has {', '.join(Message.__struct_fields__)}")
    kind = _text(given, "kind", needed=True)
    if kind not in KINDS:
        raise BadMessage("kind", f"must be one of {', '.join(KINDS)}", kind)
    quantity = _whole(given, "quantity", needed=True)
    assert quantity is not None
    if abs(quantity) > QUANTITY_MAX or (quantity < 0 and kind != "adjustment"):
        raise BadMessage("quantity", f"must be 0 to {QUANTITY_MAX:,}; only an adjustment may be below zero", quantity)
    to = _text(given, "to")
    if kind == "transfer" and to is None:
        raise BadMessage("to", "a transfer says where it goes")
    return Message(
        id=_needed(given, "id"), sku=_needed(given, "sku"), location=_needed(given, "location"), kind=kind,
        quantity=quantity, occurred_at=_moment(given), sequence=_whole(given, "sequence"), reason=_text(given, "reason"),
        reference=_text(given, "reference"), to=to, hold=_text(given, "hold"), uom=_text(given, "uom"),
    )  # fmt: skip


def _text(given: Mapping[str, Any], field: str, *, needed: bool = False) -> str | None:
    value = given.get(field)
    if value is None or value == "":
        if needed:
            raise BadMessage(field, "is missing")
        return None
    if not isinstance(value, str):
        raise BadMessage(field, "must be text", value)
    value = value.strip()
    if len(value) > CODE_CHARS_MAX or "\x00" in value:
        raise BadMessage(field, f"must be at most {CODE_CHARS_MAX} characters without NUL", value)
    if not value and needed:
        raise BadMessage(field, "is missing")
    return value or None


def _needed(given: Mapping[str, Any], field: str) -> str:
    value = _text(given, field, needed=True)
    assert value is not None
    return value


def _whole(given: Mapping[str, Any], field: str, *, needed: bool = False) -> int | None:
    value = given.get(field)
    if value is None or value == "":
        if needed:
            raise BadMessage(field, "is missing")
        return None
    if isinstance(value, str) and (found := _WHOLE.fullmatch(value.strip())):
        number = int(found[1])
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    else:
        raise BadMessage(field, "must be a whole number", value)
    if not -(2**63) <= number < 2**63:
        raise BadMessage(field, "is too large", value)
    return number


def _moment(given: Mapping[str, Any]) -> datetime:
    value = given.get("occurred_at")
    try:
        moment = msgspec.convert(value.strip() if isinstance(value, str) else value, datetime)
    except msgspec.ValidationError:
        raise BadMessage("occurred_at", "must be a time like 2026-01-31T08:15:00+01:00", value) from None
    if moment.utcoffset() is None:
        raise BadMessage("occurred_at", "has no offset from UTC; like 2026-01-31T08:15:00+01:00", value)
    if moment.year not in YEARS:
        raise BadMessage("occurred_at", f"must lie between the years {YEARS.start} and {YEARS.stop - 1}", value)
    return moment
