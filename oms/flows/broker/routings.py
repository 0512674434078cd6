"""Order routings of HotWax under a name: imported, read, made into draft policies, and followed beside the joint plan."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from brokering.carried import Drafted, draft
from brokering.policies import sentences
from brokering.problem import Location
from brokering.routings import Asked, Filter, OrderField, OrderSort, PlaceSort, Routing, Routings, Rule, oddities
from connectors.routings import BadRoutings, Condition, read_routings
from connectors.routings import Routing as Given
from connectors.routings import Rule as GivenRule
from oms.db import Connection, Database, Sql
from oms.errors import BadInput, NotFound
from oms.record import Step, keep

sql = Sql("routings")

WHOLE = re.compile(r"-?[0-9]{1,9}", re.ASCII)
KILOMETERS_PER_MILE = 1.609344
SETS_AT_ONCE = 200
Text = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
FIELDS: Mapping[str, OrderField] = {
    "facilityId": "queue", "shipmentMethodTypeId": "method", "priority": "priority", "promiseDaysCutoff": "promise_days",
    "salesChannelEnumId": "channel", "originFacilityGroupId": "origin", "productCategoryId": "category",
}  # fmt: skip
OPERATORS: Mapping[str, Any] = {
    "equals": "in", "in": "in", "not-equals": "not_in", "not-in": "not_in", "less": "less", "less-equals": "less_equals",
    "greater": "greater", "greater-equals": "greater_equals", "is-null": "is_null", "is-not-null": "is_not_null",
}  # fmt: skip
ORDER_SORTS: Mapping[str, OrderSort] = {
    "shipBeforeDate": "ship_before", "shipAfterDate": "ship_after", "orderDate": "placed", "deliveryDays": "delivery_days",
    "priority": "priority",
}  # fmt: skip
PLACE_SORTS: Mapping[str, PlaceSort] = {
    "distance": "distance", "inventoryForAllocation": "stock", "facilitySequence": "sequence",
}  # fmt: skip


class Names(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """HotWax's names as ours: of channels, methods, queues, groups of facilities (our pools), and priorities (whole numbers).

    What is not named is called the same here and there.
    """

    channel: dict[Text, Text] | None = None
    method: dict[Text, Text] | None = None
    queue: dict[Text, Text] | None = None
    group: dict[Text, Text] | None = None
    priority: dict[Text, int] | None = None

    def ours(self, kind: str, values: Iterable[str]) -> tuple[str, ...]:
        """Values of a kind as they are called here."""
        named: Mapping[str, str | int] = getattr(self, kind) or {}
        return tuple(str(named.get(v, v)) for v in values)


class Import(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Routings as HotWax's API gives them (a group or a list of groups), names, and the locations' own sequence by code."""

    routings: Any
    names: Names | None = None
    sequence: Annotated[tuple[Text, ...], Meta(max_length=10_000)] = ()


class Kept(msgspec.Struct, frozen=True):
    """Imported routings."""

    code: str
    given: dict[str, Any]
    made_by: str
    made_at: datetime


class Said(msgspec.Struct, frozen=True):
    """Imported routings as they are told: what was given, how many rules are followed, what is left out or odd."""

    name: str
    routings: int
    rules: int
    hints: list[str]
    given: dict[str, Any]
    made_by: str
    made_at: datetime


class Listed(msgspec.Struct, frozen=True):
    """A name among others."""

    name: str
    made_by: str
    made_at: datetime


class DraftPolicy(msgspec.Struct, frozen=True):
    """A routing as a draft for `PUT /v1/policies`: what it says in sentences, and what of the routing is not in it."""

    code: str
    body: dict[str, Any]
    sentences: list[str]
    left_out: list[str]


class Read(msgspec.Struct, frozen=True):
    """Routings as the engine takes them, and what was left out of them or changed."""

    routings: Routings
    left_out: list[str]


class Place(msgspec.Struct, frozen=True):
    """A location by its code, with the codes of its pools."""

    code: str
    location_id: int
    groups: list[str]


write_routing_set = sql.one("write_routing_set", bool)
routing_set_of = sql.maybe("routing_set_of", Kept)
routing_sets = sql.rows("routing_sets", Kept)
place_codes = sql.rows("place_codes", Place)
asked_by_routings = sql.rows("asked_by_routings", Asked)


async def bring(db: Database, *, code: str, given: Import, who: str) -> Said:
    """Keeps routings under a name, where they can be followed here. Raises BadInput that says where and what to do."""
    async with db.transaction() as tx:
        places = await place_codes(tx)
        understood(given, places)
        is_new = await write_routing_set(tx, code=code, given=msgspec.to_builtins(given), who=who)
        await keep(tx, who=who, steps=[Step("routings", code, "imported" if is_new else "imported again")])
    return await read(db, code=code)


async def read(db: Database, *, code: str) -> Said:
    """Imported routings, with what is left out of them or odd in this network. Raises NotFound."""
    async with db.connection() as tx:
        kept, places = await _kept(tx, code), await place_codes(tx)
    found = understood(msgspec.convert(kept.given, Import), places)
    here = [Location(p.location_id, "", None, None, groups=tuple(p.groups)) for p in places]
    return Said(
        kept.code, len(found.routings.routings), sum(len(r.rules) for r in found.routings.routings),
        [*found.left_out, *oddities(found.routings, here)], kept.given, kept.made_by, kept.made_at,
    )  # fmt: skip


async def listed(db: Database, *, after: str) -> list[Listed]:
    """Names of imported routings that follow a name."""
    async with db.connection() as tx:
        found = await routing_sets(tx, after=after, limit=SETS_AT_ONCE)
    return [Listed(k.code, k.made_by, k.made_at) for k in found]


async def drafted(db: Database, *, code: str) -> list[DraftPolicy]:
    """A draft policy for each routing, with what could not be carried over. Raises NotFound."""
    async with db.connection() as tx:
        kept, places = await _kept(tx, code), await place_codes(tx)
    found = understood(msgspec.convert(kept.given, Import), places)
    return [_told(d, found.left_out if nth == 0 else []) for nth, d in enumerate(draft(found.routings, prefix=code))]


def _told(d: Drafted, left_out: list[str]) -> DraftPolicy:
    body = msgspec.json.decode(msgspec.json.encode(d.body), type=dict[str, Any])
    return DraftPolicy(d.code, body, sentences(d.body), [*left_out, *d.left_out])


async def given_of(tx: Connection, code: str) -> dict[str, Any]:
    """Routings of a name as they were imported. Raises NotFound."""
    return (await _kept(tx, code)).given


async def follow_what(
    tx: Connection, given: dict[str, Any], *, orders: list[str]
) -> tuple[Routings, list[Asked], list[str]]:
    """Routings as the engine takes them, what they ask of these orders, and what was left out of them."""
    found = understood(msgspec.convert(given, Import), await place_codes(tx))
    return found.routings, await asked_by_routings(tx, orders=orders), found.left_out


async def _kept(tx: Connection, code: str) -> Kept:
    found = await routing_set_of(tx, code=code)
    if found is None:
        raise NotFound(f"there are no routings {code!r}; import them with PUT /v1/routings/{code}")
    return found


def understood(given: Import, places: Sequence[Place]) -> Read:
    """Imported routings in our words. Raises BadInput that names routing, rule and field."""
    try:
        groups = read_routings(given.routings)
    except BadRoutings as error:
        raise BadInput(f"routings: {error}") from error
    codes = {p.code: p.location_id for p in places}
    for nth, code in enumerate(given.sequence):
        if code not in codes:
            raise BadInput(f"sequence[{nth}]: there is no location {code!r}")
    left_out: list[str] = []
    names = given.names or Names()
    found = [_routing(r, names, left_out) for g in groups for r in g.routings if _is_active(r, left_out, r.name)]
    if not found:
        raise BadInput(
            "routings: none of them is active; set statusId to ROUTING_ACTIVE of those that are to be followed"
        )
    found = [
        msgspec.structs.replace(r, name=n) for r, n in zip(found, told_apart([r.name for r in found]), strict=True)
    ]
    return Read(Routings(tuple(found), tuple(codes[c] for c in given.sequence)), left_out)


def told_apart(names: list[str]) -> list[str]:
    """Names, those that came before with a number behind."""
    found: list[str] = []
    for name in names:
        nth = 2
        called = name
        while called in found:
            called, nth = f"{name} ({nth})", nth + 1
        found.append(called)
    return found


def _is_active(one: Given | GivenRule, left_out: list[str], name: str) -> bool:
    if one.status != "active":
        left_out.append(f"{name} is {'a draft' if one.status == 'draft' else one.status}: it is not followed")
    return one.status == "active"


def _routing(given: Given, names: Names, left_out: list[str]) -> Routing:
    rules = [
        _rule(r, f"{given.name} › {r.name}", names, left_out)
        for r in given.rules if _is_active(r, left_out, f"{given.name} › {r.name}")
    ]  # fmt: skip
    apart = told_apart([r.name for r in rules])
    return Routing(
        given.name, tuple(msgspec.structs.replace(r, name=n) for r, n in zip(rules, apart, strict=True)),
        tuple(_filter(c, names, f"routing {given.name!r}, {c.field}") for c in given.filters),
        tuple(ORDER_SORTS[s] for s in given.sorts),
    )  # fmt: skip


def _filter(given: Condition, names: Names, where: str) -> Filter:
    field = FIELDS[given.field]
    values = given.values
    if field == "priority":
        for value in values:
            if value not in (names.priority or {}) and not WHOLE.fullmatch(value):
                raise BadInput(
                    f"routings: {where}: {value!r} is no whole number; say what it is here in names.priority (higher goes first)"
                )
        values = names.ours("priority", values)
    elif field in ("channel", "method", "queue"):
        values = names.ours(field, values)
    elif field == "promise_days":
        values = tuple(str(int(v)) for v in values)
    return Filter(field, OPERATORS[given.operator], values)


def _rule(given: GivenRule, name: str, names: Names, left_out: list[str]) -> Rule:
    by = {c.field: c for c in given.filters}
    groups = [c for c in given.filters if c.field == "facilityGroupId"]
    inside = [names.ours("group", c.values) for c in groups if OPERATORS[c.operator] == "in"]
    if len(inside) > 1:
        raise BadInput(f"routings: {name}, facilityGroupId: two filters name groups; give one that names all of them")
    if _says_yes(by, "ignoreFacilityOrderLimit"):
        left_out.append(f"{name} is to go beyond what locations may take: a legal plan never does")
    if _says_yes(by, "splitOrderItemGroup"):
        left_out.append(f"{name} is to split what belongs together: a legal plan never does")
    actions = {a.kind: a.value for a in given.actions}
    days = actions.get("cancel_after_days")
    return Rule(
        given.name, given.is_single, inside[0] if inside else (),
        tuple(g for c in groups if OPERATORS[c.operator] == "not_in" for g in names.ours("group", c.values)),
        _miles(by), _least(by.get("brokeringSafetyStock")), _cents(by.get("shipmentThreshold")),
        _says_yes(by, "brokerIfAllItemsAvailable"), tuple(PLACE_SORTS[s] for s in given.sorts),
        None if actions.get("queue") is None else names.ours("queue", [str(actions["queue"])])[0],
        None if days is None else int(days), "clear_cancel" in actions,
    )  # fmt: skip


def _says_yes(by: Mapping[str, Condition], field: str) -> bool:
    return field in by and by[field].values[0].upper() in ("Y", "TRUE", "1")


def _miles(by: Mapping[str, Condition]) -> float | None:
    """The farthest that a rule goes; kilometers where it says so."""
    far = by.get("distance")
    if far is None:
        return None
    system = by.get("measurementSystem")
    miles = float(far.values[0])
    if system is not None and system.values[0].upper() == "METRIC":
        miles /= KILOMETERS_PER_MILE
    return miles if far.operator == "less-equals" else math.nextafter(miles, -1)


def _least(given: Condition | None) -> int:
    """The fewest units that must be there."""
    return 0 if given is None else int(given.values[0]) + (given.operator == "greater")


def _cents(given: Condition | None) -> int:
    return 0 if given is None else round(float(given.values[0]) * 100) + (given.operator == "greater")
