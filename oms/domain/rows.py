"""Rows of the network, of CSV or JSON, read into its structs; every fault is told by row, field and reason.

An empty cell or null clears what may be empty, and says nothing of what may not.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from zoneinfo import available_timezones

import msgspec

from oms.domain.network import Kind


class Given(msgspec.Struct, frozen=True):
    """A row that can be read: where it stood, its key, and what it says in the form in which it is kept."""

    row: int
    key: tuple[str, ...]
    body: dict[str, Any]


class RefusedRow(msgspec.Struct, frozen=True):
    """A row that cannot be taken: where, which field, why."""

    row: int
    field: str
    reason: str


_PLACE = re.compile(r"^(.*?)(?: - at `\$\.?(.*?)`)?$", re.S)
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")
_YES_NO = {"yes": True, "no": False, "y": True, "n": False, "on": True, "off": False}
_NESTED = {"settings", "owns", "status_map", "additions", "gates", "body", "deducted_holds", "secrets", "waves"}


def read_rows(kind: Kind, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Given], list[RefusedRow]]:
    """Reads rows of a kind; those that cannot be read are told with row (from 1), field and reason."""
    given: list[Given] = []
    refused: list[RefusedRow] = []
    seen: dict[tuple[str, ...], int] = {}
    for number, row in _grouped(kind, rows, refused):
        try:
            read = msgspec.convert(_cleaned(kind, row), kind.row, strict=False)
        except msgspec.ValidationError as error:
            refused.append(RefusedRow(number, *_place(error)))
            continue
        body = msgspec.to_builtins(read)
        faults = [RefusedRow(number, field, reason) for rule in RULES for field, reason in rule(body)]
        key = tuple(body[part] for part in kind.key)
        if key in seen:
            faults.append(RefusedRow(number, kind.key[-1], f"{' '.join(key)!r} stands already in row {seen[key]}"))
        seen.setdefault(key, number)
        refused += faults
        if not faults:
            given.append(Given(number, key, _canonical(body)))
    return given, sorted(refused, key=lambda fault: fault.row)


def _grouped(
    kind: Kind, rows: Sequence[Mapping[str, Any]], refused: list[RefusedRow]
) -> Iterable[tuple[int, dict[str, Any]]]:
    """Rows, where one object may stand in several (a pool's members, a kit's components) gathered into its first."""
    objects: dict[Any, tuple[int, dict[str, Any]]] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            refused.append(RefusedRow(number, "", "an object with named columns is expected"))
            continue
        row = {str(name).strip(): value for name, value in row.items()}
        if kind.grouped is None or kind.grouped[1] not in row or kind.grouped[0] in row:
            yield number, row
            continue
        many, single = kind.grouped
        value = row.pop(single)
        member = {single: value, "quantity": row.pop("quantity", None)} if kind.name == "kits" else value
        parts = value.split("|") if kind.name == "skus" and isinstance(value, str) else [member]
        known = objects.get(str(row.get(kind.key[0])))
        if known is None:
            row[many] = [part for part in parts if part not in (None, "")]
            objects[str(row.get(kind.key[0]))] = (number, row)
        elif any(known[1].get(name) != given for name, given in row.items()):
            named = str(row.get(kind.key[0]))
            refused.append(RefusedRow(number, single, f"says other things of {named!r} than row {known[0]}"))
        else:
            known[1][many] += [part for part in parts if part not in (None, "")]
    yield from objects.values()


def _cleaned(kind: Kind, row: dict[str, Any]) -> dict[str, Any]:
    """A row as the struct takes it: empty cells clear what may be empty, lists and objects are read from text."""
    cleaned: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, str):
            value = value.strip()
            if name in _NESTED and value[:1] in ("{", "["):
                try:
                    value = msgspec.json.decode(value)
                except (msgspec.DecodeError, RecursionError) as error:
                    raise msgspec.ValidationError(f"not valid JSON: {error} - at `$.{name}`") from error
            elif name in ("barcodes", "substitutes", "locations", "deducted_holds", "secrets", "holidays"):
                value = [part.strip() for part in value.split("|") if part.strip()]
            elif name in ("on", "acknowledges", "absent_is_zero", "sums_rows", "weekends", "takes_back"):
                value = _YES_NO.get(value.lower(), value.lower() if value else None)
        if value is None or value == "":
            if name == "name":
                value = ""
            elif kind.defaults.get(name, "") is not None:
                continue
            else:
                value = None
        cleaned[name] = value
    return cleaned


def _place(error: msgspec.ValidationError) -> tuple[str, str]:
    found = _PLACE.match(str(error))
    reason, field = (found.group(1), found.group(2) or "") if found else (str(error), "")
    for pattern, text in ((_UNKNOWN, "no such column"), (_MISSING, "is missing")):
        named = pattern.search(reason)
        if named:
            return ".".join(part for part in (field, named.group(1)) if part), text
    return field, reason


def _canonical(body: dict[str, Any]) -> dict[str, Any]:
    """Lists whose order means nothing in one order, so that the same said again is no change."""
    for name in ("barcodes", "locations", "deducted_holds", "holidays"):
        if name in body:
            body[name] = sorted(set(body[name]))
    if "components" in body:
        body["components"] = sorted(body["components"], key=lambda part: part["component"])
    if "status_map" in body:
        body["status_map"] = sorted(
            ({"hold_code": None, **part} for part in body["status_map"]),
            key=lambda part: (part["field"], part["value"]),
        )
    if "owns" in body:
        facts: dict[str, set[str]] = {}
        for part in body["owns"]:
            for location in [*part.get("locations", []), *([part["location"]] if part.get("location") else [])]:
                facts.setdefault(location, set()).update(part["facts"])
        groups: dict[tuple[str, ...], list[str]] = {}
        for location, owned in facts.items():
            groups.setdefault(tuple(sorted(owned)), []).append(location)
        body["owns"] = [
            {"locations": sorted(locations), "facts": list(owned)} for owned, locations in sorted(groups.items())
        ]
    return body


Fault = tuple[str, str]
_ZONES = available_timezones()
_ADDITIONS = {"return", "receipt", "transfer", "adjustment", "count", "release"}


def zone_is_known(body: dict[str, Any]) -> list[Fault]:
    """A time zone is one of the IANA names."""
    zone = body.get("time_zone")
    return [("time_zone", f"{zone!r} is no IANA time zone")] if zone is not None and zone not in _ZONES else []


def place_is_whole(body: dict[str, Any]) -> list[Fault]:
    """Latitude and longitude are given together."""
    if ("lat" in body) != ("lon" in body) or (body.get("lat") is None) != (body.get("lon") is None):
        return [("lat" if body.get("lat") is None else "lon", "lat and lon are given together or not at all")]
    return []


def status_has_its_code(body: dict[str, Any]) -> list[Fault]:
    """A status that is a hold names its code, another none; each is mapped once."""
    faults: list[Fault] = []
    seen = set()
    for place, part in enumerate(body.get("status_map", [])):
        if (part["means"] == "hold") != (part.get("hold_code") is not None):
            faults.append((f"status_map[{place}].hold_code", "is given exactly where it means a hold"))
        if (part["field"], part["value"]) in seen:
            faults.append((f"status_map[{place}]", f"{part['field']} {part['value']!r} is mapped twice"))
        seen.add((part["field"], part["value"]))
    return faults


def owns_somewhere(body: dict[str, Any]) -> list[Fault]:
    """What a source owns, it owns at a named location."""
    return [
        (f"owns[{place}]", "names no location")
        for place, part in enumerate(body.get("owns", []))
        if not part.get("location") and not part.get("locations")
    ]


def additions_are_kinds(body: dict[str, Any]) -> list[Fault]:
    """Additions are held by kind of movement."""
    return [
        (f"additions.{kind}", f"no kind of addition; one of {', '.join(sorted(_ADDITIONS))}")
        for kind in body.get("additions", {})
        if kind not in _ADDITIONS
    ]


def kit_is_made_of_others(body: dict[str, Any]) -> list[Fault]:
    """A kit holds each component once, and not itself."""
    names = [part["component"] for part in body.get("components", [])]
    if body.get("kit") in names:
        return [("component", "a kit cannot be its own component")]
    return [("component", "stands twice in this kit")] if len(set(names)) < len(names) else []


def waves_follow_each_other(body: dict[str, Any]) -> list[Fault]:
    """A wave ends after it begins, and before the next one does."""
    waves = body.get("waves", [])
    faults = [
        (f"waves[{n}]", f"ends at {w['until']}, not after it begins at {w['from']}; the end is later on the same day")
        for n, w in enumerate(waves) if w["until"] <= w["from"]
    ]  # fmt: skip
    return faults or [
        (f"waves[{n + 1}]", f"begins at {b['from']}, before the one before it ends at {a['until']}; give them in order")
        for n, (a, b) in enumerate(itertools.pairwise(waves)) if b["from"] < a["until"]
    ]  # fmt: skip


RULES: tuple[Callable[[dict[str, Any]], list[Fault]], ...] = (
    zone_is_known, place_is_whole, status_has_its_code, owns_somewhere, additions_are_kinds, kit_is_made_of_others,
    waves_follow_each_other,
)  # fmt: skip
"""What a row must satisfy beside its types."""
