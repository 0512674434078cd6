"""Where what comes back goes: the first rule by rank that fits its reason, condition and distance. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

CONDITIONS = ("new", "opened", "used", "damaged", "wrong_item")


class ReturnRule(msgspec.Struct, frozen=True):
    """What becomes of units of a reason and condition that came back somewhere; None fits all."""

    code: str
    rank: int
    reason: str | None
    condition: str | None
    location_id: int | None
    outcome: str
    hold_code: str | None
    to_id: int | None
    km_max: float | None
    refunds: bool


KEEP = ReturnRule("none fits", 0, None, None, None, "hold", "returns", None, None, True)
"""Where no rule fits, a person decides: the units wait."""


def rule_for(
    rules: Sequence[ReturnRule], *, reason: str, condition: str, location_id: int, km: Mapping[int, float | None]
) -> ReturnRule:
    """The rule for units that came back at a location; `km` is the distance to each location that rules name.

    A distance that nobody knows is no short one: a rule with a limit does not fit then. Nothing is sent to where it is.
    """
    for rule in sorted(rules, key=lambda r: (r.rank, r.code)):
        if rule.reason not in (None, reason) or rule.condition not in (None, condition):
            continue
        if rule.location_id not in (None, location_id) or rule.to_id == location_id:
            continue
        if rule.to_id is not None and rule.km_max is not None:
            far = km.get(rule.to_id)
            if far is None or far > rule.km_max:
                continue
        return rule
    return KEEP
