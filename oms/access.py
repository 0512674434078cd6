"""Keys of programs, roles, and what each may see. Flows and doors are given an `Actor`."""

import hashlib
import hmac
import secrets
import time

import msgspec

from oms.db import Connection, Database, Sql
from oms.errors import BadInput, NotFound
from oms.record import Step, keep

sql = Sql("access")

ROLES = ("storefront", "associate", "integrator", "planner", "operator", "approver", "admin")
STAFF = frozenset({"planner", "operator", "approver", "admin"})
"""Roles that may read the whole network, where their key is not bound to a part of it."""

KEY_PREFIX = "cp_"
FOUND_SECONDS = 10.0
"""How long a found key is believed without asking the database: an ended key works at most this much longer."""
MISSED_SECONDS = 2.0
REMEMBERED_MAX = 10_000


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who acts, with what role, bound to what. A bound id of None is no limit; `who` is what history keeps.

    `channel_ids` and `location_ids` are what the binding reaches beside its own object: the channels that sell
    from a store's pools; the locations of a channel's pool, or those that a source owns facts of.
    """

    key_id: int | None
    role: str
    person: str | None
    who: str
    channel_id: int | None = None
    location_id: int | None = None
    source_id: int | None = None
    channel_ids: frozenset[int] = frozenset()
    location_ids: frozenset[int] = frozenset()

    @property
    def is_bound(self) -> bool:
        """Whether the key sees only a part of the network."""
        return not (self.channel_id is None and self.location_id is None and self.source_id is None)


house = Actor(key_id=None, role="admin", person=None, who="oms")
"""Jobs and the command line."""


class _Key(msgspec.Struct, frozen=True):
    key_id: int
    hash: bytes
    prefix: str
    role: str
    person: str | None
    channel_id: int | None
    location_id: int | None
    source_id: int | None
    channel_ids: list[int]
    location_ids: list[int]


insert_key = sql.one("insert_key", int)
find_key = sql.maybe("find_key", _Key)
close_key = sql.run("end_key")
_id_of = {name: sql.maybe(f"{name}_id", int) for name in ("channel", "location", "source")}
_needs = {"storefront": "channel", "associate": "location", "integrator": "source"}

_remembered: dict[bytes, tuple[float, Actor | None]] = {}


async def make_key(
    tx: Connection,
    *,
    role: str,
    channel: str | None = None,
    location: str | None = None,
    source: str | None = None,
    person: str | None = None,
    who: str = "oms",
) -> str:
    """Makes a key and gives its text, which is kept nowhere; bound to the codes that are given.

    Raises BadInput where the role needs a binding that is missing, NotFound where a code is unknown.
    """
    if role not in ROLES:
        raise BadInput(f"role {role!r} is unknown; one of {', '.join(ROLES)} is expected")
    codes = {"channel": channel, "location": location, "source": source}
    needed = _needs.get(role)
    if needed and not codes[needed]:
        raise BadInput(f"a key of role {role} needs the code of its {needed}")
    ids: dict[str, int | None] = {}
    for name, code in codes.items():
        ids[name] = await _id_of[name](tx, code=code) if code else None
        if code and ids[name] is None:
            raise NotFound(f"no {name} has the code {code!r}")
    text = KEY_PREFIX + secrets.token_urlsafe(32)
    prefix = text[:11]
    await insert_key(
        tx, hash=_digest(text), prefix=prefix, role=role, person=person, channel_id=ids["channel"],
        location_id=ids["location"], source_id=ids["source"],
    )  # fmt: skip
    detail = {"role": role, "person": person, **{name: code for name, code in codes.items() if code}}
    await keep(tx, who=who, steps=[Step(kind="key", id=prefix, step="created", detail=detail)])
    return text


async def end_key(tx: Connection, *, prefix: str, who: str) -> None:
    """Ends the key that begins so; NotFound where none is live."""
    if not await close_key(tx, prefix=prefix):
        raise NotFound(f"no live key begins with {prefix!r}")
    await keep(tx, who=who, steps=[Step(kind="key", id=prefix, step="ended")])
    _remembered.clear()


async def find(db: Database, bearer: str) -> Actor | None:
    """The actor of a key, or None; remembered for some seconds so that a hot route does not ask each time."""
    if not bearer.startswith(KEY_PREFIX) or len(bearer) > 200:
        return None
    digest = _digest(bearer)
    known = _remembered.get(digest)
    now = time.monotonic()
    if known and known[0] > now:
        return known[1]
    async with db.connection() as connection:
        key = await find_key(connection, hash=digest)
    actor = _actor(key) if key and hmac.compare_digest(key.hash, digest) else None
    if len(_remembered) >= REMEMBERED_MAX:
        _remembered.clear()
    _remembered[digest] = (now + (FOUND_SECONDS if actor else MISSED_SECONDS), actor)
    return actor


def forget() -> None:
    """Forgets every remembered key: the next use asks the database."""
    _remembered.clear()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _actor(key: _Key) -> Actor:
    return Actor(
        key_id=key.key_id, role=key.role, person=key.person, who=key.person or f"key {key.prefix}",
        channel_id=key.channel_id, location_id=key.location_id, source_id=key.source_id,
        channel_ids=frozenset(key.channel_ids), location_ids=frozenset(key.location_ids),
    )  # fmt: skip


def sees_channel(actor: Actor, channel_id: int) -> bool:
    """Whether the channel is there for this actor: its own; for a store, those that sell from it."""
    if actor.channel_id is not None:
        return actor.channel_id == channel_id
    return not actor.is_bound or channel_id in actor.channel_ids


def sees_location(actor: Actor, location_id: int) -> bool:
    """Whether the location is there for this actor: its own; those of its channel's pool; those its source knows."""
    if actor.location_id is not None:
        return actor.location_id == location_id
    return not actor.is_bound or location_id in actor.location_ids


def sees_source(actor: Actor, source_id: int) -> bool:
    """Whether the source is there for this actor."""
    return actor.source_id == source_id if actor.is_bound else True


def require_channel(actor: Actor, channel_id: int | None, code: str) -> int:
    """The channel's id, or NotFound where it is unknown or not theirs: the two answer alike."""
    if channel_id is None or not sees_channel(actor, channel_id):
        raise NotFound(f"no channel has the code {code!r}")
    return channel_id


def require_location(actor: Actor, location_id: int | None, code: str) -> int:
    """The location's id, or NotFound where it is unknown or not theirs: the two answer alike."""
    if location_id is None or not sees_location(actor, location_id):
        raise NotFound(f"no location has the code {code!r}")
    return location_id


def require_source(actor: Actor, source_id: int | None, code: str) -> int:
    """The source's id, or NotFound where it is unknown or not theirs: the two answer alike."""
    if source_id is None or not sees_source(actor, source_id):
        raise NotFound(f"no source has the code {code!r}")
    return source_id
