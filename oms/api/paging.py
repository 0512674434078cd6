"""Lists by cursor: a page, and where the next one begins."""

import base64
import binascii
from typing import Any, Generic, TypeVar

import msgspec

from oms.errors import BadInput

Item = TypeVar("Item")

PAGE_MAX = 500


class Page(msgspec.Struct, Generic[Item], frozen=True):
    """Some items; `next` is the cursor of the following page, or null at the end."""

    items: list[Item]
    next: str | None


def write_cursor(place: Any) -> str:
    """A place in a list as an opaque text."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def read_cursor(cursor: str | None, type: Any) -> Any:
    """The place that a cursor says, or None without one; BadInput where it is not one of ours."""
    if not cursor:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=type)
    except (binascii.Error, ValueError) as error:
        raise BadInput("cursor: not a cursor of this list; leave it out to begin at the start") from error
