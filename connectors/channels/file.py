"""A channel that reads files: each push is a CSV in a folder, written whole or not at all.

`sku,quantity,as_of`: what may be sold of a sku, absolute; as of what moment the shop's orders are known. A file's name
is its push's id, which sorts by time: later files win. The same push again replaces its file by the same bytes.
"""

import asyncio
import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from connectors.channels import Answer, Delivered, Push, Refused, SettingsWrong, Unknown, whole_number

BATCH_MAX = 1_000_000


class FileChannel:
    """One folder. A reader takes `*.csv`; a name that begins with a dot is not finished."""

    has_guard = False

    def __init__(self, *, folder: Path, batch_max: int = BATCH_MAX) -> None:
        self.folder, self.max_batch = folder, batch_max

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "FileChannel":
        """From a channel's settings: folder, batch_max. Raises SettingsWrong."""
        folder = settings.get("folder")
        if not isinstance(folder, str) or not Path(folder).is_absolute():
            raise SettingsWrong(f"folder: an absolute path is expected, not {folder!r}")
        return cls(
            folder=Path(folder), batch_max=whole_number(settings, "batch_max", default=BATCH_MAX, most=BATCH_MAX)
        )

    async def close(self) -> None:
        """Nothing is open."""

    async def push(self, push: Push) -> Answer:
        """Writes the file; its name appears when its bytes are on the disk."""
        if any(line.delta is not None for line in push.lines):
            return Refused("a file says absolute values only", is_content=False)
        try:
            path = await asyncio.to_thread(self._write, push)
        except OSError as error:
            return Unknown(f"{error.strerror or error}: {error.filename or self.folder}")
        return Delivered(path.name)

    def _write(self, push: Push) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        text = io.StringIO(newline="")
        rows = csv.writer(text)
        rows.writerow(("sku", "quantity", "as_of"))
        as_of = push.as_of.isoformat() if push.as_of else ""
        rows.writerows((line.sku, line.quantity, as_of) for line in push.lines)
        path, part = self.folder / f"{push.id}.csv", self.folder / f".{push.id}.part"
        with part.open("wb") as file:
            file.write(text.getvalue().encode())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return path
