"""Every knob with its unit and default, read once from OMS_* variables."""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import msgspec
from msgspec import Meta

UNITS = ("seconds", "minutes", "days", "bytes", "MB", "km", "cents", "connections")


def default_home() -> str:
    """The user's data folder, empty where there is none; root's lies where the database's own account may pass."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return "/var/lib/commonpool"
    data = os.environ.get("XDG_DATA_HOME")
    try:
        return str((Path(data) if data else Path.home() / ".local" / "share") / "commonpool")
    except RuntimeError:
        return ""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one process; `Settings.read` takes OMS_NAME for each field."""

    database_url: Annotated[
        str,
        Meta(pattern="^($|postgres(ql)?://)", description="PostgreSQL 18, as postgresql://…; empty: the embedded one"),
    ] = ""
    redis_url: Annotated[
        str,
        Meta(pattern="^($|rediss?://|unix://)", description="Valkey or Redis, as redis://…; empty: the embedded one"),
    ] = ""
    home: Annotated[str, Meta(description="folder of everything that the embedded servers keep")] = msgspec.field(
        default_factory=default_home
    )
    host: Annotated[str, Meta(description="address that the API listens on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port of the API; 0 takes a free one")] = 8000
    workers: Annotated[int, Meta(ge=1, le=64, description="API processes")] = 1
    log_level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$", description="least level logged")] = "info"
    database_connections_max: Annotated[int, Meta(ge=2, le=500, description="connections per process")] = 10
    reservation_ttl_seconds: Annotated[int, Meta(ge=1, le=86400, description="life of a reservation")] = 900
    broker_seconds: Annotated[float, Meta(gt=0, le=3600, description="longest time that a run may plan")] = 15.0
    broker_seed: Annotated[int, Meta(ge=0, description="seed of a run")] = 0
    broker_every_minutes: Annotated[
        int, Meta(ge=0, le=1440, description="minutes between runs for what is left of orders at once; 0 is none")
    ] = 10
    broker_crew: Annotated[bool, Meta(description="large runs share their work with all workers, through Redis")] = (
        False
    )
    sequence_grace_seconds: Annotated[int, Meta(ge=0, description="wait before a gap in numbers is an exception")] = 900
    enquiries_kept_days: Annotated[int, Meta(ge=1, le=3650, description="life of the log of what was asked")] = 90
    runs_kept_days: Annotated[
        int,
        Meta(ge=1, le=3650, description="life of what each run saw, and of what-ifs: so long it can be tried again"),
    ] = 30
    feed_bytes_max: Annotated[int, Meta(ge=1, description="largest feed by upload")] = 4_000_000_000
    embedded_fsync: Annotated[bool, Meta(description="embedded PostgreSQL waits for the disk; off only for tests")] = (
        True
    )
    embedded_memory_mb: Annotated[int, Meta(ge=16, description="shared buffers of the embedded PostgreSQL")] = 256

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Settings":
        """Reads OMS_* variables. Raises BadSetting that names variable, value and what is expected."""
        given: dict[str, Any] = {}
        knobs = cls.knobs()
        for name, (kind, meaning) in knobs.items():
            variable = f"OMS_{name.upper()}"
            if not (text := environ.get(variable, "").strip()):
                continue
            try:
                given[name] = msgspec.convert(text, kind, strict=False)
            except msgspec.ValidationError as error:
                raise BadSetting(f"{variable}={masked(name, text)}: {error}. It is: {meaning}.") from None
        for variable in sorted(environ):
            if variable.startswith("OMS_") and variable[4:].lower() not in knobs:
                near = difflib.get_close_matches(variable, [f"OMS_{name.upper()}" for name in knobs], n=1)
                hint = f"did you mean {near[0]}?" if near else "`oms config` lists those that there are."
                raise BadSetting(f"{variable} is no setting: {hint}")
        return cls(**given)

    @classmethod
    def knobs(cls) -> dict[str, tuple[Any, str]]:
        """Name → (annotated type, meaning)."""
        hints = get_type_hints(cls, include_extras=True)
        return {
            f: (hints[f], next(m.description or "" for m in get_args(hints[f])[1:] if isinstance(m, Meta)))
            for f in cls.__struct_fields__
        }

    def rows(self) -> list[dict[str, Any]]:
        """For `oms config`: variable, value and default (passwords masked), unit, meaning."""
        default = type(self)()
        return [
            {
                "variable": f"OMS_{name.upper()}", "value": masked(name, getattr(self, name)),
                "default": masked(name, getattr(default, name)), "unit": unit_of(name), "meaning": meaning,
            }
            for name, (_, meaning) in self.knobs().items()
        ]  # fmt: skip


class BadSetting(Exception):
    """A setting that cannot be understood."""


def unit_of(name: str) -> str:
    """The unit that a name carries; empty where it has none."""
    return next((unit for word in name.split("_") for unit in UNITS if word == unit.lower()), "")


def masked(name: str, value: Any) -> Any:
    """A value as it may be shown: no password of a URL."""
    if not name.endswith("_url"):
        return value
    shown = re.sub(r"(?i)(\bpassword=)[^&#]*", r"\1***", str(value))
    scheme, mark, rest = shown.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{mark}{user.partition(':')[0]}:***{at}{place}" if ":" in user else shown
