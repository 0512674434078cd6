"""Order routings at the command line: read from a file, kept under a name, and shown."""

from pathlib import Path
from typing import Any

import msgspec

from oms.commands import WHO
from oms.errors import BadInput
from oms.flows.broker import routings
from oms.house import House

PARTS = {"routings", "names", "sequence"}


def read_import(file: str, *, names: str | None) -> routings.Import:
    """What HotWax's API gave, or that with names and sequence; `names` is a file of names. Raises BadInput."""
    given = _json(file)
    if not (isinstance(given, dict) and "routings" in given and given.keys() <= PARTS):
        given = {"routings": given}
    if names is not None:
        given["names"] = _json(names)
    try:
        return msgspec.convert(given, routings.Import)
    except msgspec.ValidationError as error:
        raise BadInput(f"{names or file}: {error}") from None


def _json(file: str) -> Any:
    try:
        return msgspec.json.decode(Path(file).read_bytes())
    except msgspec.DecodeError as error:
        raise BadInput(f"{file}: {error}; a JSON file is expected") from None


async def bring(house: House, *, name: str, given: routings.Import) -> routings.Said:
    """Keeps routings under a name."""
    return await routings.bring(house.db, code=name, given=given, who=WHO)


def said_lines(said: routings.Said) -> list[str]:
    """What was imported, and what is odd about it."""
    head = f"{said.name}: {said.routings} routings with {said.rules} rules are followed."
    return [head, *(f"  {hint}" for hint in said.hints)]


def draft_lines(drafts: list[routings.DraftPolicy]) -> list[str]:
    """Draft policies in sentences, and what is not in them."""
    lines = []
    for d in drafts:
        lines += [f"{d.code}:", *(f"  {s}" for s in d.sentences)]
        lines += ["  not carried over:", *(f"    {s}" for s in d.left_out)] if d.left_out else []
    return lines
