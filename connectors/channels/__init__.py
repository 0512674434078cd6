"""Channels: what they are told, and what they answer. One module per kind.

    answer = await channel.push(Push(id="…", mode="delta", as_of=None, lines=(Line("A", 3, -1),)))

A push with the same id and the same lines may come again, until it is known to be delivered or refused.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec


class Line(msgspec.Struct, frozen=True):
    """What may be sold of a sku; `delta` is the difference to what was told before, where a difference is told."""

    sku: str
    quantity: int
    delta: int | None = None


class Push(msgspec.Struct, frozen=True):
    """What a channel is told. `reset`: absolute values; of them the channel deducts what it sold after `as_of`."""

    id: str
    mode: Literal["delta", "reset"]
    as_of: datetime | None
    lines: tuple[Line, ...]


class Delivered(msgspec.Struct, frozen=True):
    """The channel has it."""

    answer: str = ""


class Unknown(msgspec.Struct, frozen=True):
    """Nobody knows whether the channel has it: the same push must come again."""

    reason: str


class SlowDown(msgspec.Struct, frozen=True):
    """The channel did not take it and asks for quiet."""

    seconds: float
    reason: str


class Refused(msgspec.Struct, frozen=True):
    """The channel will never take it. `is_content`: because of a line in it, not of who said it, or where."""

    reason: str
    is_content: bool


Answer = Delivered | Unknown | SlowDown | Refused


class Channel(Protocol):
    """What every kind of channel can do; `has_guard` is one that takes the same push once."""

    max_batch: int
    has_guard: bool

    async def push(self, push: Push) -> Answer:
        """Tells the channel; never raises for what the channel or the network does."""

    async def close(self) -> None:
        """Ends its connections."""


class SettingsWrong(ValueError):
    """A channel's settings cannot work; the text names the setting and what is expected."""


def whole_number(settings: Mapping[str, Any], name: str, *, default: int, most: int) -> int:
    """A setting that is a whole number from 1 to `most`; raises SettingsWrong."""
    value = settings.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise SettingsWrong(f"{name}: a whole number from 1 to {most} is expected, not {value!r}")
    return value


def texts(settings: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A setting that is a list of texts, empty where it is not given; raises SettingsWrong."""
    value = settings.get(name) or []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise SettingsWrong(f"{name}: a list of texts is expected")
    return tuple(value)
