"""How often a location rejects what it is asked for, learned from what happened, shrunk towards the mean. Pure."""

from collections.abc import Iterable, Mapping

import msgspec

PRIOR_SHARE, PRIOR_UNITS = 0.03, 200.0
"""What is believed of all before anything happened, and for how many units that counts."""
MEAN_UNITS = 50.0
"""A location's own share counts as much as everybody's when it was asked for so many units."""
OWN_UNITS = 10.0
"""A sku's share at a location counts as much as the location's when it was asked for so many of it."""


class Asked(msgspec.Struct, frozen=True):
    """Units of a sku that a location was asked for, and how many of them it rejected."""

    location_id: int
    sku_id: int | None
    asked: int
    rejected: int


def shrunk(rejected: float, asked: float, mean: float, weight: float) -> float:
    """The posterior mean of a share: a beta prior of `weight` units at `mean` (empirical Bayes; Efron & Morris 1975)."""
    return (rejected + weight * mean) / (asked + weight)


class Shares(msgspec.Struct, frozen=True):
    """The share of units that is rejected: of all locations, of each, and of a sku (sku, location) there."""

    mean: float
    places: dict[int, float]
    of_sku: dict[tuple[int, int], float]


def shares(rows: Iterable[Asked]) -> Shares:
    """What locations reject; rows without a sku are a location's totals."""
    rows = list(rows)
    totals = {r.location_id: r for r in rows if r.sku_id is None}
    asked = sum(r.asked for r in totals.values())
    mean = shrunk(sum(r.rejected for r in totals.values()), asked, PRIOR_SHARE, PRIOR_UNITS)
    places = {n: shrunk(r.rejected, r.asked, mean, MEAN_UNITS) for n, r in totals.items()}
    of_sku: Mapping[tuple[int, int], float] = {
        (r.sku_id, r.location_id): shrunk(r.rejected, r.asked, places.get(r.location_id, mean), OWN_UNITS)
        for r in rows
        if r.sku_id is not None
    }
    return Shares(mean, places, dict(of_sku))
