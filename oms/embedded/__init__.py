"""PostgreSQL and Valkey from their wheels, under OMS_HOME, where no URL is given.

    with embedded.start(settings) as running:
        ...  # running.settings is `settings` with the URLs filled in

A keeper process of its own starts the servers and is their parent. Every process that uses them holds a shared lock,
which the system drops however the process ends; when the keeper gets that lock for itself nobody uses the servers any
more, and it stops them. So they stop with the last process that uses them, a `kill -9` included.
"""

import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import msgspec

from oms.embedded.keeper import Orders, read_state, spawn
from oms.embedded.locks import locked, shared, try_lock
from oms.embedded.places import CannotStart, Places, make_places
from oms.settings import Settings

START_SECONDS_MAX = 90
STOP_SECONDS_MAX = 40
WAIT_SECONDS = 0.02


class Running:
    """The servers, for as long as this is held; `stop` lets go of them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._users: IO[Any] | None = None
        self._places: Places | None = None
        self._keeper: subprocess.Popen[bytes] | None = None

    @property
    def database_url(self) -> str:
        """Of PostgreSQL, embedded or given."""
        return self.settings.database_url

    @property
    def redis_url(self) -> str:
        """Of Valkey or Redis, embedded or given."""
        return self.settings.redis_url

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Lets go; where nobody else uses the servers it returns after they have stopped."""
        if self._users is None or self._places is None:
            return
        self._users.close()
        self._users = None
        run, end = self._places.run, time.monotonic() + STOP_SECONDS_MAX
        while time.monotonic() < end:
            with locked(run / "start"), try_lock(run / "users") as alone:
                if not alone:
                    return
            with try_lock(run / "keeper") as ended:
                if ended:
                    break
            time.sleep(WAIT_SECONDS)
        if self._keeper is not None:
            self._keeper.wait(STOP_SECONDS_MAX)


def start(settings: Settings) -> Running:
    """Starts what has no URL, or joins the servers that run for this home already. Raises CannotStart."""
    running = Running(settings)
    orders = Orders(
        postgresql=not settings.database_url, valkey=not settings.redis_url, fsync=settings.embedded_fsync,
        memory_mb=settings.embedded_memory_mb,
    )  # fmt: skip
    if not (orders.postgresql or orders.valkey):
        return running
    if not settings.home:
        raise CannotStart("This user has no home folder, where the servers' data would be: set OMS_HOME.")
    running._places = places = make_places(Path(settings.home))
    try:
        with locked(places.run / "start"):
            running._users = shared(places.run / "users")
            urls = _urls(running, places, orders)
        running.settings = msgspec.structs.replace(
            settings,
            database_url=settings.database_url or urls["postgresql"],
            redis_url=settings.redis_url or urls["valkey"],
        )
    except BaseException:
        running.stop()
        raise
    return running


def _urls(running: Running, places: Places, orders: Orders) -> dict[str, str]:
    """The URLs of the servers of this home once they answer; started where no keeper runs."""
    end = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < end:
        if running._keeper is None:
            with try_lock(places.run / "keeper") as free:
                if free:
                    (places.run / "state.json").unlink(missing_ok=True)
                    running._keeper = spawn(places, orders)
        ended = running._keeper is not None and running._keeper.poll() is not None
        if (state := read_state(places)) is not None:
            if state.error:
                raise CannotStart(state.error)
            if missing := [name for name in orders.servers if name not in state.urls]:
                raise CannotStart(
                    f"The servers of {places.home} were started without {' and '.join(missing)} by a process that "
                    "had a URL for it. Give the same OMS_DATABASE_URL and OMS_REDIS_URL to both, or another OMS_HOME."
                )
            return state.urls
        if ended:
            raise CannotStart(f"The keeper of the embedded servers ended; see {places.log / 'keeper.log'}.")
        time.sleep(WAIT_SECONDS)
    raise CannotStart(f"The embedded servers did not start in {START_SECONDS_MAX} s; see {places.log}.")
