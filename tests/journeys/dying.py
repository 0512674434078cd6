"""The command line in a process that is killed at its Nth step, without a word, as by the machine.

    python dying.py N STEPS.txt morning

A step is the moment before a commit and the one after it, and before and after a file is set aside or a shop is called.
Each is noted in STEPS.txt; N = 0 lets it live.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from connectors import http
from oms import cli, db, morning
from oms.db import Connection, Database


def main(fatal: int, notes: Path) -> None:
    """Puts the steps in place and runs the command."""
    done = 0

    def step(name: str) -> None:
        nonlocal done
        done += 1
        with notes.open("a") as file:
            file.write(f"{name}\n")
        if done == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    @asynccontextmanager
    async def transaction(self: Database) -> AsyncIterator[Connection]:
        async with self.pool.acquire() as connection:
            async with connection.transaction():
                yield connection
                step("before a commit")
            step("after a commit")

    def around(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def done(*given: Any, **named: Any) -> Any:
            step(f"before {name}")
            result = work(*given, **named)
            step(f"after {name}")
            return result

        return done

    def around_call(work: Callable[..., Any]) -> Callable[..., Any]:
        async def done(*given: Any, **named: Any) -> Any:
            step("before a call")
            result = await work(*given, **named)
            step("after a call")
            return result

        return done

    db.Database.transaction = transaction  # type: ignore[method-assign]
    morning.set_aside = around("setting aside", morning.set_aside)
    http.Client.call = around_call(http.Client.call)  # type: ignore[method-assign]
    sys.argv = ["oms", *sys.argv[3:]]
    cli.main()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
