"""HotWax's order routings are read as its API gives them, and what is not known is refused with where it stands."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

import oms.demo
from connectors.routings import Action, BadRoutings, Condition, read_routings

SAMPLE = Path(oms.demo.__file__).parent / "data" / "routings.json"


@pytest.fixture
def given() -> dict[str, Any]:
    return json.loads(SAMPLE.read_text())


def changed(given: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one place changed; the path as `routings.0.statusId`."""
    made: Any = copy.deepcopy(given)
    *way, last = path.split(".")
    at = made
    for step in way:
        at = at[int(step)] if step.isdigit() else at[step]
    if isinstance(at, list):
        at[int(last)] = value
    else:
        at[last] = value
    return made


def test_the_carried_file_is_read_with_its_routings_rules_and_actions_in_sequence(given: dict[str, Any]) -> None:
    (group,) = read_routings(given)
    assert [r.name for r in group.routings] == ["Promised within two days", "Everything else"]
    express = group.routings[0]
    assert express.filters == (Condition("promiseDaysCutoff", "less-equals", ("2",)),)
    assert (express.status, express.sorts) == ("active", ("priority", "orderDate"))
    near, wider, anywhere = express.rules
    assert (near.is_single, wider.is_single) == (True, False)
    assert Condition("distance", "less-equals", ("150",)) in near.filters and near.sorts == ("distance",)
    assert anywhere.actions == (Action("queue", "UNFILLABLE_PARKING"), Action("cancel_after_days", "7"))


def test_what_stands_last_in_the_file_goes_first_where_its_sequence_says_so(given: dict[str, Any]) -> None:
    made = changed(given, "routings.1.sequenceNum", -1)
    assert [r.routing_id for r in read_routings(made)[0].routings] == ["STANDARD", "EXPRESS"]


def test_several_values_come_as_text_or_as_a_list(given: dict[str, Any]) -> None:
    one = {"conditionTypeEnumId": "ENTCT_FILTER", "fieldName": "salesChannelEnumId", "operator": "in"}
    for value in ("WEB, SHOP,", ["WEB", "SHOP", "WEB"]):
        made = changed(given, "routings.0.orderFilters.0", {**one, "fieldValue": value})
        assert read_routings(made)[0].routings[0].filters == (Condition("salesChannelEnumId", "in", ("WEB", "SHOP")),)


def test_a_filter_of_the_editor_that_leaves_out_is_read_as_its_negative(given: dict[str, Any]) -> None:
    one = {
        "conditionTypeEnumId": "ENTCT_FILTER",
        "fieldName": "facilityId_excluded",
        "operator": "in",
        "fieldValue": "Q",
    }
    made = changed(given, "routings.0.orderFilters.0", one)
    assert read_routings(made)[0].routings[0].filters == (Condition("facilityId", "not-in", ("Q",)),)


def test_drafts_and_archived_ones_are_read_and_marked(given: dict[str, Any]) -> None:
    made = changed(
        changed(given, "routings.0.statusId", "ROUTING_DRAFT"), "routings.1.rules.0.statusId", "RULE_ARCHIVED"
    )
    (group,) = read_routings(made)
    assert (group.routings[0].status, group.routings[1].rules[0].status) == ("draft", "archived")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("routings.0.orderFilters.0.fieldName", "giftWrap", "routing 'Promised within two days', giftWrap: is no filter"),
        ("routings.0.orderFilters.0.operator", "between", "operator 'between' is not known"),
        ("routings.0.orderFilters.0.fieldValue", "soon", "'soon' is no number"),
        ("routings.0.orderFilters.0.fieldValue", "", "has no value"),
        ("routings.0.orderFilters.0.fieldValue", "1,2", "takes one value"),
        ("routings.0.orderFilters.0.conditionTypeEnumId", "ENTCT_GROUP", "neither ENTCT_FILTER nor ENTCT_SORT_BY"),
        ("routings.0.orderFilters.1.fieldName", "margin", "is nothing to sort by here"),
        ("routings.0.statusId", "ROUTING_ON", "'ROUTING_ON' is none of ROUTING_ACTIVE"),
        ("routings.0.color", "red", "color: is not known here"),
        ("routings.0.sequenceNum", "first", "sequenceNum 'first' is no whole number"),
        ("routings.0.rules.0.assignmentEnumId", "ORA_ALL", "neither ORA_SINGLE nor ORA_MULTI"),
        ("routings.0.rules.0.inventoryFilters.0.fieldName", "weekOfSupply", "rule 'One place within 150 miles', weekOfSupply"),
        ("routings.0.rules.0.inventoryFilters.0.operator", "greater", "operator 'greater' is not known"),
        ("routings.0.rules.0.inventoryFilters.1.fieldValue", "CUBITS", "neither IMPERIAL nor METRIC"),
        ("routings.0.rules.0.inventoryFilters.2.fieldValue", "1.5", "no whole number"),
        ("routings.0.rules.0.actions.0.actionTypeEnumId", "ORA_CALL", "action ORA_CALL: is not known here"),
        ("routings.0.rules.2.actions.0.actionValue", "", "names no queue"),
        ("routings.0.rules.2.actions.1.actionValue", "soon", "no number of days"),
        ("routings.0.rules.2.actions.1.actionValue", "0", "no number of days from 1 to 3650"),
        ("routings.0.orderFilters.0.fieldValue", "9" * 40, "at most 9 digits"),
        ("routings.1.orderFilters.0.fieldValue", "q" * 201, "longer than 200 characters"),
        ("routings.1.orderRoutingId", "EXPRESS", "routing EXPRESS: stands twice"),
        ("routings", [], "has no routings"),
        ("routings", {"0": {}}, "a list is expected"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_with_where_it_stands(
    given: dict[str, Any], path: str, value: Any, said: str
) -> None:
    with pytest.raises(BadRoutings) as refused:
        read_routings(changed(given, path, value))
    assert said in str(refused.value)


def test_a_file_that_holds_something_else_is_refused() -> None:
    for other in ([], "routings", [1], {"routings": []}, None):
        with pytest.raises(BadRoutings):
            read_routings(other)
