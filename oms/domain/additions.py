"""When units that come in may be sold: at once, or under a hold until somebody says so. Pure."""

from collections.abc import Mapping
from typing import Any

ADDITIONS = {
    # kind of location -> kind of movement -> when its units may be sold (model.md, "Reductions at once")
    "store": {"receipt": "approver", "return": "approver", "adjustment": "at_once"},
    "*": {"receipt": "baseline", "return": "baseline", "adjustment": "baseline"},
}
HOLD_CODES = {
    "baseline": "until_baseline",
    "approver": "until_released",
    "inspection": "until_inspected",
    "put_away": "until_put_away",
}


def hold_of_addition(kind: str, *, location_kind: str, additions: Mapping[str, Any]) -> str | None:
    """The hold code under which a kind of addition waits at a location, by its source's rule or the default."""
    defaults = ADDITIONS.get(location_kind, ADDITIONS["*"])
    return HOLD_CODES.get(additions.get(kind, defaults.get(kind, "at_once")))
