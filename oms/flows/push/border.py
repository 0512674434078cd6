"""Where the house meets the connectors: a channel's row becomes its connector, a push what is told."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, cast

from connectors.channels import Answer, Channel, Line, Push, Unknown
from connectors.channels.file import FileChannel
from connectors.channels.webhook import WebhookChannel
from oms.flows.push.outbox import Item, Taken, Target


def connector_of(channel: Target) -> Channel:
    """The connector of a channel's kind and settings; raises SettingsWrong where they cannot work."""
    assert channel.kind in ("webhook", "file"), f"channel {channel.code} of kind {channel.kind} is told nothing"
    return WebhookChannel.of(channel.settings) if channel.kind == "webhook" else FileChannel.of(channel.settings)


async def tell(connector: Channel, push: Taken, items: Sequence[Item], *, seconds_max: float) -> Answer:
    """Calls the channel once. What raises, or takes longer than the lease allows, has an unknown outcome."""
    lines = tuple(Line(item.sku, item.quantity, item.delta) for item in items)
    mode = cast(Literal["delta", "reset"], push.mode)
    try:
        async with asyncio.timeout(seconds_max):
            return await connector.push(Push(str(push.push_id), mode, push.as_of, lines))
    except TimeoutError:
        return Unknown(f"no answer within {seconds_max:g} s")
    except Exception as error:  # a bug in a connector must not lose what it was to tell
        return Unknown(repr(error))


async def fetch_orders(
    code: str, settings: Mapping[str, Any], *, since: datetime | None, until: datetime
) -> list[dict[str, Any]]:
    """A webhook channel's orders placed after `since` and not after `until`, as the shop says them.

    Raises SettingsWrong or OrdersUnreadable; then none of them count.
    """
    connector = WebhookChannel.of(settings)
    try:
        return await connector.fetch_orders(since=since, until=until)
    finally:
        await connector.close()
