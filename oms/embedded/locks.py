"""Locks between processes, which the system drops however their process ends.

`start` is held by who starts or stops the servers, `users` (shared) by each process that uses them, `keeper` by the
process that runs them. Whoever takes two of them takes `start` first.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits for the lock and holds it for the block."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Whether nobody held this lock; it is held for the block then."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def shared(path: Path) -> IO[Any]:
    """Waits for a share of the lock, held until the file is closed."""
    file = path.open("a")
    fcntl.flock(file, fcntl.LOCK_SH)
    return file
