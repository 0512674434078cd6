"""`python -m benchmarks` lists the benchmarks; `python -m benchmarks NAME [--json] [--quick]` runs one.

Exit codes: 0 measured (the table says which reach is missed: a figure is no failure of the run), 1 could not be
measured to its end, 2 wrong usage or unknown name, 130 ended by Ctrl-C. Progress is not told; figures go to standard
output only when all of them are there. Nothing is left behind.
"""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence

import msgspec

from benchmarks.frame import Missing, machine, table

BENCHMARKS = {
    "at_once": "orders captured, and rejected, until they are allocated in the online mode",
    "atp": "what may be sold over HTTP, beside a constant answer of the same shape",
    "baseline": "a snapshot of 1,000,000 rows to published availability, beside a bare COPY and upsert",
    "broker": "one joint plan, beside nearest-with-stock and one order at a time",
    "contention": "10,000 carts at once for the last 1,000 units: exactly so many are sold, every time",
    "memory": "500,000 skus for 12 channels, projected in Redis",
    "movements": "sales by the API, settled by group commit, beside carts",
    "nearby": "the closest of 2,000 locations that have a sku, beside a bare round trip",
    "online": "a day of orders decided one by one, beside a joint plan that knew the whole day",
    "orders": "orders through their whole life over HTTP: captures, steps and reads at once, by the clock",
    "push": "what channels may sell, computed and told, beside a bare upsert and bare posting",
    "reserve": "carts reserved over HTTP, beside a constant answer and the usual way of a transaction each",
    "start": "`oms --help` beside a bare Python, and `oms demo --once`",
}
"""One module each, with a function `run`."""


def lines_of_list() -> list[str]:
    """Every benchmark with a line."""
    width = max(map(len, BENCHMARKS))
    return [
        "python -m benchmarks NAME [--json] [--quick] [--minutes N]",
        "",
        *(f"  {name.ljust(width)}  {promise}" for name, promise in BENCHMARKS.items()),
        "",
        "--quick takes under 45 s and is for a look; --minutes is how long `orders` loads; --json prints {machine, rows}.",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the named benchmark; gives the exit code."""
    options = argparse.ArgumentParser(prog="python -m benchmarks", description="The figures, measured side by side.")
    options.add_argument("name", nargs="?", help="which benchmark; none lists them")
    options.add_argument("--json", action="store_true", dest="is_json", help="print JSON")
    options.add_argument("--quick", action="store_true", help="less of it, under 45 s: for a look")
    options.add_argument("--minutes", type=float, help="how long `orders` loads, instead of ten minutes")
    chosen = options.parse_args(arguments)
    if chosen.name is None:
        print("\n".join(lines_of_list()))
        return 0
    if chosen.name not in BENCHMARKS:
        print(f"There is no benchmark {chosen.name!r}.\n\n" + "\n".join(lines_of_list()), file=sys.stderr)
        return 2
    if chosen.minutes is not None and chosen.name != "orders":
        print("Only `orders` takes --minutes.", file=sys.stderr)
        return 2
    more = {} if chosen.minutes is None else {"minutes": chosen.minutes}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    here = machine()
    try:
        rows = importlib.import_module(f"benchmarks.{chosen.name}").run(quick=chosen.quick, **more)
    except Missing as why:
        print(f"{chosen.name} could not be measured: {why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if chosen.is_json:
        print(
            msgspec.json.encode(
                {"benchmark": chosen.name, "quick": chosen.quick, "machine": here, "rows": rows}
            ).decode()
        )
        return 0
    print(f"{chosen.name}{' (quick, for a look)' if chosen.quick else ''}: {here.cores} cores, {here.memory_gb:g} GB, "
          f"Python {here.python}, PostgreSQL {here.postgresql}, load before it {here.load:g}\n")  # fmt: skip
    print("\n".join(table(rows)))
    missed = sum(r.ok is False for r in rows)
    print(f"\n{missed} of {sum(r.ok is not None for r in rows)} reaches are missed." if missed else "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
