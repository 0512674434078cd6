"""What a count says: its variance, whether another person counts again, whether two must agree. Pure."""

from typing import Literal

VALUE_CENTS_DEFAULT = 1000
"""What a unit is taken to be worth where nobody said."""


def variance_of(*, counted: int, in_hands: int, moved_after: int, on_hand: int) -> int:
    """What no known movement explains: units on the shelf and in hands then, moved by what came since, less ours."""
    return counted + in_hands + moved_after - on_hand


def after_count(state: str, *, variance: int, recount_units_min: int) -> Literal["recount", "apply"]:
    """A first count that is far off is counted again by another person; a recount stands."""
    return "recount" if state == "due" and abs(variance) >= recount_units_min else "apply"


def needs_two(*, lost_today_cents: int, cents: int, limit_cents: int) -> bool:
    """Whether a loss needs a second person: with what the same person lost there on that day, above the limit."""
    return cents > 0 and lost_today_cents + cents > limit_cents
