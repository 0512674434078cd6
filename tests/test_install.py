"""What is installed from the wheel is whole: it runs from any folder, with its SQL and its data."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
ROOMS = ("oms", "brokering", "connectors")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as an installer does, with the build tool that the tests' environment has."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-c", "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])", folder],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    [path] = folder.glob("*.whl")
    return path


class Installed:
    """An environment of its own with the wheel; what the wheel needs is lent by the running one."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        self.bin = folder / "venv" / "bin"
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        packages = folder / "venv" / "lib" / version / "site-packages"
        lent = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
        (packages / "lent.pth").write_text("\n".join(lent) + "\n")
        installed = self.run(
            sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "--quiet", "--no-deps",
            "--no-index", "--force-reinstall", "--disable-pip-version-check", str(wheel),
        )  # fmt: skip
        assert installed.returncode == 0, installed.stderr
        self.packages = packages

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs from a folder that has nothing of ours."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("OMS_", "PYTHON", "COV_"))}
        return subprocess.run(
            arguments, cwd=self.elsewhere, env=environ | variables, capture_output=True, text=True, check=False,
            timeout=300,
        )  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Iterator[Installed]:
    yield Installed(tmp_path_factory.mktemp("installed"), wheel)


def test_the_wheel_holds_every_module_every_statement_and_the_data(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        str(path.relative_to(PROJECT))
        for room in ROOMS
        for path in (PROJECT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    wanted |= {f"oms/_sql/{path.name}" for path in (PROJECT / "sql").glob("*.sql")}
    assert names == wanted
    data = [name for name in names if name.startswith("oms/demo/data/") and name.endswith(".gz")]
    assert data
    assert sum(zipfile.ZipFile(wheel).getinfo(name).file_size for name in data) < 5_000_000


def test_the_license_travels_with_the_wheel(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    [name] = [n for n in archive.namelist() if n.endswith("/licenses/LICENSE")]
    assert archive.read(name) == (PROJECT / "LICENSE").read_bytes()
    [metadata] = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
    assert b"License-Expression: Apache-2.0" in archive.read(metadata)


def test_the_command_runs_from_any_folder(installed: Installed) -> None:
    shown = installed.run(str(installed.bin / "oms"), "--help")
    assert shown.returncode == 0, shown.stderr
    for command in ("demo", "up", "migrate", "morning", "verify"):
        assert command in shown.stdout
    listed = installed.run(str(installed.bin / "oms"), "config", "--json", OMS_PORT="8123")
    assert {row["variable"]: row["value"] for row in json.loads(listed.stdout)}["OMS_PORT"] == 8123


def test_code_statements_and_data_come_from_the_wheel_alone(installed: Installed) -> None:
    program = (
        "import json, oms, brokering, connectors, oms.db, oms.demo.real as real;"
        "print(json.dumps([oms.__file__, brokering.__file__, connectors.__file__, str(oms.db.sql_folder()),"
        " real.__file__]))"
    )
    told = installed.run(str(installed.bin / "python"), "-c", program)
    assert told.returncode == 0, told.stderr
    for path in json.loads(told.stdout):
        assert Path(path).is_relative_to(installed.packages), path


def test_the_wheel_brings_the_same_schema_as_the_clone(installed: Installed, database_url: str, redis_url: str) -> None:
    migrated = installed.run(
        str(installed.bin / "oms"), "migrate", "--json", OMS_DATABASE_URL=database_url, OMS_REDIS_URL=redis_url
    )
    assert migrated.returncode == 0, migrated.stderr
    assert json.loads(migrated.stdout) == {"applied": []}


@pytest.mark.long
def test_the_demo_runs_from_the_wheel(installed: Installed) -> None:
    home = Path(tempfile.mkdtemp(prefix="oms-home-"))
    home.chmod(0o755)
    try:
        ran = installed.run(str(installed.bin / "oms"), "demo", "--once", OMS_HOME=str(home))
        assert ran.returncode == 0, ran.stderr
        verified = installed.run(str(installed.bin / "oms"), "verify", OMS_HOME=str(home))
        assert verified.returncode == 0, verified.stdout
    finally:
        shutil.rmtree(home)
