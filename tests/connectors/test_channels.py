"""What a channel's answers mean, what its settings must be, and where it never calls."""

import asyncio
import base64
import csv
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from standardwebhooks.webhooks import Webhook

from connectors.channels import Answer, Delivered, Line, Push, Refused, SettingsWrong, SlowDown, Unknown
from connectors.channels.file import FileChannel
from connectors.channels.webhook import WebhookChannel, retry_after

SECRET = "whsec_" + base64.b64encode(b"one secret, of thirty-two bytes.").decode()
NEXT = "whsec_" + base64.b64encode(b"the next secret, after rotation.").decode()
NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
PUSH = Push("p1", "reset", NOW, (Line("A", 3), Line('B, "quoted" д', 0)))


class Listener:
    """A server that answers as it is told and keeps what it was sent."""

    def __init__(self) -> None:
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.url = ""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append((first, headers, body))
        writer.write(self.answer)
        await writer.drain()
        writer.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    made = Listener()
    async with await asyncio.start_server(made.connected, "127.0.0.1", 0) as server:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        yield made


def settings(url: str, **more: Any) -> dict[str, Any]:
    return {"url": url, "secrets": [SECRET], "allow_hosts": ["127.0.0.1"]} | more


async def tell(settings: dict[str, Any], push: Push = PUSH) -> Answer:
    channel = WebhookChannel.of(settings)
    try:
        return await channel.push(push)
    finally:
        await channel.close()


async def test_a_push_is_signed_by_every_live_secret_over_its_exact_bytes(listener: Listener) -> None:
    assert isinstance(await tell(settings(listener.url, secrets=[SECRET, NEXT])), Delivered)
    [(first, headers, body)] = listener.requests
    assert first == "POST /hook HTTP/1.1"
    assert headers["webhook-id"] == "p1"
    for secret in (SECRET, NEXT):
        said = Webhook(secret).verify(body, headers)
    assert said == {
        "type": "availability.reset", "as_of": "2026-11-23T06:00:00Z",
        "items": [{"sku": "A", "quantity": 3}, {"sku": "B, \"quoted\" д", "quantity": 0}],
    }  # fmt: skip


async def test_a_delta_says_differences_only(listener: Listener) -> None:
    await tell(settings(listener.url), Push("p2", "delta", None, (Line("A", 3, -2),)))
    said = msgspec.json.decode(listener.requests[0][2])
    assert said == {"type": "availability.delta", "as_of": None, "items": [{"sku": "A", "delta": -2}]}


@pytest.mark.parametrize(
    ("status", "further", "expected"),
    [
        (200, "", Delivered), (204, "", Delivered), (429, "retry-after: 7", SlowDown(7.0, "429")),
        (429, "", SlowDown(1.0, "429")), (503, "retry-after: 3", SlowDown(3.0, "503")), (503, "", Unknown),
        (500, "", Unknown), (408, "", Unknown), (409, "", Unknown), (422, "", Refused("422", is_content=True)),
        (413, "", Refused("413", is_content=True)), (401, "", Refused("401", is_content=False)),
        (410, "", Refused("410", is_content=False)), (302, "location: http://elsewhere.test/", Refused("302", is_content=False)),
    ],
)  # fmt: skip
async def test_a_status_means(listener: Listener, status: int, further: str, expected: Any) -> None:
    further = further + "\r\n" if further else ""
    listener.answer = f"HTTP/1.1 {status} X\r\n{further}content-length: 0\r\n\r\n".encode()
    answer = await tell(settings(listener.url))
    assert isinstance(answer, expected) if isinstance(expected, type) else answer == expected
    assert len(listener.requests) == 1


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf", b"nonsense\r\n\r\n"])
async def test_an_answer_that_is_cut_off_or_nonsense_leaves_the_outcome_unknown(
    listener: Listener, answer: bytes
) -> None:
    listener.answer = answer
    assert isinstance(await tell(settings(listener.url)), Unknown)


def test_retry_after_is_a_number_or_a_date_and_nothing_else_is_believed() -> None:
    assert retry_after("120") == 120.0
    assert retry_after("Mon, 23 Nov 2026 06:00:30 GMT", now=NOW) == 30.0
    assert retry_after("Mon, 23 Nov 2026 05:00:30 GMT", now=NOW) == 0.0
    assert retry_after("99999999") == 3600.0
    assert [retry_after(text, now=NOW) for text in (None, "", "soon", "nan", "inf", "-5")] == [1.0] * 5 + [0.0]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "0.0.0.0"])
async def test_a_private_network_is_not_called_unless_a_person_named_the_host(host: str) -> None:
    answer = await tell({"url": f"http://{host}:9/hook", "secrets": [SECRET]})
    assert isinstance(answer, Refused) and "private network" in answer.reason and not answer.is_content


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"url": "ftp://shop.test/"}, "url"), ({"url": None}, "url"), ({"secrets": []}, "secrets"),
        ({"secrets": ["whsec_!"]}, "secrets"), ({"secrets": "whsec_x"}, "secrets"), ({"batch_max": 0}, "batch_max"),
        ({"batch_max": "many"}, "batch_max"), ({"orders_url": "shop/orders"}, "orders_url"),
        ({"allow_hosts": "shop.test"}, "allow_hosts"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_work_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsWrong, match=f"^{named}: "):
        WebhookChannel.of(settings("http://shop.test/hook") | wrong)


async def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "drop"
    channel = FileChannel.of({"folder": str(folder)})
    with monkeypatch.context() as killed:
        killed.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert isinstance(await channel.push(PUSH), Unknown)
    assert list(folder.glob("*.csv")) == []
    assert await channel.push(PUSH) == await channel.push(PUSH) == Delivered("p1.csv")
    assert [path.name for path in folder.iterdir()] == ["p1.csv"]
    with (folder / "p1.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["sku", "quantity", "as_of"], ["A", "3", "2026-11-23T06:00:00+00:00"],
        ["B, \"quoted\" д", "0", "2026-11-23T06:00:00+00:00"],
    ]  # fmt: skip


async def test_a_file_says_no_differences(tmp_path: Path) -> None:
    answer = await FileChannel.of({"folder": str(tmp_path)}).push(Push("p", "delta", None, (Line("A", 1, 1),)))
    assert isinstance(answer, Refused)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", [None, "drop", 5])
def test_a_folder_that_is_no_absolute_path_is_refused(folder: Any) -> None:
    with pytest.raises(SettingsWrong, match=r"^folder: "):
        FileChannel.of({"folder": folder})
