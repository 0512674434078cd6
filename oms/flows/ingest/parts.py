"""A staged feed is divided by location: parts that are owned, weighed against what is in force, and parked by gates."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from connectors.feeds import RowRefused
from oms import record
from oms.db import Connection, Sql
from oms.domain.gates import Gates, Verdict, Weight, judge

sql = Sql("ingest")

LOCATIONS_TOLD_MAX = 20
"""Locations that a sentence names; of more it says how many."""


class Sender(Protocol):
    """What dividing must know of a feed's source."""

    @property
    def source_id(self) -> int: ...
    @property
    def code(self) -> str: ...
    @property
    def absent_is_zero(self) -> bool: ...
    @property
    def gates(self) -> dict[str, Any]: ...


class NotOwned(msgspec.Struct, frozen=True):
    """A location whose quantities another source owns."""

    code: str
    owner: str
    location_id: int


class UnknownRows(msgspec.Struct, frozen=True):
    """Rows of unknown skus at a location."""

    location_id: int
    rows: int


class Divided(msgspec.Struct, frozen=True):
    """What became of a feed's locations, and how many keys are absent in all."""

    parked: list[str]
    not_owned: list[str]
    keeps_absent: list[str]
    absent: int


make_parts = sql.run("make_parts")
not_owned = sql.rows("not_owned", NotOwned)
leave_locations = sql.run("leave_locations")
keep_absent = sql.rows("keep_absent", str)
add_absent = sql.run("add_absent")
weigh = sql.rows("weigh", Weight)
unknown_by_location = sql.rows("unknown_by_location", UnknownRows)
decide_parts = sql.run("decide_parts")
feed_parts = sql.rows("feed_parts", tuple)
drop_incoming = sql.run("drop_incoming")
take_incoming = sql.run("take_incoming")
keep_bins = sql.run("keep_bins")
drop_old_bins = sql.run("drop_old_bins")


async def divide(
    tx: Connection,
    *,
    source: Sender,
    feed_id: int,
    refused: int,
    unread: int,
    faults: Sequence[RowRefused],
    dry_run: bool,
) -> Divided:
    """Makes the parts of a feed and weighs them; `unread` rows could not be read, the first of them are `faults`.

    A dry run opens no exceptions.
    """
    troubles: list[record.Trouble] = []
    foreign = await not_owned(tx, feed_id=feed_id, source_id=source.source_id)
    if foreign:
        await leave_locations(tx, feed_id=feed_id, locations=[f.location_id for f in foreign])
        troubles += [_foreign(source, feed_id, f) for f in foreign]
    await make_parts(tx, feed_id=feed_id)
    unsure: list[str] = []
    if source.absent_is_zero and unread:
        unsure = await _keep_absent(tx, source=source, feed_id=feed_id, unread=unread, faults=faults)
    if unsure:
        troubles.append(_unsure(source, feed_id, unread, faults, unsure))
    await add_absent(tx, feed_id=feed_id, absent_is_zero=source.absent_is_zero)
    weighed = await _gate(tx, source=source, feed_id=feed_id, refused=refused)
    troubles += [_parked(source, feed_id, w, v) for w, v in weighed if v]
    if not dry_run:
        if not unsure:
            await record.settle_exceptions(
                tx, who=source.code, resolution=f"feed {feed_id} could be read", of=[("rows_unread", source.code)]
            )
        await record.raise_exceptions(tx, troubles)
    return Divided(
        parked=[w.code for w, v in weighed if v], not_owned=[f.code for f in foreign], keeps_absent=unsure,
        absent=sum(w.absent for w, _ in weighed),
    )  # fmt: skip


async def _keep_absent(
    tx: Connection, *, source: Sender, feed_id: int, unread: int, faults: Sequence[RowRefused]
) -> list[str]:
    """Where a row may have named any key, no absent one is zero: at its location, or everywhere if that is unread too."""
    nameless = [f for f in faults if f.sku is None or f.location is None]
    everywhere = len(faults) < unread or any(f.location is None for f in nameless)
    if not nameless and not everywhere:
        return []
    codes = await keep_absent(
        tx, feed_id=feed_id, source_id=source.source_id, everywhere=everywhere,
        locations=sorted({f.location for f in nameless if f.location is not None}),
    )  # fmt: skip
    return sorted(codes)


async def _gate(
    tx: Connection, *, source: Sender, feed_id: int, refused: int
) -> list[tuple[Weight, list[Verdict]]]:  # fmt: skip
    """Parks the parts that a gate closes; gives what each weighed, and the gates that closed."""
    unknown: list[UnknownRows] = []
    if refused:
        unknown = await unknown_by_location(tx, feed_id=feed_id, source_id=source.source_id)
    weights = await weigh(
        tx, feed_id=feed_id, unknown_locations=[u.location_id for u in unknown], unknown_rows=[u.rows for u in unknown]
    )
    gates = msgspec.convert(source.gates, Gates)
    verdicts = [(w, judge(w, gates)) for w in weights]
    await decide_parts(
        tx, baselines=[w.baseline_id for w, _ in verdicts], states=["parked" if v else "staged" for _, v in verdicts],
        numbers=[{**msgspec.to_builtins(w), "closed": msgspec.to_builtins(v)} for w, v in verdicts],
    )  # fmt: skip
    return verdicts


async def keep_beside(
    tx: Connection, *, feed_id: int, source_id: int, as_of: datetime, has_incoming: bool, has_bins: bool
) -> None:
    """What the staged parts of a feed say beside quantities: what is expected, and bins and lots for looking."""
    await drop_incoming(tx, feed_id=feed_id, source_id=source_id)
    if has_incoming:
        await take_incoming(tx, feed_id=feed_id, source_id=source_id, as_of=as_of)
    if has_bins:
        await keep_bins(tx, feed_id=feed_id, source_id=source_id)
        await drop_old_bins(tx, feed_id=feed_id)


def _parked(source: Sender, feed_id: int, weight: Weight, verdicts: Sequence[Verdict]) -> record.Trouble:
    return record.Trouble(
        kind="feed_parked", subject=str(weight.baseline_id), owner="approver", due_hours=4,
        detail=f"Feed {feed_id} of {source.code}: its part for {weight.code} is parked ("
        + "; ".join(v.sentence() for v in verdicts)
        + "). The old stock plus movements stays in force. Two approvers may release it, or it is sent again.",
        payload={"feed": feed_id, "location": weight.code, "numbers": msgspec.to_builtins(weight)},
    )  # fmt: skip


def _foreign(source: Sender, feed_id: int, foreign: NotOwned) -> record.Trouble:
    owner = f"owned by {foreign.owner}" if foreign.owner else "owned by no source"
    return record.Trouble(
        kind="not_owner", subject=f"{source.code}:{foreign.code}",
        detail=f"Feed {feed_id} of {source.code} speaks of quantities at {foreign.code}, which are {owner}. "
        "That part was not applied; change the ownership or the feed.",
        payload={"feed": feed_id, "location": foreign.code},
    )  # fmt: skip


def _unsure(
    source: Sender, feed_id: int, unread: int, faults: Sequence[RowRefused], locations: Sequence[str]
) -> record.Trouble:
    first = next((f for f in faults if f.sku is None or f.location is None), faults[0])
    where = ", ".join(locations) if len(locations) <= LOCATIONS_TOLD_MAX else f"{len(locations)} locations"
    return record.Trouble(
        kind="rows_unread", subject=source.code,
        detail=f"Feed {feed_id} of {source.code} has {unread} rows that cannot be read (line {first.line}, "
        f"{first.field}: {first.reason}). They may name any key, so what the feed leaves out was not taken as zero at "
        f"{where}. Correct the rows and send it again.",
        payload={"feed": feed_id, "line": first.line, "locations": list(locations)},
    )  # fmt: skip
