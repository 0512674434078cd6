"""compose.yaml is valid and describes the system that `oms up` starts, on servers of its own."""

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from arq.constants import health_check_key_suffix

from oms.settings import Settings

PROJECT = Path(__file__).parent.parent
NAMES = {"POSTGRES_PASSWORD": "password1"}
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")

DURATION = {"type": "string", "pattern": r"^(\d+(us|ms|s|m|h))+$"}
STRINGS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
ENVIRONMENT = {
    "type": "object",
    "patternProperties": {"^[A-Z][A-Z0-9_]*$": {"type": ["string", "number", "null"]}},
    "additionalProperties": False,
}
SERVICE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["image", "restart"],
    "properties": {
        "image": {"type": "string", "pattern": r"^[a-z0-9./_-]+(:[\w.-]+)?$"},
        "build": {
            "type": "object",
            "additionalProperties": False,
            "required": ["context", "dockerfile_inline"],
            "properties": {"context": {"type": "string"}, "dockerfile_inline": {"type": "string"}},
        },
        "command": STRINGS,
        "environment": ENVIRONMENT,
        "volumes": {"type": "array", "items": {"type": "string", "pattern": r"^[a-z]+:/[\w./-]+(:ro)?$"}},
        "ports": {"type": "array", "items": {"type": "string", "pattern": r"^([\d.]+:)?\d+:\d+$"}},
        "init": {"type": "boolean"},
        "read_only": {"type": "boolean"},
        "tmpfs": STRINGS,
        "cap_drop": STRINGS,
        "security_opt": STRINGS,
        "shm_size": {"type": "string", "pattern": r"^\d+[kmg]b?$"},
        "stop_grace_period": DURATION,
        "restart": {"type": "string", "pattern": r"^(no|always|unless-stopped|on-failure(:\d+)?)$"},
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["condition"],
                "properties": {
                    "condition": {"enum": ["service_started", "service_healthy", "service_completed_successfully"]}
                },
            },
        },
        "healthcheck": {
            "type": "object",
            "additionalProperties": False,
            "required": ["test", "interval", "timeout", "retries"],
            "properties": {
                "test": {**STRINGS, "prefixItems": [{"enum": ["CMD", "CMD-SHELL"]}], "minItems": 2},
                "interval": DURATION,
                "timeout": DURATION,
                "start_period": DURATION,
                "retries": {"type": "integer", "minimum": 1},
            },
        },
    },
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "services", "volumes"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "services": {
            "type": "object",
            "patternProperties": {"^[a-zA-Z0-9._-]+$": SERVICE},
            "additionalProperties": False,
        },
        "volumes": {"type": "object", "additionalProperties": {"type": "null"}},
    },
    "patternProperties": {"^x-": {}},
}
"""What of the Compose specification is used here, and nothing else."""


def filled(value: Any, environ: dict[str, str]) -> Any:
    """The file as Compose reads it: each ${NAME}, ${NAME:-default} and ${NAME:?message} replaced."""
    if isinstance(value, dict):
        return {name: filled(inner, environ) for name, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, environ) for inner in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        name, how, rest = found.groups()
        if environ.get(name):
            return environ[name]
        if how == "?":
            raise LookupError(f"required variable {name} is missing a value: {rest}")
        assert how == "-", f"{name} has neither a default nor a message"
        return str(rest)

    return VARIABLE.sub(fill, value)


@pytest.fixture(scope="module")
def written() -> Any:
    return yaml.safe_load((PROJECT / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def composed(written: Any) -> Any:
    return filled(written, NAMES)


@pytest.fixture(scope="module")
def ours(composed: Any) -> dict[str, Any]:
    """The services that run our own image."""
    return {name: service for name, service in composed["services"].items() if "build" in service}


def test_the_file_is_what_the_compose_specification_takes(composed: Any) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(composed)


def test_api_and_worker_are_apart_and_postgres_is_18(composed: Any, ours: dict[str, Any]) -> None:
    assert set(ours) == {"migrate", "api", "worker"}
    images = {name: service["image"] for name, service in composed["services"].items()}
    assert images["postgres"] == "postgres:18"
    assert images["valkey"].startswith("valkey/valkey:")
    assert "ports" not in composed["services"]["postgres"]
    assert "ports" not in composed["services"]["valkey"]


def test_each_command_is_one_that_oms_has(ours: dict[str, Any]) -> None:
    from oms.cli import main

    for service in ours.values():
        program, command, *rest = service["command"]
        assert program == "oms"
        main.commands[command].make_context(command, rest)


def test_each_setting_is_one_that_oms_takes(ours: dict[str, Any]) -> None:
    for service in ours.values():
        settings = Settings.read({name: str(value) for name, value in service["environment"].items()})
        assert settings.database_url == "postgresql://oms:password1@postgres:5432/oms"
        assert settings.redis_url
    assert Settings.read(ours["api"]["environment"]).host == "0.0.0.0"


def test_there_is_no_default_secret(written: Any) -> None:
    for missing in NAMES:
        with pytest.raises(LookupError, match=missing):
            filled(written, {name: value for name, value in NAMES.items() if name != missing})


def test_the_address_of_each_server_is_a_service_and_the_passwords_agree(composed: Any, ours: dict[str, Any]) -> None:
    postgres = composed["services"]["postgres"]["environment"]
    for service in ours.values():
        url = service["environment"]["OMS_DATABASE_URL"]
        assert url == (
            f"postgresql://{postgres['POSTGRES_USER']}:{postgres['POSTGRES_PASSWORD']}@postgres:5432/"
            f"{postgres['POSTGRES_DB']}"
        )
        assert service["environment"]["OMS_REDIS_URL"].startswith("redis://valkey:")


def test_api_and_worker_wait_for_healthy_servers_and_the_schema(composed: Any, ours: dict[str, Any]) -> None:
    services = composed["services"]
    for name in ("api", "worker"):
        waits = {other: how["condition"] for other, how in ours[name]["depends_on"].items()}
        assert waits == {
            "postgres": "service_healthy", "valkey": "service_healthy", "migrate": "service_completed_successfully"
        }  # fmt: skip
        assert "healthcheck" in ours[name]
    for service in services.values():
        for other, how in service.get("depends_on", {}).items():
            assert other in services
            assert how["condition"] != "service_healthy" or "healthcheck" in services[other]


def test_health_is_asked_where_it_is_told(ours: dict[str, Any]) -> None:
    port = ours["api"]["environment"]["OMS_PORT"]
    assert f"http://127.0.0.1:{port}/health/ready" in ours["api"]["healthcheck"]["test"][-1]
    assert ours["api"]["ports"][0].endswith(f":{port}")
    queue = re.search(r'queue_name="([\w:]+)"', (PROJECT / "oms" / "worker.py").read_text())
    assert queue is not None
    assert f'"{queue.group(1)}{health_check_key_suffix}"' in ours["worker"]["healthcheck"]["test"][-1]


def test_volumes_are_declared_and_used_and_the_database_lies_on_one(composed: Any) -> None:
    used = {v.split(":")[0] for s in composed["services"].values() for v in s.get("volumes", [])}
    assert used == set(composed["volumes"])
    # the image of version 18 declares this folder, not the one below it
    assert composed["services"]["postgres"]["volumes"] == ["database:/var/lib/postgresql"]


def test_the_image_is_built_from_what_the_repository_has(ours: dict[str, Any]) -> None:
    builds = [service["build"] for service in ours.values()]
    assert builds[0] == builds[1] == builds[2]
    lines = builds[0]["dockerfile_inline"].splitlines()
    words = [line.split() for line in lines if line.strip()]
    assert words[0][0] == "FROM"
    assert {w[0] for w in words} <= {"FROM", "WORKDIR", "COPY", "RUN", "USER"}
    copied = [source for w in words if w[0] == "COPY" for source in w[1:-1]]
    for source in copied:
        assert (PROJECT / source).exists(), source
    assert {"oms", "brokering", "connectors", "sql", "pyproject.toml"} <= set(copied)
    assert [w for w in words if w[0] == "USER"] == [["USER", "oms"]]
