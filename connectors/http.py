"""Calls over HTTP to where other systems answer: within limits, without redirects, never into a private network.

A private network is called only by a host that a person named. The address that was checked is the one that is called:
a name that is looked up again may lie elsewhere by then. Whether to try again is the caller's to decide.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from urllib.parse import SplitResult, urlsplit

import httpx
import msgspec

ANSWER_SECONDS_MAX = 20.0
ANSWER_BYTES_MAX = 50_000_000
SHOWN_MAX = 300
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Got(msgspec.Struct, frozen=True):
    """An answer over HTTP."""

    status: int
    retry_after: str | None
    content: bytes

    def __str__(self) -> str:
        return f"{self.status} {self.content[:SHOWN_MAX].decode(errors='replace')}".strip()


class NoAnswer(OSError):
    """Nobody answered, or not within the limits; whether the call was taken is not known."""


class NotAllowed(Exception):
    """The address may not be called."""


class AddressWrong(ValueError):
    """A text that is no http(s) address."""


class Client:
    """Calls other systems. `allow_hosts` names hosts that may lie in a private network."""

    def __init__(self, *, allow_hosts: Sequence[str] = (), seconds_max: float = ANSWER_SECONDS_MAX) -> None:
        self._allowed = frozenset(host.lower() for host in allow_hosts)
        self._seconds_max = seconds_max
        self._http = httpx.AsyncClient(timeout=seconds_max, follow_redirects=False, trust_env=False)

    async def close(self) -> None:
        """Ends its connections."""
        await self._http.aclose()

    async def call(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Got:
        """One call, `seconds_max` in all. Raises NotAllowed, NoAnswer, AddressWrong."""
        parts = split(url)
        try:
            async with asyncio.timeout(self._seconds_max):
                addresses = await self._addresses(parts)
                for address in addresses[:-1]:
                    try:
                        return await self._call(method, url, parts, address, headers=headers, body=body)
                    except httpx.ConnectError:  # nothing was sent: the name's next address may be the one that listens
                        continue
                return await self._call(method, url, parts, addresses[-1], headers=headers, body=body)
        except TimeoutError:
            raise NoAnswer(f"no answer within {self._seconds_max:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise NoAnswer(f"{type(error).__name__}: {error}"[:SHOWN_MAX]) from error

    async def _call(
        self,
        method: str,
        url: str,
        parts: SplitResult,
        address: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> Got:
        request = self._http.build_request(
            method, httpx.URL(url).copy_with(host=address), content=body,
            headers={**headers, "host": parts.netloc.rpartition("@")[2]},
            extensions={"sni_hostname": parts.hostname},
        )  # fmt: skip
        request.extensions["timeout"] = httpx.Timeout(self._seconds_max).as_dict()
        answer = await self._http.send(request, stream=True)
        try:
            content = bytearray()
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) > ANSWER_BYTES_MAX:
                    raise httpx.DecodingError(f"an answer of more than {ANSWER_BYTES_MAX:,} bytes")
        finally:
            await answer.aclose()
        return Got(answer.status_code, answer.headers.get("retry-after"), bytes(content))

    async def _addresses(self, parts: SplitResult) -> list[str]:
        """Where a host lies, each once. Raises NotAllowed, OSError."""
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
        inside = [address for address in addresses if is_inside(address)]
        if inside and host.lower() not in self._allowed:
            raise NotAllowed(f"{host} lies in a private network ({inside[0]}); name it in allow_hosts if that is meant")
        return addresses


def split(url: str) -> SplitResult:
    """The parts of an http(s) address. Raises AddressWrong."""
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise AddressWrong(f"{url!r} is no http(s) address: {error}") from None
    if not is_right:
        raise AddressWrong(f"{url!r} is no http(s) address")
    return parts


def is_inside(address: str) -> bool:
    """Whether an address is no public one, or leads to one that is not."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        within = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            within = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if within is not None:
            return is_inside(str(within))
    return not ip.is_global or ip.is_multicast
