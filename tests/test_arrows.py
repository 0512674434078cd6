"""The arrows of the house: who may import whom, who opens transactions, who speaks to the ledger. Over the real files."""

import ast
import functools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

PROJECT = Path(__file__).parent.parent
ROOMS = ("oms", "brokering", "connectors")
LEAVES = {
    "brokering": {"ortools", "numpy", "msgspec"},
    "connectors": {"httpx", "msgspec", "msgpack", "stamina", "standardwebhooks"},
}
"""What each leaf takes from outside, beside the standard library."""

FLOORS = (
    ("errors", "settings", "domain", "logs"),
    ("db", "embedded"),
    ("record", "ledger", "cache", "named", "book", "numbers", "fresh", "near", "enquiries", "owed"),
    ("access", "settle"),
    ("flows",),
    ("morning", "deliver", "progress", "api", "console"),
    ("app", "worker", "house", "commands", "demo", "docs", "cli"),
)
"""The rooms of the house from the ground up: a room imports from its own floor or from below, never from above."""

OPEN_TRANSACTIONS = ("oms.flows", "oms.settle", "oms.db")


class Module(msgspec.Struct, frozen=True):
    """One file: its dotted name, its text, and its tree."""

    name: str
    text: str
    tree: ast.Module
    is_package: bool = False

    @property
    def room(self) -> str:
        """The room of the house, as `flows` of `oms.flows.order.capture`."""
        return [*self.name.split("."), ""][1]

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and dotted name of everything that is imported, also inside functions."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = self.name.split(".")
                    above = parts[: len(parts) - node.level + self.is_package]
                    base = ".".join([*above, *([base] if base else [])])
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


Breach = str
Law = Callable[[Module], Iterator[Breach]]


def is_in(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def leaves_know_nothing_of_the_house(module: Module) -> Iterator[Breach]:
    """brokering and connectors import themselves, the standard library, and what LEAVES names."""
    leaf = module.name.split(".")[0]
    if leaf in LEAVES:
        for line, name in module.imports():
            top = name.split(".")[0]
            if top not in {leaf} | LEAVES[leaf] | sys.stdlib_module_names:
                yield f"{module.name}:{line} imports {name}"


def nouns_are_pure(module: Module) -> Iterator[Breach]:
    """oms.domain imports nothing of ours but itself, and waits for nothing."""
    if is_in(module.name, "oms.domain"):
        for line, name in module.imports():
            if name.split(".")[0] in ROOMS and not is_in(name, "oms.domain"):
                yield f"{module.name}:{line} imports {name}"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith):
                yield f"{module.name}:{node.lineno} waits"


def floor_of(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def imports_point_down(module: Module) -> Iterator[Breach]:
    """A room of the house imports from its own floor or from below."""
    if is_in(module.name, "oms") and module.room:
        if not any(module.room in rooms for rooms in FLOORS):
            yield f"{module.name} is a room that no floor names"
            return
        for line, name in module.imports():
            room = name.split(".")[1] if is_in(name, "oms") and "." in name else ""
            if any(room in rooms for rooms in FLOORS) and floor_of(room) > floor_of(module.room):
                yield f"{module.name}:{line} imports {name}"


def verb_of(name: str) -> str:
    return ".".join(name.split(".")[:3])


def a_flow_imports_no_other_flow(module: Module) -> Iterator[Breach]:
    """What a flow starts, it wakes by name: work travels forward through the database."""
    if is_in(module.name, "oms.flows") and module.name != "oms.flows":
        for line, name in module.imports():
            if is_in(name, "oms.flows") and verb_of(name) != verb_of(module.name):
                yield f"{module.name}:{line} imports {name}"


def calls(module: Module, function: str) -> Iterator[ast.Call]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name == function:
                yield node


def only_the_ledger_moves_quantities(module: Module) -> Iterator[Breach]:
    """Sql("ledger") is bound in oms/ledger alone."""
    if module.name != "oms.ledger.statements":
        for call in calls(module, "Sql"):
            if not call.args or not isinstance(call.args[0], ast.Constant):
                yield f"{module.name}:{call.lineno} hides which statements it binds"
            elif call.args[0].value == "ledger":
                yield f"{module.name}:{call.lineno} binds the ledger's statements"


def only_flows_and_settle_open_transactions(module: Module) -> Iterator[Breach]:
    """Doors, jobs and commands call one flow, which opens what it needs."""
    if not is_in(module.name, *OPEN_TRANSACTIONS):
        for call in calls(module, "transaction"):
            yield f"{module.name}:{call.lineno} opens a transaction"


LAWS: tuple[Law, ...] = (
    leaves_know_nothing_of_the_house, nouns_are_pure, imports_point_down, a_flow_imports_no_other_flow,
    only_the_ledger_moves_quantities, only_flows_and_settle_open_transactions,
)  # fmt: skip

BREACHES = [
    (leaves_know_nothing_of_the_house, "brokering.engine", "import oms.db"),
    (leaves_know_nothing_of_the_house, "brokering.engine", "from connectors import feeds"),
    (leaves_know_nothing_of_the_house, "connectors.channels.file", "def f():\n    from brokering import broker"),
    (leaves_know_nothing_of_the_house, "connectors.feeds", "import asyncpg"),
    (nouns_are_pure, "oms.domain.atp", "from oms import errors"),
    (nouns_are_pure, "oms.domain.atp", "from ..db import Sql"),
    (nouns_are_pure, "oms.domain.atp", "async def f(): ..."),
    (imports_point_down, "oms.ledger", "from oms.flows import push"),
    (imports_point_down, "oms.ledger", "from oms import app"),
    (imports_point_down, "oms.flows.order.read", "from oms.api.paging import Page"),
    (imports_point_down, "oms.helpers", "import json"),
    (a_flow_imports_no_other_flow, "oms.flows.order.capture", "from oms.flows.push import outbox"),
    (a_flow_imports_no_other_flow, "oms.flows.reserve", "from oms.flows import order"),
    (a_flow_imports_no_other_flow, "oms.flows.order.capture", "from ..push import outbox"),
    (only_the_ledger_moves_quantities, "oms.flows.reserve", 'sql = Sql("ledger")'),
    (only_the_ledger_moves_quantities, "oms.flows.reserve", 'sql = db.Sql(file="ledger")'),
    (only_flows_and_settle_open_transactions, "oms.api.atp", "async def f(db):\n    async with db.transaction(): ..."),
    (only_flows_and_settle_open_transactions, "oms.demo.run", "async def f(c):\n    await c.transaction().start()"),
]


@functools.cache
def read_modules() -> list[Module]:
    found = []
    for room in ROOMS:
        for path in sorted((PROJECT / room).rglob("*.py")):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            text = path.read_text(encoding="utf-8")
            name = ".".join(parts[:-1] if is_package else parts)
            found.append(Module(name, text, ast.parse(text), is_package))
    return found


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_house_keeps(law: Law) -> None:
    modules = read_modules()
    assert len(modules) > 50
    assert [breach for module in modules for breach in law(module)] == []


@pytest.mark.parametrize(("law", "name", "text"), BREACHES)
def test_a_breach_is_seen(law: Law, name: str, text: str) -> None:
    assert list(law(Module(name, text, ast.parse(text))))


def test_a_flow_that_keeps_the_laws_is_let_be() -> None:
    text = (
        "from brokering import broker\nfrom oms import ledger\nfrom oms.db import Sql\nfrom . import read\n"
        'sql = Sql("order")\nasync def f(db):\n    async with db.transaction(): ...'
    )
    module = Module("oms.flows.order.capture", text, ast.parse(text))
    assert [breach for law in LAWS for breach in law(module)] == []


def test_every_room_of_the_floors_is_there_or_still_to_come() -> None:
    rooms = {module.room for module in read_modules() if is_in(module.name, "oms")} - {""}
    assert set().union(*FLOORS) - rooms <= {"console", "docs"}


def test_each_sql_file_is_a_migration_or_holds_named_statements_with_a_promise() -> None:
    numbers = []
    for path in sorted((PROJECT / "sql").glob("*")):
        assert re.fullmatch(r"\d{4}_[a-z_]+\.sql|[a-z_]+\.sql", path.name), path.name
        text = path.read_text(encoding="utf-8")
        if path.name[0].isdigit():
            numbers.append(int(path.name[:4]))
            assert "-- name:" not in text, f"{path.name} is a migration and holds a named statement"
            continue
        head, *blocks = re.split(r"(?m)^-- name: (\w+)$", text)
        assert all(line.startswith("--") for line in head.splitlines() if line.strip()), f"{path.name}: SQL above names"
        names, bodies = blocks[::2], blocks[1::2]
        assert names, f"{path.name} holds no named statement"
        assert len(names) == len(set(names)), f"{path.name} has a name twice"
        for name, body in zip(names, bodies, strict=True):
            assert body.strip().startswith("-- "), f"{path.name}: {name} promises nothing"
    assert numbers == list(range(1, len(numbers) + 1)), "migrations are numbered without a gap"
