"""Where the embedded servers of one home live, and who runs them.

No permission of a folder that was there before is changed. PostgreSQL does not run as root: there an unprivileged
account runs both servers, and what that account cannot reach is put where it can.
"""

import contextlib
import hashlib
import os
import pwd
import secrets
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

ROOT_HOME = Path("/var/lib/commonpool")
ACCOUNTS = ("nobody", "daemon", "bin")
SOCKET_BYTES_MAX = 103
"""The longest path of a socket that each of our systems takes."""
LONGEST_SOCKET = ".s.PGSQL.5432"


class CannotStart(Exception):
    """An embedded server that did not start; says what, where, and what to do."""


class Account(msgspec.Struct, frozen=True):
    """Who runs the servers where we are root."""

    name: str
    uid: int
    gid: int


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Folders of one home; `sockets` and `data` belong to the account, the others to us."""

    home: Path
    base: Path
    data: Path
    run: Path
    sockets: Path
    log: Path
    account: Account | None


def make_places(home: Path) -> Places:
    """Makes the folders of a home, except data and sockets, which the keeper makes. Raises CannotStart."""
    try:
        home = home.expanduser().resolve()
        account = _account()
        _make(home, is_open=account is not None)
        base = home if account is None else _passable_base(home)
        for name in ("run", "log"):
            _make(base / name, is_open=False)
            if not os.access(base / name, os.W_OK | os.X_OK):
                raise CannotStart(
                    f"{base / name} belongs to another user. Run as that user, or set OMS_HOME to a folder that you own."
                )
    except (OSError, RuntimeError) as error:
        raise CannotStart(f"{home} cannot be used: {error}. Set OMS_HOME to a folder that you own.") from None
    return Places(
        home=home, base=base, data=base / "postgresql", run=base / "run", sockets=_sockets(base), log=base / "log",
        account=account,
    )  # fmt: skip


def _make(folder: Path, *, is_open: bool) -> None:
    """Makes a folder and those above it; as root, others may pass those that we made, where it `is_open`."""
    for missing in reversed([f for f in (folder, *folder.parents) if not f.exists()]):
        try:
            missing.mkdir(mode=0o755 if is_open else 0o700)
        except FileExistsError:
            continue  # another process makes the same
        if is_open:
            missing.chmod(0o755)  # whatever the umask


def _account() -> Account | None:
    if os.geteuid() != 0:
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError:
            raise CannotStart(
                f"User id {os.geteuid()} has no name on this machine, and PostgreSQL's initdb wants one. Give it a "
                "line in /etc/passwd, run as another user, or set OMS_DATABASE_URL and OMS_REDIS_URL."
            ) from None
        return None
    for name in ACCOUNTS:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return Account(name, found.pw_uid, found.pw_gid)
    raise CannotStart(
        f"PostgreSQL does not run as root, and none of the accounts {', '.join(ACCOUNTS)} exists here. "
        "Run as another user, or set OMS_DATABASE_URL and OMS_REDIS_URL."
    )


def others_pass(folder: Path) -> bool:
    """Whether any account may pass to and through this folder."""
    return all(f.stat().st_mode & stat.S_IXOTH for f in (folder, *folder.parents))


def _passable_base(home: Path) -> Path:
    """The home itself, or where the account may not pass, a folder below ROOT_HOME that a note in the home names."""
    note = home / "data-is-elsewhere"
    if not note.exists():
        if others_pass(home):
            return home
        part = home / f"data-is-elsewhere.{secrets.token_hex(6)}"
        part.write_text(
            f"The account that runs the database may not pass {home}, so its data is in\n"
            f"{ROOT_HOME / secrets.token_hex(6)}\n"
        )
        with contextlib.suppress(FileExistsError):
            os.link(part, note)  # of two at once, the first decides
        part.unlink()
    base = Path(note.read_text().splitlines()[-1])
    _make(base, is_open=True)
    return base


def _sockets(base: Path) -> Path:
    """Below the base, or in /tmp where that path is too long for a socket or has signs that URLs mean otherwise."""
    below = base / "socket"
    text = str(below / LONGEST_SOCKET)
    if len(os.fsencode(text)) <= SOCKET_BYTES_MAX and all(c.isalnum() or c in "/._-" for c in text) and text.isascii():
        return below
    return Path("/tmp") / f"commonpool-{os.geteuid()}-{hashlib.sha256(os.fsencode(base)).hexdigest()[:12]}"


def own_folder(folder: Path, account: Account | None) -> None:
    """Makes a folder that only the account may open, or refuses one that belongs to somebody else."""
    uid = os.geteuid() if account is None else account.uid
    if not folder.exists():
        folder.mkdir(mode=0o700)
        if account is not None:
            os.chown(folder, account.uid, account.gid)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid:
        try:
            owner = pwd.getpwuid(found.st_uid).pw_name
        except KeyError:
            owner = str(found.st_uid)
        raise CannotStart(
            f"{folder} belongs to {owner}. Run as that user, or set OMS_HOME to another folder."
            if account is None or found.st_uid != 0
            else f"{folder} is not a folder of {account.name}, who runs the database. Move it away or set OMS_HOME."
        )


def reachable(account: Account | None, *, name: str, root: Path, parts: Sequence[str], samples: Sequence[str]) -> Path:
    """`root`, or as root a copy of its parts, made once, where the account cannot read the samples."""
    files = [root / sample for sample in samples]
    if account is None or all(others_pass(f.parent) and f.stat().st_mode & stat.S_IROTH for f in files):
        return root
    stamp = "\n".join(f"{f}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in files)
    copy = ROOT_HOME / f"{name}-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    if not copy.exists():
        _make(ROOT_HOME, is_open=True)
        making = copy.with_name(f"{copy.name}.{secrets.token_hex(6)}")
        try:
            for part in parts:
                shutil.copytree(root / part, making / part, symlinks=True)
            for path in (making, *making.rglob("*")):
                if not path.is_symlink():
                    is_program = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                    path.chmod(0o755 if is_program else 0o644)
            with contextlib.suppress(OSError):
                making.rename(copy)  # of two at once, the first stays
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return copy
