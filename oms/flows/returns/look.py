"""Returns as they stand, and the rules of where what comes back goes."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from oms import record
from oms.db import Database, Sql
from oms.domain.returns import CONDITIONS, ReturnRule
from oms.errors import BadInput

sql = Sql("returns")


class Return(msgspec.Struct, frozen=True):
    """A return as it stands."""

    id: UUID
    channel: str | None
    number: str | None
    order_id: UUID | None
    location: str
    is_blind: bool
    state: str
    made_by: str
    made_at: datetime
    received_at: datetime | None
    done_at: datetime | None
    lines: list[dict[str, Any]] | None
    inspections: list[dict[str, Any]]


class RuleShown(msgspec.Struct, frozen=True):
    """Where what comes back goes, with locations by code."""

    code: str
    rank: int
    reason: str | None
    condition: str | None
    location: str | None
    outcome: str
    hold_code: str | None
    to_location: str | None
    km_max: float | None
    refunds: bool


returns_of = sql.rows("returns_of", Return)
rules_shown = sql.rows("rules_shown", RuleShown)
write_rule = sql.run("write_rule")


async def listed(
    db: Database, *, locations: list[int] | None, channels: list[int] | None, state: str | None, before: UUID | None,
    limit: int, return_id: UUID | None = None,
) -> list[Return]:  # fmt: skip
    """Returns at these locations or of these channels, newest first."""
    async with db.connection() as tx:
        return await returns_of(
            tx, locations=locations, channels=channels, state=state, id=return_id, before=before, limit=limit
        )  # fmt: skip


async def shown_rules(db: Database) -> list[RuleShown]:
    """Where what comes back goes."""
    async with db.connection() as tx:
        return await rules_shown(tx)


async def set_rule(db: Database, *, rule: ReturnRule, who: str) -> None:
    """A rule for what comes back is in force. Raises BadInput where its outcome needs what it does not say."""
    if rule.condition is not None and rule.condition not in CONDITIONS:
        raise BadInput(f"condition: {rule.condition!r} is none of {', '.join(CONDITIONS)}")
    if (rule.outcome == "hold") != (rule.hold_code is not None) or (rule.outcome == "transfer") != (
        rule.to_id is not None
    ):
        raise BadInput("outcome: hold needs hold_code, transfer needs a location to go to, and no other has them")
    async with db.transaction() as tx:
        await write_rule(tx, **msgspec.structs.asdict(rule))
        await record.keep(
            tx, who=who, steps=[record.Step("return rule", rule.code, "set", detail=msgspec.to_builtins(rule))]
        )
