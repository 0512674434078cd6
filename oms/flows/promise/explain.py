"""Why a number is what it is: the waterfall from on hand to ATP, which always adds up to the number that ATP gives."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from oms import named
from oms.cache import Projection
from oms.db import Connection, Database, Sql
from oms.domain import atp as law
from oms.domain.atp import Layout
from oms.domain.shape import Shaped
from oms.errors import BadInput, NotFound
from oms.flows.promise.evidence import Evidence, Sees, evidence
from oms.flows.promise.past import Moment, Piece, StockHere, as_it_is, as_it_was

sql = Sql("promise")


class LocationStep(msgspec.Struct, frozen=True):
    """From on hand to available at a location of the channel's pool."""

    location: str
    on_hand: int
    held: int
    allocated: int
    safety_stock: int
    is_on: bool
    available: int


class PoolStep(msgspec.Struct, frozen=True):
    """A pool: what is reserved in it, what its locations have, and whether it is among those that bind the number."""

    pool: str
    reserved: int
    supply: int
    binds: bool


class Waterfall(msgspec.Struct, frozen=True):
    """One step: units that it adds or takes. The steps of a sku add up to its ATP."""

    step: str
    units: int
    pool: str | None = None
    rule: str | None = None


class KitsHere(msgspec.Struct, frozen=True):
    """Kits that could ship together from a location: what its scarcest part allows there."""

    location: str
    kits: int


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """A number with its reasons, at a moment. A kit has `parts`, and its number is what the scarcest of them allows.

    `near_exact` names the lists that a past moment cannot be told exactly of; steps and the number are exact.
    """

    channel: str
    sku: str
    at: datetime
    atp: int
    version: int | None
    per_kit: int | None = None
    steps: list[Waterfall] = []
    locations: list[LocationStep] = []
    pools: list[PoolStep] = []
    evidence: Evidence | None = None
    near_exact: list[str] = []
    parts: "list[Explained]" = []
    together: list[KitsHere] = []


class _Pool(msgspec.Struct, frozen=True):
    pool_id: int
    code: str


pool_codes = sql.rows("pool_codes", _Pool)
code_of = sql.one("code_of", str)

EVERYTHING = Sees()
NEAR_EXACT = ["evidence.holds", "evidence.allocated"]
"""Of the past: holds are as their sources' clocks say, work that changed since is shown as it was given out."""


async def explain(
    db: Database, *, channel_id: int, sku: str, now: datetime, at: datetime | None = None, sees: Sees = EVERYTHING
) -> Explained:
    """The waterfall of a sku for a channel, all read at one moment: now, or as of `at`.

    Raises NotFound where nobody knows the sku, BadInput for a moment that is yet to come.
    """
    if at is not None and at > now:
        raise BadInput(f"at: {at.isoformat()} is yet to come; give a past moment, or none for now")
    async with db.connection() as tx, tx.transaction(isolation="repeatable_read", readonly=True):
        names = await named.skus_of(tx, {(channel_id, sku)})
        if not names:
            raise NotFound(f"no sku has the code {sku!r}")
        name = names[channel_id, sku]
        if at is None:
            moment = await as_it_is(tx, channel_id=channel_id, name=name, now=now)
        else:
            code = await code_of(tx, sku_id=name.sku_id)
            moment = await as_it_was(tx, channel_id=channel_id, name=name, code=code, at=at)
        told = [await _one(tx, moment, part, now=at or now, at=at, sees=sees) for part in moment.parts]
    if not moment.is_kit:
        return told[0]
    told = [msgspec.structs.replace(t, per_kit=p.quantity) for t, p in zip(told, moment.parts, strict=True)]
    shelf = moment.shelf
    code = shelf.codes[name.sku_id]
    return Explained(
        channel=moment.rule.code, sku=code, at=at or now, atp=shelf.number(code, moment.rule, now=at or now),
        version=None if at else shelf.version(code), near_exact=NEAR_EXACT if at else [], together=together(told), parts=told,
    )  # fmt: skip


async def _one(
    tx: Connection, moment: Moment, part: Piece, *, now: datetime, at: datetime | None, sees: Sees
) -> Explained:
    rule, shelf = moment.rule, moment.shelf
    code = shelf.codes[part.sku_id]
    row = shelf.rows[code]
    layout = shelf.layouts[row.layout_id]
    found = shelf.shaped(code, rule, now=now)
    if rule.pool_id not in layout.pools:
        return Explained(channel=rule.code, sku=code, at=now, atp=found.number, version=None if at else row.version)
    codes = {p.pool_id: p.code for p in await pool_codes(tx, pools=list(layout.pools))}
    bit = 1 << layout.pools.index(rule.pool_id)
    here = [place for place in moment.here[part.sku_id] if layout.segments[place.segment] & bit]
    binding, steps = waterfall(layout, row, found, here, codes, bit)
    return Explained(
        channel=rule.code, sku=code, at=now, atp=found.number, version=None if at else row.version, steps=steps,
        locations=[
            LocationStep(p.code, p.on_hand, p.held, p.allocated, p.safety_stock, p.is_on, p.available) for p in here
        ],
        pools=[
            PoolStep(codes[pool], row.reserved[j], supply_of(layout, row.supply, 1 << j), j in binding)
            for j, pool in enumerate(layout.pools)
        ],
        evidence=await evidence(tx, moment, sku_id=part.sku_id, here=here, sees=sees, now=now, at=at),
        near_exact=NEAR_EXACT if at else [],
    )  # fmt: skip


def waterfall(
    layout: Layout, row: Projection, found: Shaped, here: Sequence[StockHere], codes: Mapping[int, str], bit: int
) -> tuple[list[int], list[Waterfall]]:
    """The pools that bind, by position, and the steps that add up to the number."""
    within, binding = binding_pools(layout, found.supply, found.reserved, within=bit)
    steps = [
        Waterfall("on_hand", sum(p.on_hand for p in here)),
        Waterfall("held", -sum(p.held for p in here)),
        Waterfall("allocated", -sum(p.allocated for p in here)),
        Waterfall("safety_stock", -sum(p.safety_stock for p in here)),
    ]
    supply = supply_of(layout, row.supply, bit)
    steps.append(Waterfall("locations_off_or_below_zero", supply - sum(s.units for s in steps)))
    ahead = supply_of(layout, found.supply, bit)
    steps.append(Waterfall("incoming", ahead - supply))
    steps.append(Waterfall("shared_pools", supply_of(layout, found.supply, within) - ahead))
    for j in binding:
        pool = codes[layout.pools[j]]
        steps.append(Waterfall("reserved", -row.reserved[j], pool))
        steps.append(Waterfall("protected", row.reserved[j] - found.reserved[j], pool))
    steps.append(Waterfall("promises_already_broken", law.deficit(layout, found.supply, found.reserved)))
    steps.append(Waterfall("pool_never_below_zero", found.pool - sum(s.units for s in steps)))
    steps += [Waterfall(a.step, a.units, rule=a.rule) for a in found.steps if a.step != "protect"]
    steps.append(Waterfall("never_below_zero", found.number - sum(s.units for s in steps)))
    return binding, [s for s in steps if s.units]


def together(parts: Sequence[Explained]) -> list[KitsHere]:
    """Kits per location where all their parts lie, by code; locations that have none are left out."""
    kits: dict[str, list[int]] = {}
    for part in parts:
        for place in part.locations:
            kits.setdefault(place.location, []).append(place.available // (part.per_kit or 1))
    return [
        KitsHere(code, min(units)) for code, units in sorted(kits.items()) if len(units) == len(parts) and min(units)
    ]


def supply_of(layout: Layout, supply: Sequence[int], pools: int) -> int:
    """What all locations of these pools (a bit mask) have."""
    return sum(units for units, mask in zip(supply, layout.segments, strict=True) if mask & pools)


def binding_pools(
    layout: Layout, supply: Sequence[int], reserved: Sequence[int], *, within: int
) -> tuple[int, list[int]]:
    """The pools J at which m(S) is reached, S being what `within` draws on; also the mask of S and J together.

    A pool is in such a J when taking its locations in and its reserved units off leaves the margin as it was.
    """
    left = list(reserved)
    whole = law.margin(layout, supply, left, within=within)
    binding = []
    for j, units in enumerate(reserved):
        if not units:
            continue
        without = [*left[:j], 0, *left[j + 1 :]]
        margin = law.margin(layout, supply, without, within=within | 1 << j) - units
        if margin == whole:
            binding.append(j)
            within, left, whole = within | 1 << j, without, margin + units
    return within, binding
