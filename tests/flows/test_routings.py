"""Imported order routings are kept, followed beside the joint plan, and drafted as policies; nothing is allocated by them."""

import copy
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

import oms.demo
from brokering.routings import Rule
from oms import access
from oms.app import create_app
from oms.cache import Cache
from oms.commands.imported import draft_lines, read_import, said_lines
from oms.commands.tried import comparison_lines
from oms.db import Database
from oms.errors import BadInput, NotFound
from oms.flows import broker, network
from oms.flows.broker import routings
from oms.flows.broker.what_if import Ask, find, readied
from oms.settings import Settings
from tests.demand import captured, order
from tests.feeding import NOW, check
from tests.flows.test_what_if import ENGINE, NO_STORES, by_name, everything, orders_of, tried
from tests.world import Net, bearer, make_key, set_stock, small_network

SAMPLE: dict[str, Any] = json.loads((Path(oms.demo.__file__).parent / "data" / "routings.json").read_text())


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    yield await small_network(db)
    await check(db)


def routing(*rules: dict[str, Any], filters: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """One active routing with active rules."""
    made = [
        {"routingRuleId": f"R{n}", "ruleName": f"rule {n}", "statusId": "RULE_ACTIVE", "sequenceNum": n, **rule}
        for n, rule in enumerate(rules)
    ]
    one = {"orderRoutingId": "R", "routingName": "all", "statusId": "ROUTING_ACTIVE", "rules": made}
    return {"routingGroupId": "G", "groupName": "G", "routings": [{**one, "orderFilters": filters or []}]}


def where(field: str, operator: str, value: Any) -> dict[str, Any]:
    return {"conditionTypeEnumId": "ENTCT_FILTER", "fieldName": field, "operator": operator, "fieldValue": value}


async def brought(db: Database, given: Any, *, code: str = "mine", **more: Any) -> routings.Said:
    made = msgspec.convert({"routings": given, **more}, routings.Import)
    return await routings.bring(db, code=code, given=made, who="test")


async def test_the_carried_file_is_imported_and_told_with_what_is_odd_here(db: Database, net: Net) -> None:
    said = await brought(db, SAMPLE)
    assert (said.name, said.routings, said.rules, said.hints) == ("mine", 2, 6, [])
    assert said.given["routings"] == SAMPLE
    assert [k.name for k in await routings.listed(db, after="")] == ["mine"]
    assert [k.name for k in await routings.listed(db, after="mine")] == []


async def test_drafts_and_groups_that_nobody_has_are_told(db: Database, net: Net) -> None:
    made = routing({"inventoryFilters": [where("facilityGroupId", "in", "STORES,web")]}, {"statusId": "RULE_DRAFT"})
    hints = (await brought(db, made)).hints
    assert hints == ["all › rule 1 is a draft: it is not followed", "all › rule 0: no location is of group STORES"]
    assert (await brought(db, made, names={"group": {"STORES": "local"}})).hints == hints[:1]


@pytest.mark.parametrize(
    ("change", "more", "said"),
    [
        ({"statusId": "ROUTING_DRAFT"}, {}, "none of them is active"),
        ({"orderFilters": [where("priority", "equals", "HIGH")]}, {}, "'HIGH' is no whole number; say what it is here"),
        ({"orderFilters": [where("giftWrap", "equals", "Y")]}, {}, "routing 'all', giftWrap"),
        ({}, {"sequence": ["W1", "nowhere"]}, r"sequence\[1\]: there is no location 'nowhere'"),
    ],
)
async def test_what_cannot_be_followed_is_not_kept(
    db: Database, net: Net, change: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    made = routing({})
    made["routings"][0] |= change
    with pytest.raises(BadInput, match=said):
        await brought(db, made, **more)
    with pytest.raises(NotFound, match="import them"):
        await routings.read(db, code="mine")


async def test_routings_are_one_more_side_of_a_what_if_and_the_trail_says_why_an_order_moves(
    db: Database, net: Net
) -> None:
    await orders_of(db, net, count=2)
    await brought(db, routing({"inventoryFilters": [where("facilityGroupId", "not-in", "local")]}))
    before = await everything(db)
    found = await tried(db, ENGINE, {"routings": "mine"}, open=True)
    assert await everything(db) == before
    plans = found["plans"]
    assert plans["engine"]["load"] == [{"location": "S1", "packages": 2, "units": 2}]
    assert plans["routings mine"]["load"] == [{"location": "W1", "packages": 2, "units": 2}]
    assert plans["routings mine"]["cost_cents"] > plans["engine"]["cost_cents"]
    moves = found["moves"]["routings mine"]
    assert (moves["orders"], moves["why"]) == (2, {"not of its groups": 2})
    (told,) = found["routings"]
    assert told["rules"] == [{"routing": "all", "rule": "rule 0", "tried": 2, "orders": 2, "units": 2}]
    assert told["trails"][moves["shown"][0]["order_id"]] == [
        "all › rule 0: took 1 from W1; not of its groups: S1.", "Allocated by rule 0."
    ]  # fmt: skip


async def test_routings_are_followed_on_what_a_run_saw_and_not_bound_by_its_policies(db: Database, net: Net) -> None:
    await orders_of(db, net)
    loaded = await network.load(
        db, kind="policies", rows=[{"code": "wh", "body": {"limits": [{"kinds": ["warehouse"]}]}}], who="ann", now=NOW,
    )  # fmt: skip
    assert not loaded.refused
    run = await broker.run(db, who="test", now=NOW, seconds=2, dry_run=True, policy="wh")
    near = {
        "inventoryFilters": [where("distance", "less-equals", "50"), where("measurementSystem", "equals", "METRIC")]
    }
    await brought(db, routing(near))
    found = await tried(db, NO_STORES, {"routings": "mine", "name": "theirs"}, run=str(run.id))
    assert found["plans"]["no stores"]["load"][0]["location"] == "W1"
    assert found["plans"]["as it was"]["load"][0]["location"] == "W1"
    assert found["plans"]["theirs"]["load"] == [{"location": "S1", "packages": 3, "units": 3}]


async def test_channels_methods_and_dates_of_orders_are_known_to_filters(db: Database, net: Net) -> None:
    await orders_of(db, net, count=1)
    for field, value, orders in (
        ("salesChannelEnumId", "WEB_CHANNEL", 1), ("salesChannelEnumId", "local", 0), ("promiseDaysCutoff", "2", 1),
        ("promiseDaysCutoff", "1", 0), ("facilityId", "_NA_", 1), ("facilityId", "REJECTED_ITM_PARKING", 0),
    ):  # fmt: skip
        operator = "less-equals" if field == "promiseDaysCutoff" else "equals"
        made = routing({}, filters=[where(field, operator, value)])
        await brought(db, made, names={"channel": {"WEB_CHANNEL": "web"}})
        found = await tried(db, ENGINE, {"routings": "mine"}, open=True)
        assert found["routings"][0]["rules"][0]["tried"] == orders, (field, value)
        assert ("all matches no order" in found["routings"][0]["hints"]) == (orders == 0)


async def test_the_locations_own_sequence_decides_where_a_rule_sorts_by_it(db: Database, net: Net) -> None:
    await orders_of(db, net, count=1)
    sort = {"conditionTypeEnumId": "ENTCT_SORT_BY", "fieldName": "facilitySequence"}
    for first in ("W1", "S1"):
        await brought(db, routing({"inventoryFilters": [sort]}), sequence=[first])
        found = await tried(db, {"routings": "mine"}, ENGINE, open=True)
        assert found["plans"]["routings mine"]["load"] == [{"location": first, "packages": 1, "units": 1}]


async def test_a_what_if_keeps_routings_as_they_read_when_it_was_asked(db: Database, net: Net) -> None:
    await orders_of(db, net, count=1)
    await brought(db, routing({"inventoryFilters": [where("distance", "less-equals", "50")]}))
    given = msgspec.convert({"on": {"open": True}, "policies": [{"routings": "mine"}]}, Ask)
    asked = await readied(db, given, now=NOW, seconds=1, seed=0)
    await brought(db, routing({"inventoryFilters": [where("facilityGroupId", "not-in", "local")]}))
    assert by_name(await find(db, asked, now=NOW))["plans"]["routings mine"]["load"][0]["location"] == "S1"


async def test_what_a_what_if_cannot_try_is_refused(db: Database, net: Net) -> None:
    await brought(db, SAMPLE)
    for policies, on, error, said in (
        ([{"routings": "gone"}], {"open": True}, NotFound, "no routings 'gone'"),
        (
            [{"routings": "mine", "code": "x"}],
            {"open": True},
            BadInput,
            "give one of code, body, in_force and routings",
        ),
        ([{"routings": "mine"}], {"day": "2026-11-01"}, BadInput, "not on a day order by order"),
    ):
        asked = msgspec.convert({"on": on, "policies": policies}, Ask)
        with pytest.raises(error, match=said):
            await readied(db, asked, now=NOW, seconds=1, seed=0)


async def test_a_draft_policy_says_what_routings_say_and_lists_what_is_not_carried_over(db: Database, net: Net) -> None:
    await brought(db, SAMPLE)
    first, second = await routings.drafted(db, code="mine")
    assert (first.code, first.body["scope"], first.body["rank"]) == ("mine-1", {"promise_days_max": 2}, 1)
    assert (first.body["cancel_after_days"], second.body["scope"]) == (7, {})
    left = "\n".join(first.left_out)
    for part in (
        "the sort of its orders",
        "2 units that must be there",
        "the queue UNFILLABLE_PARKING",
        "the turn of its rules",
    ):
        assert part in left, part
    assert "the filter by queue (not in UNFILLABLE_PARKING)" in second.left_out[0]
    loaded = await network.load(
        db, kind="policies", rows=[{"code": d.code, "body": d.body} for d in (first, second)], who="ann", now=NOW
    )  # fmt: skip
    assert not loaded.refused and loaded.created == 2


async def test_limits_that_all_rules_have_become_limits_of_the_policy(db: Database, net: Net) -> None:
    rules = [
        {"inventoryFilters": [where("distance", "less-equals", far), where("facilityGroupId", "in", group)]}
        for far, group in (("50", "local"), ("300", "web"))
    ]
    filters = [where("salesChannelEnumId", "in", "web,local"), where("priority", "greater", "1"),
               where("shipmentMethodTypeId", "not-equals", "letter")]  # fmt: skip
    await brought(db, routing(*rules, filters=filters))
    (one,) = await routings.drafted(db, code="mine")
    assert one.body["scope"] == {"channels": ["web", "local"], "priority_min": 2}
    assert [(x["groups"], x["miles_max"]) for x in one.body["limits"]] == [(["local", "web"], 300)]
    assert any("method (not in letter)" in s for s in one.left_out)


async def test_a_planner_imports_and_reads_and_an_approver_only_reads(
    db: Database, net: Net, cache: Cache, settings: Settings
) -> None:
    access.forget()
    transport = httpx.ASGITransport(create_app(settings=settings, db=db, cache=cache))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://oms.test") as client:
        client.headers.update(bearer(await make_key(db, "planner")))
        said = await client.put("/v1/routings/ours", json={"routings": SAMPLE})
        assert (said.status_code, said.json()["rules"]) == (200, 6)
        broken = copy.deepcopy(SAMPLE)
        broken["routings"][0]["rules"][0]["actions"][0]["actionTypeEnumId"] = "ORA_CALL"
        refused = await client.put("/v1/routings/ours", json={"routings": broken})
        assert refused.status_code == 400 and "action ORA_CALL" in refused.json()["detail"]
        assert (await client.get("/v1/routings")).json()["items"][0]["name"] == "ours"
        assert (await client.get("/v1/routings/ours")).json()["given"]["routings"] == SAMPLE
        assert len((await client.get("/v1/routings/ours/policies")).json()["items"]) == 2
        assert (await client.get("/v1/routings/gone")).status_code == 404
        for role, bound, reads, writes in (
            ("approver", {}, 200, 403), ("operator", {}, 200, 200), ("storefront", {"channel": "web"}, 403, 403),
            ("associate", {"location": "S1"}, 403, 403), ("integrator", {"source": "erp"}, 403, 403),
            ("approver", {"location": "S1"}, 404, 403), ("operator", {"location": "S1"}, 404, 404),
        ):  # fmt: skip
            client.headers.update(bearer(await make_key(db, role, **bound)))
            assert (await client.get("/v1/routings/ours")).status_code == reads, role
            assert (await client.get("/v1/routings/ours/policies")).status_code == reads, role
            assert (await client.get("/v1/routings")).status_code == reads, role
            assert (await client.put("/v1/routings/ours", json={"routings": SAMPLE})).status_code == writes, role


async def test_a_comparison_reads_as_a_table_with_what_each_rule_did(db: Database, net: Net) -> None:
    await orders_of(db, net)
    await set_stock(db, sku="B", location="W1", quantity=1)
    await captured(db, order(net, "N9", ("A", 1), ("B", 1), promise_days=9))
    said = await brought(db, SAMPLE)
    assert said_lines(said) == ["mine: 2 routings with 6 rules are followed."]
    asked = await readied(
        db, msgspec.convert({"on": {"open": True}, "policies": [ENGINE, {"routings": "mine"}]}, Ask), now=NOW, seconds=2,
        seed=0,
    )  # fmt: skip
    lines = comparison_lines(await find(db, asked, now=NOW))
    assert lines[0].split() == ["engine", "routings", "mine"]
    assert "  Promised within two days › One place within 150 miles: 3 of 3 orders, 3 units" in lines
    assert "  Everything else › One place anywhere: 1 of 1 orders, 2 units" in lines
    drafts = draft_lines(await routings.drafted(db, code="mine"))
    assert drafts[0] == "mine-1:" and "  not carried over:" in drafts


def test_a_file_holds_routings_as_the_api_gave_them_or_with_names_beside(tmp_path: Path) -> None:
    bare, whole, names = (tmp_path / f"{n}.json" for n in ("bare", "whole", "names"))
    bare.write_text(json.dumps(SAMPLE))
    whole.write_text(json.dumps({"routings": [SAMPLE], "sequence": ["W1"]}))
    names.write_text(json.dumps({"group": {"STORES": "local"}}))
    assert read_import(str(bare), names=None).routings == SAMPLE
    read = read_import(str(whole), names=str(names))
    assert (read.sequence, read.names and read.names.group) == (("W1",), {"STORES": "local"})
    names.write_text(json.dumps({"grupo": {}}))
    with pytest.raises(BadInput, match="grupo"):
        read_import(str(bare), names=str(names))
    names.write_text("{")
    with pytest.raises(BadInput, match="a JSON file is expected"):
        read_import(str(bare), names=str(names))


def rule_of(*filters: dict[str, Any], **names: Any) -> tuple[Rule, list[str]]:
    """A rule of these filters in our words, and what is left out."""
    given = msgspec.convert({"routings": routing({"inventoryFilters": list(filters)}), "names": names}, routings.Import)
    read = routings.understood(given, [])
    return read.routings.routings[0].rules[0], read.left_out


def test_distances_are_miles_and_kilometers_where_the_rule_says_metric() -> None:
    far = where("distance", "less-equals", "100")
    assert rule_of(far)[0].miles_max == 100
    assert rule_of(far, where("measurementSystem", "equals", "metric"))[0].miles_max == pytest.approx(62.137, abs=0.001)
    below = rule_of(where("distance", "less", 100))[0].miles_max
    assert below is not None and 99.99 < below < 100


def test_what_must_be_there_is_at_least_or_more_than_a_number() -> None:
    assert rule_of(where("brokeringSafetyStock", "greater-equals", 3))[0].stock_min == 3
    assert rule_of(where("brokeringSafetyStock", "greater", "3"))[0].stock_min == 4
    assert rule_of(where("shipmentThreshold", "greater-equals", "49.99"))[0].value_cents_min == 4999


def test_what_a_legal_plan_never_does_is_told_as_left_out() -> None:
    beyond, split = where("ignoreFacilityOrderLimit", "equals", "Y"), where("splitOrderItemGroup", "equals", True)
    assert [s.split(" is to ")[1] for s in rule_of(beyond, split)[1]] == [
        "go beyond what locations may take: a legal plan never does",
        "split what belongs together: a legal plan never does",
    ]
    assert rule_of(where("ignoreFacilityOrderLimit", "equals", "N"))[1] == []


def test_rules_of_the_same_name_are_told_apart() -> None:
    made = routing({"ruleName": "near"}, {"ruleName": "near"}, {"ruleName": "near"})
    read = routings.understood(msgspec.convert({"routings": made}, routings.Import), [])
    assert [r.name for r in read.routings.routings[0].rules] == ["near", "near (2)", "near (3)"]


def test_groups_are_called_as_they_are_here() -> None:
    inside, outside = where("facilityGroupId", "in", "STORES,web"), where("facilityGroupId", "not-equals", "OUTLETS")
    rule = rule_of(inside, outside, group={"STORES": "local", "OUTLETS": "cheap"})[0]
    assert (rule.groups, rule.groups_not) == (("local", "web"), ("cheap",))
    with pytest.raises(BadInput, match="two filters name groups"):
        rule_of(inside, where("facilityGroupId", "equals", "web"))


async def test_a_place_that_the_rules_did_not_come_to_is_not_called_dearer(db: Database, net: Net) -> None:
    await orders_of(db, net, count=1)
    await set_stock(db, sku="A", location="W1", quantity=50)
    most = {"conditionTypeEnumId": "ENTCT_SORT_BY", "fieldName": "inventoryForAllocation"}
    await brought(db, routing({"inventoryFilters": [most]}))
    found = await tried(db, ENGINE, {"routings": "mine"}, open=True)
    assert found["moves"]["routings mine"]["why"] == {"the rules came to another place first": 1}
