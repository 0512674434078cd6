"""A folder gives complete deliveries only, oldest first, and says why it gives no others."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from connectors.feeds.folder import deliveries, set_aside

AS_OF = "2026-11-23T04:00:00Z"


def put(folder: Path, name: str, content: str = "x\n", *, age_seconds: float = 60.0, **sidecar: Any) -> Path:
    path = folder / name
    path.write_text(content)
    os.utime(path, (time.time() - age_seconds,) * 2)
    if sidecar:
        (folder / f"{name.split('.', maxsplit=1)[0]}.json").write_text(json.dumps(sidecar))
    return path


def ready(folder: Path) -> list[str]:
    return [d.path.name for d in deliveries(folder)[0]]


def why(folder: Path) -> str:
    taken, [waiting] = deliveries(folder)
    assert not taken
    return waiting.reason


def test_a_snapshot_is_taken_with_what_its_sidecar_says(tmp_path: Path) -> None:
    put(tmp_path, "baseline-erp.csv.gz", as_of=AS_OF, scope="partial", watermark={"POS": 812}, posted=["f1"], rows=9)
    [delivery], waiting = deliveries(tmp_path)
    said = delivery.sidecar
    assert (delivery.kind, waiting) == ("baseline", [])
    assert (said.scope, said.watermark, said.posted, said.rows) == ("partial", {"POS": 812}, ["f1"], 9)
    assert said.as_of is not None and said.as_of.isoformat() == "2026-11-23T04:00:00+00:00"


def test_older_snapshots_come_first_then_movements_then_orders(tmp_path: Path) -> None:
    put(tmp_path, "orders.jsonl")
    put(tmp_path, "movements-2.csv")
    put(tmp_path, "movements-1.csv")
    put(tmp_path, "baseline-a.csv", as_of="2026-11-23T05:00:00+01:00")
    put(tmp_path, "baseline-b.csv", as_of="2026-11-23T03:59:00Z")
    assert ready(tmp_path) == ["baseline-b.csv", "baseline-a.csv", "movements-1.csv", "movements-2.csv", "orders.jsonl"]


@pytest.mark.parametrize(
    ("sidecar", "says"),
    [
        ({}, "as_of is missing"),
        ({"scope": "full"}, "as_of is missing"),
        ({"as_of": AS_OF, "complete": False}, "not complete"),
        ({"as_of": AS_OF, "bytes": 3}, "says 3 bytes, so far it has 2"),
        ({"as_of": "2026-11-23T04:00:00"}, "no offset"),
        ({"as_of": AS_OF, "scope": "Full"}, "cannot be read"),
        ({"as_of": AS_OF, "watermark": {"POS": "8"}}, "cannot be read"),
    ],
)
def test_a_snapshot_that_is_not_taken_says_why(tmp_path: Path, sidecar: dict[str, Any], says: str) -> None:
    put(tmp_path, "baseline.csv", **sidecar)
    assert says in why(tmp_path)


def test_a_sidecar_that_is_half_written_keeps_its_file_waiting(tmp_path: Path) -> None:
    put(tmp_path, "baseline.csv")
    (tmp_path / "baseline.json").write_text('{"as_of": "2026-')
    assert "cannot be read" in why(tmp_path)


def test_a_file_that_still_changes_waits_until_it_is_quiet_or_marked_complete(tmp_path: Path) -> None:
    put(tmp_path, "movements.csv", age_seconds=0)
    assert "still changing" in why(tmp_path)
    (tmp_path / "movements.complete").touch()
    assert ready(tmp_path) == ["movements.csv"]
    (tmp_path / "movements.complete").unlink()
    put(tmp_path, "movements.csv", age_seconds=60)
    assert ready(tmp_path) == ["movements.csv"]


def test_what_is_being_written_is_left_alone_and_a_strange_name_is_told(tmp_path: Path) -> None:
    for name in (".baseline.csv", "baseline.csv.part", "movements.csv.tmp"):
        put(tmp_path, name)
    (tmp_path / "done").mkdir()
    assert deliveries(tmp_path) == ([], [])
    put(tmp_path, "stock.csv")
    assert "begins with none of baseline, movements, orders" in why(tmp_path)
    assert "no such folder" in why(tmp_path / "nowhere")


def test_what_was_taken_is_set_aside_with_what_stands_beside_it(tmp_path: Path) -> None:
    put(tmp_path, "baseline.csv", as_of=AS_OF)
    (tmp_path / "baseline.complete").touch()
    [delivery], _ = deliveries(tmp_path)
    set_aside(delivery)
    assert deliveries(tmp_path) == ([], [])
    assert sorted(p.name for p in (tmp_path / "done").iterdir()) == [
        "baseline.complete",
        "baseline.csv",
        "baseline.json",
    ]
    set_aside(delivery)  # again, after a kill between the two


def test_what_is_set_aside_never_takes_the_place_of_what_was_before(tmp_path: Path) -> None:
    for content in ("first", "second", "third"):
        put(tmp_path, "baseline.csv.gz", content, as_of=AS_OF)
        [delivery], _ = deliveries(tmp_path)
        set_aside(delivery)
    kept = {p.name: p.read_text() for p in (tmp_path / "done").iterdir() if p.suffix == ".gz"}
    assert kept == {"baseline.csv.gz": "first", "baseline~2.csv.gz": "second", "baseline~3.csv.gz": "third"}
    assert (tmp_path / "done" / "baseline~3.json").exists()


def test_one_sidecar_beside_several_files_speaks_of_none(tmp_path: Path) -> None:
    put(tmp_path, "baseline.csv", as_of=AS_OF)
    put(tmp_path, "baseline.jsonl")
    taken, waiting = deliveries(tmp_path)
    assert not taken
    assert [w.path.name for w in waiting] == ["baseline.csv", "baseline.jsonl"]
    assert all("several files" in w.reason for w in waiting)


def test_a_file_that_waits_says_how_long(tmp_path: Path) -> None:
    put(tmp_path, "baseline.csv", age_seconds=7200)
    [waiting] = deliveries(tmp_path)[1]
    assert 7100 < waiting.age_seconds < 7300
