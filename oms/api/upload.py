"""A request's body as blocks for a reader in a thread: pulled as they are read, so that memory does not grow."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from litestar import Request
from litestar.exceptions import ClientException

from connectors.feeds.stream import BLOCK_BYTES, Source

TYPES = frozenset({
    "text/csv", "text/plain", "application/csv", "application/x-ndjson", "application/ndjson", "application/jsonl",
    "application/jsonlines", "application/json", "application/gzip", "application/x-gzip", "application/octet-stream",
})  # fmt: skip
"""Content types that are read: CSV or JSON Lines, seen from the first bytes, gzip too."""


def source_of(request: Request[Any, Any, Any], *, name: str, bytes_max: int) -> Source:
    """The body as a source of blocks. Raises 415 for a content type that is not read here."""
    given = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if given and given not in TYPES:
        raise ClientException(
            f"content-type {given} is not read here: a feed is CSV (text/csv) or JSON Lines (application/x-ndjson), "
            "gzip or not; Parquet and X12 846 are not read yet",
            status_code=415,
        )
    length = request.headers.get("content-length", "")
    return Source(
        blocks_of(request.stream(), asyncio.get_running_loop()), name=name,
        bytes_total=int(length) if length.isdigit() else None, bytes_max=bytes_max,
    )  # fmt: skip


def blocks_of(chunks: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
    """Blocks of about BLOCK_BYTES; to be read in another thread than the loop's."""

    async def gather() -> bytes:
        parts: list[bytes] = []
        size = 0
        while size < BLOCK_BYTES:
            part = await anext(chunks, None)
            if part is None:
                break
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    while block := asyncio.run_coroutine_threadsafe(gather(), loop).result():
        yield block
