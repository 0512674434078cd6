"""Orders as channels say them, as ours; one that cannot be read is kept whole and holds up no other."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from oms.domain.order import NewOrder, OrderLine
from oms.record import Trouble


class _Line(msgspec.Struct, frozen=True):
    line: str
    sku: str
    quantity: int
    price: int | None = None


def read_orders(
    rows: Iterable[bytes | dict[str, Any]], *, channel_id: int, code: str, at: datetime, who: str
) -> tuple[list[NewOrder], list[Trouble]]:
    """What a channel has captured: lines of JSON, or objects of a page; `at` is the moment of capture.

    What cannot be read is a trouble of kind order_refused that names the field and keeps what was sent.
    """
    orders, troubles = [], []
    for number, row in enumerate(rows, start=1):
        said: dict[str, Any] | str = row.decode(errors="replace") if isinstance(row, bytes) else row
        try:
            said = msgspec.json.decode(row, type=dict[str, Any]) if isinstance(row, bytes) else row
            orders.append(_read(said, channel_id=channel_id, at=at, who=who))
        except msgspec.MsgspecError as error:
            troubles.append(_unreadable(said, number, code=code, channel_id=channel_id, why=str(error)))
    return orders, troubles


def _read(row: dict[str, Any], *, channel_id: int, at: datetime, who: str) -> NewOrder:
    said = {name: value for name, value in row.items() if name != "channel"}
    lines = tuple(
        OrderLine(line=n.line, sku=n.sku, quantity=n.quantity, price_cents=n.price)
        for n in msgspec.convert(said.pop("lines", None), list[_Line])
    )
    ours = {"channel_id": channel_id, "at": at, "who": who, "lines": ()}
    return msgspec.structs.replace(msgspec.convert(said | ours, NewOrder), lines=lines)


def _unreadable(said: dict[str, Any] | str, number: int, *, code: str, channel_id: int, why: str) -> Trouble:
    name = said.get("number") if isinstance(said, dict) else None
    named = f"order {name!r}" if isinstance(name, str) else f"the order on line {number}"
    detail = f"{named} of {code} could not be read: {why}; correct it at the shop and send it again"
    subject = f"{channel_id}/{name if isinstance(name, str) else said}"[:200]
    return Trouble("order_refused", subject, detail, {"content": said})
