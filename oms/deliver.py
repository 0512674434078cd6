"""Announcements go out: signed webhooks to listeners that a person configured."""

from urllib.parse import urlsplit

from connectors.channels import SettingsWrong
from connectors.channels.webhook import WebhookChannel, retry_after
from connectors.http import NoAnswer, NotAllowed
from oms.domain.telling import Delivery

SECONDS_MAX = 10.0


async def deliver(url: str, body: bytes, message_id: str, secrets: list[str]) -> Delivery:
    """Sends one announcement; never raises for what the listener or the network does."""
    try:
        listener = WebhookChannel(
            url=url, secrets=secrets, allow_hosts=[urlsplit(url).hostname or ""], seconds_max=SECONDS_MAX
        )
    except SettingsWrong as wrong:
        return Delivery(False, str(wrong))
    try:
        got = await listener.post(body, id=message_id)
    except (NotAllowed, NoAnswer) as error:
        return Delivery(False, f"{type(error).__name__}: {error}")
    finally:
        await listener.close()
    later = retry_after(got.retry_after) if got.retry_after else None
    return Delivery(200 <= got.status < 300, str(got), later)
