"""The network as its callers write it: one struct per kind of object, and how pools make segments.

A column that is not given (UNSET) keeps what is there, or the default of a new object.
"""

from datetime import date, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

INT_MAX = 2_147_483_647

Code = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f]([^\x00-\x1f]*[^\s\x00-\x1f])?$")]
Text = Annotated[str, Meta(max_length=2000, pattern=r"^[^\x00]*$")]
Count = Annotated[int, Meta(ge=0, le=INT_MAX)]
Cents = Annotated[int, Meta(ge=0, le=2**53)]
Time = Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
Some = Annotated[int, Meta(ge=1, le=INT_MAX)]
Fact = Literal[
    "quantity", "sale", "return", "receipt", "shipment", "transfer", "adjustment", "count", "hold", "cost", "attributes"
]
MASK = "•••"
"""Stands for a secret in what is shown; written back, it keeps the secret that is there."""


class Row(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a caller gives of one object; UNSET is not given."""


class Wave(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """Local hours in which packages are worked, and what they may take of the day's capacity; null is unlimited."""

    from_: Time
    until: Time
    capacity_orders: Count | None = None
    capacity_items: Count | None = None
    capacity_cents: Cents | None = None


class Location(Row, frozen=True, kw_only=True):
    """A place that holds stock; capacities are per local day, null is unlimited.

    `waves` are the whole of its day, in order: work goes into one of them, or waits. `division` is whose business it is, `owner` whose stock lies there where that is not its division's.
    """

    code: Code
    name: Text | UnsetType = UNSET
    kind: Literal["store", "warehouse", "third_party", "vendor"] | UnsetType = UNSET
    lat: Annotated[float, Meta(ge=-90, le=90)] | UnsetType | None = UNSET
    lon: Annotated[float, Meta(ge=-180, le=180)] | UnsetType | None = UNSET
    country: Annotated[str, Meta(pattern="^[A-Z]{2}$")] | UnsetType = UNSET
    postal_code: Code | UnsetType | None = UNSET
    time_zone: Text | UnsetType = UNSET
    capacity_orders: Count | UnsetType | None = UNSET
    capacity_items: Count | UnsetType | None = UNSET
    capacity_cents: Cents | UnsetType | None = UNSET
    waves: Annotated[list[Wave], Meta(max_length=48)] | UnsetType = UNSET
    safety_stock: Annotated[int, Meta(ge=0, le=1_000_000)] | UnsetType = UNSET
    work_days: Annotated[str, Meta(pattern="^[01]{7}$")] | UnsetType = UNSET
    cut_off: Time | UnsetType | None = UNSET
    handling_days: Annotated[int, Meta(ge=0, le=60)] | UnsetType = UNSET
    pickup_minutes: Annotated[int, Meta(ge=0, le=10_080)] | UnsetType = UNSET
    package_cents: Annotated[int, Meta(ge=0, le=1_000_000)] | UnsetType | None = UNSET
    line_cents: Annotated[int, Meta(ge=0, le=1_000_000)] | UnsetType | None = UNSET
    holidays: list[date] | UnsetType = UNSET
    division: Code | UnsetType | None = UNSET
    owner: Code | UnsetType | None = UNSET
    on: bool | UnsetType = UNSET


class Pool(Row, frozen=True, kw_only=True):
    """A named set of locations; `locations` is the whole set."""

    code: Code
    name: Text | UnsetType = UNSET
    locations: list[Code] | UnsetType = UNSET


class Channel(Row, frozen=True, kw_only=True):
    """Where demand comes from; it sells from one pool. `brokering` says when, by method or `*`: minutes, or a word."""

    code: Code
    name: Text | UnsetType = UNSET
    pool: Code | UnsetType = UNSET
    kind: Literal["webhook", "file", "none"] | UnsetType = UNSET
    mode: Literal["delta", "reset"] | UnsetType = UNSET
    buffer: Count | UnsetType = UNSET
    cap: Count | UnsetType | None = UNSET
    reset_minutes: Annotated[int, Meta(ge=1, le=100_000)] | UnsetType = UNSET
    brokering: dict[Code, Literal["at_once", "nightly"] | Annotated[int, Meta(ge=1, le=1440)]] | UnsetType = UNSET
    settings: dict[str, Any] | UnsetType = UNSET
    division: Code | UnsetType | None = UNSET
    on: bool | UnsetType = UNSET


class Owns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Facts that a source owns at a location, or at several."""

    facts: list[Fact]
    location: Code | None = None
    locations: list[Code] = []


class StatusMeans(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a source's status, bin type or task type is."""

    field: Literal["status", "bin", "task"]
    value: Text
    means: Literal["on_hand", "hold", "incoming", "ignored"]
    hold_code: Code | None = None


class Source(Row, frozen=True, kw_only=True):
    """A system that tells about stock; `owns` and `status_map` are whole tables."""

    code: Code
    name: Text | UnsetType = UNSET
    kind: Literal["erp", "sim", "wms", "pos", "third_party", "shop"] | UnsetType = UNSET
    quantity_kind: Literal["physical", "available"] | UnsetType = UNSET
    order_level: Literal["sequence", "clock", "window"] | UnsetType = UNSET
    window_seconds: Annotated[int, Meta(ge=0, le=604_800)] | UnsetType = UNSET
    deducts_at: Literal["accept", "pick", "ship", "invoice"] | UnsetType = UNSET
    acknowledges: bool | UnsetType = UNSET
    absent_is_zero: bool | UnsetType = UNSET
    sums_rows: bool | UnsetType = UNSET
    deducted_holds: list[Code] | UnsetType = UNSET
    additions: dict[str, Literal["at_once", "baseline", "approver", "inspection", "put_away"]] | UnsetType = UNSET
    gates: dict[str, Any] | UnsetType = UNSET
    folder: Text | UnsetType | None = UNSET
    posts: dict[str, Any] | UnsetType = UNSET
    morning_at: Time | UnsetType | None = UNSET
    time_zone: Text | UnsetType = UNSET
    tolerance_days: Annotated[int, Meta(ge=0, le=365)] | UnsetType = UNSET
    stale_after_seconds: Some | UnsetType = UNSET
    owns: list[Owns] | UnsetType = UNSET
    status_map: list[StatusMeans] | UnsetType = UNSET


class Sku(Row, frozen=True, kw_only=True):
    """A sellable item; `barcodes` and `substitutes` (skus that may be sent instead, the best first) are whole lists."""

    code: Code
    name: Text | UnsetType = UNSET
    price_cents: Count | UnsetType | None = UNSET
    value_cents: Count | UnsetType | None = UNSET
    weight_grams: Count | UnsetType | None = UNSET
    category: Code | UnsetType | None = UNSET
    barcodes: list[Code] | UnsetType = UNSET
    substitutes: Annotated[list[Code], Meta(max_length=20)] | UnsetType = UNSET


class Component(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So many of a sku are in one kit."""

    component: Code
    quantity: Some


class Kit(Row, frozen=True, kw_only=True):
    """A sku that is made of others; `components` is the whole list."""

    kit: Code
    components: Annotated[list[Component], Meta(min_length=1, max_length=1000)]


class Unit(Row, frozen=True, kw_only=True):
    """A unit of measure of a sku, in how many each."""

    sku: Code
    uom: Code
    quantity: Some


class SkuAlias(Row, frozen=True, kw_only=True):
    """A sku's code as a source says it."""

    source: Code
    code: Code
    sku: Code


class LocationAlias(Row, frozen=True, kw_only=True):
    """A location's code as a source says it."""

    source: Code
    code: Code
    location: Code


class Incoming(Row, frozen=True, kw_only=True):
    """An expected receipt; 0 ends it."""

    source: Code
    reference: Code
    sku: Code
    location: Code
    kind: Literal["purchase", "transfer", "production"] | UnsetType = UNSET
    quantity: Count
    due_on: date


class Rule(Row, frozen=True, kw_only=True):
    """A rule that shapes what channels may sell; no channel or sku is all of them.

    buffer: units or percent kept back from a channel. cap: units, or percent of its pool, that a channel may take since
    the last baseline; or a share by demand, margin or rank, which is computed. limit: at most so many units, whatever
    there is. preorder: sold ahead of receipts within days. protect: units kept for a channel from those of a lower
    class (priority). pool: the channel sells from another pool meanwhile (without vendors, with another's stores).
    infinite: sold whatever there is, as so many units, until an end. safety: units kept back of a sku at a location.
    hold: units under a hold code may be sold.
    """

    code: Code
    kind: Literal["buffer", "cap", "limit", "preorder", "protect", "pool", "infinite", "safety", "hold"] | UnsetType = (
        UNSET
    )
    channel: Code | UnsetType | None = UNSET
    sku: Code | UnsetType | None = UNSET
    location: Code | UnsetType | None = UNSET
    pool: Code | UnsetType | None = UNSET
    hold_code: Code | UnsetType | None = UNSET
    units: Annotated[int, Meta(ge=0, le=1_000_000_000)] | UnsetType | None = UNSET
    percent: Annotated[float, Meta(ge=0, le=100)] | UnsetType | None = UNSET
    share_by: Literal["demand", "margin", "rank"] | UnsetType | None = UNSET
    days: Annotated[int, Meta(ge=0, le=3650)] | UnsetType | None = UNSET
    priority: Annotated[int, Meta(ge=-1000, le=1000)] | UnsetType = UNSET
    from_at: Annotated[datetime, Meta(tz=True)] | UnsetType | None = UNSET
    until_at: Annotated[datetime, Meta(tz=True)] | UnsetType | None = UNSET
    on: bool | UnsetType = UNSET


class Transit(Row, frozen=True, kw_only=True):
    """How many days a method takes over up to so many miles."""

    code: Code
    method: Code | UnsetType = UNSET
    miles: Annotated[float, Meta(gt=0, le=100_000)] | UnsetType = UNSET
    days: Annotated[int, Meta(ge=0, le=365)] | UnsetType = UNSET
    weekends: bool | UnsetType = UNSET


class Policy(Row, frozen=True, kw_only=True):
    """A policy of brokering."""

    code: Code
    body: dict[str, Any]


class Party(Row, frozen=True, kw_only=True):
    """Who owns stock or sells: a division of ours, a consignor, a vendor.

    `takes_back`: units of theirs that come back stay theirs, wherever that is; else who took them back has bought them.
    """

    code: Code
    name: Text | UnsetType = UNSET
    kind: Literal["division", "consignor", "vendor"] | UnsetType = UNSET
    takes_back: bool | UnsetType = UNSET


class StockOwner(Row, frozen=True, kw_only=True):
    """Whose stock a sku's is, at a location, or `*`: wherever no location says; no owner ends it."""

    sku: Code
    location: Code
    owner: Code | UnsetType | None = UNSET


class TransferPrice(Row, frozen=True, kw_only=True):
    """What a buyer (`*`: whoever) owes an owner for a unit: `cents`, or a percent of the order line's price or of cost.

    Of a sku, a category or, where neither is said, every sku; from a day on, until a day on which it is no longer.
    """

    code: Code
    owner: Code | UnsetType = UNSET
    buyer: Code | UnsetType = UNSET
    sku: Code | UnsetType | None = UNSET
    category: Code | UnsetType | None = UNSET
    cents: Annotated[int, Meta(ge=0, le=10**12)] | UnsetType | None = UNSET
    percent: Annotated[float, Meta(ge=0, le=1000)] | UnsetType | None = UNSET
    percent_of: Literal["price", "cost"] | UnsetType | None = UNSET
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] | UnsetType = UNSET
    from_on: date | UnsetType | None = UNSET
    until_on: date | UnsetType | None = UNSET


class Listener(Row, frozen=True, kw_only=True):
    """Who is told of exceptions, by webhooks signed with the first of its secrets."""

    url: Annotated[str, Meta(pattern=r"^https?://[^\s\x00]+$", max_length=2000)]
    secrets: Annotated[list[Code], Meta(min_length=1, max_length=2)] | UnsetType = UNSET
    on: bool | UnsetType = UNSET


class Kind(msgspec.Struct, frozen=True):
    """A kind of object: how its rows are read, what names it, what a new one must have and what it is by default."""

    name: str
    one: str
    row: type[Row]
    key: tuple[str, ...] = ("code",)
    needs: tuple[str, ...] = ()
    defaults: dict[str, Any] = {}
    refers: dict[str, str] = {}
    grouped: tuple[str, str] | None = None


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("parties", "party", Party, defaults={"name": "", "kind": "division", "takes_back": False}),
        Kind("locations", "location", Location, needs=("kind",), refers={"division": "division", "owner": "party"}, defaults={
            "name": "", "lat": None, "lon": None, "country": "US", "postal_code": None, "time_zone": "UTC",
            "capacity_orders": None, "capacity_items": None, "capacity_cents": None, "waves": [], "safety_stock": 0,
            "work_days": "1111111", "cut_off": None, "handling_days": 0, "pickup_minutes": 60, "package_cents": None,
            "line_cents": None, "holidays": [], "division": None, "owner": None, "on": True}),
        Kind("pools", "pool", Pool, defaults={"name": "", "locations": []}, grouped=("locations", "location")),
        Kind("channels", "channel", Channel, needs=("pool",), refers={"pool": "pool", "division": "division"}, defaults={
            "name": "", "kind": "none", "mode": "reset", "buffer": 0, "cap": None, "reset_minutes": 60,
            "brokering": {}, "settings": {}, "division": None, "on": True}),
        Kind("sources", "source", Source, needs=("kind",), defaults={
            "name": "", "quantity_kind": "physical", "order_level": "window", "window_seconds": 900,
            "deducts_at": "ship", "acknowledges": True, "absent_is_zero": False, "sums_rows": False,
            "deducted_holds": [], "additions": {}, "gates": {}, "folder": None, "posts": {}, "morning_at": None,
            "time_zone": "UTC", "tolerance_days": 1, "stale_after_seconds": 129600, "owns": [], "status_map": []}),
        Kind("skus", "sku", Sku, defaults={
            "name": "", "price_cents": None, "value_cents": None, "weight_grams": None, "category": None,
            "barcodes": [], "substitutes": []},
            grouped=("barcodes", "barcode")),
        Kind("kits", "kit", Kit, key=("kit",), refers={"kit": "sku"}, grouped=("components", "component")),
        Kind("units", "unit", Unit, key=("sku", "uom"), refers={"sku": "sku"}),
        Kind("sku_aliases", "sku_alias", SkuAlias, key=("source", "code"), refers={"source": "source", "sku": "sku"}),
        Kind("location_aliases", "location_alias", LocationAlias, key=("source", "code"),
             refers={"source": "source", "location": "location"}),
        Kind("incoming", "incoming", Incoming, key=("source", "reference", "sku", "location"),
             refers={"source": "source", "sku": "sku", "location": "location"}, defaults={"kind": "purchase"}),
        Kind("rules", "rule", Rule, needs=("kind",), refers={
                 "channel": "channel", "sku": "sku", "location": "location", "pool": "pool"},
             defaults={"channel": None, "sku": None, "location": None, "pool": None, "hold_code": None, "units": None, "percent": None, "share_by": None, "days": None, "priority": 0, "from_at": None,
                       "until_at": None, "on": True}),
        Kind("transits", "transit", Transit, needs=("method", "miles", "days"), defaults={"weekends": True}),
        Kind("policies", "policy", Policy),
        Kind("stock_owners", "stock_owner", StockOwner, key=("sku", "location"), needs=("owner",),
             refers={"sku": "sku", "location": "location", "owner": "party"}, defaults={"owner": None}),
        Kind("transfer_prices", "transfer_price", TransferPrice, needs=("owner",),
             refers={"owner": "party", "buyer": "party", "sku": "sku"}, defaults={
                 "buyer": "*", "sku": None, "category": None, "cents": None, "percent": None, "percent_of": None,
                 "currency": "USD", "from_on": None, "until_on": None}),
        Kind("listeners", "listener", Listener, key=("url",), needs=("secrets",), defaults={"on": True}),
    )
}  # fmt: skip


RULE_UNITS_MAX = 10_000
"""A rule of more units, or of a share of more than RULE_PERCENT_MAX, waits for a second person."""
RULE_PERCENT_MAX = 50.0
_SAID = ("units", "percent", "share_by", "days", "pool", "hold_code")
_RULE_SAYS = {
    "buffer": ({"units"}, {"percent"}), "cap": ({"units"}, {"percent"}, {"share_by"}), "limit": ({"units"},),
    "preorder": ({"days"},), "protect": ({"units"},), "pool": ({"pool"},), "infinite": ({"units"},),
    "safety": ({"units"},), "hold": ({"hold_code"},),
}  # fmt: skip
_OF_STOCK = ("safety", "hold")
"""Kinds of rules that are written into stock: they are of a location or all, for every channel."""


def faults_of_rule(body: dict[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a rule as a whole, as (field, reason)."""
    kind = body["kind"]
    said = {name for name in _SAID if body.get(name) is not None}
    if said not in _RULE_SAYS[kind]:
        ways = " or ".join(" and ".join(sorted(way)) for way in _RULE_SAYS[kind])
        return [("kind", f"{kind} says {ways}, and nothing else of {', '.join(_SAID)}")]
    if body.get("channel") is None and (kind in ("protect", "pool") or "share_by" in said):
        return [("channel", f"{kind} names the channel that it is for")]
    if body.get("channel") is not None and kind in _OF_STOCK:
        return [("channel", f"{kind} is of stock, for every channel: name a location or a sku, or neither")]
    if body.get("location") is not None and kind not in _OF_STOCK:
        return [("location", f"{kind} is of a channel; only {' and '.join(_OF_STOCK)} are of a location")]
    if body.get("sku") is not None and kind == "pool":
        return [("sku", "a channel sells all skus from one pool")]
    if kind == "infinite" and body.get("until_at") is None:
        return [("until_at", "what is sold without stock has an end")]
    if body.get("sku") is not None and "share_by" in said:
        return [("sku", "a share that is computed is of all skus")]
    if (
        body.get("from_at")
        and body.get("until_at")
        and datetime.fromisoformat(body["from_at"]) >= datetime.fromisoformat(body["until_at"])
    ):
        return [("until_at", "lies before from_at")]
    return []


def faults_of_transfer_price(body: dict[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a transfer price as a whole, as (field, reason)."""
    faults = []
    if (body["cents"] is None) == (body["percent"] is None):
        faults.append(("cents", "a price says cents or a percent, and not both"))
    if (body["percent"] is None) != (body["percent_of"] is None):
        faults.append(("percent_of", "is said exactly where a percent is: price or cost"))
    if body["sku"] is not None and body["category"] is not None:
        faults.append(("category", "a price is of a sku or of a category"))
    if body["owner"] == body["buyer"]:
        faults.append(("buyer", "nobody buys of themselves"))
    if body["from_on"] is not None and body["until_on"] is not None and body["from_on"] >= body["until_on"]:
        faults.append(("until_on", "lies before from_on"))
    return faults


def is_large(body: dict[str, Any]) -> bool:
    """Whether one person may not decide it alone."""
    return (
        body.get("kind") in ("infinite", "hold")
        or (body.get("units") or 0) > RULE_UNITS_MAX
        or (body.get("percent") or 0) > RULE_PERCENT_MAX
    )


def merged(kind: Kind, before: dict[str, Any] | None, given: dict[str, Any]) -> dict[str, Any]:
    """The object as it will be: what is given over what is there, or over the defaults of a new one."""
    body = {**(before if before is not None else kind.defaults), **given}
    return _unmasked(body, before or {})


def _unmasked(value: Any, before: Any) -> Any:
    """Secrets that were shown masked are what they were; a mask without a secret stays, to be refused."""
    if value == MASK:
        return MASK if before is None else before
    if isinstance(value, dict):
        old = before if isinstance(before, dict) else {}
        return {name: _unmasked(part, old.get(name)) for name, part in value.items()}
    if isinstance(value, list):
        old_parts = before if isinstance(before, list) else []
        return [
            _unmasked(part, old_parts[place] if place < len(old_parts) else None) for place, part in enumerate(value)
        ]
    return value


def masked(body: dict[str, Any]) -> dict[str, Any]:
    """The object as it may be shown: no secret in it."""
    return {name: _hidden(value) if "secret" in name or "token" in name or "password" in name else
            masked(value) if isinstance(value, dict) else value
            for name, value in body.items()}  # fmt: skip


def _hidden(value: Any) -> Any:
    return [MASK for _ in value] if isinstance(value, list) else MASK if value else value


def has_mask(value: Any) -> bool:
    """Whether a mask stands somewhere in it."""
    if isinstance(value, dict):
        return any(has_mask(part) for part in value.values())
    return any(has_mask(part) for part in value) if isinstance(value, list) else value == MASK
