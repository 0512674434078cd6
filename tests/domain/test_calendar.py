"""Days and mornings where a location is, on days when its clocks are set forward or back."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oms.domain.calendar import local_day, moment, next_morning

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo")


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def test_a_moment_is_another_day_where_the_sun_rose_earlier() -> None:
    at = utc(2026, 11, 23, 23, 30)
    assert local_day(at, "Europe/Berlin") == date(2026, 11, 24)
    assert local_day(at, "America/New_York") == date(2026, 11, 23)
    assert local_day(at.astimezone(ZoneInfo("Asia/Tokyo")), "UTC") == date(2026, 11, 23)


def test_the_next_morning_is_today_until_it_begins_and_tomorrow_from_then_on() -> None:
    begins = utc(2026, 11, 23, 3, 30)
    assert next_morning(begins - timedelta(seconds=1), "Europe/Berlin", time(4, 30)) == begins
    assert next_morning(begins, "Europe/Berlin", time(4, 30)) == begins + timedelta(days=1)


def test_a_morning_keeps_its_local_hour_when_clocks_change() -> None:
    friday = utc(2027, 3, 26, 12)
    mornings = [next_morning(friday + timedelta(days=n), "Europe/Berlin", time(4, 30)) for n in range(3)]
    assert mornings == [utc(2027, 3, 27, 3, 30), utc(2027, 3, 28, 2, 30), utc(2027, 3, 29, 2, 30)]


def test_a_morning_at_an_hour_that_is_skipped_still_comes_once() -> None:
    # in Berlin 02:00 becomes 03:00 on 2027-03-28
    assert moment(date(2027, 3, 28), time(2, 30), "Europe/Berlin") == utc(2027, 3, 28, 1, 30)
    first = next_morning(utc(2027, 3, 27, 12), "Europe/Berlin", time(2, 30))
    assert first == utc(2027, 3, 28, 1, 30)
    assert next_morning(first, "Europe/Berlin", time(2, 30)) == utc(2027, 3, 29, 0, 30)


def test_a_morning_at_an_hour_that_comes_twice_comes_once() -> None:
    # in Berlin 03:00 becomes 02:00 on 2027-10-31
    first = next_morning(utc(2027, 10, 30, 12), "Europe/Berlin", time(2, 30))
    assert first == utc(2027, 10, 31, 0, 30)
    assert next_morning(first, "Europe/Berlin", time(2, 30)) == utc(2027, 11, 1, 1, 30)
    assert next_morning(utc(2027, 10, 30, 12), "Europe/Berlin", time(2, 30, fold=1)) == first


def test_a_place_that_skips_a_whole_day_has_no_morning_on_it() -> None:
    # Samoa went from 29 to 31 December 2011
    first = next_morning(utc(2011, 12, 29, 12), "Pacific/Apia", time(4, 0))
    second = next_morning(first, "Pacific/Apia", time(4, 0))
    third = next_morning(second, "Pacific/Apia", time(4, 0))
    assert [local_day(at, "Pacific/Apia").isoformat() for at in (first, second, third)] == [
        "2011-12-29", "2011-12-31", "2012-01-01",
    ]  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 20 * 365 * 86_400).map(lambda seconds: utc(2015, 1, 1) + timedelta(seconds=seconds)),
    st.sampled_from(ZONES),
    st.times(),
)
def test_each_local_day_has_one_morning_and_the_next_one_is_never_past(
    now: datetime, time_zone: str, at_local: time
) -> None:
    morning = next_morning(now, time_zone, at_local)
    after = next_morning(morning, time_zone, at_local)
    assert now < morning <= now + timedelta(hours=25)
    assert morning.tzinfo is UTC
    assert local_day(after, time_zone) - local_day(morning, time_zone) == timedelta(days=1)
    shown = morning.astimezone(ZoneInfo(time_zone))
    is_skipped = shown.time() != at_local.replace(fold=0)
    local = datetime.combine(local_day(morning, time_zone), at_local.replace(fold=0), tzinfo=ZoneInfo(time_zone))
    exists = local.astimezone(UTC).astimezone(ZoneInfo(time_zone)).replace(tzinfo=None) == local.replace(tzinfo=None)
    assert is_skipped != exists


def test_a_moment_without_an_offset_is_refused_with_what_to_give() -> None:
    with pytest.raises(ValueError, match="2026-11-23T04:00:00 has no offset from UTC; give one"):
        local_day(datetime(2026, 11, 23, 4), "UTC")  # noqa: DTZ001
    with pytest.raises(ValueError, match="has no offset from UTC"):
        next_morning(datetime(2026, 11, 23, 4), "UTC", time(4))  # noqa: DTZ001


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "Europe"])
def test_an_unknown_time_zone_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="unknown time zone"):
        local_day(utc(2026, 11, 23), name)
