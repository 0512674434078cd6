"""The keeper: a process of its own that starts the servers, starts them again when they end by themselves, and stops
them when nobody uses them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import msgspec

from oms.embedded.locks import locked, try_lock
from oms.embedded.places import CannotStart, Places, own_folder
from oms.embedded.server import Server

LOOK_SECONDS = 0.1
LOG_BYTES_MAX = 20_000_000
RESTARTS_MAX = 5
"""Restarts within a minute beyond which the keeper waits before the next one: it never gives up."""
PAUSE_SECONDS = 5.0


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What the keeper is to run, and how."""

    postgresql: bool
    valkey: bool
    fsync: bool
    memory_mb: int

    @property
    def servers(self) -> list[str]:
        """The names of the servers that are wanted."""
        return [name for name in ("postgresql", "valkey") if getattr(self, name)]


class State(msgspec.Struct, frozen=True):
    """What the keeper says: the URLs of the servers that run, or why they do not."""

    urls: dict[str, str] = {}
    error: str = ""


def spawn(places: Places, orders: Orders) -> subprocess.Popen[bytes]:
    """Starts the keeper, in a session of its own: a Ctrl-C in the terminal is not for it."""
    with (places.log / "keeper.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", "from oms.embedded.keeper import main; main()",
             msgspec.json.encode((places, orders), enc_hook=str).decode()],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )  # fmt: skip


def read_state(places: Places) -> State | None:
    """What the keeper of this home says; None while it says nothing."""
    try:
        return msgspec.json.decode((places.run / "state.json").read_bytes(), type=State)
    except FileNotFoundError:
        return None


def main() -> None:
    """Runs until nobody uses the servers any more, or until it is told to end."""
    from oms.embedded import postgresql, valkey

    places, orders = msgspec.json.decode(
        sys.argv[1], type=tuple[Places, Orders], dec_hook=lambda kind, text: kind(text)
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    servers: list[Server] = []
    with locked(places.run / "keeper"):
        last: State | None = None
        try:
            make_sockets(places)
            if orders.postgresql:
                fsync, memory_mb = orders.fsync, orders.memory_mb
                servers.append(postgresql.server(places, fsync=fsync, memory_mb=memory_mb))
            if orders.valkey:
                servers.append(valkey.server(places))
            for server in servers:
                server.launch()
            say(places, State(urls={server.name: server.url for server in servers}))
            keep(places, servers)
        except CannotStart as error:
            last = State(error=str(error))
        except Exception as error:
            last = State(error=f"The embedded servers: {type(error).__name__}: {error}; see {places.log}.")
            raise
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            say(places, last)
            for server in servers:
                server.stop()
            if places.sockets.parent == Path("/tmp"):
                shutil.rmtree(places.sockets, ignore_errors=True)


def keep(places: Places, servers: list[Server]) -> None:
    """Returns when nobody uses the servers and they have stopped. Raises CannotStart when one cannot be started."""
    restarted: deque[float] = deque(maxlen=RESTARTS_MAX)
    while True:
        for server in servers:
            if not server.runs:
                if len(restarted) == RESTARTS_MAX and time.monotonic() - restarted[0] < 60:
                    print(f"{RESTARTS_MAX} restarts in a minute: waiting", file=sys.stderr, flush=True)
                    time.sleep(PAUSE_SECONDS)
                restarted.append(time.monotonic())
                print(f"{server.name} ended by itself; starting it again", file=sys.stderr, flush=True)
                server.launch()
        with try_lock(places.run / "start") as nobody_starts:
            if nobody_starts:
                with try_lock(places.run / "users") as unused:
                    if unused:
                        say(places, None)
                        for server in servers:
                            server.stop()  # both locks held: who comes now waits, and starts anew
                        return
        for path in places.log.glob("*.log"):
            if path.stat().st_size > LOG_BYTES_MAX:
                os.truncate(path, 0)
        time.sleep(LOOK_SECONDS)


def say(places: Places, state: State | None) -> None:
    """Writes what `read_state` reads, whole; None takes it back."""
    path = places.run / "state.json"
    if state is None:
        path.unlink(missing_ok=True)
        return
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(state))
    part.rename(path)


def make_sockets(places: Places) -> None:
    """Makes the folder of sockets, or empties it: what a crash left in it is gone."""
    own_folder(places.sockets, places.account)
    for left in places.sockets.iterdir():
        left.unlink()
