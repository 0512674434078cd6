"""Where tasks are done: in this process, or in a few processes of this machine that end with it."""

import contextlib
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from brokering.tasks import Arrays, Task, do

MEMORY = Path("/dev/shm")
"""Shared arrays lie in memory where the system has such a folder: processes map them, so they count once."""


class Here:
    """Does tasks one after the other in this process."""

    def __init__(self) -> None:
        self._shared: dict[str, Arrays] = {}
        self._kept: dict[Any, Any] = {}

    def get(self, name: str) -> Arrays:
        return self._shared[name]

    def share(self, name: str, value: Arrays) -> None:
        self._shared[name] = value

    def run(self, tasks: list[Task]) -> list[Any]:
        return [do(task, self, self._kept) for task in tasks]

    def close(self) -> None:
        self._shared.clear()
        self._kept.clear()


class Files:
    """Arrays by name in a folder, mapped into memory where they are read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, value: Arrays) -> None:
        into = self.folder / name
        into.mkdir(exist_ok=True)
        for key, array in value.items():
            np.save(into / f"{key}.npy", array)

    def get(self, name: str) -> Arrays:
        found = (self.folder / name).glob("*.npy")
        return {f.stem: np.load(f, mmap_mode="r") if f.stat().st_size > 4096 else np.load(f) for f in found}


class Child:
    """A process that does tasks, started anew where it dies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def _start(self) -> None:
        self.close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "brokering.worker", str(self._folder)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent,
        )  # fmt: skip

    def send(self, tasks: list[Task]) -> None:
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died: found out when its answer is read
            _write(self._process.stdin, tasks)

    def receive(self, tasks: list[Task]) -> list[Any]:
        """The results of what was sent. Where the process has died, a new one does it again, once."""
        for _ in range(2):
            assert self._process is not None and self._process.stdout is not None
            with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
                told, results = pickle.load(self._process.stdout)
                if told == "failed":
                    raise RuntimeError(f"a task failed in its process:\n{results}")
                answers: list[Any] = results
                return answers
            self._start()
            self.send(tasks)
        raise RuntimeError("a process for tasks died twice; plan with processes=1 to see why")

    def close(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.communicate()
        self._process = None


class Processes:
    """Does tasks in this process and in `count` − 1 more, which are gone when it is closed."""

    def __init__(self, count: int) -> None:
        base = MEMORY if MEMORY.is_dir() else None
        self._folder = Path(tempfile.mkdtemp(prefix="brokering-", dir=base))
        self._files = Files(self._folder)
        self._children = [Child(self._folder) for _ in range(count - 1)]
        self._kept: dict[Any, Any] = {}

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def share(self, name: str, value: Arrays) -> None:
        self._files.put(name, value)

    def run(self, tasks: list[Task]) -> list[Any]:
        count = len(self._children) + 1
        parts = [tasks[i::count] for i in range(count)]
        for child, part in zip(self._children, parts[1:], strict=True):
            if part:
                child.send(part)
        done = [[do(task, self._files, self._kept) for task in parts[0]]]
        done += [child.receive(part) if part else [] for child, part in zip(self._children, parts[1:], strict=True)]
        return [done[i % count][i // count] for i in range(len(tasks))]

    def close(self) -> None:
        for child in self._children:
            child.close()
        self._kept.clear()
        shutil.rmtree(self._folder, ignore_errors=True)


def _write(to: IO[bytes], what: Any) -> None:
    pickle.dump(what, to, protocol=5)
    to.flush()
