"""Sends what is due, each channel by itself: a slow or broken one hurts nobody else."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec
import structlog

from connectors.channels import Answer, Channel, Delivered, Refused, SettingsWrong, SlowDown, Unknown
from oms.cache import Cache
from oms.db import Database
from oms.flows.push import outbox
from oms.flows.push.border import connector_of, tell
from oms.flows.push.projector import project
from oms.record import Trouble, raise_exceptions, settle_exceptions

log = structlog.get_logger("oms.push")

PATIENCE_SECONDS = outbox.LEASE_SECONDS + 10.0
"""How long `push_all` waits for pushes that a channel postponed, or whose sender may have died."""
QUIET_SECONDS_MAX = 15.0
"""A lost wake-up is made good after this."""
PAUSE_SECONDS_MIN = 0.02
GATHER_SECONDS = 0.1
"""Changes of this time are projected together: a hot sku costs ten looks a second, whatever it sells."""
AGAIN_SECONDS = 0.25
"""Who waits for a push that another sends looks again after this: it is done long before its lease ends."""
LOOK_SECONDS = 1.0
"""So often the projector says up to which moment all is projected."""


class Pushed(msgspec.Struct, frozen=True):
    """What a channel was told: calls made, pushes and skus that it took, what waits or is dead, and how long it took.

    `trouble` says why a channel could not be told at all, `last_reason` why the last call that failed did.
    """

    channel: str
    calls: int = 0
    pushes: int = 0
    skus: int = 0
    refused: int = 0
    unanswered: int = 0
    slowed: int = 0
    waiting: int = 0
    dead: int = 0
    seconds: float = 0.0
    next_seconds: float | None = None
    trouble: str | None = None
    last_reason: str | None = None


Progress = Callable[[str, int, int | None], None]
"""Told the channel, the skus that it has taken, and how many are due, as far as is known."""


async def send(
    db: Database,
    *,
    channel: outbox.Target,
    connector: Channel,
    chance: Callable[[], float] = random.random,
) -> tuple[Answer, int] | None:
    """Sends the next push of a channel and keeps what came of it; gives that and its skus, None when none may go.

    The push was committed before, and what it says is never changed: whoever is killed here has it sent again.
    """
    taken = await outbox.take(db, channel_id=channel.channel_id)
    if taken is None:
        return None
    push, items = taken
    answer = await tell(connector, push, items, seconds_max=outbox.ANSWER_SECONDS_MAX)
    match answer:
        case Delivered():
            await outbox.delivered(db, push, answer=answer.answer)
        case SlowDown():
            await outbox.slowed(db, push, seconds=answer.seconds, reason=answer.reason)
        case Unknown():
            await outbox.unanswered(db, push, channel=channel.code, reason=answer.reason, chance=chance)
        case Refused():
            await outbox.refused(
                db, push, channel=channel.code, reason=answer.reason, skus=len(items), is_content=answer.is_content
            )
    return answer, len(items)


class Wire:
    """The connector to one channel, kept while the channel's settings stay."""

    def __init__(self) -> None:
        self._settings: object = None
        self._connector: Channel | None = None

    async def to(self, db: Database, target: outbox.Target) -> Channel:
        """The connector of a channel; raises SettingsWrong, and keeps an exception open while they are."""
        if self._connector is None or self._settings != (target.kind, target.settings):
            await self.close()
            try:
                self._connector = connector_of(target)
            except SettingsWrong as error:
                await cannot_tell(db, channel=target.code, reason=str(error))
                raise
            self._settings = target.kind, target.settings
            await cannot_tell(db, channel=target.code, reason=None)
        return self._connector

    async def close(self) -> None:
        """Ends its connections."""
        if self._connector is not None:
            await self._connector.close()
            self._connector = None


async def deliver(
    db: Database,
    *,
    channel: outbox.Named,
    now: datetime,
    wire: Wire,
    patience_seconds: float = 0.0,
    chance: Callable[[], float] = random.random,
    progress: Progress | None = None,
) -> Pushed:
    """Tells one channel what is due, until nothing is, or what is left waits longer than `patience_seconds`."""
    began = time.monotonic()
    said = Pushed(channel.code)

    def so_far(**more: object) -> Pushed:
        return msgspec.structs.replace(said, seconds=round(time.monotonic() - began, 3), **more)

    async with db.connection() as connection:
        target = await outbox.read_channel(connection, channel_id=channel.channel_id)
        total = await outbox.count_due(connection, channel_id=channel.channel_id) if progress else 0
    try:
        connector = await wire.to(db, target)
    except SettingsWrong as error:
        return so_far(trouble=str(error))
    while True:
        while sent := await send(db, channel=target, connector=connector, chance=chance):
            said = counted(said, *sent)
            if progress:
                progress(channel.code, said.skus, max(total, said.skus))
        if await outbox.prepare(
            db, channel_id=channel.channel_id, batch_max=connector.max_batch, has_guard=connector.has_guard, now=now
        ):
            continue
        async with db.connection() as connection:
            owed = await outbox.read_owed(connection, channel_id=channel.channel_id)
        left = began + patience_seconds - time.monotonic()
        if owed.seconds is None or max(owed.seconds, PAUSE_SECONDS_MIN) > left:
            return so_far(waiting=owed.due, dead=owed.dead, next_seconds=owed.seconds)
        await asyncio.sleep(min(max(owed.seconds, PAUSE_SECONDS_MIN), AGAIN_SECONDS))


def counted(said: Pushed, answer: Answer, skus: int) -> Pushed:
    """The counts after one more call."""
    is_delivered = isinstance(answer, Delivered)
    return msgspec.structs.replace(
        said, calls=said.calls + 1, pushes=said.pushes + is_delivered, skus=said.skus + skus * is_delivered,
        refused=said.refused + isinstance(answer, Refused), unanswered=said.unanswered + isinstance(answer, Unknown),
        slowed=said.slowed + isinstance(answer, SlowDown),
        last_reason=said.last_reason if isinstance(answer, Delivered) else answer.reason,
    )  # fmt: skip


async def cannot_tell(db: Database, *, channel: str, reason: str | None) -> None:
    """Keeps an exception open while a channel's settings are wrong."""
    subject = f"channel {channel}"
    async with db.transaction() as tx:
        if reason is None:
            await settle_exceptions(
                tx, who="oms", resolution="Its settings are right now.", of=[("push_dead", subject)]
            )
        else:
            detail = f"Channel {channel} cannot be told anything: {reason}. Correct its settings."
            await raise_exceptions(tx, [Trouble(kind="push_dead", subject=subject, detail=detail)])


async def push_all(
    db: Database,
    cache: Cache,
    *,
    now: datetime,
    channels: Sequence[str] | None = None,
    reset: bool = False,
    who: str = "oms",
    patience_seconds: float = PATIENCE_SECONDS,
    progress: Progress | None = None,
) -> list[Pushed]:
    """Projects everything touched, then tells the channels (all, or those of these codes) what is due, side by side.

    A reset tells everything, with the moment up to which the shop's orders are known. NotFound for an unknown code.
    """
    named = await outbox.channels_of(db, channels)
    while (await project(db, cache, now=now)).rows:
        pass
    if reset:
        await outbox.ask_reset(db, channels=[c.code for c in named], who=who)

    async def told(channel: outbox.Named) -> Pushed:
        wire = Wire()
        try:
            return await deliver(
                db, channel=channel, now=now, wire=wire, patience_seconds=patience_seconds, progress=progress
            )
        except Exception as error:  # a bulkhead: what breaks one channel stops no other
            log.exception("a channel's push broke", channel=channel.code)
            return Pushed(channel.code, trouble=repr(error))
        finally:
            await wire.close()

    return list(await asyncio.gather(*(told(channel) for channel in named)))


async def follow(db: Database, cache: Cache, *, channel: str, clock: Callable[[], datetime]) -> None:
    """Tells one channel what is due, whenever it is, until cancelled: one such loop per channel."""
    wire = Wire()
    try:
        while True:
            seconds = QUIET_SECONDS_MAX
            try:
                found = await outbox.channels_of(db, [channel])
                done = await deliver(db, channel=found[0], now=clock(), wire=wire)
                if done.next_seconds is not None:
                    seconds = min(seconds, max(done.next_seconds, PAUSE_SECONDS_MIN))
            except Exception as error:
                log.warning("a channel cannot be told now", channel=channel, error=repr(error))
            await cache.wait([f"push:{channel}"], seconds)
    finally:
        await wire.close()


async def follow_touched(db: Database, cache: Cache, *, clock: Callable[[], datetime]) -> None:
    """Makes what the channels may sell follow what is touched, until cancelled."""
    while True:
        more = False
        try:
            more = (await project(db, cache, now=clock())).rows > 0
        except Exception as error:
            log.warning("availability cannot be projected now", error=repr(error))
        if more:
            await asyncio.sleep(GATHER_SECONDS)
        else:
            await cache.wait(["project"], LOOK_SECONDS)
