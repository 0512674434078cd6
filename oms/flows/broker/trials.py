"""The policies that a what-if tries: named or drafted in place, read when it is asked for, and put on a problem."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from brokering import Problem
from brokering.policies import Subject, Version, policy_for, ranked, read_body
from oms.db import Connection, Sql
from oms.errors import BadInput, NotFound
from oms.flows.broker.policy import in_force
from oms.flows.broker.routings import given_of

sql = Sql("what_if")

TRIALS_MAX = 5
HAPPENED = "as it was"
"""The name of what really happened beside the trials."""
Code = Annotated[str, Meta(min_length=1, max_length=200)]


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One policy for all orders: of a code (its newest version unless one is given), or a body drafted here; or, with
    `in_force`, all that are in force, each for its scope; or imported `routings` of a name, followed rule by rule.
    `name` is what the comparison calls it."""

    name: Code | None = None
    code: Code | None = None
    version: Annotated[int, Meta(ge=1, le=2_147_483_647)] | None = None
    body: dict[str, Any] | None = None
    in_force: bool = False
    routings: Code | None = None


class Said(msgspec.Struct, frozen=True):
    """A policy as it read when the what-if was asked for."""

    code: str
    version: int
    body: dict[str, Any]


class Read(msgspec.Struct, frozen=True):
    """A trial as it is kept: its name, the policies that it tries, and whether its only one is for all orders.

    Or the routings that it follows, as they were imported then.
    """

    name: str
    policies: list[Said]
    is_for_all: bool
    routings: dict[str, Any] | None = None


policy_version_row = sql.maybe("policy_version_row", Said)


async def read_trials(tx: Connection, trials: Sequence[Trial | str], *, now: datetime) -> list[Read]:
    """The policies of trials, each as it reads now. Raises BadInput and NotFound that name the place in `policies`."""
    if not 1 <= len(trials) <= TRIALS_MAX:
        raise BadInput(f"policies: one to {TRIALS_MAX} are compared at once; {len(trials)} were given")
    found: list[Read] = []
    for nth, given in enumerate(trials):
        trial = Trial(code=given) if isinstance(given, str) else given
        found.append(await _read(tx, trial, place=f"policies[{nth}]", now=now))
        if found[-1].name in {HAPPENED, *(r.name for r in found[:-1])}:
            raise BadInput(f"policies[{nth}].name: {found[-1].name!r} is taken; give each a `name` of its own")
    return found


async def _read(tx: Connection, trial: Trial, *, place: str, now: datetime) -> Read:
    if (trial.code is not None) + (trial.body is not None) + trial.in_force + (trial.routings is not None) != 1:
        raise BadInput(f"{place}: give one of code, body, in_force and routings")
    if trial.version is not None and trial.code is None:
        raise BadInput(f"{place}.version: belongs to a code; give the code of the policy")
    if trial.routings is not None:
        given = await given_of(tx, trial.routings)
        return Read(trial.name or f"routings {trial.routings}", [], is_for_all=False, routings=given)
    if trial.in_force:
        now_in_force = await in_force(tx, code=None, now=now, drafts=False)
        policies = [Said(p.code, p.version, msgspec.to_builtins(p.body)) for p in now_in_force]
        return Read(trial.name or "in force", policies, is_for_all=False)
    if trial.body is not None:
        name = trial.name or f"draft {place}"
        _checked(place, trial.body)
        return Read(name, [Said(name, 0, trial.body)], is_for_all=True)
    said = await policy_version_row(tx, code=trial.code, version=trial.version)
    if said is None:
        which = (
            f"policy {trial.code!r}" if trial.version is None else f"version {trial.version} of policy {trial.code!r}"
        )
        raise NotFound(f"{place}: there is no {which}")
    _checked(place, said.body)
    return Read(trial.name or f"{said.code} {said.version}", [said], is_for_all=True)


def _checked(place: str, body: dict[str, Any]) -> None:
    try:
        read_body(body)
    except ValueError as error:
        raise BadInput(f"{place}.body: {error}") from error


def with_policies(problem: Problem, trial: Read, subjects: Sequence[Subject]) -> Problem:
    """The problem under a trial's policies; each order by the first whose scope it is in, or by the only one."""
    policies = ranked(Version(p.code, p.version, read_body(p.body)) for p in trial.policies)
    worth: dict[str, int] = {}
    for n in problem.lines:
        worth[n.order_id] = worth.get(n.order_id, 0) + n.quantity * n.value_cents
    known = {s.order_id: msgspec.structs.replace(s, value_cents=worth.get(s.order_id, 0)) for s in subjects}

    def policy(order_id: str) -> int | None:
        if trial.is_for_all:
            return 0
        return policy_for(policies, known[order_id]) if order_id in known else None

    return msgspec.structs.replace(
        problem, orders=[msgspec.structs.replace(o, policy=policy(o.order_id)) for o in problem.orders],
        policy=policies[0].body.costs() if trial.is_for_all else problem.policy,
        policies=tuple(p.body.costs() for p in policies),
    )  # fmt: skip
