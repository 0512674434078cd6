"""Calls to other systems stay within their limits and out of private networks."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from connectors import http
from connectors.channels.webhook import OrdersUnreadable, WebhookChannel
from connectors.http import AddressWrong, Client, Got, NoAnswer, NotAllowed, is_inside, split
from connectors.signing import make_secret, signers, verify

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
SECRET = make_secret()


class Server:
    """Answers each request with the next of its answers; keeps what it was asked."""

    def __init__(self, *answers: bytes | float) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.port = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        self.asked.append((first, dict(line.lower().split(": ", 1) for line in lines)))
        answer = self.answers.pop(0)
        if isinstance(answer, float):
            await asyncio.sleep(answer)
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()


def ok(body: bytes, status: int = 200, further: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\n%bcontent-length: %d\r\n\r\n%b" % (status, further, len(body), body)


@asynccontextmanager
async def serving(*answers: bytes | float) -> AsyncIterator[Server]:
    server = Server(*answers)
    async with await asyncio.start_server(server.connected, "127.0.0.1", 0) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server


async def call(url: str, **more: Any) -> Got:
    client = Client(**({"allow_hosts": ["127.0.0.1", "localhost"]} | more))
    try:
        return await client.call("GET", url, headers={})
    finally:
        await client.close()


async def test_an_answer_is_given_as_it_came() -> None:
    async with serving(ok(b"busy", 429, b"retry-after: 7\r\n")) as server:
        got = await call(f"http://127.0.0.1:{server.port}/a?b=%20c")
    assert (got.status, got.retry_after, got.content, str(got)) == (429, "7", b"busy", "429 busy")
    assert server.asked[0][0] == "GET /a?b=%20c HTTP/1.1"
    assert server.asked[0][1]["host"] == f"127.0.0.1:{server.port}"


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async with serving(ok(b"", 302, b"location: http://169.254.169.254/\r\n")) as server:
        assert (await call(f"http://127.0.0.1:{server.port}/")).status == 302
    assert len(server.asked) == 1


async def test_an_answer_that_is_too_late_or_too_long_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ANSWER_BYTES_MAX", 100)
    async with serving(30.0, ok(b"x" * 101), ok(b"x" * 100)) as server:
        url = f"http://127.0.0.1:{server.port}/"
        with pytest.raises(NoAnswer, match=r"no answer within 0\.05 s"):
            await call(url, seconds_max=0.05)
        with pytest.raises(NoAnswer, match="more than 100 bytes"):
            await call(url)
        assert len((await call(url)).content) == 100


async def test_a_server_that_drips_its_answer_does_not_hold_us_beyond_the_limit() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.02)

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        with pytest.raises(NoAnswer, match="within"):
            await call(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", seconds_max=0.3)


async def test_a_name_with_several_addresses_is_reached_at_the_one_that_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(ok(b"here")) as server:
        found = [(socket.AF_INET, 0, 0, "", (address, server.port)) for address in ("127.0.0.9", "127.0.0.1")]
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", names(found))
        assert (await call(f"http://shop.test:{server.port}/", allow_hosts=["Shop.Test"])).content == b"here"
        assert server.asked[0][1]["host"] == f"shop.test:{server.port}"


def names(found: list[Any]) -> Any:
    """A name that is known once: who looks it up again is led astray."""
    answers = [found]

    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        return answers.pop()

    return getaddrinfo


async def test_a_public_name_that_leads_inside_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(ok(b"secret")) as server:
        found = [(0, 0, 0, "", (address, server.port)) for address in ("93.184.216.34", "127.0.0.1")]
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", names(found))
        with pytest.raises(NotAllowed, match=r"shop\.test lies in a private network"):
            await call(f"http://shop.test:{server.port}/", allow_hosts=["127.0.0.1"])
    assert server.asked == []


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
     "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
     "2002:a00:1::1"],
)  # fmt: skip
def test_addresses_that_are_not_public_are_known(address: str) -> None:
    assert is_inside(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
def test_public_addresses_are_known(address: str) -> None:
    assert not is_inside(address)


@pytest.mark.parametrize(
    "url", ["", "shop", "ftp://a.test", "http://", "http://a:99999/", "http://a:0/", "http://[::1"]
)
def test_what_is_no_address_is_named(url: str) -> None:
    with pytest.raises(AddressWrong):
        split(url)


async def test_nobody_there_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(NoAnswer):
        await call(f"http://127.0.0.1:{port}/")
    with pytest.raises(NoAnswer):
        await call("http://no-such-host.invalid/")


async def orders(server: Server, *, since: datetime | None = None) -> list[dict[str, Any]]:
    url = f"http://127.0.0.1:{server.port}/orders?shop=1"
    channel = WebhookChannel.of({"url": url, "orders_url": url, "secrets": [SECRET], "allow_hosts": ["127.0.0.1"]})
    try:
        return await channel.fetch_orders(since=since, until=NOW)
    finally:
        await channel.close()


async def test_orders_are_read_page_by_page_each_asked_for_by_a_signed_query() -> None:
    pages = (ok(b'{"orders":[{"number":"1"}],"next":"a b"}'), ok(b'{"orders":[{"number":"2"}],"next":null}'))
    async with serving(*pages) as server:
        assert await orders(server) == [{"number": "1"}, {"number": "2"}]
    queries = [first.split()[1].partition("?")[2] for first, _ in server.asked]
    until = "until=2026-11-23T06%3A00%3A00%2B00%3A00"
    assert queries == [f"shop=1&since=&{until}&cursor=", f"shop=1&since=&{until}&cursor=a+b"]


async def test_the_signature_of_a_query_is_over_all_of_it() -> None:
    seen: list[str] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        query = first.split()[1].partition("?")[2].encode()
        seen.append(verify(query, headers, by=signers([SECRET]), now=datetime.now(UTC)))
        writer.write(ok(b'{"orders":[]}'))
        writer.close()

    server = Server()
    async with await asyncio.start_server(connected, "127.0.0.1", 0) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        assert await orders(server, since=NOW) == []
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ((ok(b"no", 500),), "answers 500 no"),
        ((ok(b"[]"),), "Expected `object`"),
        ((ok(b'{"orders":[{"number":"1"}],"next":"a"}'), ok(b'{"orders":[],"next":"a"}')), "cursor 'a' again"),
        ((ok(b'{"orders":[{"number":"1"}],"next":"a"}'), b""), "RemoteProtocolError"),
    ],
)
async def test_orders_that_cannot_be_read_to_the_end_are_not_half_read(answers: tuple[bytes, ...], says: str) -> None:
    async with serving(*answers) as server:
        with pytest.raises(OrdersUnreadable, match=says):
            await orders(server)
