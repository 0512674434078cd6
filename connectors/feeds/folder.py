"""A source's folder: complete deliveries, oldest first; what is not complete yet says why."""

import time
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

STABLE_SECONDS = 2.0
DONE = "done"
KINDS = ("baseline", "movements", "orders")
BESIDE = (".json", ".complete", ".part", ".tmp")


class Sidecar(msgspec.Struct, frozen=True):
    """What a delivery says of itself, in `NAME.json` beside it (the file's name up to its first dot)."""

    as_of: datetime | None = None
    scope: Literal["full", "partial"] = "full"
    watermark: dict[str, int] = {}
    posted: list[str] = []
    complete: bool = True
    rows: int | None = None
    bytes: int | None = None


class Delivery(msgspec.Struct, frozen=True):
    """A complete file of a kind, with what it says of itself."""

    kind: str
    path: Path
    sidecar: Sidecar


class Waiting(msgspec.Struct, frozen=True):
    """A file that is not taken, and why."""

    path: Path
    reason: str


def deliveries(folder: Path, *, stable_seconds: float = STABLE_SECONDS) -> tuple[list[Delivery], list[Waiting]]:
    """Complete deliveries of a folder: baselines by their moment, then the rest by name.

    A baseline needs its sidecar, which says its moment. A sidecar is written last: it says that the file is complete,
    and where it tells its `bytes`, the file is not taken before it has them. A file without one is complete when a
    `.complete` marker stands beside it or it has not changed for `stable_seconds`.
    """
    ready: list[Delivery] = []
    waiting: list[Waiting] = []
    if not folder.is_dir():
        return [], [Waiting(folder, "there is no such folder")]
    for path in sorted(folder.iterdir()):
        try:
            match _look(path, stable_seconds):
                case Delivery() as delivery:
                    ready.append(delivery)
                case Waiting() as why:
                    waiting.append(why)
        except FileNotFoundError:
            continue  # its sender gave it another name meanwhile
    order = {kind: i for i, kind in enumerate(KINDS)}
    ready.sort(key=lambda d: (order[d.kind], d.sidecar.as_of.timestamp() if d.sidecar.as_of else 0.0, d.path.name))
    return ready, waiting


def _look(path: Path, stable_seconds: float) -> Delivery | Waiting | None:
    """A delivery, or why it is none yet; None for what only stands beside one, and for what is being written."""
    if path.name.startswith(".") or path.suffix in BESIDE or not path.is_file():
        return None
    stem = path.name.split(".", 1)[0]
    kind = next((k for k in KINDS if stem.startswith(k)), None)
    if kind is None:
        return Waiting(path, f"its name begins with none of {', '.join(KINDS)}")
    found = _sidecar(path.with_name(f"{stem}.json"))
    if isinstance(found, str):
        return Waiting(path, found)
    if kind == "baseline" and (found is None or found.as_of is None):
        return Waiting(path, f"{stem}.json with as_of is missing: a snapshot says of which moment it is")
    if found is None:
        is_complete = path.with_name(f"{stem}.complete").exists() or _age(path) >= stable_seconds
        return Delivery(kind, path, Sidecar()) if is_complete else Waiting(path, "it is still changing")
    if not found.complete:
        return Waiting(path, f"{stem}.json says that it is not complete")
    if found.bytes not in (None, size := path.stat().st_size):
        return Waiting(path, f"{stem}.json says {found.bytes} bytes, so far it has {size}")
    return Delivery(kind, path, found)


def _sidecar(path: Path) -> Sidecar | str | None:
    if not path.exists():
        return None
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Sidecar)
    except msgspec.DecodeError as error:
        return f"{path.name} cannot be read: {error}"
    if found.as_of is not None and found.as_of.tzinfo is None:
        return f"{path.name}: as_of has no offset from UTC"
    return found


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def set_aside(delivery: Delivery) -> None:
    """Moves a delivery that was taken into the folder's `done`, with what stands beside it."""
    done = delivery.path.parent / DONE
    done.mkdir(exist_ok=True)
    stem = delivery.path.name.split(".", 1)[0]
    for path in (delivery.path, *(delivery.path.with_name(f"{stem}{end}") for end in (".json", ".complete"))):
        if path.exists():
            path.replace(done / path.name)
