"""What a morning did, in lines that a person understands at a glance."""

from collections.abc import Iterable

from oms.flows.broker import Run
from oms.flows.push.sender import Pushed
from oms.morning import Report, Taken

REASONS = {
    "no_stock": "no location of its pool has it", "taken": "its stock went to other orders",
    "capacity": "locations are full today", "split": "its split rule", "barred": "rejected before",
    "dear": "cheaper to wait", "protected": "promised to others", "no_location": "no location may serve it",
}  # fmt: skip


def dollars(cents: int) -> str:
    """Cents as money."""
    return f"{cents / 100:,.2f}"


def taken_line(t: Taken) -> str:
    """A delivery."""
    said = ", ".join(f"{n:,} {name}" for name, n in t.outcomes.items())
    line = f"  {t.source:5} {t.name:24} {t.rows:>9,} rows  {said}"
    if t.changed:
        line += f"; {t.changed:,} keys changed"
    if t.refused:
        line += f"; {t.refused:,} rows refused"
    if t.parked:
        line += f"; parked for approval: {', '.join(t.parked[:5])}"
    return line + (f"; {t.trouble}" if t.trouble else "") + (f"  {t.seconds:.1f} s" if t.seconds else "")


def run_lines(run: Run) -> list[str]:
    """A brokering run."""
    s = run.summary
    if "failed" in s:
        return [f"  run {run.id} failed: {s['failed']}"]
    if not s.get("lines"):
        return ["  nothing was open"]
    lines = [
        f"  {s['assigned_lines']:,} of {s['lines']:,} lines of {s['orders']:,} orders planned in {s['packages']:,} packages, "
        f"{s['split_rate']:.1%} of the orders split",
        f"  cost {dollars(s['cost_cents'])}, at most {s['gap']:.2%} above what any plan could reach",
    ]
    if s.get("nearest_cents"):
        lines.append(
            f"  nearest location with stock would cost {dollars(s['nearest_cents'])}: "
            f"{s['cost_cents'] / s['nearest_cents'] - 1:+.1%}"
        )
    if run.state == "applied":
        lines.append(
            f"  allocated: {s['applied']:,} orders as planned, {s['partly']:,} in part, {s['dropped']:,} went back to open"
        )
    unfilled = s.get("unfilled") or {}
    if unfilled:
        lines.append("  left open: " + ", ".join(f"{n:,} ({REASONS.get(r, r)})" for r, n in sorted(unfilled.items())))
    return lines


def pushed_line(p: Pushed) -> str:
    """A channel."""
    parts = [f"{p.skus:,} skus in {p.calls:,} calls"]
    parts += [f"{n:,} {name}" for name, n in (("refused", p.refused), ("waiting", p.waiting), ("dead", p.dead)) if n]
    why = p.trouble or (p.last_reason if p.waiting or p.dead else None)
    return f"  {p.channel:8} {', '.join(parts)}" + (f"; {why}" if why else "") + f"  {p.seconds:.1f} s"


def report_lines(r: Report) -> list[str]:
    """A morning."""
    lines = ["Feeds", *(taken_line(t) for t in r.feeds)] if r.feeds else ["Feeds", "  none had come"]
    lines += [f"  {sentence}" for sentence in r.waiting]
    lines.append("Orders")
    for channel, tally in r.captured.items():
        lines.append(
            f"  {channel:8} {tally.orders:,} read: {tally.new:,} new, {tally.known:,} known already, "
            f"{tally.changed:,} changed, {tally.refused:,} refused"
        )
    lines.append("Brokering")
    lines += run_lines(r.run) if r.run is not None else ["  nothing was open"]
    lines += ["Push", *(pushed_line(p) for p in r.pushed)]
    lines.append("Time     " + timing(r.seconds.items()))
    lines += [f"Trouble  {t}" for t in r.troubles]
    return lines


def timing(seconds: Iterable[tuple[str, float]]) -> str:
    """Seconds per step."""
    return ", ".join(f"{step} {s:.1f} s" for step, s in seconds)
