"""How a location works: what must be scanned, what rejections may do, when pick-ups and counts are due."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from oms import record
from oms.db import Database, Sql
from oms.errors import BadInput, NotFound

sql = Sql("work")


class WorkRules(msgspec.Struct, frozen=True):
    """How a location works; see the guide page of stores."""

    location: str
    scans_are_required: bool
    rejections_change_stock: bool
    not_again_hours: Annotated[int, Meta(ge=0, le=8760)]
    sku_rest_minutes: Annotated[int, Meta(ge=0, le=525600)]
    reminder_hours: Annotated[int, Meta(ge=1, le=8760)]
    collect_days: Annotated[int, Meta(ge=1, le=365)]
    write_off_cents_max: Annotated[int, Meta(ge=0, le=2000000000)]
    recount_units_min: Annotated[int, Meta(ge=1, le=1000000)]
    count_fast_days: Annotated[int, Meta(ge=1, le=3650)]
    count_slow_days: Annotated[int, Meta(ge=1, le=3650)]
    count_lines_max: Annotated[int, Meta(ge=1, le=10000)]


work_rules = sql.maybe("work_rules", WorkRules)
set_work_rules = sql.run("set_work_rules")


async def show(db: Database, *, location: str) -> WorkRules:
    """How a location works; raises NotFound."""
    async with db.connection() as tx:
        found = await work_rules(tx, code=location)
    if found is None:
        raise NotFound(f"no location has the code {location!r}")
    return found


async def change(db: Database, *, location: str, said: dict[str, Any], who: str) -> WorkRules:
    """The location works so from now on; what is not said stays. Raises NotFound, BadInput."""
    before = await show(db, location=location)
    try:
        after = msgspec.convert(msgspec.to_builtins(before) | said | {"location": location}, WorkRules)
    except msgspec.ValidationError as error:
        raise BadInput(f"work rules: {error}") from None
    unknown = said.keys() - set(WorkRules.__struct_fields__)
    if unknown:
        raise BadInput(f"work rules: there is no {', '.join(sorted(unknown))}; see GET of the same address")
    async with db.transaction() as tx:
        if after != before:
            await set_work_rules(tx, code=location, body=msgspec.to_builtins(after))
            changed = {k: v for k, v in msgspec.to_builtins(after).items() if getattr(before, k) != v}
            detail = {"before": {k: getattr(before, k) for k in changed}, "after": changed}
            await record.keep(tx, who=who, steps=[record.Step("location", location, "works so", detail=detail)])
    return after
