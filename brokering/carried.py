"""Order routings as draft policies: what a policy can say of them, and a list of what it cannot, and why."""

from typing import Any

import msgspec

from brokering.policies import PolicyBody, Scope
from brokering.problem import Limit
from brokering.routings import Filter, Routing, Routings

SCOPES = {"channel": "channels", "method": "methods"}


class Drafted(msgspec.Struct, frozen=True):
    """A routing as a policy: its code, its body, and what of the routing is not in it."""

    code: str
    body: PolicyBody
    left_out: list[str]


def draft(routings: Routings, *, prefix: str) -> list[Drafted]:
    """A policy for each routing, ranked as they follow each other; nothing is left out without being told."""
    return [_draft(r, code=f"{prefix}-{nth + 1}", rank=nth + 1) for nth, r in enumerate(routings.routings)]


def _draft(routing: Routing, *, code: str, rank: int) -> Drafted:
    left_out: list[str] = []
    scope: dict[str, Any] = {}
    for f in routing.filters:
        if (part := _scope(f)) is None:
            left_out.append(f"the filter by {_words(f)}: {_why_not(f)}")
        elif part.keys() & scope.keys():
            left_out.append(f"the filter by {_words(f)}: the scope has one of its kind already")
        else:
            scope |= part
    if routing.sorts:
        left_out.append("the sort of its orders: all are planned together, priority and days late have their price")
    limits = _limits(routing)
    if any(r.miles_max is not None and r.miles_max != int(r.miles_max) for r in routing.rules) and limits:
        left_out.append("parts of a mile: its limit is in whole miles, rounded down")
    for rule in routing.rules:
        name = f"{rule.name}: "
        if rule.is_single and len(routing.rules) > 1:
            left_out.append(name + "the whole order from one location: a further package has its price instead")
        if rule.groups_not:
            left_out.append(
                name + f"all but {', '.join(rule.groups_not)}: a limit names groups that may; make one of the others"
            )
        if rule.stock_min:
            left_out.append(
                name + f"{rule.stock_min} units that must be there: set the safety stock of locations; selling the last "
                "units has its price (stock_out)"
            )  # fmt: skip
        if rule.sorts:
            left_out.append(name + "the sort of locations: the least cost decides")
        if rule.value_cents_min:
            left_out.append(name + "what a part must be worth: the price of a package decides")
        if rule.is_all_or_none:
            left_out.append(name + "all of it or nothing: the split rule of each order says so (complete)")
        if rule.queue is not None:
            left_out.append(name + f"the queue {rule.queue}: what is left stays open and is planned again")
        if rule.clears_cancel:
            left_out.append(name + "taking away the date of cancelling: a policy has one for all its orders, or none")
    if len(routing.rules) > 1:
        left_out.append("the turn of its rules: the widest of them is the limit, nearer is cheaper")
    days = [rule.cancel_after_days for rule in routing.rules if rule.cancel_after_days]
    if len(set(days)) > 1:
        left_out.append(
            f"cancelling after {', '.join(map(str, days[:-1]))} days: the last of them, {days[-1]}, holds for all"
        )
    body = PolicyBody(
        scope=Scope(**scope), rank=rank, limits=limits, cancel_after_days=days[-1] if days else None
    )  # fmt: skip
    return Drafted(code, body, left_out)


def _limits(routing: Routing) -> tuple[Limit, ...]:
    """The widest that its rules allow together."""
    groups = {g for rule in routing.rules for g in rule.groups} if all(r.groups for r in routing.rules) else set()
    miles = [rule.miles_max for rule in routing.rules]
    far = None if None in miles or not miles else max(int(m) for m in miles if m is not None)
    if not groups and far is None:
        return ()
    return (Limit(groups=tuple(sorted(groups)), miles_max=far),)


def _scope(f: Filter) -> dict[str, Any] | None:
    """What a scope says of a filter; None where it cannot."""
    if f.field in SCOPES and f.operator == "in":
        return {SCOPES[f.field]: f.values}
    if f.field not in ("priority", "promise_days") or not f.values:
        return None
    if f.operator == "in" and len(f.values) == 1 and f.field == "priority" and f.values[0].lstrip("-").isdigit():
        return {"priority_min": int(f.values[0]), "priority_max": int(f.values[0])}
    if f.operator in {"in", "not_in"}:
        return None
    value = int(float(f.values[0]))
    if f.operator in ("less", "less_equals"):
        name = "priority_max" if f.field == "priority" else "promise_days_max"
        return {name: value - (f.operator == "less")}
    return {"priority_min": value + (f.operator == "greater")} if f.field == "priority" else None


def _why_not(f: Filter) -> str:
    if f.field == "queue":
        return "an order has no queue here; what is open is planned, what was rejected too"
    if f.field in ("origin", "category"):
        return "it is not known of an order here"
    return "a scope names what is in it and bounds of priority and promise days, not this"


def _words(f: Filter) -> str:
    return f"{f.field.replace('_', ' ')} ({f.operator.replace('_', ' ')} {', '.join(f.values)})".replace(" )", ")")
