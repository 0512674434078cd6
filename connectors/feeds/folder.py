"""A source's folder: complete deliveries, oldest first; what is not complete yet says why."""

import time
from collections import Counter
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
    """A file that is not taken, why, and since when it has not changed."""

    path: Path
    reason: str
    age_seconds: float = 0.0


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
    found = sorted(folder.iterdir())
    beside = Counter(_stem(path) for path in found if _is_file(path))
    for path in found:
        try:
            match _look(path, stable_seconds, shares_sidecar=beside[_stem(path)] > 1):
                case Delivery() as delivery:
                    ready.append(delivery)
                case str(reason):
                    waiting.append(Waiting(path, reason, _age(path)))
        except FileNotFoundError:
            continue  # its sender gave it another name meanwhile
    order = {kind: i for i, kind in enumerate(KINDS)}
    ready.sort(key=lambda d: (order[d.kind], d.sidecar.as_of.timestamp() if d.sidecar.as_of else 0.0, d.path.name))
    return ready, waiting


def _stem(path: Path) -> str:
    return path.name.split(".", 1)[0]


def _is_file(path: Path) -> bool:
    """Whether it may be a delivery: neither stands beside one, nor is being written."""
    return not path.name.startswith(".") and path.suffix not in BESIDE and path.is_file()


def _look(path: Path, stable_seconds: float, *, shares_sidecar: bool) -> Delivery | str | None:
    """A delivery, or why it is none yet; None for what only stands beside one, and for what is being written."""
    if not _is_file(path):
        return None
    stem = _stem(path)
    kind = next((k for k in KINDS if stem.startswith(k)), None)
    if kind is None:
        return f"its name begins with none of {', '.join(KINDS)}"
    found = _sidecar(path.with_name(f"{stem}.json"))
    if isinstance(found, str):
        return found
    if kind == "baseline" and (found is None or found.as_of is None):
        return f"{stem}.json with as_of is missing: a snapshot says of which moment it is"
    if found is None:
        is_complete = path.with_name(f"{stem}.complete").exists() or _age(path) >= stable_seconds
        return Delivery(kind, path, Sidecar()) if is_complete else "it is still changing"
    if shares_sidecar:
        return f"{stem}.json stands beside several files: give each a name and a sidecar of its own"
    if not found.complete:
        return f"{stem}.json says that it is not complete"
    if found.bytes not in (None, size := path.stat().st_size):
        return f"{stem}.json says {found.bytes} bytes, so far it has {size}"
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
    """Moves a delivery that was taken into the folder's `done`, with what stands beside it; nothing there is lost.

    Where a name is taken already, all of them get a number: `baseline~2.csv` and `baseline~2.json`.
    """
    folder = delivery.path.parent
    done = folder / DONE
    done.mkdir(exist_ok=True)
    stem = _stem(delivery.path)
    names = (delivery.path.name, f"{stem}.json", f"{stem}.complete")
    moving = [name for name in names if (folder / name).exists()]
    number = 1
    while any((done / _numbered(name, number)).exists() for name in moving):
        number += 1
    for name in moving:
        (folder / name).rename(done / _numbered(name, number))


def _numbered(name: str, number: int) -> str:
    stem, dot, end = name.partition(".")
    return f"{stem}~{number}{dot}{end}" if number > 1 else name
