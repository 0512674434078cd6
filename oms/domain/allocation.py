"""What may be written of a plan: lines that fit, and those that their order's split rule binds to them. Pure."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec


class Planned(msgspec.Struct, frozen=True):
    """Units of a line that a run planned from a location, and the line's version that it read.

    `wave` is the local moment at which its wave begins, where the location works in waves.
    """

    line_id: int
    version: int
    location_id: int
    quantity: int
    wave: datetime | None = None


class OrderPlan(msgspec.Struct, frozen=True):
    """What a run planned for an order."""

    order_id: UUID
    plan: list[Planned]


class Fate(msgspec.Struct, frozen=True):
    """Whether a planned line may be written: None, or why not."""

    line_id: int
    refused: str | None


def bind_split(
    split: str,
    plan: Sequence[Planned],
    fates: Sequence[Fate],
    *,
    open_lines: Mapping[int, str],
    there: Collection[int] = (),
    split_max: int | None = None,
) -> list[Planned]:
    """What stays of an order's plan when some of it does not fit.

    `open_lines` names every open line of the order (line id → the shop's line; a kit's parts share one). Parts of a
    line stay together; an order that goes complete or not at all, or keeps its lines together, falls as a whole.
    `there` are the locations that have work of this order already: they count for its rule, `split_max` is its most.
    """
    refused = {f.line_id for f in fates if f.refused is not None}
    planned = {p.line_id for p in plan}
    if refused and split in ("complete", "keep_together"):
        return []
    if split == "complete" and open_lines.keys() - planned:
        return []
    places = {p.location_id for p in plan} | set(there)
    if there and len(places) > {"single": 1, "keep_together": 1, "max_packages": split_max or 1}.get(
        split, len(places)
    ):
        return []
    lines_refused = {open_lines[n] for n in refused if n in open_lines}
    return [p for p in plan if p.line_id not in refused and open_lines.get(p.line_id) not in lines_refused]
