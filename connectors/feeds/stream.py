"""Bytes of a file or an upload as text lines, unpacked where they are gzipped, hashed as they come."""

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from connectors.feeds import FileRefused

BLOCK_BYTES = 1 << 18
GZIP = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"


class Source:
    """A stream of blocks with its name, size where known, what has been read of it so far, and how its text begins.

    More than `bytes_max` (as it comes, packed or not) are refused by FileRefused.
    """

    def __init__(
        self,
        blocks: Iterable[bytes] | Path,
        *,
        name: str | None = None,
        bytes_total: int | None = None,
        bytes_max: int | None = None,
    ) -> None:
        if isinstance(blocks, Path):
            self.name = name or blocks.name
            self.bytes_total: int | None = blocks.stat().st_size
            self._blocks: Iterable[bytes] = _file_blocks(blocks)
        else:
            self.name, self.bytes_total, self._blocks = name or "upload", bytes_total, blocks
        self.bytes_read, self._bytes_max = 0, bytes_max
        self.head = b""
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The hash of what has been read so far; of all of it when the stream has ended."""
        return self._hash.hexdigest()

    def _raw(self) -> Iterator[bytes]:
        for block in self._blocks:
            if block:
                self.bytes_read += len(block)
                if self._bytes_max is not None and max(self.bytes_read, self.bytes_total or 0) > self._bytes_max:
                    raise FileRefused(
                        self.name, f"is larger than {self._bytes_max:,} bytes",
                        "Put it into the source's folder, or raise OMS_FEED_BYTES_MAX.",
                    )  # fmt: skip
                self._hash.update(block)
                yield block

    def blocks(self) -> Iterator[bytes]:
        """Unpacked blocks without a byte order mark. Raises FileRefused for a damaged or cut-off gzip."""
        raw = self._raw()
        head = b""
        for block in raw:
            head += block
            if len(head) >= 4:
                break
        body = _chain(head, raw)
        first = True
        for block in _gunzip(body, self.name) if head.startswith(GZIP) else body:
            if first and block:
                block = block.removeprefix(BOM)
                self.head = block[:8]
                first = False
            if block:
                yield block

    def whole_lines(self) -> Iterator[bytes]:
        """Blocks that end at a line's end; the last one may not."""
        rest = b""
        for block in self.blocks():
            cut = block.rfind(b"\n") + 1
            if cut:
                yield rest + block[:cut] if rest else block[:cut]
                rest = block[cut:]
            else:
                rest += block
                if len(rest) > 64 * BLOCK_BYTES:
                    raise FileRefused(self.name, "a line is longer than 16 MB", "Is this a text file with line ends?")
        if rest:
            yield rest


def check_rows(source: Source, rows: int, expected: int | None) -> None:
    """Raises FileRefused where a file holds other rows than its sender announced."""
    if expected not in (None, rows):
        raise FileRefused(
            source.name, f"holds {rows} rows where {expected} were announced",
            "It was cut off, or the announcement is of another file; send both again.",
        )  # fmt: skip


def _file_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from rest


def _gunzip(blocks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Unpacks gzip, several members too, a bounded piece at a time; zeros after the last one are padding."""
    unpack = zlib.decompressobj(31)
    try:
        for block in blocks:
            data = block
            while data:
                if unpack.eof:
                    data = data.lstrip(b"\x00")
                    if not data:
                        break
                    unpack = zlib.decompressobj(31)
                yield unpack.decompress(data, BLOCK_BYTES)
                data = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
    except zlib.error as error:
        raise FileRefused(name, f"the gzip is damaged ({error})", "Send it again.") from None
    if not unpack.eof:
        raise FileRefused(name, "the gzip ends in the middle", "It was cut off; send it again.")
