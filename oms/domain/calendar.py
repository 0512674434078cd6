"""Days and times of day where a location is: by its time zone, whatever its clocks do. Pure."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


def zone(time_zone: str) -> ZoneInfo:
    """The time zone of this IANA name. Raises ValueError for a name that is none."""
    try:
        return ZoneInfo(time_zone)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"unknown time zone {time_zone!r}; give an IANA name such as 'Europe/Berlin'") from None


def local_day(at: datetime, time_zone: str) -> date:
    """The day that it is at a place at this moment. Raises ValueError for a moment without an offset from UTC."""
    if at.utcoffset() is None:
        raise ValueError(f"{at.isoformat()} has no offset from UTC; give one, for instance {at.isoformat()}Z")
    return at.astimezone(zone(time_zone)).date()


def moment(day: date, at_local: time, time_zone: str) -> datetime:
    """The moment in UTC when the clocks of a place show this time on this day.

    As RFC 5545 (3.3.5) says: a time that they show twice is the first of both, and one that they skip is as far into
    the day as it would be had they not been set forward.
    """
    local = datetime.combine(day, at_local.replace(fold=0, tzinfo=None), tzinfo=zone(time_zone))
    return local.astimezone(UTC)


def next_morning(now: datetime, time_zone: str, at_local: time) -> datetime:
    """The first moment after `now`, in UTC, when a place begins its morning: once on each of its days.

    Raises ValueError for a `now` without an offset from UTC.
    """
    day = local_day(now, time_zone) - timedelta(days=1)
    while (morning := moment(day, at_local, time_zone)) <= now:
        day += timedelta(days=1)
    return morning
