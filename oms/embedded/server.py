"""One server's process: launched, watched, ended cleanly."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oms.embedded.places import Account, CannotStart, Places

START_SECONDS_MAX = 80
STOP_SECONDS_MAX = 30
LOG_LINES_SHOWN = 15
PR_SET_PDEATHSIG = 1


class Server:
    """A server: what is done before it starts, its arguments, when it is ready, the signal that ends it cleanly."""

    def __init__(
        self, *, name: str, url: str, places: Places, prepare: Callable[[], list[str]],
        is_ready: Callable[[int], bool], ends_by: signal.Signals,
    ) -> None:  # fmt: skip
        self.name, self.url, self.ends_by = name, url, ends_by
        self._places, self._prepare, self._is_ready = places, prepare, is_ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Starts it and waits until it is ready. Raises CannotStart with the last lines of its log."""
        arguments = self._prepare()
        path = self._places.log / f"{self.name}.log"
        with path.open("ab") as log:
            begin = log.tell()
            self._process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                preexec_fn=ends_with_parent(self.ends_by), **as_account(self._places.account),
            )  # fmt: skip
        end = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < end and self.runs:
            if self._is_ready(self._process.pid):
                return
            time.sleep(0.01)
        self.stop()
        raise CannotStart(f"{self.name} did not start for {self._places.home}:\n{last_lines(path, begin)}")

    def stop(self) -> None:
        """Ends it cleanly; by force after STOP_SECONDS_MAX."""
        if self._process is None or not self.runs:
            return
        self._process.send_signal(self.ends_by)
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def as_account(account: Account | None) -> dict[str, Any]:
    """How a child process becomes the account."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def ends_with_parent(ends_by: signal.Signals) -> Callable[[], None] | None:
    """What a child does before it runs, so that the system ends it when its parent is killed (Linux)."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, int(ends_by))  # it runs after the change of user, which would undo it


def last_lines(path: Path, begin: int) -> str:
    """The last lines of a log since `begin`."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(begin)
        return "\n".join(file.read().decode(errors="replace").splitlines()[-LOG_LINES_SHOWN:])
    return ""


def end_leftovers(folder: Path, program: str) -> None:
    """Ends the processes of this program that work in this folder: a server that outlived its keeper (Linux)."""
    for how in (signal.SIGINT, signal.SIGKILL):
        for pid in (left := _at_work(folder, program)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        end = time.monotonic() + STOP_SECONDS_MAX
        while left and time.monotonic() < end:
            left = _at_work(folder, program)
            time.sleep(0.02)
        if not left:
            return


def _at_work(folder: Path, program: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "comm").read_text().strip() == program and (process / "cwd").samefile(folder):
                found.append(int(process.name))
    return found
