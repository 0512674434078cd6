"""Progress for a terminal: phase, done of total, rate, time left; nothing where stderr is no terminal."""

import sys
import time
from types import TracebackType

BYTES = {"read", "movements"}


class Bars:
    """One line that is written over while work goes on, and left when a step ends."""

    def __init__(self) -> None:
        self._shows = sys.stderr.isatty()
        self._began = self._told = time.monotonic()
        self._phase = ""

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        if self._shows and self._phase:
            sys.stderr.write("\n")
            sys.stderr.flush()
        self._phase = ""

    def step(self, step: str, phase: str, done: int, total: int | None) -> None:
        """Progress of a phase of a step."""
        self.phase(f"{step}: {phase}", done, total)

    def phase(self, phase: str, done: int, total: int | None) -> None:
        """Progress of a phase."""
        if not self._shows:
            return
        now = time.monotonic()
        if phase != self._phase:
            self._end()
            self._phase, self._began, self._told = phase, now, 0.0
        if now - self._told < 0.1 and done != total:
            return
        self._told = now
        seconds = max(now - self._began, 1e-6)
        rate = done / seconds
        unit = "B" if phase.rsplit(": ", 1)[-1] in BYTES else ""
        of = f" of {total:,}{unit}" if total else ""
        left = f", {(total - done) / rate:.0f} s left" if total and rate > 0 and total > done else ""
        sys.stderr.write(f"\r\x1b[K  {phase:28} {done:,}{unit}{of}  {rate:,.0f}{unit or ' '}/s{left}")
        sys.stderr.flush()
