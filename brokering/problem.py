"""What is to be brokered, and what a plan says. Money is integer cents, weight grams, distance miles of the tariff."""

from collections.abc import Mapping
from typing import Literal

import msgspec

Split = Literal["free", "single", "complete", "max_packages", "keep_together"]


class Slot(msgspec.Struct, frozen=True):
    """A wave, hour or day in which packages may leave a location, `day` days from now, and what it may still take.

    `name` is the caller's own for it.
    """

    day: int = 0
    capacity_orders: int | None = None
    capacity_items: int | None = None
    capacity_cents: int | None = None
    name: str = ""


class Location(msgspec.Struct, frozen=True):
    """A place that may fulfill. Capacity is what it may still take in this run; None is unlimited.

    Without coordinates its distance is unknown: it is priced as the farthest zone, never as near. `slots` replace its
    capacity by one for each time in which a package may leave. `leave_days[s]` is after how many days, by calendar and
    cut-off, a package of shipping service s leaves (the last one for services beyond). `load_cents`, per package,
    is what work there costs beside handling.
    """

    location_id: int
    kind: str
    lat: float | None
    lon: float | None
    capacity_orders: int | None = None
    capacity_items: int | None = None
    capacity_cents: int | None = None
    package_cents: int = 120
    line_cents: int = 25
    reject_share: float = 0.0
    slots: tuple[Slot, ...] = ()
    leave_days: tuple[int, ...] = (0,)
    groups: tuple[str, ...] = ()
    load_cents: int = 0


class Order(msgspec.Struct, frozen=True, gc=False):
    """An order with open lines. `location_id` binds it to one place (a pick-up).

    `policy` is a place in the problem's policies, None its only one; `service` one in `leave_days` of locations.
    """

    order_id: str
    lat: float | None
    lon: float | None
    priority: int = 0
    split: Split = "free"
    split_max: int | None = None
    promise_days: int | None = None
    location_id: int | None = None
    policy: int | None = None
    service: int = 0


class Line(msgspec.Struct, frozen=True, gc=False):
    """Open units of one sku, to be sent from one location. Lines of an order with the same `together` stay together.

    A line that goes `alone` has a package of its own, outside the split rule of its order.
    """

    line_id: int
    version: int
    order_id: str
    sku_id: int
    quantity: int
    pool_id: int
    value_cents: int
    weight_grams: int
    together: str | None = None
    days_waited: int = 0
    alone: bool = False


class Stock(msgspec.Struct, frozen=True, gc=False):
    """Units of a sku that may be taken at a location; `markdown_cents` is what selling one there now saves later.

    `day` is when they are there: incoming and pre-order stock leaves on that day. `transfer_cents`, per unit, is what
    its owner is paid or gives up. `reject_share` is how often the location rejects this sku, None as it rejects others.
    """

    sku_id: int
    location_id: int
    available: int
    markdown_cents: int = 0
    day: int = 0
    transfer_cents: int = 0
    reject_share: float | None = None


class Labor(msgspec.Struct, frozen=True):
    """Minutes of work that a location has for this run, and what a package, a line and a unit take of them."""

    location_id: int
    minutes_max: float
    package_minutes: float = 0.0
    line_minutes: float = 0.0
    unit_minutes: float = 0.0


class Protected(msgspec.Struct, frozen=True, gc=False):
    """Units promised in a pool to demand outside the run: the plan may not make them impossible to keep."""

    sku_id: int
    pool_id: int
    quantity: int


class Barred(msgspec.Struct, frozen=True, gc=False):
    """A location that is not to be asked for a sku of an order: it rejected it."""

    order_id: str
    sku_id: int
    location_id: int


class Tariff(msgspec.Struct, frozen=True):
    """A parcel tariff by zone, the zone by miles (upper bounds; one more zone beyond the last). Illustrative defaults."""

    miles: tuple[int, ...] = (150, 300, 600, 1000, 1400, 1800)
    parcel_cents: tuple[int, ...] = (620, 660, 720, 790, 860, 940, 1030)
    pound_cents: tuple[int, ...] = (18, 22, 30, 42, 55, 68, 80)
    days: tuple[int, ...] = (1, 2, 2, 3, 4, 4, 5)


class Limit(msgspec.Struct, frozen=True):
    """What a policy allows: locations of these kinds and groups (none named: any), within miles, and days late.

    A hard limit (`cents` None) is never broken; a soft one is dropped for `cents` per package, named in the costs.
    An unknown distance is beyond any limit in miles.
    """

    kinds: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    miles_max: int | None = None
    late_days_max: int | None = None
    cents: int | None = None


class Policy(msgspec.Struct, frozen=True):
    """Weights of the cost terms, in cents or as a share of a line's value.

    late_cents: per package, day late, and priority factor 1 + priority/2. stock_out_share: of the value, for selling a
    store's last units. leave_share, leave_cents_min: what leaving a unit costs, times the priority factor, and
    waited_share more for each day that it has waited. unknown_distance: what a place or an address without coordinates
    is taken for: as far as the farthest zone, or left out. wait_cents: per unit and day until incoming stock is there.
    weights: what a term is multiplied by, by its name, 1 where it is not named. units_split: the units of a line may go
    from several locations, at most PARTS_MAX parts, each part handled as a line. overtaking, of the problem's own
    policy: a lower class may take what a higher one leaves where the sum is less; priority is then a price alone.
    """

    tariff: Tariff = Tariff()
    late_cents: int = 400
    stock_out_share: float = 0.4
    reject_cents: int = 500
    leave_share: float = 0.6
    leave_cents_min: int = 1500
    waited_share: float = 0.05
    unknown_distance: Literal["farthest", "exclude"] = "farthest"
    wait_cents: int = 0
    units_split: bool = False
    overtaking: bool = False
    weights: Mapping[str, float] = {}
    limits: tuple[Limit, ...] = ()


TERMS = (
    "parcel", "handling", "load", "lateness", "limit", "weight", "line", "rejection", "stock_out", "markdown",
    "transfer", "waiting", "left",
)  # fmt: skip
"""Every term of cost, the first five by package; a policy's weights name them."""
PARTS_MAX = 6
"""Parts into which the units of a line may be split, as equal as can be."""


class Problem(msgspec.Struct, frozen=True):
    """Open lines, what may be taken where, and what must not be broken. `pools` gives the locations of each pool."""

    orders: list[Order]
    lines: list[Line]
    locations: list[Location]
    stock: list[Stock]
    pools: Mapping[int, tuple[int, ...]]
    protected: list[Protected] = []
    barred: list[Barred] = []
    policy: Policy = Policy()
    policies: tuple[Policy, ...] = ()
    labor: tuple[Labor, ...] = ()


class Assignment(msgspec.Struct, frozen=True, gc=False):
    """Units of a line from a location: in which of its slots, where it has any, and from stock of which day."""

    line_id: int
    location_id: int
    quantity: int
    slot: int | None = None
    day: int = 0


class Unfilled(msgspec.Struct, frozen=True, gc=False):
    """A line that stays open, and why.

    no_location (its pool has none that may), barred, no_stock, dear (leaving costs less), split (its order's rule),
    protected (promised outside the run), taken (by others of the run), capacity. By order routings also rule (none of
    them allows it) and no_routing (none takes its order).
    """

    line_id: int
    reason: str


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """What an order would have cost from one location: cents by term, how many of its lines it had, why it fell out.

    `not_here` among the cents is what leaving the lines that it had not would cost. Without `distance_known` it was taken
    for as far as the farthest zone. `stock_price_cents` and `work_price_cents` are what the units and the capacity that it
    would use are worth to other orders.
    """

    location_id: int
    lines: int
    cents: dict[str, int]
    fell_out: str | None
    distance_known: bool = True
    stock_price_cents: int = 0
    work_price_cents: int = 0
    slot: int | None = None


class Flip(msgspec.Struct, frozen=True, gc=False):
    """The smallest change that would have an order go from a location that it does not go from.

    `by` cost: `cents` less there. By stock or capacity: enough of it there, which would save `cents`.
    """

    location_id: int
    by: Literal["cost", "stock", "capacity"]
    cents: int


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Why an order is planned as it is: what it costs by term, the best candidates, and how many fell out and why."""

    order_id: str
    cents: dict[str, int]
    candidates: list[Candidate]
    fell_out: dict[str, int]
    flip: Flip | None = None


class CellPrice(msgspec.Struct, frozen=True, gc=False):
    """What one more unit of a sku at a location would save, about; of stock of a day."""

    sku_id: int
    location_id: int
    cents: float
    day: int = 0


class WorkPrice(msgspec.Struct, frozen=True, gc=False):
    """What one more order, item or cent of capacity of a location (or a slot of it) would save, about."""

    location_id: int
    order_cents: float
    item_cents: float
    share: float
    slot: int | None = None


class Shadow(msgspec.Struct, frozen=True):
    """Prices of stock and work, largest first: where one more unit or order would save most; a warm start as well."""

    stock: list[CellPrice] = []
    work: list[WorkPrice] = []


class Plan(msgspec.Struct, frozen=True):
    """A legal plan. `cost` and `bound` in cents: no plan costs less than `bound` (priority classes aside)."""

    assignments: list[Assignment]
    unfilled: list[Unfilled]
    cost: int
    bound: int
    decisions: list[Decision]
    phases: dict[str, float]
    cost_by_term: dict[str, int]
    packages: int
    prices: Shadow = Shadow()

    @property
    def gap(self) -> float:
        """How far the cost lies above the bound, as a share of the bound."""
        return (self.cost - self.bound) / self.bound if self.bound > 0 else 0.0
