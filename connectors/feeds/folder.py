"""A source's folder: complete deliveries, oldest first; what is not complete yet says why."""

import time
from datetime import datetime
from pathlib import Path

import msgspec

STABLE_SECONDS = 2.0
DONE = "done"
KINDS = ("baseline", "movements", "orders")


class Sidecar(msgspec.Struct, frozen=True):
    """What a delivery says of itself, in `NAME.json` beside it (the file's name up to its first dot)."""

    as_of: datetime | None = None
    scope: str = "full"
    watermark: dict[str, int] = {}
    posted: list[str] = []
    complete: bool = True
    rows: int | None = None


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

    A baseline needs its sidecar (it says the moment); a file without one is complete when a `.complete` marker stands
    beside it or it has not changed for `stable_seconds`.
    """
    ready: list[Delivery] = []
    waiting: list[Waiting] = []
    if not folder.is_dir():
        return [], [Waiting(folder, "there is no such folder")]
    for path in sorted(folder.iterdir()):
        stem = path.name.split(".", 1)[0]
        kind = next((k for k in KINDS if stem.startswith(k)), None)
        if kind is None or not path.is_file() or path.suffix in (".json", ".complete", ".part"):
            continue
        found = _sidecar(path.with_name(f"{stem}.json"))
        if isinstance(found, str):
            waiting.append(Waiting(path, found))
        elif kind == "baseline" and (found is None or found.as_of is None):
            waiting.append(Waiting(path, f"{stem}.json with as_of is missing: a snapshot says of which moment it is"))
        elif found is not None and not found.complete:
            waiting.append(Waiting(path, f"{stem}.json says that it is not complete"))
        elif found is None and not path.with_name(f"{stem}.complete").exists() and _age(path) < stable_seconds:
            waiting.append(Waiting(path, "it is still changing"))
        else:
            ready.append(Delivery(kind, path, found or Sidecar()))
    order = {kind: i for i, kind in enumerate(KINDS)}
    ready.sort(key=lambda d: (order[d.kind], d.sidecar.as_of.timestamp() if d.sidecar.as_of else 0.0, d.path.name))
    return ready, waiting


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
