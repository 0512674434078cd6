"""The servers of a home start from nothing, survive every end of the last run, and stop with the last who uses them."""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import arq.connections
import asyncpg
import msgspec
import pytest
import redis.asyncio

from oms import embedded
from oms.embedded import CannotStart, Running, places, postgresql
from oms.embedded.locks import try_lock
from oms.embedded.server import as_account
from oms.settings import Settings

PROJECT = Path(__file__).parent.parent
PACKAGES = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root starts the servers as somebody else")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and the death signal are Linux's")
WAIT_SECONDS_MAX = 30


@pytest.fixture
def home() -> Iterator[Path]:
    """A home where any account may pass, gone after the test."""
    folder = Path(tempfile.mkdtemp(prefix="oms-home-"))
    folder.chmod(0o755)
    yield folder
    with try_lock(folder / "run" / "keeper") if (folder / "run").exists() else contextlib.nullcontext(True) as ended:
        assert ended, "a test left its servers running"
    shutil.rmtree(folder)


def settings(home: Path) -> Settings:
    return Settings(home=str(home), embedded_fsync=False, embedded_memory_mb=16)


def start(home: Path) -> Running:
    return embedded.start(settings(home))


def query(url: str, statement: str) -> object:
    async def ask() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(ask())


def postmaster(home: Path) -> int:
    return int((home / "postgresql" / "postmaster.pid").read_text().split("\n", 1)[0])


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT_SECONDS_MAX
    while not holds():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.02)


def python_for_all() -> str | None:
    """A Python of our version that any account may run: ours, or the system's."""
    for python in (Path(sys.executable), Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")):
        if python.exists() and all(places.others_pass(f.parent) for f in (python, python.resolve())):
            return str(python)
    return None


def is_free(home: Path) -> bool:
    with try_lock(home / "run" / "keeper") as free:
        return free


class Other:
    """Another process that uses the servers of a home until it is told to leave, or killed."""

    def __init__(self, home: Path, *, python: str = sys.executable, **how: object) -> None:
        program = (
            "import sys; from oms import embedded; from oms.settings import Settings;"
            f"r = embedded.start(Settings(home={str(home)!r}, embedded_fsync=False, embedded_memory_mb=16));"
            "print(r.database_url, flush=True); sys.stdin.read(); r.stop()"
        )
        self.process = subprocess.Popen(
            [python, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(PROJECT), *PACKAGES))}, **how,  # type: ignore[call-overload]
        )  # fmt: skip

    def url(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_what_was_written_is_there_again_after_the_next_start(home: Path) -> None:
    with start(home) as running:
        query(running.database_url, "create table kept as select 42 as answer")
    assert is_free(home)
    with start(home) as again:
        assert query(again.database_url, "select answer from kept") == 42


async def test_every_client_takes_the_urls(home: Path) -> None:
    with start(home) as running:
        connection = await asyncpg.connect(running.database_url)
        shown = await connection.fetchrow(
            "select current_setting('server_version_num')::int / 10000, current_setting('server_encoding'),"
            " current_setting('TimeZone'), current_setting('data_checksums'), current_setting('listen_addresses')"
        )
        await connection.close()
        assert tuple(shown) == (18, "UTF8", "UTC", "on", "")
        client = redis.asyncio.from_url(running.redis_url)
        assert await client.ping()
        assert await client.config_get("port") == {"port": "0"}
        await client.aclose()
        pool = await arq.connections.create_pool(arq.connections.RedisSettings.from_dsn(running.redis_url))
        assert await pool.ping()
        await pool.aclose()


def test_nothing_is_started_where_both_urls_are_given(home: Path) -> None:
    given = msgspec.structs.replace(settings(home), database_url="postgresql://db/x", redis_url="redis://cache")
    with embedded.start(given) as running:
        assert (running.database_url, running.redis_url) == ("postgresql://db/x", "redis://cache")
    assert not list(home.iterdir())


def test_only_the_server_without_url_is_started(home: Path) -> None:
    given = msgspec.structs.replace(settings(home), redis_url="redis://cache")
    with embedded.start(given) as running:
        assert running.redis_url == "redis://cache"
        assert query(running.database_url, "select 1") == 1
        assert not (home / "socket" / "valkey.sock").exists()
        with pytest.raises(CannotStart, match="without valkey"):
            start(home)
        assert query(running.database_url, "select 1") == 1


def test_two_homes_run_side_by_side(home: Path) -> None:
    (home / "a").mkdir(mode=0o755)
    (home / "b").mkdir(mode=0o755)
    with start(home / "a") as a, start(home / "b") as b:
        query(a.database_url, "create table of_a ()")
        assert query(a.database_url, "select to_regclass('of_a')::text") == "of_a"
        assert query(b.database_url, "select to_regclass('of_a')::text") is None
        assert a.redis_url != b.redis_url


def test_processes_that_start_at_once_share_one_pair_of_servers(home: Path) -> None:
    others = [Other(home) for _ in range(3)]
    assert len({other.url() for other in others}) == 1
    with start(home) as running:
        pid = postmaster(home)
        for other in others:
            other.leave()
        assert query(running.database_url, "select 1") == 1
        assert postmaster(home) == pid
    assert is_free(home)
    assert not (home / "postgresql" / "postmaster.pid").exists()


def test_servers_stop_cleanly_when_the_only_process_that_uses_them_is_killed(home: Path) -> None:
    other = Other(home)
    query(other.url(), "create table kept ()")
    other.kill()
    until(lambda: is_free(home), "the servers are down")
    assert not (home / "postgresql" / "postmaster.pid").exists(), "PostgreSQL was not shut down in order"
    with start(home) as running:
        assert query(running.database_url, "select to_regclass('kept')::text") == "kept"


def test_servers_outlive_a_killed_starter_while_another_process_uses_them(home: Path) -> None:
    other = Other(home)
    assert other.url()
    with start(home) as running:
        pid = postmaster(home)
        other.kill()
        time.sleep(0.5)  # the keeper looks every 0.1 s
        assert query(running.database_url, "select 1") == 1
        assert postmaster(home) == pid


@needs_linux
def test_a_killed_keeper_takes_its_servers_along_and_the_next_start_succeeds(home: Path) -> None:
    running = start(home)
    pid = postmaster(home)
    keeper = running._keeper
    assert keeper is not None
    keeper.kill()
    keeper.wait()
    with start(home) as again:
        assert query(again.database_url, "select 1") == 1
        assert postmaster(home) != pid
    running.stop()


@needs_linux
def test_a_server_that_is_killed_is_started_again(home: Path) -> None:
    with start(home) as running:
        query(running.database_url, "create table kept ()")
        pid = postmaster(home)
        os.kill(pid, signal.SIGKILL)

        def is_back() -> bool:
            with contextlib.suppress(OSError, ValueError, asyncpg.PostgresError):
                return postmaster(home) != pid and query(running.database_url, "select 1") == 1
            return False

        until(is_back, "PostgreSQL is back")
        assert query(running.database_url, "select to_regclass('kept')::text") == "kept"


@needs_linux
def test_what_a_crash_of_the_machine_leaves_behind_does_not_hinder_the_next_start(home: Path) -> None:
    with start(home) as running:
        query(running.database_url, "create table kept ()")
    owner = (home / "postgresql").stat()
    pid_file = home / "postgresql" / "postmaster.pid"
    stale = [pid_file, home / "socket" / ".s.PGSQL.5432.lock", home / "socket" / ".s.PGSQL.5432",
             home / "socket" / "valkey.sock"]  # fmt: skip
    alive = subprocess.Popen(["sleep", "600"], **as_account(places.make_places(home).account))
    try:
        for path in stale:
            path.write_text(f"{alive.pid}\n{home / 'postgresql'}\n1\n5432\n{home / 'socket'}\n\n 1 1\nready\n")
            os.chown(path, owner.st_uid, owner.st_gid)
        (home / "run" / "state.json").write_text(
            '{"urls": {"postgresql": "postgresql://gone", "valkey": "unix:///gone"}}'
        )
        with start(home) as again:
            assert query(again.database_url, "select to_regclass('kept')::text") == "kept"
        assert alive.poll() is None, "a stranger was killed whose id the last server had"
    finally:
        alive.kill()
        alive.wait()


def test_a_first_start_that_was_cut_off_is_begun_anew(home: Path) -> None:
    start(home).stop()
    (home / "postgresql").rename(home / "postgresql.making")
    (home / "postgresql.making" / "global" / "pg_control").unlink()
    with start(home) as running:
        assert query(running.database_url, "select 1") == 1
    assert not (home / "postgresql.making").exists()


def test_a_cluster_of_another_major_is_refused_and_left_alone(home: Path) -> None:
    start(home).stop()
    version = home / "postgresql" / "PG_VERSION"
    version.write_text("16\n")
    with pytest.raises(CannotStart, match=r"PostgreSQL 16, and this is 18\. Move that folder away"):
        start(home)
    assert version.read_text() == "16\n"
    assert (home / "postgresql" / "global" / "pg_control").exists()


def test_a_folder_that_is_no_cluster_is_refused_and_left_alone(home: Path) -> None:
    places.own_folder(home / "postgresql", places.make_places(home).account)
    (home / "postgresql" / "letters.txt").write_text("mine")
    with pytest.raises(CannotStart, match="not PostgreSQL's"):
        start(home)
    assert (home / "postgresql" / "letters.txt").read_text() == "mine"


@needs_root
def test_a_folder_of_another_account_is_refused_and_keeps_its_owner(home: Path) -> None:
    (home / "postgresql").mkdir(mode=0o755)
    (home / "postgresql" / "letters.txt").write_text("mine")
    with pytest.raises(CannotStart, match="Move it away or set OMS_HOME"):
        start(home)
    assert (home / "postgresql").stat().st_uid == 0
    assert stat.S_IMODE((home / "postgresql").stat().st_mode) == 0o755


def test_a_start_that_fails_shows_the_last_lines_of_the_log(home: Path) -> None:
    start(home).stop()
    (home / "postgresql" / "global" / "pg_control").unlink()
    with pytest.raises(CannotStart, match=r"(?s)postgresql did not start.*pg_control"):
        start(home)
    assert is_free(home)


def test_a_home_that_cannot_be_made_says_what_to_set(home: Path) -> None:
    (home / "file").write_text("")
    with pytest.raises(CannotStart, match="Set OMS_HOME"):
        start(home / "file" / "below")


def test_folders_that_were_there_keep_their_permission(home: Path) -> None:
    parent, inner = home / "private", home / "private" / "home"
    parent.mkdir(mode=0o700)
    inner.mkdir(mode=0o700)
    with start(inner) as running:
        assert query(running.database_url, "select 1") == 1
        assert {stat.S_IMODE(f.stat().st_mode) for f in (parent, inner)} == {0o700}
        assert stat.S_IMODE(home.stat().st_mode) == 0o755
    assert {stat.S_IMODE(f.stat().st_mode) for f in (parent, inner)} == {0o700}
    note = inner / "data-is-elsewhere"
    assert note.exists() == IS_ROOT
    if IS_ROOT:
        base = Path(note.read_text().splitlines()[-1])
        assert base.parent == places.ROOT_HOME
        shutil.rmtree(base)
        with contextlib.suppress(OSError):
            places.ROOT_HOME.rmdir()


def test_a_path_too_long_for_a_socket_gets_a_short_one_that_goes_away(home: Path) -> None:
    deep = home / ("long " * 20).strip() / ("longer" * 10)
    with start(deep) as running:
        assert query(running.database_url, "select 1") == 1
        socket = Path(running.redis_url.removeprefix("unix://").partition("?")[0])
        assert socket.is_socket()
        assert socket.parent.parent == Path("/tmp")
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert not socket.parent.exists()


@needs_root
def test_an_account_without_rights_starts_them_for_itself(home: Path) -> None:
    python = python_for_all()
    if python is None or not all(places.others_pass(f) for f in (PROJECT, *map(Path, PACKAGES))):
        pytest.skip("Python or the project lies where another account may not pass")
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    other = Other(home, python=python, user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[])
    assert f"host={home}/socket" in other.url()
    assert (home / "postgresql").stat().st_uid == (home / "run" / "users").stat().st_uid == nobody.pw_uid
    other.leave()


@needs_root
def test_programs_that_the_account_cannot_reach_are_copied_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "ROOT_HOME", home / "copies")
    monkeypatch.setattr(places, "others_pass", lambda folder: str(folder).startswith(str(home)))
    made = places.make_places(home)
    folder = postgresql.programs(made)
    assert folder.is_relative_to(home / "copies")
    for program in ("postgres", "initdb"):
        shown = subprocess.run(
            [folder / program, "--version"], capture_output=True, text=True, check=True, **as_account(made.account)
        )
        assert "PostgreSQL) 18" in shown.stdout
    inode = folder.stat().st_ino
    assert postgresql.programs(made).stat().st_ino == inode
    assert len(list((home / "copies").iterdir())) == 1
