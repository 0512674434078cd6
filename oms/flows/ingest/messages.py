"""Movements arrive: once by (source, id), in any order, from the owner of the fact; what cannot act yet is parked."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from connectors.feeds.message import Message
from oms import ledger, owed, record
from oms.db import Connection, Database, Sql
from oms.errors import NotFound
from oms.flows.ingest import acknowledge
from oms.flows.ingest.facts import REDUCING, Fact, Settled, Teller, settle

sql = Sql("messages")

MESSAGES_MAX = 1000
"""Messages of one transaction; more are taken in further ones."""
TRANSIT_DAYS = 3
"""When a transfer that names no date is expected."""


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one message: applied, absorbed, acknowledged, parked, review, duplicate, changed."""

    id: str
    outcome: str
    detail: str | None = None


class Resolved(msgspec.Struct, frozen=True):
    """A message's codes as ids; None where unknown."""

    k: int
    sku_id: int | None
    location_id: int | None
    to_id: int | None
    per: int | None
    owner_id: int | None
    location_kind: str | None
    is_kit: bool


class KitPart(msgspec.Struct, frozen=True):
    """A component of a kit."""

    kit_id: int
    component_id: int
    quantity: int


class Parked(msgspec.Struct, frozen=True):
    """A message that waits."""

    source_id: int
    source: str
    message_id: str
    payload: Any
    exception_id: UUID | None


take_messages = sql.rows("take_messages", str)
again = sql.rows("again", str)
known_messages = sql.rows("known_messages", tuple)
outcomes = sql.run("outcomes")
resolve_messages = sql.rows("resolve_messages", Resolved)
kit_parts = sql.rows("kit_parts", KitPart)
source_row = sql.maybe("source_row", Teller)
expect = sql.run("expect")
arrive = sql.run("arrive")
parked_messages = sql.rows("parked_messages", Parked)


class _Put(msgspec.Struct, frozen=True):
    """An outcome that is kept with its message."""

    message: Message
    outcome: str
    detail: str
    trouble: record.Trouble | None = None


async def teller(tx: Connection, code: str) -> Teller:
    """The source that speaks; raises NotFound."""
    found = await source_row(tx, code=code)
    if found is None:
        raise NotFound(f"There is no source {code!r}. Load it first: oms load sources FILE.")
    return found


async def take(
    db: Database, *, source: str, messages: Sequence[Message], who: str, feed_id: int | None = None
) -> list[Result]:
    """Takes messages of a source, in order, each once; gives one result per message."""
    results: list[Result] = []
    for start in range(0, len(messages), MESSAGES_MAX):
        async with db.transaction() as tx:
            found = await teller(tx, source)
            results += await take_in(
                tx, source=found, messages=messages[start : start + MESSAGES_MAX], who=who, feed_id=feed_id
            )
    return results


async def take_together(
    tx: Connection, requests: Sequence[Sequence[Message]], *, source: str, who: str
) -> list[list[Result]]:
    """Takes what several requests of a source say, in their order, in one transaction; gives the results of each."""
    found = await teller(tx, source)
    every = [message for messages in requests for message in messages]
    results = iter(await take_in(tx, source=found, messages=every, who=who))
    return [[next(results) for _ in messages] for messages in requests]


def content_hash(message: Message) -> bytes:
    """What makes a message the same message."""
    return hashlib.sha256(msgspec.json.encode(message, order="sorted")).digest()


async def take_in(
    tx: Connection,
    *,
    source: Teller,
    messages: Sequence[Message],
    who: str,
    feed_id: int | None = None,
    retry: bool = False,
) -> list[Result]:
    """Takes some thousands of messages in the caller's transaction; `retry` takes parked ones again."""
    results: dict[int, Result] = {}
    puts: dict[int, _Put] = {}
    fresh = await _inbox(tx, source, messages, results, puts, feed_id=feed_id, retry=retry)
    echoes = await acknowledge.echoes(tx, source_id=source.source_id, messages=[messages[k] for k in fresh])
    facts, beside = await _facts(tx, source, {k: messages[k] for k in fresh if messages[k].id not in echoes}, puts)
    locked = await ledger.lock(tx, {f.sku_id for f in facts} | {e.sku_id for e in echoes.values()})
    for k in fresh:
        if (echo := echoes.get(messages[k].id)) is not None:
            results[k] = Result(messages[k].id, "acknowledged")
            puts[k] = _Put(messages[k], "acknowledged", f"of {messages[k].reference}", echo.mismatch(messages[k]))
    corrected = await acknowledge.take(
        tx, source_id=source.source_id, keys=[(e.sku_id, e.location_id) for e in echoes.values()],
        said=[acknowledge.Said(m.reference, m.sequence, m.occurred_at)
              for m in (messages[k] for k in fresh) if m.id in echoes and m.reference],
        who=f"{source.code} by {who}",
    )  # fmt: skip
    settled = await settle(
        tx, locked, facts, teller=source, feed_id=feed_id, who=f"{source.code} by {who}", corrected=corrected
    )
    left = corrected - {f.sku_id for f in facts}
    if left:
        await ledger.write(tx, {s: locked[s] for s in left}, resum=left)
    sold = [
        owed.Told(f"said:{source.code}:{f.message_id}:{f.sku_id}", f.sku_id, f.location_id, -f.quantity, f.occurred_at)
        for f in facts if source.has_owners and f.kind in ("sale", "return")
    ]  # fmt: skip
    await owed.sold(tx, sold, who=f"{source.code} by {who}")
    await _transit(tx, source, beside)
    _tell(messages, settled, results, puts)
    await _keep(tx, source, puts, results)
    return [results[k] for k in range(len(messages))]


async def _inbox(
    tx: Connection,
    source: Teller,
    messages: Sequence[Message],
    results: dict[int, Result],
    puts: dict[int, _Put],
    *,
    feed_id: int | None,
    retry: bool,
) -> list[int]:
    """The places of messages that are new; those that came before get their results here."""
    hashes = [content_hash(m) for m in messages]
    first: dict[str, int] = {}
    for k, message in enumerate(messages):
        first.setdefault(message.id, k)
    places = list(first.values())
    ids = [messages[k].id for k in places]
    if retry:
        taken = set(await again(tx, source_id=source.source_id, messages=ids))
    else:
        taken = set(
            await take_messages(
                tx, source_id=source.source_id, feed_id=feed_id, messages=ids, hashes=[hashes[k] for k in places],
                sequences=[messages[k].sequence for k in places],
            )
        )  # fmt: skip
    known: Mapping[str, tuple[bytes, str, str]] = {
        row[0]: row[1:]
        for row in await known_messages(tx, source_id=source.source_id, messages=[m for m in ids if m not in taken])
    }
    fresh: list[int] = []
    troubles: list[record.Trouble] = []
    for k, message in enumerate(messages):
        if first[message.id] == k and message.id in taken:
            fresh.append(k)
            continue
        before = known[message.id][0] if message.id in known else hashes[first[message.id]]
        if before == hashes[k]:
            results[k] = Result(message.id, "duplicate")
        else:
            results[k] = Result(message.id, "changed", "the id came before with other content; the first stands")
            troubles.append(
                record.Trouble(
                    kind="message_changed", subject=f"{source.code}:{message.id}",
                    detail=f"Message {message.id} of {source.code} came again with other content. The first stands; "
                    "send a correction under a new id.",
                    payload=msgspec.to_builtins(message),
                )
            )  # fmt: skip
    await record.raise_exceptions(tx, troubles)
    return fresh


async def _facts(
    tx: Connection, source: Teller, messages: Mapping[int, Message], puts: dict[int, _Put]
) -> tuple[list[Fact], list[tuple[Message, int, int, int]]]:
    """Messages in our words; those with unknown codes are parked, those of another's facts kept for review.

    The second part are transfers and receipts that concern expected units: (message, sku, location, units).
    """
    if not messages:
        return [], []
    order = list(messages)
    rows = {
        row.k: row
        for row in await resolve_messages(
            tx, source_id=source.source_id, ks=order, skus=[messages[k].sku for k in order],
            locations=[messages[k].location for k in order], tos=[messages[k].to for k in order],
            uoms=[messages[k].uom for k in order],
            facts=["hold" if messages[k].kind == "release" else messages[k].kind for k in order],
        )
    }  # fmt: skip
    kits: dict[int, list[KitPart]] = {}
    kit_ids = {row.sku_id for row in rows.values() if row.is_kit}
    if kit_ids:
        for part in await kit_parts(tx, kits=list(kit_ids)):
            kits.setdefault(part.kit_id, []).append(part)
    facts: list[Fact] = []
    beside: list[tuple[Message, int, int, int]] = []
    for k in order:
        message, row = messages[k], rows[k]
        put = _cannot(source, message, row)
        if put is not None:
            puts[k] = put
            continue
        assert row.sku_id is not None and row.location_id is not None and row.per is not None
        parts = [(p.component_id, p.quantity) for p in kits.get(row.sku_id, [])] if row.is_kit else [(row.sku_id, 1)]
        for sku_id, each in parts:
            units = message.quantity * row.per * each
            facts.append(_fact(k, message, sku_id, row, units))
            if message.kind == "transfer" and row.to_id is not None:
                beside.append((message, sku_id, row.to_id, units))
            elif message.kind == "receipt" and message.reference is not None:
                beside.append((message, sku_id, row.location_id, units))
    return facts, beside


def _fact(k: int, message: Message, sku_id: int, row: Resolved, units: int) -> Fact:
    assert row.location_id is not None and row.location_kind is not None
    holding = message.kind in ("hold", "release")
    signed = 0 if holding or message.kind == "count" else -units if message.kind in REDUCING else units
    return Fact(
        k=k, message_id=message.id, sku_id=sku_id, location_id=row.location_id, location_kind=row.location_kind,
        kind=message.kind, quantity=signed, counted=units if message.kind == "count" else None,
        held={"hold": units, "release": -units}.get(message.kind, 0),
        hold=message.hold or ("held" if message.kind == "hold" else None), occurred_at=message.occurred_at,
        sequence=message.sequence, reason=message.reason, reference=message.reference,
    )  # fmt: skip


def _cannot(source: Teller, message: Message, row: Resolved) -> _Put | None:
    """Why a message cannot act now, or None."""

    def unknown(kind: str, what: str, code: str | None) -> _Put:
        trouble = record.Trouble(
            kind=kind, subject=f"{source.code}:{code}",
            detail=f"{source.code} speaks of {what} {code!r}, which nobody knows. Load it, or an alias of this source; "
            "what waits for it is then applied.",
            payload={"source": source.code, "code": code, "message": message.id},
        )  # fmt: skip
        return _Put(message, "parked", f"unknown {what} {code!r}", trouble)

    if row.sku_id is None:
        return unknown("unknown_sku", "sku", message.sku)
    if row.location_id is None:
        return unknown("unknown_location", "location", message.location)
    if message.to is not None and row.to_id is None:
        return unknown("unknown_location", "location", message.to)
    if row.per is None:
        return unknown("unknown_unit", "unit", f"{message.sku}/{message.uom}")
    if row.owner_id != source.source_id or (row.is_kit and message.kind == "count"):
        what = "a count of a kit" if row.owner_id == source.source_id else "a fact that another source owns"
        trouble = record.Trouble(
            kind="not_owner", subject=f"{source.code}:{message.id}", owner="approver",
            detail=f"Message {message.id} of {source.code} ({message.kind} of {message.quantity} {message.sku} at "
            f"{message.location}) is {what}. It changed nothing; the location's approver may apply it as an adjustment.",
            payload=msgspec.to_builtins(message),
        )  # fmt: skip
        return _Put(message, "review", what, trouble)
    return None


async def _transit(tx: Connection, source: Teller, beside: Sequence[tuple[Message, int, int, int]]) -> None:
    """Units that left for another location are expected there; a receipt that names them ends that."""
    # receipts first: what is expected after them is less what has come already, in this batch too
    coming = [row for row in beside if row[0].kind == "receipt"]
    if coming:
        await arrive(
            tx, message_refs=[m.reference for m, *_ in coming], skus=[s for _, s, _, _ in coming],
            locations=[at for _, _, at, _ in coming], quantities=[q for *_, q in coming],
        )  # fmt: skip
    leaving = [row for row in beside if row[0].kind == "transfer"]
    if leaving:
        await expect(
            tx, source_id=source.source_id, message_refs=[m.id for m, *_ in leaving], skus=[s for _, s, _, _ in leaving],
            locations=[to for _, _, to, _ in leaving], quantities=[q for *_, q in leaving],
            dues=[(m.occurred_at + timedelta(days=TRANSIT_DAYS)).date() for m, *_ in leaving],
        )  # fmt: skip


def _tell(
    messages: Sequence[Message], settled: Sequence[Settled], results: dict[int, Result], puts: dict[int, _Put]
) -> None:
    """One result per message: a kit's parts together are applied when one of them is."""
    for s in settled:
        if s.k not in results or s.outcome == "applied":
            results[s.k] = Result(messages[s.k].id, s.outcome, s.detail)
    for k, result in list(results.items()):
        if result.outcome == "absorbed":
            puts[k] = _Put(messages[k], "absorbed", result.detail or "")


async def _keep(tx: Connection, source: Teller, puts: Mapping[int, _Put], results: dict[int, Result]) -> None:
    """Keeps the outcomes that are more than 'applied', and opens their exceptions."""
    if not puts:
        return
    ids = await record.raise_exceptions(tx, [p.trouble for p in puts.values() if p.trouble is not None])
    for k, put in puts.items():
        results.setdefault(k, Result(put.message.id, put.outcome, put.detail))
    rows = list(puts.values())
    await outcomes(
        tx, source_id=source.source_id, messages=[p.message.id for p in rows], outcomes=[p.outcome for p in rows],
        details=[p.detail for p in rows],
        payloads=[msgspec.to_builtins(p.message) if p.outcome in ("parked", "review") else None for p in rows],
        exceptions=[ids.get((p.trouble.kind, p.trouble.subject)) if p.trouble else None for p in rows],
    )  # fmt: skip


async def replay_parked(db: Database, *, who: str, limit: int = MESSAGES_MAX) -> int:
    """Takes parked messages again whose sku, location or unit may be known by now; gives how many acted."""
    acted = 0
    after: tuple[int, str] = (0, "")
    while True:
        async with db.transaction() as tx:
            page = await parked_messages(tx, after_source=after[0], after_message=after[1], limit=limit)
            if not page:
                return acted
            first = [p for p in page if p.source_id == page[0].source_id]
            source = await teller(tx, first[0].source)
            results = await take_in(
                tx, source=source, messages=[msgspec.convert(p.payload, Message) for p in first], who=who, retry=True
            )
            done = {r.id for r in results if r.outcome not in ("parked", "duplicate")}
            acted += len(done)
            await settle_mapped(tx, exceptions=[p.exception_id for p in first if p.message_id in done], who=who)
        after = (first[-1].source_id, first[-1].message_id)


settle_mapped_rows = sql.run("settle_mapped")


async def settle_mapped(tx: Connection, *, exceptions: Sequence[UUID | None], who: str) -> None:
    """Exceptions whose last parked message has acted are resolved."""
    ids = [e for e in exceptions if e is not None]
    if ids:
        await settle_mapped_rows(tx, exceptions=ids, who=who)


async def gaps(db: Database, *, before: datetime) -> int:
    """Opens an exception for each gap in a source's numbers that is older than the grace time; gives how many."""
    async with db.transaction() as tx:
        rows = await sequence_gaps(tx, before=before)
        await record.raise_exceptions(
            tx,
            [
                record.Trouble(
                    kind="sequence_gap", subject=f"{code}:{previous}-{sequence}",
                    detail=f"{code} went from number {previous} to {sequence}: {sequence - previous - 1} messages are "
                    "missing. Ask the source to send them again.",
                    payload={"source": code, "after": previous, "before": sequence},
                )
                for _, code, previous, sequence in rows
            ],
        )  # fmt: skip
    return len(rows)


sequence_gaps = sql.rows("sequence_gaps", tuple)
