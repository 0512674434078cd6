"""A source that reads files from a folder: each batch is one file, written whole or not at all.

`format` csv (`id,kind,sku,location,quantity,occurred_at,hold,held,reason,about`) or json_lines. A file's name is its batch's
id, which sorts by time; the same batch again replaces its file by the same bytes. With `marker` an empty file of the same
name and the ending `.complete` follows.
"""

import asyncio
import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from connectors.channels import Answer, SettingsWrong, Unknown
from connectors.posts import Batch, Moved, Posted

FORMATS = {"csv": ".csv", "json_lines": ".jsonl"}


class FilePoster:
    """One folder. A reader takes names that do not begin with a dot."""

    def __init__(self, *, folder: Path, format: str = "csv", marker: bool = False) -> None:
        self.folder, self.format, self.marker = folder, format, marker

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "FilePoster":
        """From settings: folder, format, marker. Raises SettingsWrong."""
        folder, written = settings.get("folder"), settings.get("format", "csv")
        if not isinstance(folder, str) or not Path(folder).is_absolute():
            raise SettingsWrong(f"folder: an absolute path is expected, not {folder!r}")
        if written not in FORMATS:
            raise SettingsWrong(f"format: {written!r} is none of {', '.join(FORMATS)}")
        marker = settings.get("marker", False)
        if not isinstance(marker, bool):
            raise SettingsWrong(f"marker: true or false is expected, not {marker!r}")
        return cls(folder=Path(folder), format=written, marker=marker)

    async def close(self) -> None:
        """Nothing is open."""

    async def post(self, batch: Batch) -> Posted | Answer:
        """Writes the file; its name appears when its bytes are on the disk."""
        try:
            path = await asyncio.to_thread(self._write, batch)
        except OSError as error:
            return Unknown(f"{error.strerror or error}: {error.filename or self.folder}")
        return Posted(path.name)

    def _write(self, batch: Batch) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path, part = self.folder / f"{batch.id}{FORMATS[self.format]}", self.folder / f".{batch.id}.part"
        with part.open("wb") as file:
            file.write(_csv(batch) if self.format == "csv" else _json_lines(batch))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        if self.marker:
            path.with_suffix(".complete").touch()
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return path


def _csv(batch: Batch) -> bytes:
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    names = Moved.__struct_fields__
    rows.writerow(names)
    for moved in batch.movements:
        said = msgspec.to_builtins(moved)
        rows.writerow([said.get(name, 0 if name == "held" else "") for name in names])
    return text.getvalue().encode()


def _json_lines(batch: Batch) -> bytes:
    return b"".join(msgspec.json.encode(moved) + b"\n" for moved in batch.movements)
