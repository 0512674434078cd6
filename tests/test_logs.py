"""Logs tell what happened and where, on standard error, and never a secret."""

from collections.abc import Iterator

import pytest
import structlog

from oms import logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def fail(bearer: str) -> None:
    raise ValueError("it broke")


def test_a_traceback_names_places_and_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    try:
        fail("cp_secret")
    except ValueError:
        structlog.get_logger("test").exception("failed", path="/v1/atp")
    out, err = capsys.readouterr()
    assert out == "" and "cp_secret" not in err.replace('fail("cp_secret")', "")
    assert "failed" in err and "path=/v1/atp" in err and "ValueError: it broke" in err and "in fail" in err


def test_what_is_below_the_level_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning")
    structlog.get_logger("test").info("nothing")
    structlog.get_logger("test").warning("something")
    err = capsys.readouterr().err
    assert "nothing" not in err and "something" in err
