"""Every named statement on the real schema: it can be prepared, its columns are its struct's fields, and somebody asks it."""

import datetime as dt
import importlib
import pkgutil
import types
import typing
from collections import defaultdict
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

import oms
from oms.db import Sql, Statement, parse_blocks, sql_folder

TYPES: dict[str, tuple[Any, ...]] = {
    "int2": (int,), "int4": (int,), "int8": (int,), "float4": (float,), "float8": (float,), "bool": (bool,),
    "text": (str,), "bytea": (bytes,), "uuid": (UUID,), "timestamptz": (dt.datetime,), "date": (dt.date,),
    "time": (dt.time,), "interval": (dt.timedelta,), "jsonb": (dict, list, str, int, float, bool), "json": (dict, list),
}  # fmt: skip
"""What Python gets of each PostgreSQL type."""


def statements() -> list[Statement]:
    """All bindings of the house: every module is imported."""
    for module in pkgutil.walk_packages(oms.__path__, "oms."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return Sql.bound


def files() -> list[str]:
    return sorted(path.stem for path in sql_folder().glob("*.sql") if not path.stem[:4].isdigit())


@pytest.fixture
async def connection(database_url: str) -> typing.AsyncIterator[asyncpg.Connection]:
    found = await asyncpg.connect(database_url)
    yield found
    await found.close()


@pytest.mark.parametrize("file", files())
async def test_every_statement_can_be_prepared_on_the_schema(connection: asyncpg.Connection, file: str) -> None:
    blocks = parse_blocks((sql_folder() / f"{file}.sql").read_text(encoding="utf-8"))
    assert blocks
    wrong = {}
    for name, block in blocks.items():
        try:
            await connection.prepare(block.text)
        except asyncpg.PostgresError as error:
            wrong[name] = str(error)
    assert wrong == {}


def test_every_statement_says_what_it_promises_and_is_asked() -> None:
    asked = defaultdict(set)
    for statement in statements():
        asked[statement.file].add(statement.block.name)
    for file in files():
        blocks = parse_blocks((sql_folder() / f"{file}.sql").read_text(encoding="utf-8"))
        assert [name for name, block in blocks.items() if not block.promise] == []
        assert sorted(blocks.keys() - asked[file]) == [], f"nobody asks these of {file}.sql"


async def test_every_statement_gives_what_its_struct_takes(connection: asyncpg.Connection) -> None:
    wrong = []
    for statement in statements():
        if statement.row in (None, Any):
            continue
        columns = (await connection.prepare(statement.block.text)).get_attributes()
        wrong += [f"{statement.file}.{statement.block.name}: {fault}" for fault in faults(statement.row, columns)]
    assert "\n".join(wrong) == ""


def faults(row: Any, columns: tuple[asyncpg.Attribute, ...]) -> list[str]:
    """Where the columns of a statement are not what a row type takes, in order."""
    if row is tuple:
        return [] if len(columns) > 1 else ["a tuple is bound to one column"]
    if not (isinstance(row, type) and issubclass(row, msgspec.Struct)):
        return [] if len(columns) == 1 and fits(row, columns[0]) else [f"{row} is bound to {[c.name for c in columns]}"]
    hints = typing.get_type_hints(row)
    names = list(row.__struct_fields__)
    found = [c.name for c in columns]
    if found != names[: len(found)] or any(
        field.required for field in msgspec.structs.fields(row)[len(found) :]
    ):  # fmt: skip
        return [f"columns {found}, fields {names}"]
    return [f"{c.name} is {c.type.name}, the field {hints[c.name]}" for c in columns if not fits(hints[c.name], c)]


def fits(hint: Any, column: asyncpg.Attribute) -> bool:
    """Whether a column's values are of this type (null aside)."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(part, column) for part in typing.get_args(hint) if part is not type(None))
    if origin is typing.Annotated:
        return fits(typing.get_args(hint)[0], column)
    if origin is typing.Literal:
        return column.type.name == "text"
    if hint is Any:
        return True
    name = column.type.name
    if name.endswith("[]"):
        return origin in (list, tuple) or hint in (list, tuple)
    if name in ("json", "jsonb"):
        return True
    return hint in TYPES.get(name, ())


def test_a_wrong_binding_would_be_seen() -> None:
    class Row(msgspec.Struct):
        units: int
        code: str | None

    def column(name: str, type_name: str) -> Any:
        return types.SimpleNamespace(name=name, type=types.SimpleNamespace(name=type_name))

    right = (column("units", "int8"), column("code", "text"))
    assert faults(Row, right) == []
    assert faults(Row, right[::-1]) and faults(Row, right[:1]) and faults(Row, (column("units", "text"), right[1]))
    assert faults(int, right) and faults(str, right[:1]) and not faults(int, right[:1])
