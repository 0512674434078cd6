"""Working days, cut-offs in local time, handling and transit make a date."""

from datetime import UTC, date, datetime, time

import pytest

from oms.domain.promise import DEFAULT_TRANSITS, Hours, Transit, arrives_on, ships_on

WEEKDAYS = "1111100"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "now", "leaves"),
    [
        (Hours("UTC"), "2026-11-23T23:59", date(2026, 11, 23)),
        (Hours("UTC", cut_off=time(14)), "2026-11-23T13:59", date(2026, 11, 23)),
        (Hours("UTC", cut_off=time(14)), "2026-11-23T14:00", date(2026, 11, 24)),
        # it is 13:30 in New York, and 20:30 the day before in Honolulu
        (Hours("America/New_York", cut_off=time(14)), "2026-11-23T18:30", date(2026, 11, 23)),
        (Hours("Pacific/Honolulu", cut_off=time(14)), "2026-11-24T06:30", date(2026, 11, 24)),
        # summer time ends on 2026-11-01 in New York: 18:30 UTC is 14:30 before and 13:30 after
        (Hours("America/New_York", cut_off=time(14)), "2026-10-30T18:30", date(2026, 10, 31)),
        (Hours("America/New_York", cut_off=time(14)), "2026-11-02T18:30", date(2026, 11, 2)),
        (Hours("UTC", WEEKDAYS), "2026-11-28T10:00", date(2026, 11, 30)),
        (Hours("UTC", WEEKDAYS, cut_off=time(14)), "2026-11-28T20:00", date(2026, 11, 30)),
        (Hours("UTC", WEEKDAYS, cut_off=time(14)), "2026-11-27T20:00", date(2026, 11, 30)),
        (Hours("UTC", WEEKDAYS, handling_days=2), "2026-11-26T10:00", date(2026, 11, 30)),
        (Hours("UTC", holidays=(date(2026, 11, 23), date(2026, 11, 24))), "2026-11-23T10:00", date(2026, 11, 25)),
        (Hours("UTC", "0000000"), "2026-11-23T10:00", None),
    ],
)
def test_what_is_asked_leaves_on_the_next_working_day_after_handling(
    hours: Hours, now: str, leaves: date | None
) -> None:
    assert ships_on(hours, at(now)) == leaves


def test_what_is_expected_leaves_not_before_it_is_there() -> None:
    hours = Hours("UTC", WEEKDAYS, handling_days=1)
    assert ships_on(hours, at("2026-11-23T10:00"), not_before=date(2026, 11, 28)) == date(2026, 12, 1)


def test_transit_goes_by_distance_and_an_unknown_one_is_the_farthest() -> None:
    shipped = date(2026, 11, 23)
    assert arrives_on(shipped, DEFAULT_TRANSITS, 10.0) == date(2026, 11, 24)
    assert arrives_on(shipped, DEFAULT_TRANSITS, 150 * 1.609344) == date(2026, 11, 24)
    assert arrives_on(shipped, DEFAULT_TRANSITS, 151 * 1.609344) == date(2026, 11, 25)
    assert arrives_on(shipped, DEFAULT_TRANSITS, None) == date(2026, 11, 28)
    assert arrives_on(shipped, [Transit("bike", 10, 0)], 50.0) is None


def test_a_carrier_that_rests_at_weekends_counts_no_such_day() -> None:
    zones = [Transit("standard", 1000, 2, weekends=False)]
    assert arrives_on(date(2026, 11, 27), zones, 10.0) == date(2026, 12, 1)
    assert arrives_on(date(2026, 11, 23), zones, 10.0) == date(2026, 11, 25)
    assert arrives_on(date(2026, 11, 28), [Transit("same-day", 1000, 0, weekends=False)], 10.0) == date(2026, 11, 30)
