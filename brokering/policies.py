"""Policies of brokering as business people own them: for which orders, from where, at what weights, within what limits."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from brokering.problem import TERMS, Limit, Policy, Tariff

Share = Annotated[float, Meta(ge=0, le=100)]
Cents = Annotated[int, Meta(ge=0, le=100_000_000)]
Text = Annotated[str, Meta(min_length=1, max_length=200)]
KINDS = ("store", "warehouse", "third_party", "vendor")


class Scope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which orders a policy is for; what is not named is any. Value: of the open lines of an order."""

    channels: tuple[Text, ...] = ()
    methods: tuple[Text, ...] = ()
    priority_min: int | None = None
    priority_max: int | None = None
    promise_days_max: int | None = None
    value_cents_min: Cents | None = None
    value_cents_max: Cents | None = None


class PolicyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A policy: its scope and rank (the lowest that matches an order is its policy), limits, and weights of costs.

    `limits` name kinds of locations, groups (codes of pools), miles and days late; with `cents` they are soft: dropped at
    that price per package. With `move_saves_cents`, work that nobody has accepted is planned again by every joint run, and moved where that saves so
    much per order. `cancel_after_days`: what is still open then is cancelled, told `cancel_notice_days` before. The rest is the engine's Policy.
    """

    scope: Scope = Scope()
    rank: Annotated[int, Meta(ge=-1000, le=1000)] = 0
    limits: tuple[Limit, ...] = ()
    recall_after_minutes: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    move_saves_cents: Cents | None = None
    cancel_after_days: Annotated[int, Meta(ge=1, le=3650)] | None = None
    cancel_notice_days: Annotated[int, Meta(ge=1, le=3650)] | None = None
    tariff: Tariff = Tariff()
    late_cents: Cents = 400
    stock_out_share: Share = 0.4
    reject_cents: Cents = 500
    leave_share: Share = 0.6
    leave_cents_min: Cents = 1500
    waited_share: Share = 0.05
    unknown_distance: Literal["farthest", "exclude"] = "farthest"
    wait_cents: Cents = 0
    units_split: bool = False
    weights: dict[str, Share] = {}

    def costs(self) -> Policy:
        """What the engine takes of it."""
        return Policy(**{name: getattr(self, name) for name in Policy.__struct_fields__ if hasattr(self, name)})


class Version(msgspec.Struct, frozen=True):
    """A policy as of a version."""

    code: str
    version: int
    body: PolicyBody


class Subject(msgspec.Struct, frozen=True):
    """What a scope asks of an order."""

    order_id: str
    channel: str
    method: str
    priority: int
    promise_days: int | None
    value_cents: int


def read_body(body: dict[str, Any]) -> PolicyBody:
    """A policy from what was given. Raises ValueError that says which part is wrong and what is expected."""
    try:
        read = msgspec.convert(body, PolicyBody)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    for place, limit in enumerate(read.limits):
        for kind in limit.kinds:
            if kind not in KINDS:
                raise ValueError(f"limits[{place}].kinds: {kind!r} is none of {', '.join(KINDS)}")
        if not (limit.kinds or limit.groups or limit.miles_max is not None or limit.late_days_max is not None):
            raise ValueError(f"limits[{place}]: says nothing; give kinds, groups, miles_max or late_days_max")
    for term in read.weights:
        if term not in TERMS:
            raise ValueError(f"weights: {term!r} is no term of cost; {', '.join(TERMS)} are")
    tariff = read.tariff
    if not len(tariff.parcel_cents) == len(tariff.pound_cents) == len(tariff.days) == len(tariff.miles) + 1:
        raise ValueError("tariff: one more price, pound price and days are expected than there are limits in miles")
    if read.cancel_notice_days is not None and read.cancel_notice_days >= (read.cancel_after_days or 0):
        raise ValueError("cancel_notice_days: is expected to be less than cancel_after_days")
    if list(tariff.miles) != sorted(set(tariff.miles)):
        raise ValueError("tariff.miles: are expected to rise")
    return read


def matches(scope: Scope, order: Subject) -> bool:
    """Whether an order is in a scope; one without a promise is in no scope that names promise days."""
    return (
        (not scope.channels or order.channel in scope.channels)
        and (not scope.methods or order.method in scope.methods)
        and (scope.priority_min is None or order.priority >= scope.priority_min)
        and (scope.priority_max is None or order.priority <= scope.priority_max)
        and (
            scope.promise_days_max is None
            or (order.promise_days is not None and order.promise_days <= scope.promise_days_max)
        )
        and (scope.value_cents_min is None or order.value_cents >= scope.value_cents_min)
        and (scope.value_cents_max is None or order.value_cents <= scope.value_cents_max)
    )


def ranked(policies: Iterable[Version]) -> list[Version]:
    """Policies in the order in which they are matched: by rank, then by code."""
    return sorted(policies, key=lambda p: (p.body.rank, p.code))


def policy_for(policies: list[Version], order: Subject) -> int | None:
    """The place of the first of these that matches an order; None where none does."""
    return next((place for place, p in enumerate(policies) if matches(p.body.scope, order)), None)


def hints(policies: list[Version], orders: Iterable[Subject]) -> list[str]:
    """Policies that no order of these meets, and those that are never reached because an earlier one takes all of theirs."""
    met, wanted = [0] * len(policies), [0] * len(policies)
    taken_by: list[set[str]] = [set() for _ in policies]
    for order in orders:
        first = policy_for(policies, order)
        for place, p in enumerate(policies):
            if matches(p.body.scope, order):
                wanted[place] += 1
                if place == first:
                    met[place] += 1
                elif first is not None:
                    taken_by[place].add(policies[first].code)
    told = []
    for place, p in enumerate(policies):
        if not wanted[place]:
            told.append(f"{p.code} matches no order")
        elif not met[place]:
            told.append(f"{p.code} is never reached: {', '.join(sorted(taken_by[place]))} come before it")
    return told


def sentences(policy: PolicyBody) -> list[str]:
    """A policy as a person reads it."""
    scope, told = policy.scope, []
    who = _listed(scope.channels) + " orders" if scope.channels else "All orders"
    if scope.methods:
        who += f" by {_listed(scope.methods)}"
    for value, words in (
        (scope.priority_min, "of priority {} or higher"), (scope.priority_max, "of priority {} or lower"),
        (scope.promise_days_max, "promised within {} days"),
    ):  # fmt: skip
        who += f" {words.format(value)}" if value is not None else ""
    if scope.value_cents_min is not None:
        who += f" worth at least {_money(scope.value_cents_min)}"
    if scope.value_cents_max is not None:
        who += f" worth at most {_money(scope.value_cents_max)}"
    hard = [limit for limit in policy.limits if limit.cents is None]
    told.append(f"{who} go to {_where(hard)}.")
    for limit in policy.limits:
        if limit.cents is not None:
            told.append(f"Rather to {_where([limit])}; otherwise {_money(limit.cents)} more per package.")
    told.append(f"A day late costs {_money(policy.late_cents)} per package, more by priority.")
    told.append(
        f"Leaving a unit open costs {policy.leave_share:.0%} of its value, at least {_money(policy.leave_cents_min)}, and "
        f"{policy.waited_share:.0%} more for each day that it has waited."
    )
    told.append(f"Selling a store's last units costs up to {policy.stock_out_share:.0%} of their value.")
    told.append(f"A rejection costs {_money(policy.reject_cents)}, by how often a location rejects.")
    if policy.unknown_distance == "exclude":
        told.append("Places and addresses without coordinates are left out.")
    if policy.units_split:
        told.append("Units of a line may come from several locations.")
    for term, weight in sorted(policy.weights.items()):
        told.append(f"The cost of {term.replace('_', ' ')} counts {weight:g} times.")
    if policy.recall_after_minutes is not None:
        told.append(f"Work that is not accepted within {policy.recall_after_minutes} minutes goes elsewhere.")
    if policy.move_saves_cents is not None:
        told.append(
            f"Work that is not accepted moves when a later plan saves {_money(policy.move_saves_cents)} per order."
        )
    if policy.cancel_after_days is not None:
        notice = f", told {policy.cancel_notice_days} days before" if policy.cancel_notice_days is not None else ""
        told.append(f"What is still open after {policy.cancel_after_days} days is cancelled{notice}.")
    return told


def _where(limits: Iterable[Limit]) -> str:
    words = []
    for limit in limits:
        some = _listed([k.replace("_", "-") + "s" for k in limit.kinds]) if limit.kinds else "locations"
        if limit.groups:
            some += f" of {_listed(limit.groups)}"
        if limit.miles_max is not None:
            some += f" within {limit.miles_max:,} miles"
        if limit.late_days_max is not None:
            some += f" that are there at most {limit.late_days_max} days late"
        words.append(some)
    return "; and ".join(words) if words else "any location of their pool"


def _listed(words: Iterable[str]) -> str:
    *rest, last = words
    return f"{', '.join(rest)} and {last}" if rest else last


def _money(cents: int) -> str:
    return f"{cents / 100:,.2f}"
