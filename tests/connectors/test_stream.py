"""An upload is read in another thread at the reader's pace."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from connectors.feeds.stream import BLOCK_BYTES, Source, upload_blocks
from connectors.feeds.tabular import Reader


async def test_an_upload_in_small_chunks_is_read_in_another_thread() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for piece in (b"sku,loc", b"", b"ation,quantity\nA,L,", b"1\nB,L,2\n"):
            await asyncio.sleep(0)
            yield piece

    source = Source(upload_blocks(chunks(), loop=asyncio.get_running_loop()))
    batches = await asyncio.to_thread(lambda: list(Reader(source)))
    assert sum(batch.rows for batch in batches) == 2
    assert source.bytes_read == 34


async def test_an_upload_is_not_read_ahead_of_its_reader() -> None:
    given = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 1
            yield b"x" * 65536

    blocks = upload_blocks(chunks(), loop=asyncio.get_running_loop())
    for k in (1, 2, 3):
        assert len(await asyncio.to_thread(next, blocks)) == BLOCK_BYTES
        assert given == 4 * k


async def test_an_upload_that_breaks_off_is_no_short_file() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"sku,location,quantity\nA,L,1\n"
        raise ConnectionResetError("the sender is gone")

    source = Source(upload_blocks(chunks(), loop=asyncio.get_running_loop()))
    with pytest.raises(ConnectionResetError):
        await asyncio.to_thread(lambda: list(Reader(source)))
