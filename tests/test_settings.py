"""Settings are read once from OMS_* variables; what cannot be understood is named with what is expected."""

import os
from pathlib import Path

import pytest

from oms import embedded
from oms import settings as door
from oms.embedded import CannotStart
from oms.settings import BadSetting, Settings

PROJECT = Path(__file__).parent.parent


def test_each_knob_has_a_default_and_a_meaning() -> None:
    rows = Settings.read({}).rows()
    assert len(rows) == len(Settings.__struct_fields__)
    for row in rows:
        assert row["variable"].startswith("OMS_")
        assert row["meaning"]
        assert row["value"] == row["default"], row["variable"]


def test_variables_replace_defaults_and_others_are_not_looked_at() -> None:
    read = Settings.read(
        {"OMS_PORT": " 0 ", "OMS_BROKER_SECONDS": "2.5", "OMS_EMBEDDED_FSYNC": "false", "OMS_HOST": "", "PATH": "/bin"}
    )
    assert (read.port, read.broker_seconds, read.embedded_fsync) == (0, 2.5, False)
    assert read.host == Settings().host


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("OMS_PORT", "eighty", "`int`"),
        ("OMS_PORT", "70000", "<= 65535"),
        ("OMS_WORKERS", "0", ">= 1"),
        ("OMS_LOG_LEVEL", "loud", "debug"),
        ("OMS_EMBEDDED_FSYNC", "perhaps", "`bool`"),
        ("OMS_BROKER_SECONDS", "nan", "> 0.0"),
        ("OMS_DATABASE_URL", "mysql://db/oms", "postgresql://"),
        ("OMS_REDIS_URL", "localhost:6379", "redis://"),
    ],
)
def test_a_bad_value_is_refused_with_variable_value_and_what_is_expected(
    variable: str, value: str, expected: str
) -> None:
    with pytest.raises(BadSetting) as refused:
        Settings.read({variable: value})
    for part in (variable, value, expected):
        assert part in str(refused.value)


def test_a_bad_password_is_not_repeated_in_the_refusal() -> None:
    with pytest.raises(BadSetting) as refused:
        Settings.read({"OMS_DATABASE_URL": "mysql://me:hunter2@db/oms"})
    assert "hunter2" not in str(refused.value)


def test_a_misspelled_variable_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(BadSetting, match=r"OMS_DATABSE_URL.*OMS_DATABASE_URL"):
        Settings.read({"OMS_DATABSE_URL": "postgresql://db/oms"})


def test_each_setting_is_used() -> None:
    files = [path.read_text() for path in (PROJECT / "oms").rglob("*.py") if path.name != "settings.py"]
    unused = [name for name in Settings.__struct_fields__ if not any(f"settings.{name}" in text for text in files)]
    assert unused == []


def test_passwords_are_not_shown() -> None:
    secret = "correct horse battery staple"
    read = Settings.read(
        {
            "OMS_DATABASE_URL": f"postgresql://me:{secret}@db:5432/oms?password={secret}&sslmode=verify-full",
            "OMS_REDIS_URL": f"rediss://:{secret}@cache:6379/0",
        }
    )
    shown = {row["variable"]: row["value"] for row in read.rows()}
    assert secret not in str(shown)
    assert shown["OMS_DATABASE_URL"] == "postgresql://me:***@db:5432/oms?password=***&sslmode=verify-full"
    assert shown["OMS_REDIS_URL"] == "rediss://:***@cache:6379/0"


def test_units_are_shown_as_the_names_carry_them() -> None:
    units = {row["variable"]: row["unit"] for row in Settings().rows()}
    assert units["OMS_RESERVATION_TTL_SECONDS"] == "seconds"
    assert units["OMS_EMBEDDED_MEMORY_MB"] == "MB"
    assert units["OMS_FEED_BYTES_MAX"] == "bytes"
    assert units["OMS_HOST"] == ""


def test_everything_is_kept_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert door.default_home() == "/home/me/.local/share/commonpool"
    monkeypatch.setenv("XDG_DATA_HOME", "/data/me")
    assert door.default_home() == "/data/me/commonpool"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert door.default_home() == "/var/lib/commonpool"


def test_a_user_without_a_home_is_told_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(CannotStart, match="set OMS_HOME"):
        embedded.start(Settings.read({}))
    assert Settings.read({"OMS_HOME": "/data"}).home == "/data"
