"""Policies are drafted by one person, approved by another, in force from a moment, and rolled back."""

from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from brokering.policies import Subject, Version, policy_for, ranked, read_body, sentences
from oms.db import Connection, Database, Sql
from oms.errors import BadInput, Conflict, NotFound
from oms.record import Step, Trouble, keep, raise_exceptions, settle_exceptions

sql = Sql("policy")

VERSIONS_MAX = 200
WAITING_AT_ONCE = 5_000


class VersionView(msgspec.Struct, frozen=True):
    """A version of a policy, with what it says in sentences."""

    version: int
    state: str
    body: dict[str, Any]
    made_by: str
    made_at: datetime
    note: str | None
    from_at: datetime | None
    approved_by: str | None
    approved_at: datetime | None
    is_in_force: bool
    sentences: list[str] = []


class _Scoped(msgspec.Struct, frozen=True):
    order_id: str
    channel: str
    method: str
    priority: int
    promise_days: int | None
    value_cents: int


class _Waiting(_Scoped, frozen=True):
    id: UUID
    lines: list[str]
    untold: list[str]
    days: int


class GivenUp(msgspec.Struct, frozen=True):
    """Lines of an order that stayed open longer than its policy lets them; or soon will have, and are cancelled `on`."""

    order_id: UUID
    lines: list[str]
    why: str
    on: date | None = None


class _Released(_Scoped, frozen=True):
    id: UUID
    minutes: int


class Unaccepted(msgspec.Struct, frozen=True):
    """Work that its location has not accepted in the time that the policy of its order gives."""

    fulfillment_id: UUID
    why: str


class _Newest(msgspec.Struct, frozen=True):
    policy_id: int
    version: int
    state: str
    body: dict[str, Any]
    made_by: str
    note: str | None
    from_at: datetime | None


class _Kept(msgspec.Struct, frozen=True):
    code: str
    version: int
    body: dict[str, Any]


versions_of = sql.rows("versions_of", VersionView)
take_newest = sql.maybe("take_newest", _Newest)
ask_for = sql.run("ask_for")
answer = sql.run("answer")
copy_version = sql.maybe("copy_version", int)
policies_in_force = sql.rows("policies_in_force", _Kept)
newest_version = sql.maybe("newest_version", _Kept)
released_work = sql.rows("released_work", _Released)
waiting_orders = sql.rows("waiting_orders", _Waiting)
knows_policy = sql.one("knows_policy", bool)


async def versions(db: Database, *, code: str, now: datetime) -> list[VersionView]:
    """The versions of a policy, newest first, each in sentences. Raises NotFound."""
    async with db.connection() as tx:
        found = await versions_of(tx, code=code, now=now, limit=VERSIONS_MAX)
    if not found:
        raise NotFound(f"There is no policy {code!r}.")
    return [msgspec.structs.replace(v, sentences=sentences(read_body(v.body))) for v in found]


async def ask(db: Database, *, code: str, from_at: datetime | None, note: str | None, who: str, now: datetime) -> int:
    """The newest draft waits for another person's approval; gives its version. Raises NotFound, Conflict, BadInput."""
    async with db.transaction() as tx:
        newest = await _newest(tx, code)
        if newest.state not in ("draft", "refused"):
            raise Conflict(f"version {newest.version} of policy {code!r} is {newest.state}; change it to have a draft")
        _checked(code, newest.body)
        await ask_for(
            tx, policy_id=newest.policy_id, version=newest.version, note=note, from_at=max(from_at or now, now)
        )
        await keep(tx, who=who, steps=[Step("policy", code, "asked", note, {"version": newest.version})])
        trouble = Trouble(
            kind="policy_waiting", subject=code, owner="approver", payload={"policy": code, "version": newest.version},
            detail=f"Version {newest.version} of policy {code} by {newest.made_by} waits for another person: "
            + " ".join(sentences(read_body(newest.body))),
        )  # fmt: skip
        await raise_exceptions(tx, [trouble])
    return newest.version


async def decide(db: Database, *, code: str, is_agreed: bool, who: str) -> int:
    """Another person than who made it approves the version that waits, or refuses it. Raises NotFound, Conflict."""
    async with db.transaction() as tx:
        newest = await _newest(tx, code)
        if newest.state != "asked":
            raise Conflict(f"version {newest.version} of policy {code!r} is {newest.state}: nothing waits")
        if not await answer(tx, policy_id=newest.policy_id, version=newest.version, is_agreed=is_agreed, who=who):
            raise Conflict(f"version {newest.version} of policy {code!r} is yours: another person approves it")
        step = "approved" if is_agreed else "refused"
        await keep(tx, who=who, steps=[Step("policy", code, step, detail={"version": newest.version})])
        await settle_exceptions(tx, who=who, resolution=f"{step.capitalize()} by {who}.", of=[("policy_waiting", code)])
    return newest.version


async def roll_back(db: Database, *, code: str, version: int, note: str | None, who: str, now: datetime) -> int:
    """What an approved version said waits for approval again, as a new version; gives its number."""
    async with db.transaction() as tx:
        newest = await _newest(tx, code)
        if newest.state == "asked":
            raise Conflict(f"version {newest.version} of policy {code!r} waits for approval: decide that first")
        made = await copy_version(tx, code=code, version=version, who=who, note=note)
        if made is None:
            raise NotFound(f"policy {code!r} has no approved version {version}")
        await keep(tx, who=who, steps=[Step("policy", code, "rolled back", note, {"version": made, "to": version})])
    return await ask(db, code=code, from_at=None, note=note or f"back to version {version}", who=who, now=now)


async def in_force(tx: Connection, *, code: str | None, now: datetime, drafts: bool) -> list[Version]:
    """The policies by which orders are brokered, in the order in which they are matched.

    All that are in force; or the one of `code`, with `drafts` its newest version, approved or not. Raises NotFound,
    Conflict where it has no approved version yet, BadInput where a kept one cannot be read.
    """
    if code is None:
        found = await policies_in_force(tx, code=None, now=now)
    else:
        newest = await newest_version(tx, code=code) if drafts else None
        found = [newest] if newest is not None else await policies_in_force(tx, code=code, now=now)
        if not found:
            if await knows_policy(tx, code=code):
                raise Conflict(f"policy {code!r} has no approved version yet: a dry run may try it, a run may not")
            raise NotFound(f"There is no policy {code!r}.")
    return ranked(Version(p.code, p.version, _checked(p.code, p.body)) for p in found)


def _checked(code: str, body: dict[str, Any]) -> Any:
    try:
        return read_body(body)
    except ValueError as error:
        raise BadInput(f"policy {code}: {error}") from error


async def _newest(tx: Connection, code: str) -> _Newest:
    found = await take_newest(tx, code=code)
    if found is None:
        raise NotFound(f"There is no policy {code!r}.")
    return found


async def too_late(db: Database, *, now: datetime) -> list[GivenUp]:
    """Open lines that waited as long as the policy of their order lets them: they are to be cancelled.

    Those with `on` are cancelled that day: their channel is to be told now, once, by the notice of their policy.
    """
    async with db.connection() as tx:
        policies = await in_force(tx, code=None, now=now, drafts=False)
        days = [
            p.body.cancel_after_days - (p.body.cancel_notice_days or 0) for p in policies if p.body.cancel_after_days
        ]
        if not days:
            return []
        waiting = await _all(waiting_orders, tx, now=now, before=now - timedelta(days=min(days)))
    found = [_given_up(o, p, now=now) for o in waiting if (p := _policy_of(policies, o)) is not None]
    return [given for given in found if given is not None]


async def unaccepted(db: Database, *, now: datetime) -> list[Unaccepted]:
    """Released work that the policies of its orders let be recalled now, for it was not accepted in their time."""
    async with db.connection() as tx:
        policies = await in_force(tx, code=None, now=now, drafts=False)
        minutes = [p.body.recall_after_minutes for p in policies if p.body.recall_after_minutes is not None]
        if not minutes:
            return []
        released = await _all(released_work, tx, now=now, before=now - timedelta(minutes=min(minutes)))
    found = []
    for f in released:
        policy = _policy_of(policies, f)
        limit = None if policy is None else policy.body.recall_after_minutes
        if policy is not None and limit is not None and f.minutes >= limit:
            why = f"not accepted within {limit} minutes: policy {policy.code}"
            found.append(Unaccepted(f.id, why))
    return found


async def _all(read: Callable[..., Awaitable[list[Any]]], tx: Connection, **given: Any) -> list[Any]:
    """All rows of a statement that gives so many after an id."""
    found: list[Any] = []
    after = UUID(int=0)
    while True:
        page = await read(tx, after=after, limit=WAITING_AT_ONCE, **given)
        found += page
        if len(page) < WAITING_AT_ONCE:
            return found
        after = page[-1].id


def _policy_of(policies: list[Version], row: _Scoped) -> Version | None:
    subject = Subject(row.order_id, row.channel, row.method, row.priority, row.promise_days, row.value_cents)
    place = policy_for(policies, subject)
    return None if place is None else policies[place]


def _given_up(o: _Waiting, policy: Version, *, now: datetime) -> GivenUp | None:
    """What a policy says of an order that waits: to be cancelled now, told that it will be, or neither."""
    limit, notice = policy.body.cancel_after_days, policy.body.cancel_notice_days
    if limit is None:
        return None
    why = f"open for {limit} days: policy {policy.code}"
    if o.days >= limit:
        return GivenUp(UUID(o.order_id), o.lines, why)
    if notice is not None and o.days >= limit - notice and o.untold:
        return GivenUp(UUID(o.order_id), o.untold, why, on=now.date() + timedelta(days=limit - o.days))
    return None
