"""The `oms` command. Everything heavy is imported where it is used: `oms --help` answers at once.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done with exceptions that need a person.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import rich_click as click

if TYPE_CHECKING:
    from oms.house import House

Result = TypeVar("Result")
NEEDS_A_PERSON = 3
KINDS = ("locations", "pools", "channels", "sources", "skus", "kits", "units", "aliases", "sku_aliases",
         "location_aliases", "incoming", "rules", "transits", "policies", "parties", "stock_owners", "transfer_prices",
         "listeners")  # fmt: skip
ROLES = ("storefront", "associate", "integrator", "planner", "operator", "approver", "admin")

as_json = click.option("--json", "is_json", is_flag=True, help="Print the result as JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="commonpool", prog_name="oms")
def main() -> None:
    """Commonpool: the open order broker. Master of what may be sold, from where, by when."""


def settle(work: Callable[["House"], Awaitable[Result]]) -> Result:
    """Opens the house (embedded servers where no URL is set), does the work, closes it; failures as one sentence."""
    from oms.house import opened

    async def inside() -> Result:
        async with opened(os.environ) as house:
            return await work(house)

    return guarded(lambda: asyncio.run(inside()))


def guarded(work: Callable[[], Result]) -> Result:
    """Runs; what is refused, or cannot start, is told in one sentence with exit code 1."""
    from oms.embedded import CannotStart
    from oms.errors import Refusal
    from oms.settings import BadSetting

    try:
        return work()
    except (Refusal, CannotStart, BadSetting) as refused:
        fail(str(refused), getattr(refused, "items", None))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        fail(f"{error}")
    except Exception as error:
        if type(error).__name__ in ("FileRefused", "MigrationChanged"):  # known by name: their modules load slowly
            fail(str(error))
        raise


def fail(sentence: str, items: Any = None) -> NoReturn:
    """Says why on stderr and ends with 1."""
    click.echo(f"oms: {sentence}", err=True)
    for item in (items or [])[:20]:
        click.echo("  " + ", ".join(f"{k} {v}" for k, v in item.items()), err=True)
    sys.exit(1)


def show(result: Any, *, is_json: bool, text: Callable[[Any], str] | None = None) -> None:
    """Prints a result: JSON, or lines for people."""
    import msgspec

    built = msgspec.to_builtins(result)
    if is_json:
        click.echo(json.dumps(built, default=str))
    elif text is not None:
        click.echo(text(result))
    else:
        for name, value in built.items() if isinstance(built, dict) else enumerate(built):
            click.echo(f"{name}: {value}")


@main.command()
@click.option("--once", is_flag=True, help="End when the morning is done.")
@click.option("--size", type=click.Choice(["small", "full"]), default="small", show_default=True)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port of the API afterwards; 0 takes a free one."
)
@as_json
def demo(once: bool, size: str, port: int, is_json: bool) -> None:
    """Run a retailer's whole morning on real data, then leave the service running until Ctrl-C."""
    from oms.demo.run import demo as run_demo

    sys.exit(
        guarded(
            lambda: run_demo(
                size="full" if size == "full" else "small", once=once, port=port, is_json=is_json, environ=os.environ
            )
        )
    )


@main.command()
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Port of the API.")
@click.option("--workers", type=click.IntRange(1, 64), default=None, help="API processes.")
def up(port: int | None, workers: int | None) -> None:
    """Start API, console and job worker, with the embedded servers where no URL is set."""
    from oms.house import up as run_up

    sys.exit(guarded(lambda: run_up(os.environ, port=port, workers=workers)))


@main.command()
def api() -> None:
    """Start the API alone."""
    from oms.house import api as run_api

    guarded(lambda: run_api(os.environ))


@main.command()
def worker() -> None:
    """Start the job worker alone."""
    from oms.house import worker as run_worker

    guarded(lambda: run_worker(os.environ))


@main.command()
@as_json
def migrate(is_json: bool) -> None:
    """Bring the schema up to date; safe beside running older code."""
    from oms.house import migrated

    applied = guarded(lambda: migrated(os.environ))
    show({"applied": applied}, is_json=is_json, text=lambda r: "\n".join(r["applied"]) or "The schema is up to date.")


@main.command()
@as_json
def config(is_json: bool) -> None:
    """List every setting with its value, default and meaning."""
    from oms.settings import Settings

    rows = guarded(lambda: Settings.read(os.environ).rows())
    if is_json:
        click.echo(json.dumps(rows, default=str))
        return
    for row in rows:
        click.echo(f"{row['variable']:34} {row['value']!s:32} {row['meaning']} (default {row['default']!s})")


@main.group()
def key() -> None:
    """API keys."""


@key.command("create")
@click.option("--role", type=click.Choice(ROLES), required=True)
@click.option("--location", help="Code of the store of an associate.")
@click.option("--channel", help="Code of the channel of a storefront.")
@click.option("--source", help="Code of the source of an integrator.")
@click.option("--person", help="Who acts; two-person approval needs it.")
def key_create(role: str, location: str | None, channel: str | None, source: str | None, person: str | None) -> None:
    """Make a key; it is printed once, as the last word."""

    async def work(house: "House") -> str:
        from oms.flows.govern import create_key

        return await create_key(
            house.db, role=role, channel=channel, location=location, source=source, person=person, who="command line"
        )

    click.echo(f"Key for {role}{f' {person}' if person else ''}, shown this once: {settle(work)}")


@main.command(
    help=f"Load KIND from CSV or JSON files, by the API's column names; the same file again changes nothing.\n\nKIND is one of {', '.join(KINDS)}."
)
@click.argument("kind", type=click.Choice(KINDS), metavar="KIND")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@as_json
def load(kind: str, files: tuple[str, ...], is_json: bool) -> None:
    """Each file wholly or not at all."""
    from oms.commands import load_files

    results = settle(lambda house: load_files(house, kind=kind, files=files))
    show(results, is_json=is_json, text=lambda rs: "\n".join(r.sentence() for r in rs))
    sys.exit(1 if any(r.refused for r in results) else 0)


@main.command()
@click.option("--source", help="Only this source's folder.")
@as_json
def morning(source: str | None, is_json: bool) -> None:
    """Baselines from the sources' folders, capture, brokering and push, in order."""
    from oms.commands import morning_now
    from oms.demo.summary import report_lines

    report = settle(lambda house: morning_now(house, source=source))
    show(report, is_json=is_json, text=lambda r: "\n".join(report_lines(r)))
    sys.exit(NEEDS_A_PERSON if report.needs_a_person else 0)


@main.command()
@click.argument("source")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--as-of", required=True, help="The moment it speaks of, with offset: 2026-01-31T05:00:00Z.")
@click.option("--scope", type=click.Choice(["full", "partial"]), default="full", show_default=True)
@click.option("--watermark", multiple=True, metavar="SOURCE=N", help="Highest number of a movement source in it.")
@click.option("--posted", type=click.Path(exists=True, dir_okay=False), help="File of ids of ours that it has posted.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@as_json
def baseline(source: str, files: tuple[str, ...], as_of: str, scope: str, watermark: tuple[str, ...],
             posted: str | None, dry_run: bool, is_json: bool) -> None:  # fmt: skip
    """Take a baseline of SOURCE from FILES (CSV or JSON Lines, gzip too)."""
    from oms.commands import baselines, read_watermarks

    marks = guarded(lambda: read_watermarks(watermark))
    results = settle(
        lambda house: baselines(house, source=source, files=files, as_of=as_of, scope=scope, watermark=marks,
                                posted=posted, dry_run=dry_run)
    )  # fmt: skip
    show(results, is_json=is_json, text=lambda rs: "\n".join(line for r in rs for line in r.lines()))
    sys.exit(NEEDS_A_PERSON if any(r.needs_a_person for r in results) else 0)


@main.command()
@click.argument("source")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@as_json
def movements(source: str, files: tuple[str, ...], is_json: bool) -> None:
    """Take movements of SOURCE from FILES (CSV or JSON Lines, gzip too)."""
    from oms.commands import movement_files
    from oms.demo.summary import taken_line

    results = settle(lambda house: movement_files(house, source=source, files=files))
    show(results, is_json=is_json, text=lambda rs: "\n".join(taken_line(r) for r in rs))
    sys.exit(
        NEEDS_A_PERSON if any(r.refused or {"parked", "review", "changed"} & r.outcomes.keys() for r in results) else 0
    )


@main.command()
@click.option("--dry-run", is_flag=True, help="Plan and explain, and allocate nothing.")
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=None, help="The longest time to plan.")
@click.option("--seed", type=click.IntRange(0), default=None)
@as_json
def broker(dry_run: bool, seconds: float | None, seed: int | None, is_json: bool) -> None:
    """Broker everything that is open: one run."""
    from oms.commands import broker_now
    from oms.demo.summary import run_lines

    run = settle(lambda house: broker_now(house, dry_run=dry_run, seconds=seconds, seed=seed))
    show(run, is_json=is_json, text=lambda r: "\n".join(run_lines(r)))


@main.command("what-if")
@click.option("--open", "is_open", is_flag=True, help="On what is open now.")
@click.option("--run", "run_id", type=click.UUID, help="On what this run saw.")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="On this whole day, order by order as they came.")
@click.option("--zone", default="UTC", show_default=True, help="The time zone of the day.")
@click.option("--every-minutes", type=click.IntRange(5, 1440), default=None, help="The day in batches instead.")
@click.option("--in-force", is_flag=True, help="The policies in force, first of all.")
@click.option("--policy", "policies", multiple=True, metavar="CODE[@VERSION]|FILE", help="A policy; up to five.")
@click.option("--routings", multiple=True, metavar="NAME", help="Imported routings, followed rule by rule.")
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=None, help="The longest time to plan each.")
@click.option("--seed", type=click.IntRange(0), default=None)
@as_json
def what_if(is_open: bool, run_id: Any, day: Any, zone: str, every_minutes: int | None, in_force: bool, policies: tuple[str, ...],
            routings: tuple[str, ...], seconds: float | None, seed: int | None, is_json: bool) -> None:  # fmt: skip
    """Try policies on what a run saw, on what is open, or on a whole past day; nothing is allocated."""
    from oms.commands.tried import comparison_lines, tried

    on: dict[str, Any] = {**({"run": str(run_id)} if run_id else {}), **({"open": True} if is_open else {})}
    on |= {"day": str(day.date())} if day else {}
    on |= {"time_zone": zone, "every_minutes": every_minutes}
    result = settle(
        lambda house: tried(
            house, on=on, in_force=in_force, policies=policies, routings=routings, seconds=seconds, seed=seed
        )
    )
    show(result, is_json=is_json, text=lambda r: "\n".join(comparison_lines(r)))


@main.group("routings")
def routings_of() -> None:
    """Order routings of HotWax: import them, compare them with the joint plan, make policies of them."""


@routings_of.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--name", default=None, help="What to call them; the file's name unless given.")
@click.option("--names", type=click.Path(exists=True, dir_okay=False), help="JSON file: HotWax's names as ours.")
@as_json
def routings_import(file: str, name: str | None, names: str | None, is_json: bool) -> None:
    """Keep the routings of FILE (JSON as HotWax's API gives it) under a name."""
    from pathlib import Path

    from oms.commands.imported import bring, read_import, said_lines

    given = guarded(lambda: read_import(file, names=names))
    said = settle(lambda house: bring(house, name=name or Path(file).stem, given=given))
    show(said, is_json=is_json, text=lambda s: "\n".join(said_lines(s)))


@routings_of.command("compare")
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option("--open", "is_open", is_flag=True, help="On what is open now.")
@click.option("--run", "run_id", type=click.UUID, help="On what this run saw.")
@click.option(
    "--policy", "policies", multiple=True, metavar="CODE[@VERSION]|FILE", help="A policy beside those in force."
)
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=None, help="The longest time to plan each.")
@click.option("--seed", type=click.IntRange(0), default=None)
@as_json
def routings_compare(names: tuple[str, ...], is_open: bool, run_id: Any, policies: tuple[str, ...],
                     seconds: float | None, seed: int | None, is_json: bool) -> None:  # fmt: skip
    """Follow imported routings rule by rule beside the joint plan of the policies in force; nothing is allocated."""
    from oms.commands.tried import comparison_lines, tried

    on: dict[str, Any] = {**({"run": str(run_id)} if run_id else {}), **({"open": True} if is_open else {})}
    result = settle(
        lambda house: tried(house, on=on, in_force=True, policies=policies, routings=names, seconds=seconds, seed=seed)
    )
    show(result, is_json=is_json, text=lambda r: "\n".join(comparison_lines(r)))


@routings_of.command("draft")
@click.argument("name")
@as_json
def routings_draft(name: str, is_json: bool) -> None:
    """Show the policies that imported routings would make, and what cannot be carried over."""
    from oms.commands.imported import draft_lines

    async def work(house: "House") -> Any:
        from oms.flows.broker.routings import drafted

        return await drafted(house.db, code=name)

    show(settle(work), is_json=is_json, text=lambda ds: "\n".join(draft_lines(ds)))


@main.command()
@click.argument("channel", required=False)
@click.option("--reset", is_flag=True, help="Everything, not only what is due.")
@as_json
def push(channel: str | None, reset: bool, is_json: bool) -> None:
    """Tell CHANNEL (or all) what is due, or with --reset everything."""
    from oms.commands import push_now
    from oms.demo.summary import pushed_line

    told = settle(lambda house: push_now(house, channel=channel, reset=reset))
    show(told, is_json=is_json, text=lambda ps: "\n".join(pushed_line(p) for p in ps))
    sys.exit(1 if any(p.trouble for p in told) else NEEDS_A_PERSON if any(p.dead or p.waiting for p in told) else 0)


@main.command()
@click.argument("source", required=False)
@click.option("--replay", is_flag=True, help="Tell again what it refused or nobody took.")
@as_json
def posts(source: str | None, replay: bool, is_json: bool) -> None:
    """Tell SOURCE (or all) what began with us and is due, and show what each has not acknowledged."""
    from oms.commands import post_now

    told = settle(lambda house: post_now(house, source=source, replay=replay))
    show(told, is_json=is_json, text=lambda t: "\n".join(t.lines()))
    sys.exit(NEEDS_A_PERSON if any(c.state == "dead" for c in told.waiting) else 0)


@main.command()
@as_json
def verify(is_json: bool) -> None:
    """Fold the ledger again and compare it with stock and availability; exit 1 on any difference."""

    async def work(house: "House") -> Any:
        from oms.flows.reconcile import verify as fold

        return await fold(house.db)

    counts, differences = settle(work)
    if is_json:
        show({"counts": counts, "differences": differences}, is_json=True)
    else:
        click.echo(
            f"{counts.movements:,} movements, {counts.stock:,} stock rows, {counts.availability:,} skus, "
            f"{counts.lines:,} order lines: {'all explained' if not differences else f'{len(differences)} differ'}"
        )
        for d in differences[:50]:
            click.echo(f"  {d.what} {d.subject}: kept {d.kept}; the ledger says {d.folded}")
    sys.exit(1 if differences else 0)


@main.command()
@click.argument("source")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@as_json
def reconcile(source: str, file: str, is_json: bool) -> None:
    """Compare a count of SOURCE with our stock and report the drift, changing nothing."""
    from oms.commands import reconciled

    report = settle(lambda house: reconciled(house, source=source, file=file))
    show(report, is_json=is_json, text=lambda r: "\n".join(r.lines()))


@main.command()
@click.argument("period")
@click.option("--csv", "is_csv", is_flag=True, help="Print the report as CSV: a row per pair, currency and kind.")
@as_json
def settlement(period: str, is_csv: bool, is_json: bool) -> None:
    """Who owes whom in PERIOD, like 2026-11; ends with 3 while units of it still wait for a price."""
    from oms.commands import settlement_csv, settlement_lines
    from oms.flows.settlement import report

    if is_csv and is_json:
        raise click.UsageError("--csv or --json, not both")
    found = settle(lambda house: report(house.db, period=period))
    if is_csv:
        click.echo(settlement_csv(found), nl=False)
    else:
        show(found, is_json=is_json, text=lambda r: "\n".join(settlement_lines(r)))
    sys.exit(NEEDS_A_PERSON if found.waiting else 0)


@main.command()
@click.argument("source")
@click.argument("message")
@as_json
def trace(source: str, message: str, is_json: bool) -> None:
    """Follow one MESSAGE of SOURCE through ledger, availability, push and the channel's answer."""
    from oms.commands import traced

    found = settle(lambda house: traced(house, source=source, message=message))
    show(found, is_json=is_json, text=lambda t: "\n".join(t.lines()))


if __name__ == "__main__":
    main()
