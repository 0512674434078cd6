"""What-ifs at the command line: asked, worked on at once, and shown as a table."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from oms.commands import clock
from oms.errors import BadInput
from oms.flows.broker import what_if
from oms.flows.broker.trials import Trial
from oms.house import House

MOVED_SHOWN = 10


async def tried(
    house: House, *, on: Mapping[str, Any], in_force: bool, policies: Sequence[str], seconds: float | None, seed: int | None,
    routings: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Tries policies and imported routings now, in this process; nothing is kept of it. Raises BadInput, NotFound, Conflict."""
    settings = house.settings
    given: list[Trial | str] = [Trial(in_force=True)] if in_force else []
    asked = await what_if.readied(
        house.db,
        what_if.Ask(
            msgspec.convert(on, what_if.On),
            [*given, *map(read_policy, policies), *(Trial(routings=name) for name in routings)], seconds, seed,
        ),
        now=clock(), seconds=settings.broker_seconds, seed=settings.broker_seed,
    )  # fmt: skip
    return await what_if.find(house.db, asked, now=clock())


def read_policy(word: str) -> Trial:
    """CODE, CODE@VERSION, or a JSON file with a body (or with `{name, body}`). Raises BadInput."""
    path = Path(word)
    if path.suffix == ".json":
        try:
            read = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError) as error:
            raise BadInput(f"--policy {word}: {error}; a JSON file with a policy's body is expected") from None
        return Trial(name=str(read.get("name", read.get("code", path.stem))), body=read.get("body", read))
    code, mark, version = word.rpartition("@")
    return Trial(code=code, version=int(version)) if mark and version.isdigit() and code else Trial(code=word)


ROWS: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("cents per order", lambda p: f"{p['cents_per_order']:,.1f}"),
    ("orders split", lambda p: f"{p['split_share']:.1%}"),
    ("packages", lambda p: f"{p['packages']:,}"),
    ("miles per package", lambda p: "–" if p["miles"] is None else f"{p['miles']:,.0f}"),
    ("on time", lambda p: "–" if p["on_time_share"] is None else f"{p['on_time_share']:.1%}"),
    ("units left open", lambda p: f"{p['unfilled_units']:,}"),
    ("skus of stores left at zero", lambda p: f"{p['emptied']:,}"),
    ("busiest location", lambda p: f"{p['load'][0]['location']} {p['load'][0]['packages']:,}" if p["load"] else "–"),
)


def comparison_lines(result: Mapping[str, Any]) -> list[str]:
    """A comparison as a table, a column for each policy, and what moves below it."""
    plans = result["plans"]
    rows = [["", *(p["name"] for p in plans)], *([name, *map(of, plans)] for name, of in ROWS)]
    terms = sorted({term for p in plans for term in p["cost_by_term"]})
    rows += [
        [f"  {term}", *(f"{p['cost_by_term'].get(term, 0) / max(1, p['orders']):,.1f}" for p in plans)]
        for term in terms
    ]
    rows.append(["orders that move", *(_moving(result, p["name"]) for p in plans)])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    for moves in result["moves"]:
        if moves["orders"]:
            lines += ["", f"{moves['to']}: " + ", ".join(f"{n:,} × {why}" for why, n in moves["why"].items())]
            lines += [f"  {_moved(m)}" for m in moves["shown"][:MOVED_SHOWN]]
    for routed in result.get("routings", []):
        lines += ["", f"{routed['name']}:"]
        lines += [
            f"  {r['routing']} › {r['rule']}: {r['orders']:,} of {r['tried']:,} orders, {r['units']:,} units"
            for r in routed["rules"]
        ]
        lines += [f"  {hint}" for hint in routed["hints"]]
    return lines


def _moving(result: Mapping[str, Any], name: str) -> str:
    return next((f"{m['orders']:,}" for m in result["moves"] if m["to"] == name), "–")


def _moved(m: Mapping[str, Any]) -> str:
    def places(units: Mapping[str, int]) -> str:
        return ", ".join(f"{n} from {at}" for at, n in units.items()) or "open"

    terms = []
    for term in sorted({*m["cents_was"], *m["cents_becomes"]}):
        before, after = m["cents_was"].get(term, 0), m["cents_becomes"].get(term, 0)
        terms += [f"{term} {before} → {after}"] if before != after else []
    why = "; ".join(f"{r['location']}: {r['why']}" if r["location"] else r["why"] for r in m["why"])
    number = f"{m['channel']} {m['number']}" if m["number"] else m["order_id"]
    return (
        f"{number}: {places(m['was'])} → {places(m['becomes'])}, {m['cents_more']:+,} cents ({', '.join(terms)}): {why}"
    )
