"""The benchmarks: they are listed, unknown ones are refused, and figures are rows that say what is missed."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.frame import Child, Missing, Row, database_of, folder, machine, memory_mb, percentile, row, table, timed
from oms.embedded import Running
from oms.settings import Settings

PROJECT = Path(__file__).parent.parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=PROJECT, capture_output=True, text=True, check=False
    )


def test_without_a_name_each_benchmark_is_listed_with_a_line() -> None:
    done = run()
    assert done.returncode == 0
    for name, promise in BENCHMARKS.items():
        assert any(line.split() == [name, *promise.split()] for line in done.stdout.splitlines()), name


def test_an_unknown_name_is_refused_with_the_list() -> None:
    done = run("speed")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "'speed'" in done.stderr
    assert all(name in done.stderr for name in BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_is_a_module_that_runs(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").run)


def test_json_gives_the_machine_and_rows_with_every_field(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import start

    monkeypatch.setattr(
        start, "run", lambda *, quick: [row("a", 2.0, "s", against="1 s", ratio=2.0, reach="≤ 3 ×", ok=True)]
    )
    assert main(["start", "--json", "--quick"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["rows"] == [
        {"figure": "a", "value": 2.0, "unit": "s", "against": "1 s", "ratio": 2.0, "reach": "≤ 3 ×", "ok": True}
    ]
    assert {"cores", "memory_gb", "python", "postgresql"} <= said["machine"].keys()
    assert said["machine"]["postgresql"].startswith("18")


def test_the_table_says_which_reach_is_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import start

    rows = [row("good", 1.0, "s", ok=True), row("bad", 9.0, "s", reach="≤ 3 s", ok=False), row("told", 5.0, "s")]
    monkeypatch.setattr(start, "run", lambda *, quick: rows)
    assert main(["start"]) == 0  # measured: a missed reach is a figure, not a failure
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if line.endswith("MISSED")] == ["bad"]
    assert "1 of 2 reaches are missed." in out


def test_what_cannot_be_measured_is_told_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import start

    def broken(*, quick: bool) -> list[Row]:
        raise Missing("no shop")

    monkeypatch.setattr(start, "run", broken)
    assert main(["start"]) == 1
    assert "no shop" in capsys.readouterr().err


def test_a_table_is_aligned_and_leaves_empty_what_is_not_compared() -> None:
    lines = table([row("one", 1.0, "s"), row("another", 12345.6, "s", against="it", ratio=2.0)])
    assert lines[1].split() == ["one", "1", "s"]
    assert lines[2].split() == ["another", "12,346", "s", "it", "2"]
    assert lines[1].index(" s") == lines[2].index(" s")


def test_a_percentile_is_a_value_that_was_seen() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert percentile(values, 0.99) == 100.0
    assert percentile(values, 0.5) == 51.0
    assert percentile([7.0], 0.99) == 7.0


def test_a_folder_is_gone_even_when_the_benchmark_breaks() -> None:
    with pytest.raises(KeyboardInterrupt):
        with folder() as made:
            (made / "file").touch()
            raise KeyboardInterrupt
    assert not made.exists()


def test_a_command_that_fails_is_no_figure() -> None:
    with pytest.raises(Missing, match="ended with 3"):
        timed([sys.executable, "-c", "raise SystemExit(3)"])


def test_a_process_that_breaks_is_no_figure() -> None:
    with Child("benchmarks.shopping", "postgresql://nobody@127.0.0.1:1/none", "unix:///nowhere", "1", "1") as child:
        with pytest.raises(Missing, match="ended with 1"):
            child.said(seconds_max=60)


def test_the_memory_of_a_process_is_its_own_peak() -> None:
    before = memory_mb()
    held = bytearray(64_000_000)
    held[::4096] = b"x" * len(held[::4096])
    grown = memory_mb()
    del held
    assert grown >= before
    assert memory_mb() >= grown - 1


def test_the_machine_is_told_with_its_figures() -> None:
    here = machine()
    assert here.cores >= 1
    assert here.python == ".".join(map(str, sys.version_info[:3]))


def test_another_database_is_of_the_same_server() -> None:
    running = Running(Settings(database_url="postgresql://postgres@/postgres?host=/sockets&port=5432"))
    assert database_of(running, "one") == "postgresql://postgres@/one?host=/sockets&port=5432"
