"""A fulfiller that takes signed webhooks (https://www.standardwebhooks.com).

POST to `url`, body `{"type":"fulfillment.release"|"fulfillment.recall", …}` with the fields of `Order`; `webhook-id` is
the same at each attempt, and the fulfiller takes an id once. A recall of what it never got, it keeps: a release that
comes later is not begun. A status means what it means for a channel.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from connectors.channels import Answer, Refused, Unknown, texts
from connectors.channels.webhook import WebhookChannel, read_answer
from connectors.fulfillers import Order
from connectors.http import SHOWN_MAX, NoAnswer, NotAllowed


class WebhookFulfiller:
    """One system at one address. `allow_hosts` names hosts that may lie in a private network."""

    def __init__(self, *, url: str, secrets: Sequence[str], allow_hosts: Sequence[str] = ()) -> None:
        self._door = WebhookChannel(url=url, secrets=secrets, allow_hosts=allow_hosts)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "WebhookFulfiller":
        """From settings: url, secrets, allow_hosts. Raises SettingsWrong."""
        WebhookChannel.of(settings)
        return cls(url=settings["url"], secrets=texts(settings, "secrets"), allow_hosts=texts(settings, "allow_hosts"))

    async def close(self) -> None:
        """Ends its connections."""
        await self._door.close()

    async def tell(self, order: Order) -> Answer:
        """Gives work or takes it back."""
        said = {"type": f"fulfillment.{order.act}", **msgspec.to_builtins(order)}
        try:
            return read_answer(await self._door.post(msgspec.json.encode(said), id=order.id))
        except NotAllowed as error:
            return Refused(str(error), is_content=False)
        except NoAnswer as error:
            return Unknown(str(error)[:SHOWN_MAX])
