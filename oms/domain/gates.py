"""Whether a part of a baseline may be believed: each gate is a limit of its source, per location. Pure."""

import msgspec


class Gates(msgspec.Struct, frozen=True):
    """Limits of a source's snapshots, as shares from 0 to 1; None is no limit.

    keys_present_min_share: of the keys with stock before, how many the snapshot must name.
    units_change_max_share: how far the location's total may move, either way, against what it was.
    to_zero_max_share: of the keys with stock before, how many may become zero.
    unknown_skus_max_share: of the location's rows, how many may name skus that nobody knows.
    keys_min: locations with fewer keys with stock before (or, of unknown skus, with fewer rows) are not judged by
    shares of them.
    """

    keys_present_min_share: float | None = 0.8
    units_change_max_share: float | None = 0.5
    to_zero_max_share: float | None = 0.2
    unknown_skus_max_share: float | None = 0.1
    keys_min: int = 20


class Weight(msgspec.Struct, frozen=True):
    """What a part says against what is in force at its location."""

    baseline_id: int
    code: str
    is_first: bool
    keys_before: int
    units_before: int
    keys: int
    units: int
    present: int
    to_zero: int
    absent: int
    unknown_skus: int


class Verdict(msgspec.Struct, frozen=True):
    """A gate that closed: which, what it measured, and its limit."""

    gate: str
    measured: float
    limit: float

    def sentence(self) -> str:
        """For people."""
        return f"{self.gate.replace('_', ' ')} is {self.measured:.2f}, its limit {self.limit:.2f}"


def judge(weight: Weight, gates: Gates) -> list[Verdict]:
    """The gates that this part does not pass; empty when it may be applied."""
    closed: list[Verdict] = []
    rows = weight.keys + weight.unknown_skus
    if gates.unknown_skus_max_share is not None and rows >= max(1, gates.keys_min):
        share = weight.unknown_skus / rows
        if share > gates.unknown_skus_max_share:
            closed.append(Verdict("unknown_skus_max_share", share, gates.unknown_skus_max_share))
    if weight.is_first or weight.keys_before < gates.keys_min:
        return closed
    present = weight.present / weight.keys_before
    if gates.keys_present_min_share is not None and present < gates.keys_present_min_share:
        closed.append(Verdict("keys_present_min_share", present, gates.keys_present_min_share))
    change = abs(weight.units - weight.units_before) / max(1, weight.units_before)
    if gates.units_change_max_share is not None and change > gates.units_change_max_share:
        closed.append(Verdict("units_change_max_share", change, gates.units_change_max_share))
    to_zero = weight.to_zero / weight.keys_before
    if gates.to_zero_max_share is not None and to_zero > gates.to_zero_max_share:
        closed.append(Verdict("to_zero_max_share", to_zero, gates.to_zero_max_share))
    return closed
