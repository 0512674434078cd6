"""What the commands do, in an open house: files read, one flow called, a result to print."""

import csv
import gzip
import io
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from connectors.feeds import FileRefused
from connectors.feeds.folder import Delivery, Sidecar
from connectors.feeds.stream import Source as Stream
from connectors.feeds.tabular import Reader
from oms import morning as the_morning
from oms.db import Database, Sql
from oms.errors import BadInput, NotFound
from oms.flows import broker, posts, reconcile, settlement
from oms.flows.ingest import acknowledge, apply, messages, stage
from oms.flows.network import load
from oms.flows.order.parked import unpark_lines
from oms.flows.push.sender import Pushed, push_all
from oms.house import House
from oms.progress import Bars

sql = Sql("trace")
WHO = "command line"


def clock() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


class LoadedFile(msgspec.Struct, frozen=True):
    """What loading a file did."""

    file: str
    kind: str
    created: int
    changed: int
    unchanged: int
    refused: list[Any]
    taken_up: int = 0
    """Messages and order lines that had waited for it."""

    def sentence(self) -> str:
        """For people."""
        if not self.refused:
            waited = f"; {self.taken_up} that had waited are taken up" if self.taken_up else ""
            return f"{self.file}: {self.created} created, {self.changed} changed, {self.unchanged} unchanged{waited}"
        rows = "\n".join(f"  row {r.row}, {r.field}: {r.reason}" for r in self.refused[:20])
        return f"{self.file}: refused, nothing of it was applied ({len(self.refused)} rows)\n{rows}"


class PostedNow(msgspec.Struct, frozen=True):
    """Movements that arrived at their sources now, dead batches that were told again, and what is not acknowledged."""

    arrived: int
    replayed: int
    waiting: list[posts.Counted]

    def lines(self) -> list[str]:
        """For people."""
        again = f", {self.replayed} dead batches told again" if self.replayed else ""
        return [f"{self.arrived} movements arrived{again}"] + [
            f"  {c.source}: {c.posts:,} {c.state}" + (", not acknowledged" if c.state == "sent" else "")
            for c in self.waiting
        ]


async def post_now(house: House, *, source: str | None, replay: bool) -> PostedNow:
    """Tells sources what is due of what began with us; NotFound where there is no such source."""
    if source is not None and await acknowledge.source_id_named(house.db, source) is None:
        raise NotFound(f"There is no source {source!r}. Load it first: oms load sources FILE.")
    again = await posts.replay(house.db, batch_id=None, source=source, who=WHO) if replay else 0

    async def take(db: Database, code: str, references: Sequence[str], at: datetime) -> None:
        await acknowledge.posted(db, source=code, references=references, at=at, who=WHO)

    arrived = await posts.send_due(house.db, acknowledge=take, now=clock(), chance=random.random, source=source)
    return PostedNow(arrived, again, [c for c in await posts.counted(house.db) if source in (None, c.source)])


async def load_files(house: House, *, kind: str, files: Sequence[str]) -> list[LoadedFile]:
    """Loads files of a kind, each wholly or not at all; what waited for them is taken up before it returns."""
    done = []
    for name in files:
        path = Path(name)
        found = await load(house.db, kind=kind, rows=read_rows(path), who=WHO, now=clock(), cache=house.cache)
        taken_up = 0
        if found.created or found.changed:
            taken_up = await messages.replay_parked(house.db, who=WHO) + await unpark_lines(house.db, who=WHO)
        if taken_up:
            for step in ("broker", "project"):
                await house.cache.wake(step)
        done.append(
            LoadedFile(
                path.name, kind, found.created, found.changed, found.unchanged, list(found.refused), taken_up=taken_up
            )
        )
    return done


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV or JSON file (a list of objects, or one per line). Raises FileRefused."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise FileRefused(path.name, "is not UTF-8", "Save it as UTF-8.", line=line) from None
    if text.lstrip()[:1] in ("[", "{"):
        try:
            rows = msgspec.json.decode(text)
        except msgspec.DecodeError:
            try:
                rows = [msgspec.json.decode(line) for line in text.splitlines() if line.strip()]
            except msgspec.DecodeError as error:
                raise FileRefused(path.name, f"is not JSON: {error}", "Send a list of objects.") from None
        rows = rows if isinstance(rows, list) else [rows]
        if not all(isinstance(row, dict) for row in rows):
            raise FileRefused(path.name, "holds something that is not an object", "Send a list of objects.")
        return rows
    try:
        read = csv.DictReader(text.splitlines(), strict=True)
        rows = []
        for row in read:
            if None in row or None in row.values():
                raise FileRefused(path.name, "has another number of fields than the header", "Correct the row.",
                                  line=read.line_num)  # fmt: skip
            rows.append(row)
    except csv.Error as error:
        raise FileRefused(path.name, f"cannot be read: {error}", "Correct the row.", line=read.line_num) from None
    if not read.fieldnames:
        raise FileRefused(path.name, "is empty", "The first line names the columns.")
    return rows


async def morning_now(house: House, *, source: str | None) -> the_morning.Report:
    """One morning, with progress."""
    with Bars() as bars:
        return await the_morning.morning(
            house.db, house.cache, house.settings, who=WHO, clock=clock, source=source, progress=bars.step
        )


def read_watermarks(given: Sequence[str]) -> dict[str, int]:
    """SOURCE=N, several by commas too. Raises BadInput."""
    marks: dict[str, int] = {}
    for word in (w for g in given for w in g.split(",") if w):
        code, sign, number = word.partition("=")
        if not sign or not number.strip().isdigit() or not code.strip():
            raise BadInput(f"--watermark {word!r} is not SOURCE=N, as in --watermark pos=812.")
        marks[code.strip()] = int(number)
    return marks


class BaselineDone(msgspec.Struct, frozen=True):
    """What a baseline did, or would do."""

    staged: stage.Staged
    applied: apply.Applied | None = None
    totals: apply.DifferenceTotals | None = None
    difference: list[apply.Difference] = []
    refusals: list[Any] = []

    @property
    def needs_a_person(self) -> bool:
        """Whether rows were refused or parts parked."""
        return bool(self.staged.refused or self.staged.parked or self.staged.not_owned)

    def lines(self) -> list[str]:
        """For people."""
        s = self.staged
        head = f"feed {s.feed_id} of {s.source}: {s.rows:,} rows, {s.refused:,} refused, {s.keys:,} keys"
        out = [head + (f" ({s.state})" if s.state != "staged" else "")]
        if s.parked:
            out.append(f"  parked for approval: {', '.join(s.parked[:10])}")
        if self.applied is not None:
            out.append(
                f"  in force: {self.applied.changed:,} keys changed, variance {self.applied.variance_units:,} units"
            )
        if self.totals is not None:
            t = self.totals
            out.append(f"  would change {t.changed:,} of {t.keys:,} keys: +{t.units_up:,} −{t.units_down:,} units")
            out += [f"    {d.sku} at {d.location}: {d.was} → {d.becomes}" for d in self.difference]
        out += [f"  line {r.line}, {r.field}: {r.reason} ({r.value})" for r in self.refusals]
        return out


class Refusal(msgspec.Struct, frozen=True):
    """A refused row."""

    line: int
    field: str
    reason: str
    value: str | None


refusals_of = sql.rows("refusals_of", Refusal)


async def baselines(
    house: House, *, source: str, files: Sequence[str], as_of: str, scope: str, watermark: dict[str, int],
    posted: str | None, dry_run: bool,
) -> list[BaselineDone]:  # fmt: skip
    """Takes baseline files, or shows what they would change."""
    try:
        moment = datetime.fromisoformat(as_of)
    except ValueError:
        raise BadInput(f"--as-of {as_of!r} is not a time; like 2026-01-31T05:00:00Z.") from None
    if posted:
        references = Path(posted).read_text(encoding="utf-8").split()
        await acknowledge.posted(house.db, source=source, references=references, at=moment, who=WHO)
    done = []
    with Bars() as bars:
        for name in files:
            staged = await stage.receive(
                house.db, source=source, reader=Reader(Stream(Path(name))), name=Path(name).name, as_of=moment,
                scope="partial" if scope == "partial" else "full", watermark=watermark, who=WHO, now=clock(),
                dry_run=dry_run, progress=bars.phase,
            )  # fmt: skip
            result = BaselineDone(staged)
            if dry_run:
                totals, largest = await apply.show(house.db, feed_id=staged.feed_id)
                result = BaselineDone(staged, totals=totals, difference=largest)
            elif staged.state == "staged":
                applied = await apply.apply(
                    house.db, feed_id=staged.feed_id, who=WHO, progress=bars.phase, keys_total=staged.keys
                )
                result = BaselineDone(staged, applied=applied)
                await house.cache.wake("project")
            async with house.db.connection() as tx:
                refused = await refusals_of(tx, feed_id=staged.feed_id, limit=20)
            done.append(msgspec.structs.replace(result, refusals=refused))
    return done


async def movement_files(house: House, *, source: str, files: Sequence[str]) -> list[the_morning.Taken]:
    """Takes files of movements."""
    with Bars() as bars:
        done = [
            await the_morning.take_movements(
                house.db, source=source, delivery=Delivery("movements", Path(name), Sidecar()), who=WHO, now=clock(),
                progress=bars.phase,
            )
            for name in files
        ]  # fmt: skip
    await house.cache.wake("project")
    return done


async def broker_now(house: House, *, dry_run: bool, seconds: float | None, seed: int | None) -> broker.Run:
    """One brokering run."""
    with Bars() as bars:
        return await broker.run(
            house.db, who=WHO, now=clock(), seconds=seconds or house.settings.broker_seconds,
            seed=house.settings.broker_seed if seed is None else seed, dry_run=dry_run, cache=house.cache,
            progress=bars.phase, with_crew=house.settings.broker_crew,
        )  # fmt: skip


async def push_now(house: House, *, channel: str | None, reset: bool) -> list[Pushed]:
    """Tells channels what is due."""
    with Bars() as bars:
        return await push_all(
            house.db, house.cache, now=clock(), channels=[channel] if channel else None, reset=reset, who=WHO,
            progress=bars.phase,
        )  # fmt: skip


class Reconciled(msgspec.Struct, frozen=True):
    """A count beside our stock."""

    rows: int
    known: int
    drift: list[reconcile.Drift]

    def lines(self) -> list[str]:
        """For people."""
        units = sum(abs(d.counted - d.on_hand) for d in self.drift)
        out = [f"{self.rows:,} rows, {self.known:,} known: {len(self.drift):,} differ by {units:,} units"]
        return out + [f"  {d.sku} at {d.location}: counted {d.counted}, on hand {d.on_hand}" for d in self.drift[:50]]


async def reconciled(house: House, *, source: str, file: str) -> Reconciled:
    """Compares a file of counts with our stock."""
    rows = []
    for row in read_rows(Path(file)):
        if not {"sku", "location", "quantity"} <= row.keys() or not str(row["quantity"]).strip().isdigit():
            raise BadInput(f"{file}: each row needs sku, location and a whole quantity; found {row}.")
        rows.append((str(row["sku"]), str(row["location"]), int(row["quantity"])))
    found = await reconcile.drift(house.db, source=source, rows=rows)
    differ = sorted((d for d in found if d.counted != d.on_hand), key=lambda d: -abs(d.counted - d.on_hand))
    return Reconciled(len(rows), len(found), differ)


def settlement_lines(report: settlement.Report) -> list[str]:
    """Who owes whom in a period, for people."""
    out = [f"{report.period} is {report.state}: {len(report.debts)} pairs"]
    for d in report.debts:
        kinds = ", ".join(f"{kind} {part['cents']:,}" for kind, part in d.kinds.items())
        out.append(f"  {d.debtor} owes {d.creditor} {d.cents:,} cents {d.currency} for {d.units:,} units ({kinds})")
    out += [f"  {n.entries:,} entries are of {n.month}, which was closed when they were made" for n in report.late]
    out += [f"  {w.units:,} units wait for {w.subject}: nobody owes anything for them yet" for w in report.waiting]
    return out


def settlement_csv(report: settlement.Report) -> str:
    """Who owes whom in a period, a row per pair, currency and kind: cents add up to what the debtor owes."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["period", "state", "debtor", "creditor", "currency", "kind", "units", "cents"])
    for d in report.debts:
        for kind, part in d.kinds.items():
            who = [report.period, report.state, d.debtor, d.creditor, d.currency]
            rows.writerow([*who, kind, part["units"], part["cents"]])
    return text.getvalue()


class TracedMessage(msgspec.Struct, frozen=True):
    """A message in the inbox."""

    outcome: str
    recorded_at: datetime
    detail: str | None
    feed_id: int | None


class TracedMovement(msgspec.Struct, frozen=True):
    """A movement in the ledger."""

    sku_id: int
    sku: str
    location: str
    kind: str
    quantity: int
    effect: int
    on_hand: int
    version: int
    occurred_at: datetime
    absorbed_by: str | None
    contained_in: int | None


class TracedPush(msgspec.Struct, frozen=True):
    """What a channel was told of the sku since."""

    sku: str
    channel: str
    push_id: UUID
    mode: str
    quantity: int
    delta: int | None
    state: str
    answer: str | None
    done_at: datetime | None


class TracedSku(msgspec.Struct, frozen=True):
    """A sku's availability now, per channel."""

    sku: str
    version: int
    channel: str
    current: int
    pushed: int | None


class Trace(msgspec.Struct, frozen=True):
    """One message, from the inbox to the channels' answers."""

    source: str
    message: str
    inbox: TracedMessage
    movements: list[TracedMovement]
    availability: list[TracedSku]
    pushes: list[TracedPush]

    def lines(self) -> list[str]:
        """For people."""
        i = self.inbox
        out = [f"message {self.message} of {self.source}: {i.outcome} at {i.recorded_at:%Y-%m-%d %H:%M:%S}"
               + (f" ({i.detail})" if i.detail else "")]  # fmt: skip
        for m in self.movements:
            absorbed = f", absorbed by {m.absorbed_by}" if m.absorbed_by else ""
            out.append(f"  ledger: {m.kind} {m.quantity:+d} of {m.sku} at {m.location}, on hand {m.on_hand} "
                       f"(version {m.version}{absorbed})")  # fmt: skip
        out += [f"  availability: {a.sku} version {a.version}: {a.channel} may sell {a.current}, was told {a.pushed}"
                for a in self.availability]  # fmt: skip
        out += [
            f"  push: {p.channel} {p.mode} of {p.sku} = {p.quantity}: {p.state} {p.answer or ''}" for p in self.pushes
        ]
        return out


traced_message = sql.maybe("message", TracedMessage)
traced_movements = sql.rows("movements", TracedMovement)
traced_skus = sql.rows("skus", TracedSku)
traced_pushes = sql.rows("pushes", TracedPush)


async def traced(house: House, *, source: str, message: str) -> Trace:
    """Follows one message; raises NotFound."""
    async with house.db.connection() as tx:
        inbox = await traced_message(tx, source=source, message_id=message)
        if inbox is None:
            raise NotFound(f"No message {message!r} of source {source!r} has come.")
        moves = await traced_movements(tx, source=source, message_id=message)
        skus = sorted({m.sku_id for m in moves})
        now = await traced_skus(tx, skus=skus)
        told = await traced_pushes(tx, skus=skus, since=inbox.recorded_at)
    return Trace(source, message, inbox, moves, now, told)
