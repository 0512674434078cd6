"""Fulfillers: systems that run a location (WMS, SIM, 3PL), what they are given to do, and what they answer.

    answer = await fulfiller.tell(Order(id="…", act="release", fulfillment="…", …))

Work with the same id may be told again until it is known to be there. What they did comes back as `Said`, each under an
id of theirs: by a signed webhook to us, or as files.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol

import msgspec

from connectors.channels import Answer

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]
Quantity = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
LINES_MAX = 1000


class Piece(msgspec.Struct, frozen=True):
    """Units of a line; `reference` is what an acknowledgement of the stock change names."""

    line: str
    sku: str
    quantity: int
    reference: str


class Order(msgspec.Struct, frozen=True):
    """Work that is given to a location, or taken back: of a recall, `lines` is what is left to do, maybe nothing."""

    id: str
    act: Literal["release", "recall"]
    fulfillment: str
    location: str
    number: str
    method: str
    priority: int
    is_pickup: bool
    ship_to: dict[str, Any]
    made_at: datetime
    lines: tuple[Piece, ...]


class SaidLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units of a line that an answer speaks of."""

    line: Text
    quantity: Quantity


class SaidParcel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A parcel that was shipped."""

    tracking: Text
    carrier: Text | None = None
    weight_grams: Annotated[int, msgspec.Meta(ge=1, le=100_000_000)] | None = None
    lines: Annotated[list[SaidLine], msgspec.Meta(max_length=LINES_MAX)] = []


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a fulfiller answers, once under its `id`; without `lines` it speaks of all that it has."""

    id: Text
    fulfillment: Text
    event: Literal["taken_over", "picked", "packed", "shipped", "handed_over", "rejected", "recalled"]
    at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    lines: Annotated[list[SaidLine], msgspec.Meta(max_length=LINES_MAX)] = []
    reason: Reason | None = None
    stock: Literal["keep", "deduct", "zero"] = "keep"
    parcels: Annotated[list[SaidParcel], msgspec.Meta(max_length=LINES_MAX)] = []
    in_time: bool = True


class SaidUnreadable(ValueError):
    """An answer that cannot be understood; the text says where and why."""


def read_said(content: bytes | Mapping[str, Any]) -> list[Said]:
    """One answer, or a list of up to 1,000. Raises SaidUnreadable."""
    try:
        given = msgspec.json.decode(content) if isinstance(content, bytes) else content
        many = given if isinstance(given, list) else [given]
        if not 1 <= len(many) <= LINES_MAX:
            raise SaidUnreadable(f"{len(many)} answers; 1 to {LINES_MAX} are expected")
        return msgspec.convert(many, list[Said])
    except msgspec.MsgspecError as error:
        raise SaidUnreadable(str(error)) from None


class Fulfiller(Protocol):
    """What every kind of fulfiller can do."""

    async def tell(self, order: Order) -> Answer:
        """Gives work or takes it back; never raises for what the fulfiller or the network does."""

    async def close(self) -> None:
        """Ends its connections."""
