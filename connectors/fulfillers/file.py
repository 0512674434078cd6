"""A fulfiller that reads and writes files in a folder: `out/*.json` is its work, `in/*.json` its answers.

Each file is written whole or not at all: under a name that begins with a dot, then renamed. An answer file holds one
answer or a list; taken, it goes to `in/done`, and one that cannot be read to `in/refused` with its reason beside it.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from connectors.channels import Answer, Delivered, SettingsWrong, Unknown
from connectors.fulfillers import Order

FILES_MAX = 500
FILE_BYTES_MAX = 10_000_000


class FileFulfiller:
    """One folder."""

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "FileFulfiller":
        """From settings: folder. Raises SettingsWrong."""
        folder = settings.get("folder")
        if not isinstance(folder, str) or not Path(folder).is_absolute():
            raise SettingsWrong(f"folder: an absolute path is expected, not {folder!r}")
        return cls(folder=Path(folder))

    async def close(self) -> None:
        """Nothing is open."""

    async def tell(self, order: Order) -> Answer:
        """Writes the file; its name appears when its bytes are on the disk, and the same work has the same name."""
        try:
            path = await asyncio.to_thread(self._write, order)
        except OSError as error:
            return Unknown(f"{error.strerror or error}: {error.filename or self.folder}")
        return Delivered(path.name)

    def _write(self, order: Order) -> Path:
        out = self.folder / "out"
        out.mkdir(parents=True, exist_ok=True)
        name = f"{order.act}-{order.id}.json"
        part = out / f".{name}.part"
        with part.open("wb") as file:
            file.write(msgspec.json.encode(order))
            file.flush()
            os.fsync(file.fileno())
        part.replace(out / name)
        return out / name

    def answers(self) -> list[Path]:
        """Complete answer files, by name."""
        folder = self.folder / "in"
        if not folder.is_dir():
            return []
        found = sorted(p for p in folder.glob("*.json") if p.is_file() and not p.name.startswith("."))
        return found[:FILES_MAX]

    def set_aside(self, path: Path, *, refused: str | None = None) -> None:
        """Moves a file that was taken to `done`, or to `refused` with the reason beside it; nothing there is lost."""
        folder = path.parent / ("refused" if refused else "done")
        folder.mkdir(exist_ok=True)
        number, target = 1, folder / path.name
        while target.exists():
            number += 1
            target = folder / f"{path.stem}~{number}{path.suffix}"
        if refused:
            target.with_suffix(".txt").write_text(refused + "\n", encoding="utf-8")
        path.rename(target)


def read_file(path: Path) -> bytes:
    """The bytes of an answer file; raises OSError, also where it is too large."""
    if path.stat().st_size > FILE_BYTES_MAX:
        raise OSError(f"{path.name} has more than {FILE_BYTES_MAX:,} bytes")
    return path.read_bytes()
