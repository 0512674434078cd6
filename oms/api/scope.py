"""What a caller names, found among what it may see; what it may not see answers as if it were not there."""

import time
import weakref

from oms import access, named
from oms.access import Actor
from oms.db import Database
from oms.errors import BadInput, NotFound
from oms.flows.order.rows import Sight

FOUND_SECONDS = 10.0
"""How long a channel's id is remembered by its code."""

_channels: "weakref.WeakKeyDictionary[Database, dict[str, tuple[float, int]]]" = weakref.WeakKeyDictionary()


async def channel_of(db: Database, actor: Actor, code: str) -> int:
    """The id of a channel that the caller sees; NotFound else."""
    known = _channels.setdefault(db, {})
    until, channel_id = known.get(code, (0.0, None))
    if until < time.monotonic():
        async with db.connection() as connection:
            channel_id = await named.channel_named(connection, code=code)
        if channel_id is not None:
            known[code] = time.monotonic() + FOUND_SECONDS, channel_id
    return access.require_channel(actor, channel_id, code)


async def check_location(db: Database, actor: Actor, code: str | None) -> None:
    """NotFound where a location is named that the caller may not use; a store's key may name its own store only."""
    if code is None or not actor.is_bound:
        return
    async with db.connection() as connection:
        place = (await named.places_of(connection, [code])).get(code)
    if place is None or not access.sees_location(actor, place.location_id):
        raise NotFound(f"no location has the code {code!r}")


async def known_location(db: Database, code: str) -> int:
    """The id of a location by its code, whoever asks; NotFound where there is none."""
    async with db.connection() as connection:
        place = (await named.places_of(connection, [code])).get(code)
    if place is None:
        raise NotFound(f"no location has the code {code!r}")
    return place.location_id


async def location_of(db: Database, actor: Actor, code: str | None) -> int:
    """The id of a location that the caller names, or of its own store; NotFound where it is not theirs."""
    if code is None:
        if actor.location_id is None:
            raise BadInput("location: name the location, as this key is bound to no store")
        return actor.location_id
    return access.require_location(actor, await known_location(db, code), code)


def channels_seen(actor: Actor) -> list[int] | None:
    """The channels that the caller sees; None for all."""
    if not actor.is_bound:
        return None
    return sorted(actor.channel_ids | ({actor.channel_id} if actor.channel_id is not None else set()))


def sight_of(actor: Actor) -> Sight:
    """The orders that the caller sees: of its channel; for a store, those that it fulfills or hands over."""
    seen = channels_seen(actor)
    return Sight(None if seen is None else tuple(seen), actor.location_id)
