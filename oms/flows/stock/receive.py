"""Units come in against what was expected: over, under, unexpected and damaged ones are told; when they may be sold
follows the rule of the source."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec

from oms import ledger, record
from oms.access import Actor
from oms.cache import Cache
from oms.db import Connection, Database, Sql
from oms.domain.additions import hold_of_addition
from oms.errors import BadInput, Conflict
from oms.flows.stock.codes import Sku, place, skus_of
from oms.flows.stock.transfer import Transfer, take_transfer, transfer_came

sql = Sql("stock")

DAMAGED = "damaged"


class Came(msgspec.Struct, frozen=True):
    """Units of a scanned code, and how many of them are damaged."""

    code: str
    quantity: int
    damaged: int = 0


class Expected(msgspec.Struct, frozen=True):
    """What is still expected of a sku."""

    sku_id: int
    sku: str
    quantity: int


class ReceivedLine(msgspec.Struct, frozen=True):
    """What came of a sku, what had been expected, and the hold under which the good ones wait."""

    sku: str
    expected: int
    quantity: int
    damaged: int
    hold: str | None


class Received(msgspec.Struct, frozen=True):
    """A receipt that is in the ledger."""

    id: UUID
    lines: list[ReceivedLine]
    missing: dict[str, int]


class Receipt(msgspec.Struct, frozen=True):
    """A receipt as it was kept."""

    id: UUID
    location: str
    reference: str | None
    is_final: bool
    who: str
    device: str | None
    received_at: datetime
    lines: list[dict[str, Any]]


expected_rows = sql.rows("expected", Expected)
came = sql.run("came")
keep_receipt = sql.run("keep_receipt")
receipts_of = sql.rows("receipts_of", Receipt)
end_rest = sql.run("end_rest")


async def receive(
    db: Database,
    *,
    location_id: int,
    reference: str | None,
    lines: Sequence[Came],
    is_final: bool,
    actor: Actor,
    now: datetime,
    device: str | None = None,
    labor_cents: int = 0,
    cache: Cache | None = None,
) -> Received:
    """Takes units in at a location; with `is_final` nothing more of that reference is expected.

    Raises BadInput where a code or a quantity cannot be taken, Conflict where the transfer has not left or has come.
    """
    wrong = [
        {"index": k, "field": "damaged", "reason": f"{n.damaged} of {n.quantity} cannot be damaged"}
        for k, n in enumerate(lines)
        if not 0 <= n.damaged <= n.quantity or n.quantity < 1
    ]
    if wrong or (not lines and not (is_final and reference)):
        raise BadInput("Name what came, each with 1 or more units, of which some may be damaged.", items=wrong)
    receipt_id = uuid4()
    async with db.transaction() as tx:
        transfer = await take_transfer(tx, id=reference) if reference else None
        if transfer is not None and (transfer.to_id != location_id or transfer.state != "sent"):
            raise Conflict(
                f"Transfer {reference} is {transfer.state}, from {transfer.from_code} to {transfer.to_code}."
            )
        there = await place(tx, location_id)
        coming = {e.sku_id: e for e in await _expected(tx, location_id, reference)}
        named = await skus_of(tx, [n.code for n in lines], rather=coming)
        units = summed(named, lines)
        locked = await ledger.lock(tx, [*units, *coming])
        await ledger.stock(tx, [(sku_id, location_id) for sku_id in units])
        coming = {e.sku_id: e for e in await _expected(tx, location_id, reference)}
        hold = hold_of_addition("receipt", location_kind=there.kind, additions=there.additions)
        moves = [
            move
            for sku_id, (_, quantity, damaged) in sorted(units.items())
            for move in moves_of(
                receipt_id,
                sku_id,
                location_id,
                quantity,
                damaged,
                hold=hold,
                reference=reference,
                now=now,
                device=device,
            )
        ]
        await ledger.move(tx, moves, feed_id=None, who=actor.who)
        await ledger.write(tx, locked, resum=units)
        skus = sorted(units)
        expecteds = {sku_id: coming[sku_id].quantity if sku_id in coming else 0 for sku_id in units}
        quantities, damaged = [units[s][1] for s in skus], [units[s][2] for s in skus]
        await keep_receipt(
            tx, id=receipt_id, location_id=location_id, reference=reference, is_final=is_final, who=actor.who,
            device=device, at=now, skus=skus, expecteds=[expecteds[s] for s in skus], quantities=quantities,
            damaged=damaged, holds=[hold] * len(skus),
        )  # fmt: skip
        await came(
            tx, location_id=location_id, reference=reference or "", is_final=is_final, skus=skus, quantities=quantities
        )
        await end_rest(tx, location_id=location_id, skus=skus)
        left = {e.sku: max(0, e.quantity - (units[s][1] if s in units else 0)) for s, e in coming.items()}
        missing = {sku: n for sku, n in left.items() if n}
        if transfer is not None:
            await transfer_came(
                tx, id=transfer.transfer_id, skus=skus, quantities=quantities, damaged=damaged,
                is_done=is_final or not missing, at=now, labor_cents=labor_cents,
            )  # fmt: skip
        received = [
            ReceivedLine(units[s][0].code, expecteds[s], units[s][1], units[s][2], hold) for s in skus
        ]  # fmt: skip
        differs = differences(received, missing if is_final else {}, is_expected=bool(coming))
        await _keep(tx, receipt_id, there.code, reference, transfer, differs, actor=actor, device=device)
    if cache is not None:
        for flow in ("broker", "project"):
            await cache.wake(flow)
    return Received(receipt_id, received, missing)


async def _expected(tx: Connection, location_id: int, reference: str | None) -> list[Expected]:
    return await expected_rows(tx, location_id=location_id, reference=reference) if reference else []


def summed(named: Sequence[Sku], lines: Sequence[Came]) -> dict[int, tuple[Sku, int, int]]:
    """By sku: units and damaged ones of all lines that name it."""
    units: dict[int, tuple[Sku, int, int]] = {}
    for sku, n in zip(named, lines, strict=True):
        _, quantity, damaged = units.get(sku.sku_id, (sku, 0, 0))
        units[sku.sku_id] = (sku, quantity + n.quantity, damaged + n.damaged)
    return units


def moves_of(
    receipt_id: UUID, sku_id: int, location_id: int, quantity: int, damaged: int, *, hold: str | None,
    reference: str | None, now: datetime, device: str | None,
) -> list[ledger.Move]:  # fmt: skip
    """The movements of what came: good units under the rule's hold, damaged ones under theirs."""

    def move(units: int, code: str | None, suffix: str) -> ledger.Move:
        return ledger.Move(
            sku_id=sku_id, location_id=location_id, source_id=ledger.HOUSE, kind="receipt",
            message_id=f"receipt:{receipt_id}:{sku_id}{suffix}", quantity=units, effect=units, occurred_at=now,
            reference=reference, hold_code=code, held=units if code else 0, is_ours=True,
            reason=f"received with {device}" if device else None,
        )  # fmt: skip

    parts = [(quantity - damaged, hold, ""), (damaged, DAMAGED, ":damaged")]
    return [move(units, code, suffix) for units, code, suffix in parts if units]


def differences(lines: Sequence[ReceivedLine], missing: Mapping[str, int], *, is_expected: bool) -> list[str]:
    """What of a receipt is not as it was expected, in words."""
    said = []
    for n in lines:
        if n.expected == 0:
            said.append(f"{n.quantity} {n.sku} unexpected")
        elif n.quantity > n.expected:
            said.append(f"{n.quantity - n.expected} {n.sku} too many")
        if n.damaged:
            said.append(f"{n.damaged} {n.sku} damaged")
    return said + [f"{units} {sku} missing" for sku, units in missing.items()]


async def _keep(
    tx: Connection, receipt_id: UUID, location: str, reference: str | None, transfer: Transfer | None,
    differs: Sequence[str], *, actor: Actor, device: str | None,
) -> None:  # fmt: skip
    detail = {"location": location, "reference": reference, "device": device, "differs": list(differs)}
    steps = [record.Step("receipt", str(receipt_id), "received", detail=detail)]
    if transfer is not None:
        steps.append(record.Step("transfer", str(transfer.transfer_id), "received", detail=detail))
    await record.keep(tx, who=actor.who, steps=steps)
    if differs:
        what = f"transfer {reference}" if transfer is not None else f"receipt {reference or receipt_id}"
        sentence = f"{what} at {location}: {', '.join(differs)}. It is booked as it came; settle it with who sent it."
        payload = {"location": location, "reference": reference, "differs": list(differs)}
        if transfer is not None:
            trouble = record.Trouble("transfer_differs", f"{location}:{reference}", sentence, payload)
        else:
            trouble = record.Trouble("receipt_differs", f"{location}:{reference or receipt_id}", sentence, payload)
        await record.raise_exceptions(tx, [trouble])


async def listed(
    db: Database, *, locations: list[int] | None, code: str | None, before: UUID | None, limit: int
) -> list[Receipt]:
    """Receipts at these locations, newest first."""
    async with db.connection() as tx:
        return await receipts_of(tx, locations=locations, code=code, before=before, limit=limit)
