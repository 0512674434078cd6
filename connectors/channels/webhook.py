"""A shop that takes signed webhooks (https://www.standardwebhooks.com) and gives its orders by HTTP.

Push: POST to `url`, body `{"type":"availability.reset"|"availability.delta","as_of":T|null,"items":[…]}`, an item
`{"sku","quantity"}` or, of a delta, `{"sku","delta"}`. The header `webhook-id` is the push's id: the shop takes an id
once, which is the guard that allows deltas. 2xx: taken. 400, 413, 422: refused for what is in it. 401, 403, 404, 405,
410, 3xx: refused. 429, or 503 with Retry-After: later. The rest: unknown.

Orders: GET `orders_url?since=&until=&cursor=` → `{"orders":[…],"next":CURSOR|null}`, placed after `since` and not after
`until`; signed over the whole query.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import msgspec

from connectors.channels import Answer, Delivered, Push, Refused, SettingsWrong, SlowDown, Unknown, texts, whole_number
from connectors.http import ANSWER_SECONDS_MAX, SHOWN_MAX, AddressWrong, Client, Got, NoAnswer, NotAllowed, split
from connectors.signing import SecretWrong, sign, signers

SLOW_SECONDS_MAX = 3600.0
BATCH_MAX = 500
BATCH_MOST = 10_000
PAGES_MAX = 10_000

_CONTENT = frozenset({400, 413, 422})
_GONE = frozenset({401, 403, 404, 405, 410})


class _Page(msgspec.Struct, frozen=True):
    orders: list[dict[str, Any]]
    next: str | None = None


class OrdersUnreadable(Exception):
    """The shop's orders cannot be read now; the text says why."""


class WebhookChannel:
    """One shop. `allow_hosts` names hosts that may lie in a private network."""

    has_guard = True

    def __init__(
        self,
        *,
        url: str,
        secrets: Sequence[str],
        orders_url: str | None = None,
        batch_max: int = BATCH_MAX,
        allow_hosts: Sequence[str] = (),
        seconds_max: float = ANSWER_SECONDS_MAX,
    ) -> None:
        for name, address in (("url", url), ("orders_url", orders_url)):
            if address is not None:
                try:
                    split(str(address))
                except AddressWrong as error:
                    raise SettingsWrong(f"{name}: {error}") from None
        try:
            self._signers = signers(secrets)
        except SecretWrong as error:
            raise SettingsWrong(f"secrets: {error}") from None
        self.url, self.orders_url, self.max_batch = url, orders_url, batch_max
        self._http = Client(allow_hosts=allow_hosts, seconds_max=seconds_max)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "WebhookChannel":
        """From a channel's settings: url, secrets, orders_url, batch_max, allow_hosts. Raises SettingsWrong."""
        if not isinstance(settings.get("url"), str):
            raise SettingsWrong("url: the address that takes the webhooks is expected")
        return cls(
            url=settings["url"], secrets=texts(settings, "secrets"), orders_url=settings.get("orders_url"),
            batch_max=whole_number(settings, "batch_max", default=BATCH_MAX, most=BATCH_MOST),
            allow_hosts=texts(settings, "allow_hosts"),
        )  # fmt: skip

    async def close(self) -> None:
        """Ends its connections."""
        await self._http.close()

    async def push(self, push: Push) -> Answer:
        """Tells the shop; the body of a push is the same at each attempt, its signature has the attempt's time."""
        body = body_of(push)
        try:
            answer = await self.post(body, id=push.id)
        except NotAllowed as error:
            return Refused(str(error), is_content=False)
        except NoAnswer as error:
            return Unknown(str(error)[:SHOWN_MAX])
        return read_answer(answer)

    async def post(self, body: bytes, *, id: str) -> Got:
        """Sends any signed body. Raises NotAllowed, NoAnswer."""
        return await self._call("POST", self.url, id=id, body=body, signed=body)

    async def fetch_orders(self, *, since: datetime | None, until: datetime) -> list[dict[str, Any]]:
        """The orders placed after `since` and not after `until`. Raises OrdersUnreadable: then none of them count."""
        if self.orders_url is None:
            raise OrdersUnreadable("orders_url is not set")
        orders: list[dict[str, Any]] = []
        cursor: str | None = None
        for _ in range(PAGES_MAX):
            query = {"since": since.isoformat() if since else "", "until": until.isoformat(), "cursor": cursor or ""}
            url = self.orders_url + ("&" if "?" in self.orders_url else "?") + urlencode(query)
            signed = urlsplit(url).query.encode()
            try:
                answer = await self._call("GET", url, id=uuid4().hex, body=None, signed=signed)
                if answer.status != 200:
                    raise OrdersUnreadable(f"{self.orders_url} answers {answer}")
                page = msgspec.json.decode(answer.content, type=_Page)
            except (NoAnswer, msgspec.DecodeError, NotAllowed) as error:
                raise OrdersUnreadable(f"{self.orders_url}: {error}") from error
            orders += page.orders
            if page.next is None:
                return orders
            if page.next == cursor:
                raise OrdersUnreadable(f"{self.orders_url} gives the cursor {cursor!r} again")
            cursor = page.next
        raise OrdersUnreadable(f"{self.orders_url} gives more than {PAGES_MAX} pages")

    async def _call(self, method: str, url: str, *, id: str, body: bytes | None, signed: bytes) -> Got:
        headers = {"content-type": "application/json", **sign(signed, id=id, by=self._signers, at=datetime.now(UTC))}
        return await self._http.call(method, url, headers=headers, body=body)


def body_of(push: Push) -> bytes:
    """The body of a push."""
    items: list[dict[str, Any]] = [
        {"sku": n.sku, "quantity": n.quantity} if n.delta is None else {"sku": n.sku, "delta": n.delta}
        for n in push.lines
    ]
    return msgspec.json.encode({"type": f"availability.{push.mode}", "as_of": push.as_of, "items": items})


def read_answer(got: Got) -> Answer:
    """What a status means."""
    if 200 <= got.status < 300:
        return Delivered(str(got))
    if got.status == 429 or (got.status == 503 and got.retry_after):
        return SlowDown(retry_after(got.retry_after), str(got))
    if got.status in _CONTENT:
        return Refused(str(got), is_content=True)
    if got.status in _GONE or 300 <= got.status < 400:
        return Refused(str(got), is_content=False)
    return Unknown(str(got))


def retry_after(text: str | None, *, now: datetime | None = None) -> float:
    """Seconds of a Retry-After, which is a number or a date; 1 where it says nothing that can be understood."""
    if not text:
        return 1.0
    try:
        seconds = float(int(text))
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - (now or datetime.now(UTC))).total_seconds()
        except (ValueError, TypeError):
            return 1.0
    return min(max(seconds, 0.0), SLOW_SECONDS_MAX)
