"""A shop that takes signed webhooks (https://www.standardwebhooks.com) and gives its orders by HTTP.

Push: POST to `url`, body `{"type":"availability.reset"|"availability.delta","as_of":T|null,"items":[…]}`, an item
`{"sku","quantity"}` or, of a delta, `{"sku","delta"}`. The header `webhook-id` is the push's id: the shop takes an id
once, which is the guard that allows deltas. 2xx: taken. 400, 413, 422: refused for what is in it. 401, 403, 404, 405,
410, 3xx: refused. 429, or 503 with Retry-After: later. The rest: unknown.

Orders: GET `orders_url?since=&until=&cursor=` → `{"orders":[…],"next":CURSOR|null}`, placed after `since` and not after
`until`; signed over the query.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import httpx
import msgspec
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

from connectors.channels import Answer, Delivered, Push, Refused, SettingsWrong, SlowDown, Unknown, texts, whole_number

ANSWER_SECONDS_MAX = 20.0
ANSWER_BYTES_MAX = 50_000_000
SHOWN_MAX = 300
SLOW_SECONDS_MAX = 3600.0
BATCH_MAX = 500
BATCH_MOST = 10_000
PAGES_MAX = 10_000

_CONTENT = frozenset({400, 413, 422})
_GONE = frozenset({401, 403, 404, 405, 410})


class _Page(msgspec.Struct, frozen=True):
    orders: list[dict[str, Any]]
    next: str | None = None


class Got(msgspec.Struct, frozen=True):
    """An answer over HTTP."""

    status: int
    retry_after: str | None
    content: bytes

    def __str__(self) -> str:
        return f"{self.status} {self.content[:SHOWN_MAX].decode(errors='replace')}".strip()


class OrdersUnreadable(Exception):
    """The shop's orders cannot be read now; the text says why."""


class NotAllowed(Exception):
    """The address may not be called."""


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
            parts = urlsplit(str(address or ""))
            if address is not None and (parts.scheme not in ("http", "https") or not parts.hostname):
                raise SettingsWrong(f"{name}: {address!r} is no http(s) address")
        if not secrets:
            raise SettingsWrong("secrets: at least one `whsec_…` is expected; the first signs, all are sent")
        try:
            self._signers = [Webhook(secret) for secret in secrets]
        except (ValueError, EmptyWebhookSecretError) as error:
            raise SettingsWrong("secrets: not of the form whsec_<base64>") from error
        self.url, self.orders_url, self.max_batch = url, orders_url, batch_max
        self._allowed = frozenset(allow_hosts)
        self._http = httpx.AsyncClient(timeout=seconds_max, follow_redirects=False, trust_env=False)

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
        await self._http.aclose()

    async def push(self, push: Push) -> Answer:
        """Tells the shop; the body of a push is the same at each attempt, its signature has the attempt's time."""
        body = body_of(push)
        try:
            answer = await self.post(body, id=push.id)
        except NotAllowed as error:
            return Refused(str(error), is_content=False)
        except (httpx.HTTPError, OSError) as error:
            return Unknown(f"{type(error).__name__}: {error}"[:SHOWN_MAX])
        return read_answer(answer)

    async def post(self, body: bytes, *, id: str) -> Got:
        """Sends any signed body. Raises NotAllowed, httpx.HTTPError, OSError."""
        return await self._call("POST", self.url, id=id, body=body, signed=body)

    async def fetch_orders(self, *, since: datetime | None, until: datetime) -> list[dict[str, Any]]:
        """The orders placed after `since` and not after `until`. Raises OrdersUnreadable: then none of them count."""
        if self.orders_url is None:
            raise OrdersUnreadable("orders_url is not set")
        orders: list[dict[str, Any]] = []
        cursor: str | None = None
        for _ in range(PAGES_MAX):
            query = {"since": since.isoformat() if since else "", "until": until.isoformat(), "cursor": cursor or ""}
            text = urlencode(query)
            joint = "&" if "?" in self.orders_url else "?"
            try:
                answer = await self._call(
                    "GET", self.orders_url + joint + text, id=uuid4().hex, body=None, signed=text.encode()
                )
                if answer.status != 200:
                    raise OrdersUnreadable(f"{self.orders_url} answers {answer}")
                page = msgspec.json.decode(answer.content, type=_Page)
            except (httpx.HTTPError, OSError, msgspec.DecodeError, NotAllowed) as error:
                raise OrdersUnreadable(f"{self.orders_url}: {type(error).__name__}: {error}") from error
            orders += page.orders
            if page.next is None:
                return orders
            cursor = page.next
        raise OrdersUnreadable(f"{self.orders_url} gives more than {PAGES_MAX} pages")

    async def _call(self, method: str, url: str, *, id: str, body: bytes | None, signed: bytes) -> Got:
        at = datetime.now(UTC)
        headers = {
            "webhook-id": id, "webhook-timestamp": str(int(at.timestamp())), "content-type": "application/json",
            "webhook-signature": " ".join(s.sign(id, at, signed.decode()) for s in self._signers),
        }  # fmt: skip
        parts = urlsplit(url)
        assert parts.hostname is not None
        address = await self._address(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        # the checked address itself is called: a name that is resolved again may lie elsewhere
        request = self._http.build_request(
            method, httpx.URL(url).copy_with(host=address), content=body,
            headers=headers | {"host": parts.netloc.rpartition("@")[2]}, extensions={"sni_hostname": parts.hostname},
        )  # fmt: skip
        answer = await self._http.send(request, stream=True)
        try:
            content = b""
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) > ANSWER_BYTES_MAX:
                    raise httpx.DecodingError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        finally:
            await answer.aclose()
        return Got(answer.status_code, answer.headers.get("retry-after"), content)

    async def _address(self, host: str, port: int) -> str:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
        inside = [a for a in addresses if not a.is_global or a.is_multicast]
        if inside and host not in self._allowed:
            raise NotAllowed(f"{host} lies in a private network ({inside[0]}); name it in allow_hosts if that is meant")
        return str(addresses[0])


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
