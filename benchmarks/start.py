"""How long a person waits: for `oms --help`, and for the whole morning of `oms demo --once` on a warm install."""

import sys
from statistics import median

import msgspec

from benchmarks.frame import Row, folder, row, timed

HELP_ROUNDS, HELP_ROUNDS_QUICK = 11, 5
HELP_SECONDS_MAX = 0.4
DEMO_ROUNDS = 3
DEMO_SECONDS_MAX = 60.0
BROKER_SECONDS_MAX = 15.0
OMS = (sys.executable, "-c", "from oms.cli import main; main(prog_name='oms')")
"""What the installed command runs."""


class Said(msgspec.Struct, frozen=True):
    """What the demo says of itself, as far as is looked at here."""

    seconds: dict[str, float]
    differences: int
    shop_differs: int


def run(*, quick: bool) -> list[Row]:
    """The rows of the table."""
    timed([*OMS, "--help"])  # compiled once: a warm install
    pairs = [
        (timed([*OMS, "--help"])[0], timed([sys.executable, "-c", "pass"])[0])
        for _ in range(HELP_ROUNDS_QUICK if quick else HELP_ROUNDS)
    ]
    ours, bare = (median(pair[k] for pair in pairs) for k in (0, 1))
    rows = [
        row("oms --help", ours, "s", against=f"{bare:.3f} s python -c pass, {len(pairs)} rounds", ratio=ours / bare,
            reach=f"≤ {HELP_SECONDS_MAX:g} s", ok=ours <= HELP_SECONDS_MAX)
    ]  # fmt: skip
    seconds, brokering = [], []
    for _ in range(1 if quick else DEMO_ROUNDS):
        with folder() as home:
            took, out = timed([*OMS, "demo", "--once", "--json"], more={"OMS_HOME": str(home)})
        said = msgspec.json.decode(out, type=Said)
        assert not said.differences and not said.shop_differs, said
        seconds.append(took)
        brokering.append(said.seconds["broker"])
    rounds = f"{len(seconds)} rounds, each in a new home"
    return [
        *rows,
        row("oms demo --once (small)", median(seconds), "s", against=rounds, reach=f"≤ {DEMO_SECONDS_MAX:g} s",
            ok=median(seconds) <= DEMO_SECONDS_MAX),
        row("of which brokering", median(brokering), "s", against=rounds, reach=f"≤ {BROKER_SECONDS_MAX:g} s",
            ok=median(brokering) <= BROKER_SECONDS_MAX),
    ]  # fmt: skip
