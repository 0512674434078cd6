"""A source that takes signed webhooks (https://www.standardwebhooks.com).

POST to `url`, body `{"type":"movements.made", …}` with the fields of `Batch`; `webhook-id` is the batch's id. A 2xx answer
may say `{"posted":[ID…]}`: what it has posted already. A status means what it means for a channel.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from connectors.channels import Answer, Delivered, Refused, Unknown, texts
from connectors.channels.webhook import WebhookChannel, read_answer
from connectors.http import SHOWN_MAX, NoAnswer, NotAllowed
from connectors.posts import Batch, Posted


class _Said(msgspec.Struct, frozen=True):
    posted: list[str] | None = None


class WebhookPoster:
    """One system at one address. `allow_hosts` names hosts that may lie in a private network."""

    def __init__(self, *, url: str, secrets: Sequence[str], allow_hosts: Sequence[str] = ()) -> None:
        self._door = WebhookChannel(url=url, secrets=secrets, allow_hosts=allow_hosts)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "WebhookPoster":
        """From settings: url, secrets, allow_hosts. Raises SettingsWrong."""
        WebhookChannel.of(settings)
        return cls(url=settings["url"], secrets=texts(settings, "secrets"), allow_hosts=texts(settings, "allow_hosts"))

    async def close(self) -> None:
        """Ends its connections."""
        await self._door.close()

    async def post(self, batch: Batch) -> Posted | Answer:
        """Tells the source."""
        body = msgspec.json.encode({"type": "movements.made", **msgspec.to_builtins(batch)})
        try:
            got = await self._door.post(body, id=batch.id)
        except NotAllowed as error:
            return Refused(str(error), is_content=False)
        except NoAnswer as error:
            return Unknown(str(error)[:SHOWN_MAX])
        answer = read_answer(got)
        return Posted(answer.answer, _named(got.content)) if isinstance(answer, Delivered) else answer


def _named(content: bytes) -> tuple[str, ...] | None:
    """The ids that an answer names as posted; None where it names none, or says something else."""
    try:
        said = msgspec.json.decode(content, type=_Said)
    except msgspec.MsgspecError:
        return None
    return None if said.posted is None else tuple(said.posted)
