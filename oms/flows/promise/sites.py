"""Locations as a promise knows them: their kind, and when they work."""

from collections.abc import Collection
from datetime import date, time

import msgspec

from oms.db import Connection, Sql
from oms.domain.promise import Hours

sql = Sql("promise")


class Site(msgspec.Struct, frozen=True):
    """A location as a promise knows it."""

    code: str
    kind: str
    time_zone: str
    work_days: str
    cut_off: time | None
    handling_days: int
    pickup_minutes: int
    holidays: list[date]

    @property
    def hours(self) -> Hours:
        """When it works."""
        return Hours(
            self.time_zone, self.work_days, self.cut_off, self.handling_days, self.pickup_minutes,
            frozenset(self.holidays),
        )  # fmt: skip


sites = sql.rows("sites", Site)


async def sites_of(tx: Connection, codes: Collection[str]) -> dict[str, Site]:
    """The locations of these codes."""
    return {site.code: site for site in await sites(tx, codes=sorted(codes))} if codes else {}
