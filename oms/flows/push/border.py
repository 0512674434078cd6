"""Where the house meets the connectors: a channel's row becomes its connector, an answer becomes an outcome."""

import asyncio
from typing import Literal, Protocol

import msgspec

from oms.flows.push.outbox import Item, Taken, Target


class Outcome(msgspec.Struct, frozen=True):
    """What came of a call: the channel has it, nobody knows, it asks for quiet, or it will never take it.

    `is_content`: it is what was said that is refused, not who said it or where.
    """

    kind: Literal["delivered", "unknown", "slow", "refused"]
    reason: str = ""
    seconds: float = 0.0
    is_content: bool = False


class Connector(Protocol):
    """What telling needs of a channel."""

    max_batch: int
    has_guard: bool

    async def tell(self, push: Taken, items: list[Item]) -> Outcome: ...

    async def close(self) -> None: ...


async def tell(connector: Connector, push: Taken, items: list[Item], *, seconds_max: float) -> Outcome:
    """Calls the channel once. What raises, or takes longer than the lease allows, has an unknown outcome."""
    try:
        async with asyncio.timeout(seconds_max):
            return await connector.tell(push, items)
    except TimeoutError:
        return Outcome("unknown", f"no answer within {seconds_max:g} s")
    except Exception as error:
        return Outcome("unknown", repr(error))


def connector_of(channel: Target) -> Connector:
    raise NotImplementedError
