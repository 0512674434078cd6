"""The network, loaded and changed: rows are checked whole, then applied whole, and every change is kept."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from brokering.policies import read_body
from connectors.channels import SettingsWrong
from connectors.posts.opened import poster_of
from oms import ledger, owed
from oms.cache import Cache
from oms.db import Connection, Database, Sql
from oms.domain import network
from oms.domain.atp import POOLS_MAX
from oms.domain.network import KINDS, Kind
from oms.domain.rows import Given, RefusedRow, read_rows
from oms.errors import BadInput
from oms.flows.network import rules
from oms.flows.network.follow import follow, renumber
from oms.flows.network.look import READ
from oms.record import Step, Trouble, keep, raise_exceptions

sql = Sql("network")

ROWS_MAX = 1_000_000
DOUBLES_MAX = 100
"""Likely doubles that one load reports each by itself; those beyond are counted in one exception."""


class Loaded(msgspec.Struct, frozen=True):
    """What a load did. Where rows are refused nothing of it was applied."""

    kind: str
    created: int
    changed: int
    unchanged: int
    refused: list[RefusedRow] = []


class _Known(msgspec.Struct, frozen=True):
    kind: str
    code: str


class _Double(msgspec.Struct, frozen=True):
    why: str
    what: str
    codes: list[str]


class _Taken(msgspec.Struct, frozen=True):
    source: str
    location: str
    fact: str
    was: str


class _Part(msgspec.Struct, frozen=True):
    code: str
    is_kit: bool
    is_component: bool


lock_network = sql.run("lock_network")
known = sql.rows("known", _Known)
doubles = sql.rows("doubles", _Double)
parties_in_use = sql.rows("parties_in_use", str)
sku_ids = sql.rows("sku_ids", int)
kit_components = sql.rows("kit_components", _Part)
own = sql.rows("own", _Taken)
disown = sql.run("disown")
forget_statuses = sql.run("forget_statuses")
map_statuses = sql.run("map_statuses")
leave_pools = sql.run("leave_pools")
join_pools = sql.run("join_pools")
drop_barcodes = sql.run("drop_barcodes")
add_barcodes = sql.run("add_barcodes")
drop_substitutes = sql.run("drop_substitutes")
add_substitutes = sql.run("add_substitutes")
drop_components = sql.run("drop_components")
add_components = sql.run("add_components")
mark_kits = sql.run("mark_kits")

ANALYZE = {
    name: sql.run(f"analyze_{name}")
    for name in ("skus", "sku_aliases", "units", "kits", "locations", "location_aliases")
}
"""What the planner is told of a kind after many rows; never of a table that is empty, which it would believe for good."""
ANALYZE_ROWS_MIN = 1000
PRICED_BY = ("parties", "locations", "channels", "skus", "stock_owners", "transfer_prices")
"""Kinds that may say what an entry of a settlement waits for."""
REFERRED = ("location", "pool", "source", "sku", "channel", "division", "party")
EVERY = {("stock_owners", "location", "*"), ("transfer_prices", "buyer", "*")}
"""What stands for every object, where a code is expected."""
WRITE = {name: sql.run(f"write_{name}") for name in KINDS if name != "kits"}


async def load(
    db: Database,
    *,
    kind: str,
    rows: Sequence[dict[str, Any]],
    who: str,
    now: datetime,
    cache: Cache | None = None,
) -> Loaded:
    """Makes and changes objects of a kind; the same rows again change nothing.

    Every row is read and its references are looked up first: if one is refused, nothing is applied. What follows
    from a change (segments, stock under new rules) is done before it returns. `aliases` are of skus or of locations, by
    the columns of the first row.
    """
    if kind == "aliases":
        kind = "location_aliases" if rows and "location" in rows[0] else "sku_aliases"
    if kind not in KINDS:
        raise BadInput(f"kind {kind!r} is unknown; one of {', '.join(KINDS)} is expected")
    if len(rows) > ROWS_MAX:
        raise BadInput(f"{len(rows)} rows at once are too many; at most {ROWS_MAX}")
    described = KINDS[kind]
    given, refused = read_rows(described, rows)
    if refused:
        return Loaded(kind, 0, 0, 0, refused)
    await follow(db)
    async with db.transaction() as tx:
        await lock_network(tx)
        refused = await unknown_references(tx, described, given)
        before = await read(tx, described, keys=given)
        refused += [
            RefusedRow(row.row, field, f"a new {described.one} needs it")
            for row in given if row.key not in before
            for field in described.needs if field not in row.body
        ]  # fmt: skip
        if not refused:
            refused = await refused_by_kind(tx, kind, given)
        if refused:
            return Loaded(kind, 0, 0, 0, sorted(refused, key=lambda fault: fault.row))
        after = {row.key: network.merged(described, before.get(row.key), row.body) for row in given}
        refused = [
            RefusedRow(row.row, "", f"{network.MASK} stands for a secret that is kept, and there is none")
            for row in given if network.has_mask(after[row.key])
        ]  # fmt: skip
        if kind == "rules":
            refused += [
                RefusedRow(row.row, *fault) for row in given for fault in network.faults_of_rule(after[row.key])
            ]
        if kind == "sources":
            refused += [
                RefusedRow(row.row, "posts", fault)
                for row in given
                if (fault := fault_of_posts(after[row.key]["posts"]))
            ]
        if kind == "transfer_prices":
            refused += [
                RefusedRow(row.row, *fault)
                for row in given
                for fault in network.faults_of_transfer_price(after[row.key])
            ]
        if kind == "policies":
            refused += [
                RefusedRow(row.row, "body", fault)
                for row in given
                if (fault := fault_of_policy(after[row.key]["body"]))
            ]
        if refused:
            return Loaded(kind, 0, 0, 0, refused)
        changed = {key: body for key, body in after.items() if before.get(key) != body}
        if changed:
            taken = await write(tx, kind, changed, who=who)
            await keep(tx, who=who, steps=steps_of(described, before, changed, taken))
            await consequences(tx, kind, before, changed, who)
    created = sum(1 for key in changed if key not in before)
    if changed:
        await follow(db)
        if kind == "rules":
            await rules.follow(db, now=now)
        if len(changed) >= ANALYZE_ROWS_MIN and kind in ANALYZE:
            async with db.connection() as tx:
                await ANALYZE[kind](tx)
        if cache is not None:
            await rules.publish(db, cache)
            for name in ("project", "parked"):
                await cache.wake(name)
    return Loaded(kind, created, len(changed) - created, len(given) - len(changed))


def fault_of_posts(settings: dict[str, Any]) -> str | None:
    """What is wrong with how a source is told of what began with us, or None; {} tells it nothing."""
    try:
        if settings:
            poster_of(settings)
    except SettingsWrong as error:
        return str(error)
    return None


def fault_of_policy(body: dict[str, Any]) -> str | None:
    """What is wrong with a policy, or None."""
    try:
        read_body(body)
    except ValueError as error:
        return str(error)
    return None


async def read(tx: Connection, kind: Kind, *, keys: Sequence[Given]) -> dict[tuple[str, ...], dict[str, Any]]:
    """The objects of these keys that exist."""
    if len(kind.key) == 1:
        found = await READ[kind.name](tx, codes=[row.key[0] for row in keys], after="", limit=None)
    else:
        wanted = [dict(zip(kind.key, row.key, strict=True)) for row in keys]
        found = await READ[kind.name](tx, rows=wanted, after="", limit=None)
    return {tuple(kept.body[part] for part in kind.key): kept.body for kept in found}


async def unknown_references(tx: Connection, kind: Kind, given: Sequence[Given]) -> list[RefusedRow]:
    """The rows that name a location, pool, source or sku that does not exist."""
    named: list[tuple[int, str, str, str]] = []
    new_skus = {row.key[0] for row in given} if kind.name == "skus" else set()
    for row in given:
        named += [
            (row.row, field, of, row.body[field])
            for field, of in kind.refers.items()
            if row.body.get(field) is not None and (kind.name, field, row.body[field]) not in EVERY
        ]
        named += [(row.row, "locations", "location", code) for code in row.body.get("locations", [])]
        named += [
            (row.row, "owns", "location", code) for part in row.body.get("owns", []) for code in part["locations"]
        ]
        named += [(row.row, "component", "sku", part["component"]) for part in row.body.get("components", [])]
        named += [
            (row.row, "substitutes", "sku", code) for code in row.body.get("substitutes", []) if code not in new_skus
        ]
    wanted: dict[str, set[str]] = {name: set() for name in REFERRED}
    for _, _, of, code in named:
        wanted[of].add(code)
    exist = {
        (found.kind, found.code)
        for found in await known(
            tx, locations=sorted(wanted["location"]), pools=sorted(wanted["pool"]), sources=sorted(wanted["source"]),
            skus=sorted(wanted["sku"]), channels=sorted(wanted["channel"]), divisions=sorted(wanted["division"]),
            parties=sorted(wanted["party"]),
        )
    }  # fmt: skip
    return [RefusedRow(row, field, f"no {of} has the code {code!r}") for row, field, of, code in named
            if (of, code) not in exist]  # fmt: skip


async def refused_by_kind(tx: Connection, kind: str, given: Sequence[Given]) -> list[RefusedRow]:
    """What only the network as a whole can tell of a row."""
    if kind == "sources":
        owner: dict[tuple[str, str], str] = {}
        refused = []
        for row in given:
            if row.key[0] == "oms":
                refused.append(RefusedRow(row.row, "code", "'oms' is the house itself"))
            for part in row.body.get("owns", []):
                for key in ((location, fact) for location in part["locations"] for fact in part["facts"]):
                    if owner.setdefault(key, row.key[0]) != row.key[0]:
                        why = f"{key[1]} at {key[0]!r} has one owner; this file names {owner[key]!r} too"
                        refused.append(RefusedRow(row.row, "owns", why))
        return refused
    if kind == "kits":
        kits = {row.key[0] for row in given}
        names = kits | {part["component"] for row in given for part in row.body["components"]}
        parts = {part.code: part for part in await kit_components(tx, codes=sorted(names))}
        nested = "is a kit itself; name its components"
        refused = [
            RefusedRow(row.row, "component", f"{part['component']!r} {nested}")
            for row in given for part in row.body["components"]
            if part["component"] in kits or parts[part["component"]].is_kit
        ]  # fmt: skip
        used = "is a component of another kit; a kit in a kit is not known"
        return refused + [RefusedRow(row.row, "kit", used) for row in given if parts[row.key[0]].is_component]
    if kind == "skus":
        return [
            RefusedRow(row.row, "substitutes", "a sku is no substitute of itself")
            for row in given if row.key[0] in row.body.get("substitutes", [])
        ]  # fmt: skip
    if kind == "parties":
        others = {row.key[0] for row in given if row.body.get("kind", "division") != "division"}
        in_use = set(await parties_in_use(tx, codes=sorted(others)))
        why = "locations or channels are its: it is a division"
        return [RefusedRow(row.row, "kind", why) for row in given if row.key[0] in in_use]
    if kind == "pools":
        present = {pool.code for pool in await READ["pools"](tx, codes=None, after="", limit=None)}
        if len(present | {row.key[0] for row in given}) > POOLS_MAX:
            return [RefusedRow(given[-1].row, "code", f"there may be {POOLS_MAX} pools")]
    return []


async def write(tx: Connection, kind: str, changed: dict[tuple[str, ...], dict[str, Any]], *, who: str) -> list[_Taken]:
    """Writes objects as they are to be; says which facts a source took over from another."""
    rows = [changed[key] for key in sorted(changed)]
    if kind == "rules":
        rows = [row | {"made_by": who, "state": "waiting" if network.is_large(row) else "live"} for row in rows]
    elif kind == "policies":
        rows = [row | {"made_by": who} for row in rows]
    if kind != "kits":
        await WRITE[kind](tx, rows=rows)
    if kind == "pools":
        await leave_pools(tx, rows=rows)
        await join_pools(tx, rows=rows)
    elif kind == "skus":
        await drop_barcodes(tx, rows=rows)
        await add_barcodes(tx, rows=rows)
        await drop_substitutes(tx, rows=rows)
        await add_substitutes(tx, rows=rows)
    elif kind == "kits":
        codes = [row["kit"] for row in rows]
        await drop_components(tx, codes=codes)
        await add_components(tx, rows=rows)
        await mark_kits(tx, codes=codes)
    elif kind == "sources":
        await disown(tx, rows=rows)
        await forget_statuses(tx, rows=rows)
        await map_statuses(tx, rows=rows)
        return await own(tx, rows=rows)
    return []


def steps_of(
    kind: Kind,
    before: dict[tuple[str, ...], dict[str, Any]],
    changed: dict[tuple[str, ...], dict[str, Any]],
    taken: Iterable[_Taken],
) -> list[Step]:
    """What history keeps: the whole of a new object, of a changed one what was and what is; never a secret."""
    from_others: dict[str, list[dict[str, str]]] = {}
    for fact in taken:
        from_others.setdefault(fact.source, []).append({"location": fact.location, "fact": fact.fact, "was": fact.was})
    steps = []
    for key, body in sorted(changed.items()):
        old = before.get(key)
        detail: dict[str, Any]
        if old is None:
            detail = {"after": network.masked(body)}
        else:
            fields = [name for name in body if old.get(name) != body[name]]
            detail = {
                "before": network.masked({name: old.get(name) for name in fields}),
                "after": network.masked({name: body[name] for name in fields}),
            }
        if kind.name == "sources" and from_others.get(key[0]):
            detail["taken_over"] = from_others[key[0]]
        step = "created" if old is None else "changed"
        steps.append(Step(kind=kind.one, id=" ".join(key), step=step, detail=detail))
    return steps


async def consequences(
    tx: Connection,
    kind: str,
    before: dict[tuple[str, ...], dict[str, Any]],
    changed: dict[tuple[str, ...], dict[str, Any]],
    who: str,
) -> None:
    """What a change means for others, in its transaction: numbering, what is told, likely doubles.

    Changes of channels and kits tell the projector by triggers of their own.
    """
    if kind == "pools":
        await renumber(tx, who=who)
    skus = {body["sku"] for body in changed.values()} if kind == "incoming" else set()
    if kind == "skus":
        skus = {key[0] for key in changed if key not in before}
    if skus:
        await ledger.touch(tx, await sku_ids(tx, codes=sorted(skus)))
    if kind == "rules":
        await raise_exceptions(tx, [_waiting(body, who) for body in changed.values() if network.is_large(body)])
    if kind in PRICED_BY:
        await owed.make_entries(tx, None, who=who)
    if kind in ("skus", "sku_aliases"):
        codes = {body.get("sku") or body["code"] for body in changed.values()}
        await flag_doubles(tx, codes=sorted(codes))


def _waiting(body: dict[str, Any], who: str) -> Trouble:
    return Trouble(
        kind="rule_waiting", subject=body["code"], owner="approver", payload={"rule": body["code"], "by": who},
        detail=f"Rule {body['code']} by {who} moves more than one person may decide alone: another one approves it.",
    )  # fmt: skip


async def flag_doubles(tx: Connection, *, codes: Sequence[str]) -> None:
    """Opens an exception for each likely double among these skus and what exists; it refuses nothing."""
    found = await doubles(tx, codes=codes)
    reasons = {
        "barcode": "have the same barcode {what}",
        "name": "have the same name and weight ({what})",
        "alias": "are mixed up: source {what}, which is another sku's own code, for the first",
    }
    troubles = [
        Trouble(
            kind="sku_double", subject=f"{double.why}:{double.what}"[:500], due_hours=168,
            detail=f"Skus {', '.join(double.codes[:10])} {reasons[double.why].format(what=double.what)}. "
            "If they are one thing, keep one and map the other's codes to it; if not, resolve this.",
            payload={"skus": double.codes},
        )
        for double in found[:DOUBLES_MAX]
    ]  # fmt: skip
    if len(found) > DOUBLES_MAX:
        more = len(found) - DOUBLES_MAX
        text = f"{more} more likely doubles came with one load, beyond the {DOUBLES_MAX} that are listed."
        troubles.append(Trouble(kind="sku_double", subject="more", detail=text, due_hours=168))
    await raise_exceptions(tx, troubles)
