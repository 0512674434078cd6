"""The demo's web shop: a small receiver in its own process, which knows nothing of the house but its webhooks.

    python -m oms.demo.shop --port 0 --secret whsec_… [--orders ORDERS.jsonl] [--state STATE.jsonl]

It takes signed pushes at POST /hook (each id once), gives its orders at GET /orders, and sells at POST /sales, which it
deducts from its own stock at once. With a state file it knows all that again when it is started again. GET /stock
shows what it believes. POST /faults tells it how to answer the next
pushes: `[{"status":500}, {"status":429,"retry_after":1}, {"seconds":2}, {"drop":"before"}, {"drop":"after"}]`.

It ends when the process that started it ends, however that came about.
"""

import argparse
import asyncio
import os
import sys
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

import msgspec
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

BODY_BYTES_MAX = 10_000_000
HEAD_LINES_MAX = 100
PAGE = 1_000
PARENT_SECONDS = 0.5
"""How often it looks whether the process that started it is still there."""
RESET = "availability.reset"
TYPES = (RESET, "availability.delta")


class Item(msgspec.Struct, frozen=True):
    """One sku of a push: an absolute quantity, or a difference."""

    sku: str
    quantity: int | None = None
    delta: int | None = None


class Said(msgspec.Struct, frozen=True):
    """The body of a push."""

    type: str
    as_of: datetime | None
    items: list[Item]


class SoldLine(msgspec.Struct, frozen=True):
    """Units of a sku that the shop sold."""

    sku: str
    quantity: int


class SoldOrder(msgspec.Struct, frozen=True):
    """What the shop itself reads of an order; the rest of it is passed on as it came."""

    number: str
    placed_at: datetime
    lines: list[SoldLine]


class Noted(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the state file: a push that was taken, or an order that was placed."""

    id: str | None = None
    push: Said | None = None
    order: dict[str, Any] | None = None


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one call is answered: late, with a status, or by a connection that ends before or after it is taken."""

    status: int | None = None
    retry_after: float | None = None
    seconds: float = 0.0
    drop: str | None = None


class Sale(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order that is placed now; without a moment, at the shop's own clock."""

    order: dict[str, Any]


class Dropped(Exception):
    """The connection ends without an answer."""


class Shop:
    """What the shop believes: its stock, its orders, and the pushes that it has taken."""

    def __init__(self, *, secrets: Sequence[str], orders: Sequence[dict[str, Any]] = ()) -> None:
        self._signers = [Webhook(secret) for secret in secrets]
        self.stock: dict[str, int] = {}
        self.orders: list[tuple[datetime, dict[str, Any], SoldOrder]] = []
        for order in orders:
            self._keep(order)
        self.orders.sort(key=lambda o: o[0])
        self.taken: set[str] = set()
        self.faults: deque[Fault] = deque()
        self.calls = self.doubled = self.unsigned = self.overtaken = 0
        self.as_of: datetime | None = None
        self._told: dict[str, datetime] = {}
        self._state: BinaryIO | None = None

    def keep_in(self, path: Path) -> None:
        """Takes up what a state file says, and notes there what happens from now on. A torn last line never happened."""
        self._state = None
        kept = path.read_bytes() if path.exists() else b""
        whole = kept[: kept.rfind(b"\n") + 1]
        for line in whole.splitlines():
            noted = msgspec.json.decode(line, type=Noted)
            if noted.push is not None and noted.id is not None:
                self.apply(noted.id, noted.push)
            elif noted.order is not None:
                self.sell(noted.order)
        with path.open("ab") as file:
            file.truncate(len(whole))
        self._state = path.open("ab", buffering=0)

    def _note(self, noted: Noted) -> None:
        if self._state is not None:
            self._state.write(msgspec.json.encode(noted) + b"\n")

    def _keep(self, order: dict[str, Any]) -> SoldOrder:
        sold = msgspec.convert(order, SoldOrder)
        if sold.placed_at.tzinfo is None:
            raise ValueError(f"order {sold.number}: placed_at has no offset from UTC")
        self.orders.append((sold.placed_at, order, sold))
        return sold

    def verify(self, signed: bytes, headers: dict[str, str]) -> bool:
        """Whether one of the live secrets signed this."""
        for signer in self._signers:
            try:
                signer.verify(signed, headers, json_parse=False)
                return True
            except (WebhookVerificationError, ValueError):
                continue
        self.unsigned += 1
        return False

    def take(self, id: str, body: bytes) -> int:
        """Takes a push once; gives the status. A delta for a sku that was never told is refused, with all of it."""
        if id in self.taken:
            self.doubled += 1
            return 200
        try:
            said = msgspec.json.decode(body, type=Said)
        except msgspec.DecodeError:
            return 400
        if said.type not in TYPES or (said.as_of is not None and said.as_of.tzinfo is None):
            return 422
        absolute = said.type == RESET
        for item in said.items:
            value = item.quantity if absolute else item.delta
            if value is None or (absolute and value < 0) or (not absolute and item.sku not in self.stock):
                return 422
        self.apply(id, said)
        self._note(Noted(id=id, push=said))
        return 200

    def apply(self, id: str, said: Said) -> None:
        """Does what a push says. A reset of an older moment than a sku was told before came late, and is left."""
        since = self.sold_after(said.as_of) if said.as_of else {}
        for item in said.items:
            if said.type != RESET:
                self.stock[item.sku] += item.delta or 0
            elif said.as_of and self._told.get(item.sku, said.as_of) > said.as_of:
                self.overtaken += 1
            else:
                self.stock[item.sku] = (item.quantity or 0) - since.get(item.sku, 0)
                if said.as_of:
                    self._told[item.sku] = said.as_of
        self.taken.add(id)
        if said.type == RESET:
            self.as_of = said.as_of

    def sold_after(self, moment: datetime) -> dict[str, int]:
        """Units by sku of the orders placed after a moment."""
        units: dict[str, int] = {}
        for _, _, sold in self.orders[bisect_right(self.orders, moment, key=lambda o: o[0]) :]:
            for line in sold.lines:
                units[line.sku] = units.get(line.sku, 0) + line.quantity
        return units

    def sell(self, order: dict[str, Any]) -> dict[str, Any]:
        """Places an order: the shop's own stock falls at once."""
        sold = self._keep({"placed_at": datetime.now(UTC).isoformat()} | order)
        placed = self.orders[-1][1]
        self.orders.sort(key=lambda o: o[0])
        for line in sold.lines:
            self.stock[line.sku] = self.stock.get(line.sku, 0) - line.quantity
        self._note(Noted(order=placed))
        return placed

    def page(self, *, since: str, until: str, cursor: str) -> dict[str, Any]:
        """Orders placed after `since` and not after `until`, oldest first."""
        first = bisect_right(self.orders, datetime.fromisoformat(since), key=lambda o: o[0]) if since else 0
        last = bisect_right(self.orders, datetime.fromisoformat(until), key=lambda o: o[0])
        start = first + max(0, int(cursor or 0))
        end = min(last, start + PAGE)
        orders = [order for _, order, _ in self.orders[start:end]]
        return {"orders": orders, "next": str(end - first) if end < last else None}

    def shown(self) -> dict[str, Any]:
        """What the shop believes, and what it was told."""
        return {
            "stock": self.stock, "calls": self.calls, "pushes": len(self.taken), "doubled": self.doubled,
            "unsigned": self.unsigned, "overtaken": self.overtaken, "orders": len(self.orders), "as_of": self.as_of,
        }  # fmt: skip

    async def answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], Any]:
        """Status, further headers and body for one request."""
        parts = urlsplit(target)
        match method, parts.path:
            case "POST", "/hook":
                return await self._hooked(headers, body)
            case "GET", "/orders":
                if not self.verify(parts.query.encode(), headers):
                    return 401, {}, {"detail": "not signed by a secret of this shop"}
                query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
                return 200, {}, self.page(since=query["since"], until=query["until"], cursor=query.get("cursor", ""))
            case "POST", "/sales":
                return 201, {}, self.sell(msgspec.json.decode(body, type=Sale).order)
            case "POST", "/faults":
                self.faults.extend(msgspec.json.decode(body, type=list[Fault]))
                return 200, {}, {"faults": len(self.faults)}
            case "GET", "/stock":
                return 200, {}, self.shown()
        return 404, {}, {"detail": f"{method} {parts.path} is not here"}

    async def _hooked(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], Any]:
        self.calls += 1
        fault = self.faults.popleft() if self.faults else Fault()
        await asyncio.sleep(fault.seconds)
        if fault.drop == "before":
            raise Dropped
        if fault.status is not None:
            further = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:g}"}
            return fault.status, further, {"detail": "as told"}
        if not self.verify(body, headers):
            return 401, {}, {"detail": "not signed by a secret of this shop"}
        status = self.take(headers["webhook-id"], body)
        if fault.drop == "after":
            raise Dropped
        return status, {}, {"ok": status == 200}


async def serve(shop: Shop, *, host: str, port: int) -> asyncio.Server:
    """Listens; port 0 takes a free one."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await _one(shop, reader, writer):
                pass
        except (Dropped, ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            writer.close()

    return await asyncio.start_server(connected, host, port)


async def _one(shop: Shop, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answers one request of a connection; whether another may follow."""
    first = (await reader.readline()).decode("latin-1").split()
    if len(first) != 3:
        return False
    headers: dict[str, str] = {}
    for _ in range(HEAD_LINES_MAX):
        line = (await reader.readline()).decode("latin-1").strip()
        if not line:
            break
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    length = int(headers.get("content-length", "0"))
    if length < 0:
        return False
    if length > BODY_BYTES_MAX:  # answered, not dropped: who gets no answer must send it again and again
        writer.write(b"HTTP/1.1 413 413\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        return False
    body = await reader.readexactly(length)
    try:
        status, further, said = await shop.answer(first[0], first[1], headers, body)
    except (msgspec.DecodeError, KeyError, ValueError, TypeError) as error:
        status, further, said = 400, {}, {"detail": str(error)}
    content = msgspec.json.encode(said)
    head = {"content-type": "application/json", "content-length": str(len(content)), **further}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    writer.write(f"HTTP/1.1 {status} {status}\r\n{lines}\r\n".encode("latin-1") + content)
    await writer.drain()
    return headers.get("connection", "").lower() != "close"


async def run(shop: Shop, *, host: str, port: int, parent: int) -> None:
    """Serves until it is ended, or the process `parent` is; says where on its first line of output."""
    server = await serve(shop, host=host, port=port)
    taken = server.sockets[0].getsockname()[1]
    print(f"http://{host}:{taken}", flush=True)
    while os.getppid() == parent:  # noqa: ASYNC110 - no event says it on every system
        await asyncio.sleep(PARENT_SECONDS)
    server.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of the shop."""
    options = argparse.ArgumentParser(prog="python -m oms.demo.shop", description="The demo's web shop.")
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=0, help="0 takes a free one; the first line of output says which")
    options.add_argument("--secret", action="append", required=True, help="whsec_…; twice for rotation")
    options.add_argument("--orders", type=Path, help="orders captured overnight, one JSON object per line")
    options.add_argument("--state", type=Path, help="a file to know again what was told and sold, when started again")
    parent = os.getppid()
    chosen = options.parse_args(arguments)
    orders = []
    if chosen.orders:
        with chosen.orders.open("rb") as lines:
            orders = [msgspec.json.decode(line, type=dict[str, Any]) for line in lines if line.strip()]
    shop = Shop(secrets=chosen.secret, orders=orders)
    if chosen.state:
        shop.keep_in(chosen.state)
    try:
        asyncio.run(run(shop, host=chosen.host, port=chosen.port, parent=parent))
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
