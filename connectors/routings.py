"""HotWax's order routings, as its API gives them: groups of routings, their rules, filters, sorts and actions.

Nothing is passed over: a field, operator, status or action that is not known here is refused, with where it stands and
what to do. Drafts and archived ones are read too, and marked.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

NEGATIVE = {"equals": "not-equals", "in": "not-in"}
EXCLUDED = "_excluded"
"""What HotWax's editor ends the name of a filter with that leaves out instead of taking."""
ONE_OF = ("equals", "not-equals", "in", "not-in")
BELOW = ("less", "less-equals")
ABOVE = ("greater", "greater-equals")
NULLS = ("is-null", "is-not-null")
ORDER_FILTERS: Mapping[str, tuple[str, ...]] = {
    "facilityId": ONE_OF, "shipmentMethodTypeId": (*ONE_OF, *NULLS), "priority": (*ONE_OF, *BELOW, *ABOVE, *NULLS),
    "promiseDaysCutoff": ("equals", "not-equals", *BELOW, *ABOVE, *NULLS), "salesChannelEnumId": (*ONE_OF, *NULLS),
    "originFacilityGroupId": ONE_OF, "productCategoryId": ONE_OF,
}  # fmt: skip
"""Filters of orders, and the operators that each takes."""
ORDER_SORTS = ("shipBeforeDate", "shipAfterDate", "orderDate", "deliveryDays", "priority")
FLAG = ("equals",)
RULE_FILTERS: Mapping[str, tuple[str, ...]] = {
    "facilityGroupId": ONE_OF, "distance": BELOW, "measurementSystem": FLAG, "brokeringSafetyStock": ABOVE,
    "ignoreFacilityOrderLimit": FLAG, "facilityOrderLimit": FLAG, "splitOrderItemGroup": FLAG,
    "shipmentThreshold": (*ABOVE, "equals"), "brokerIfAllItemsAvailable": FLAG,
}  # fmt: skip
"""Filters of inventory, and the operators that each takes."""
RULE_SORTS = ("distance", "inventoryForAllocation", "facilitySequence")
OTHER_NAMES = {
    "proximity": "distance",
    "customSequence": "facilitySequence",
    "facilityOrderLimit": "ignoreFacilityOrderLimit",
}
ACTIONS = {
    "ORA_NEXT_RULE": "next_rule", "ORA_MV_TO_QUEUE": "queue", "ORA_AUTO_CANCEL_DAYS": "cancel_after_days",
    "ORA_RM_CANCEL_DATE": "clear_cancel", "ORA_RM_AUTO_CANCEL_DATE": "clear_cancel",
}  # fmt: skip
WHOLE = ("brokeringSafetyStock", "promiseDaysCutoff", "priority")
DIGITS_MAX, VALUE_CHARS_MAX, DAYS_MAX = 9, 200, 3650
NUMBERS = ("distance", "brokeringSafetyStock", "shipmentThreshold", "promiseDaysCutoff")
FLAGS = ("ignoreFacilityOrderLimit", "splitOrderItemGroup", "brokerIfAllItemsAvailable")
YES, NO = ("Y", "TRUE", "1"), ("N", "FALSE", "0")
WITHOUT_EFFECT = frozenset({
    "description", "createdDate", "createdByUser", "createdByUserLogin", "lastModifiedDate", "lastModifiedByUser",
    "lastUpdatedStamp", "lastUpdatedTxStamp", "createdStamp", "createdTxStamp", "productStoreId", "jobName", "schedule",
    "runs", "cronExpression", "groupType",
})  # fmt: skip
"""Fields that say who, when and for which shop, and decide nothing."""


class BadRoutings(Exception):
    """Routings that cannot be understood: where, and what to do."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where, self.why = where, why


class Condition(msgspec.Struct, frozen=True):
    """A filter: the field of an order or of inventory, how it is compared, and with which values."""

    field: str
    operator: str
    values: tuple[str, ...]


class Action(msgspec.Struct, frozen=True):
    """What becomes of what a rule leaves: next_rule, queue (`value` names it), cancel_after_days (`value`), clear_cancel."""

    kind: str
    value: str | None = None


class Rule(msgspec.Struct, frozen=True):
    """One attempt to allocate: from which locations, in which order, whole or in parts."""

    rule_id: str
    name: str
    status: str
    is_single: bool
    filters: tuple[Condition, ...]
    sorts: tuple[str, ...]
    actions: tuple[Action, ...]


class Routing(msgspec.Struct, frozen=True):
    """Which orders, in which order, and the rules tried on each; rules by their sequence."""

    routing_id: str
    name: str
    status: str
    filters: tuple[Condition, ...]
    sorts: tuple[str, ...]
    rules: tuple[Rule, ...]


class Group(msgspec.Struct, frozen=True):
    """Routings by their sequence."""

    group_id: str
    name: str
    routings: tuple[Routing, ...]


def read_routings(given: Any) -> list[Group]:
    """Groups from one OrderRoutingGroup or a list of them, decoded from JSON. Raises BadRoutings that names where."""
    groups = given if isinstance(given, list) else [given]
    if not groups:
        raise BadRoutings("routings", "there is no group; give an OrderRoutingGroup as HotWax's API does")
    found = [_group(g, place=f"group {nth + 1}") for nth, g in enumerate(groups)]
    seen: set[str] = set()
    for routing_id in (r.routing_id for g in found for r in g.routings):
        if routing_id in seen:
            raise BadRoutings(f"routing {routing_id}", "stands twice; give each routing once")
        seen.add(routing_id)
    return found


def _group(given: Any, *, place: str) -> Group:
    fields = _fields(given, place, ("routingGroupId", "groupName", "statusId", "routings"))
    group_id = _text(fields, "routingGroupId", place)
    name = _text(fields, "groupName", place, default=group_id)
    routings = _by_sequence(fields, "routings", place)
    if not routings:
        raise BadRoutings(f"group {name!r}", "has no routings; export the group with its routings")
    return Group(group_id, name, tuple(_routing(r, f"group {name!r}, routing {n + 1}") for n, r in enumerate(routings)))


def _routing(given: Any, place: str) -> Routing:
    fields = _fields(
        given, place,
        ("orderRoutingId", "routingGroupId", "routingName", "statusId", "sequenceNum", "orderFilters", "rules"),
    )  # fmt: skip
    routing_id = _text(fields, "orderRoutingId", place)
    name = _text(fields, "routingName", place, default=routing_id)
    place = f"routing {name!r}"
    filters, sorts = _conditions(fields, "orderFilters", place, ORDER_FILTERS, ORDER_SORTS)
    rules = [
        _rule(r, f"{place}, rule {n + 1}", routing=place) for n, r in enumerate(_by_sequence(fields, "rules", place))
    ]
    return Routing(
        routing_id, name, _status(fields, "ROUTING", place), filters, sorts, tuple(rules)
    )  # fmt: skip


def _rule(given: Any, place: str, *, routing: str) -> Rule:
    fields = _fields(
        given, place,
        ("routingRuleId", "orderRoutingId", "ruleName", "statusId", "sequenceNum", "assignmentEnumId", "inventoryFilters",
         "actions"),
    )  # fmt: skip
    rule_id = _text(fields, "routingRuleId", place)
    name = _text(fields, "ruleName", place, default=rule_id)
    place = f"{routing}, rule {name!r}"
    assignment = _text(fields, "assignmentEnumId", place, default="ORA_SINGLE")
    if assignment not in ("ORA_SINGLE", "ORA_MULTI"):
        raise BadRoutings(f"{place}, assignmentEnumId", f"{assignment!r} is neither ORA_SINGLE nor ORA_MULTI")
    filters, sorts = _conditions(fields, "inventoryFilters", place, RULE_FILTERS, RULE_SORTS)
    fields_named = [c.field for c in filters]
    for field in fields_named:
        if field != "facilityGroupId" and fields_named.count(field) > 1:
            raise BadRoutings(f"{place}, {field}", "stands twice; leave the one that holds")
    actions = tuple(_action(a, place) for a in _list(fields, "actions", place))
    if len([a for a in actions if a.kind in ("next_rule", "queue")]) > 1:
        raise BadRoutings(
            f"{place}, actions", "says both to go on and to move to a queue, or one of them twice; leave one"
        )
    return Rule(
        rule_id, name, _status(fields, "RULE", place), assignment == "ORA_SINGLE", filters, sorts, actions
    )  # fmt: skip


def _action(given: Any, place: str) -> Action:
    fields = _fields(given, f"{place}, action", ("actionTypeEnumId", "actionValue", "actionSeqId", "routingRuleId"))
    kind = _text(fields, "actionTypeEnumId", f"{place}, action")
    if kind not in ACTIONS:
        raise BadRoutings(
            f"{place}, action {kind}", f"is not known here; {', '.join(ACTIONS)} are: take it out or replace it"
        )
    value = _text(fields, "actionValue", f"{place}, action {kind}", default="") or None
    if ACTIONS[kind] == "queue" and value is None:
        raise BadRoutings(f"{place}, action {kind}", "names no queue; give actionValue")
    if ACTIONS[kind] == "cancel_after_days" and not (_is_number(value or "") and 1 <= float(value or 0) <= DAYS_MAX):
        raise BadRoutings(f"{place}, action {kind}", f"{value!r} is no number of days from 1 to {DAYS_MAX}")
    if ACTIONS[kind] == "cancel_after_days" and "." in (value or ""):
        raise BadRoutings(f"{place}, action {kind}", f"{value!r} is no whole number of days")
    return Action(ACTIONS[kind], value)


def _conditions(
    fields: Mapping[str, Any], name: str, place: str, filters: Mapping[str, tuple[str, ...]], sorts: tuple[str, ...]
) -> tuple[tuple[Condition, ...], tuple[str, ...]]:
    """Filters, and sorts by their sequence."""
    found: list[Condition] = []
    by: list[str] = []
    for given in _by_sequence(fields, name, place):
        one = _fields(
            given, f"{place}, {name}",
            ("conditionSeqId", "conditionTypeEnumId", "fieldName", "operator", "fieldValue", "sequenceNum",
             "orderRoutingId", "routingRuleId"),
        )  # fmt: skip
        kind = _text(one, "conditionTypeEnumId", f"{place}, {name}", default="ENTCT_FILTER")
        field = _text(one, "fieldName", f"{place}, {name}")
        where = f"{place}, {field}"
        if kind == "ENTCT_SORT_BY":
            field = OTHER_NAMES.get(field, field)
            if field not in sorts:
                raise BadRoutings(
                    where, f"is nothing to sort by here; {', '.join(sorts)} are: take it out or replace it"
                )
            by.append(field)
        elif kind == "ENTCT_FILTER":
            found.append(_filter(one, field, where, filters))
        else:
            raise BadRoutings(where, f"{kind!r} is neither ENTCT_FILTER nor ENTCT_SORT_BY")
    return tuple(found), tuple(dict.fromkeys(by))


def _filter(one: Mapping[str, Any], field: str, where: str, filters: Mapping[str, tuple[str, ...]]) -> Condition:
    is_excluded = field.endswith(EXCLUDED)
    field = field.removesuffix(EXCLUDED)
    field = OTHER_NAMES.get(field, field)
    if field not in filters:
        raise BadRoutings(
            where, f"is no filter that is known here; {', '.join(filters)} are: take it out or replace it"
        )
    operator = _text(one, "operator", where, default="equals" if "equals" in filters[field] else filters[field][-1])
    operator = NEGATIVE.get(operator, operator) if is_excluded else operator
    if operator not in filters[field]:
        raise BadRoutings(where, f"operator {operator!r} is not known for it; {', '.join(filters[field])} are")
    values = _values(one.get("fieldValue"), where)
    if operator in NULLS:
        return Condition(field, operator, ())
    if not values:
        raise BadRoutings(where, "has no value, so that it would not hold; give fieldValue or take the filter out")
    if len(values) > 1 and operator not in ("in", "not-in"):
        raise BadRoutings(where, f"{operator} takes one value, {len(values)} are given; use in or not-in")
    number = field in NUMBERS or (field == "priority" and operator in (*BELOW, *ABOVE))
    for value in values:
        if number and not _is_number(value):
            raise BadRoutings(where, f"{value[:20]!r} is no number of 0 or more, of at most {DIGITS_MAX} digits")
        if field in WHOLE and number and "." in value:
            raise BadRoutings(where, f"{value!r} is no whole number")
        if field in FLAGS and value.upper() not in (*YES, *NO):
            raise BadRoutings(where, f"{value!r} is neither Y nor N")
        if field == "measurementSystem" and value.upper() not in ("IMPERIAL", "METRIC"):
            raise BadRoutings(where, f"{value!r} is neither IMPERIAL nor METRIC")
    return Condition(field, operator, values)


def _is_number(value: str) -> bool:
    return value.isascii() and value.replace(".", "", 1).isdigit() and len(value) <= DIGITS_MAX


def _values(given: Any, where: str) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, bool):
        return ("Y" if given else "N",)
    if isinstance(given, int | float):
        return (f"{given:g}" if isinstance(given, float) else str(given),)
    words = given.split(",") if isinstance(given, str) else given
    if not isinstance(words, list) or not all(isinstance(w, str | int) for w in words):
        raise BadRoutings(where, "fieldValue is neither text nor a number nor a list of them")
    found = tuple(dict.fromkeys(str(w).strip() for w in words if str(w).strip()))
    if any(len(v) > VALUE_CHARS_MAX or "\x00" in v for v in found):
        raise BadRoutings(where, f"a value is longer than {VALUE_CHARS_MAX} characters, or is no text")
    return found


def _fields(given: Any, place: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise BadRoutings(place, "an object is expected")
    for field in given:
        if field not in known and field not in WITHOUT_EFFECT:
            raise BadRoutings(f"{place}, {field}", f"is not known here; {', '.join(known)} are: take it out")
    return given


def _list(fields: Mapping[str, Any], name: str, place: str) -> list[Any]:
    given = fields.get(name)
    if given is None:
        return []
    if not isinstance(given, list):
        raise BadRoutings(f"{place}, {name}", "a list is expected, as HotWax's API gives it")
    return given


def _by_sequence(fields: Mapping[str, Any], name: str, place: str) -> list[Any]:
    """A list by sequenceNum, those without one last, in the order in which they stand."""
    found = _list(fields, name, place)
    for one in found:
        sequence = one.get("sequenceNum") if isinstance(one, dict) else None
        if sequence is not None and (isinstance(sequence, bool) or not isinstance(sequence, int)):
            raise BadRoutings(f"{place}, {name}", f"sequenceNum {sequence!r} is no whole number")

    def place_of(one: Any) -> tuple[bool, int]:
        sequence = one.get("sequenceNum") if isinstance(one, dict) else None
        return (sequence is None, sequence or 0)

    return sorted(found, key=place_of)


def _text(fields: Mapping[str, Any], name: str, place: str, *, default: str | None = None) -> str:
    value = fields.get(name)
    if value is None or value == "":
        if default is None:
            raise BadRoutings(f"{place}, {name}", "is missing")
        return default
    if isinstance(value, bool) or not isinstance(value, str | int) or len(str(value)) > 200 or "\x00" in str(value):
        raise BadRoutings(f"{place}, {name}", "text of at most 200 characters is expected")
    return str(value)


def _status(fields: Mapping[str, Any], kind: str, place: str) -> str:
    """active, draft or archived."""
    status = _text(fields, "statusId", place, default=f"{kind}_DRAFT")
    known = {f"{kind}_{word.upper()}": word for word in ("active", "draft", "archived")}
    if status not in known:
        raise BadRoutings(f"{place}, statusId", f"{status!r} is none of {', '.join(known)}")
    return known[status]
