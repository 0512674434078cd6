"""Who may do what: every role at every route, made from the route table; and how a "no" is told."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import msgspec
import pytest
from litestar import Litestar, Request, get, post
from litestar.routes import HTTPRoute

from oms import access
from oms.api import PUBLIC
from oms.app import RouteWithoutRoles, check_roles, create_app
from oms.cache import Cache
from oms.db import Database
from oms.embedded import Running
from oms.record import Trouble, raise_exceptions
from oms.settings import Settings
from tests.world import bearer, make_key, small_network

BOUND: dict[str, dict[str, str]] = {
    "storefront": {"channel": "web"},
    "associate": {"location": "S1"},
    "integrator": {"source": "erp"},
    "planner": {},
    "operator": {},
    "approver": {"person": "ann"},
    "admin": {"person": "bob"},
}
PATH_VALUES = {"uuid": str(uuid4()), "int": "999999", "str": "A", "path": "x"}


@pytest.fixture(scope="module")
async def db(servers: Running, template: str) -> AsyncIterator[Database]:
    """One database for this file, with the small network: its tests leave each other's keys and objects alone."""
    name = f"test_access_{os.getpid()}"
    connection = await asyncpg.connect(servers.database_url)
    await connection.execute(f"create database {name} template {template} strategy file_copy")
    database = await Database.open(servers.database_url.replace("/postgres?", f"/{name}?"))
    await small_network(database)
    yield database
    await database.close()
    await connection.execute(f"drop database {name} with (force)")
    await connection.close()


@pytest.fixture(scope="module")
async def app(db: Database, servers: Running) -> AsyncIterator[Litestar]:
    cache = await Cache.open(servers.redis_url)
    app = create_app(settings=Settings(), db=db, cache=cache)
    counter = Counter()
    app.state.counter = counter
    for handler in (*counter.handlers(), broken):
        app.register(handler)
    yield app
    await cache.close()


@get("/test/broken", opt={"roles": frozenset({"admin"})})
async def broken() -> None:
    """A bug."""
    raise RuntimeError("password=hunter2")


@pytest.fixture
def key() -> str:
    """An Idempotency-Key of its own."""
    return str(uuid4())


@pytest.fixture
async def http(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://oms.test") as client:
        yield client


def calls(app: Litestar) -> list[tuple[str, str, frozenset[str]]]:
    """Every (method, address, roles) of the route table, path parameters filled in."""
    found = []
    for route in app.routes:
        if not isinstance(route, HTTPRoute) or route.path.startswith("/test/"):
            continue
        address = "".join(
            f"/{PATH_VALUES[part.type.__name__.lower().replace('path', 'str')]}" if not isinstance(part, str)
            else f"/{part}" for part in route.path_components
        )  # fmt: skip
        for handler in route.route_handlers:
            found += [(method, address, handler.opt["roles"]) for method in handler.http_methods if method != "OPTIONS"]
    return found


async def test_no_route_answers_without_a_key_that_does_not_say_so(app: Litestar, http: httpx.AsyncClient) -> None:
    listed = calls(app)
    assert len(listed) > 40
    for method, address, roles in listed:
        answer = await http.request(method, address, json={})
        if roles == PUBLIC:
            assert answer.status_code < 500, (method, address, answer.text)
        else:
            assert answer.status_code == 401, (method, address, answer.text)
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("role", access.ROLES)
async def test_a_key_without_the_right_is_refused_at_every_route_and_one_with_it_meets_no_failure(
    db: Database, app: Litestar, http: httpx.AsyncClient, role: str
) -> None:
    headers = bearer(await make_key(db, role, **BOUND[role]))
    for method, address, roles in calls(app):
        for body in ({}, []):
            answer = await http.request(method, address, json=body, headers=headers)
            said = (role, method, address, answer.status_code, answer.text)
            if roles != PUBLIC and role not in roles:
                assert answer.status_code == 403, said
            else:
                assert answer.status_code < 500 and answer.status_code != 401, said
            if answer.status_code >= 400 and not address.startswith("/docs"):
                assert answer.headers["content-type"].startswith("application/problem+json"), said


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer cp_", "Bearer cp_nobody", "Basic cp_x", "Bearer " + "cp_" + "x" * 5000]
)
async def test_a_key_that_is_none_opens_nothing(http: httpx.AsyncClient, header: str) -> None:
    answer = await http.get("/v1/locations", headers={"Authorization": header})
    assert answer.status_code == 401


async def test_an_ended_key_opens_nothing(db: Database, http: httpx.AsyncClient) -> None:
    key = await make_key(db, "admin")
    assert (await http.get("/v1/locations", headers=bearer(key))).status_code == 200
    async with db.transaction() as tx:
        await access.end_key(tx, prefix=key[:11], who="ann")
    assert (await http.get("/v1/locations", headers=bearer(key))).status_code == 401


async def test_a_key_is_kept_nowhere_as_text(db: Database) -> None:
    key = await make_key(db, "admin")
    async with db.connection() as connection:
        kept = str(await connection.fetch("select * from api_key")) + str(await connection.fetch("table history"))
    assert key not in kept
    assert key[11:] not in kept


def test_a_handler_that_names_no_roles_does_not_build() -> None:
    @get("/open")
    async def forgotten() -> None:
        """A door that somebody forgot to lock."""

    @get("/open", opt={"roles": frozenset({"king"})})
    async def unknown() -> None:
        """A role that nobody has."""

    for handler in (forgotten, unknown):
        with pytest.raises(RouteWithoutRoles):
            check_roles([handler])


@pytest.mark.parametrize(
    ("role", "kind", "own", "foreign"),
    [
        ("storefront", "channels", "web", "local"),
        ("storefront", "locations", "W1", "S2"),
        ("associate", "locations", "S1", "S2"),
        ("integrator", "sources", "erp", "pos"),
    ],
)
async def test_what_is_not_theirs_is_not_there(
    *, db: Database, http: httpx.AsyncClient, role: str, kind: str, own: str, foreign: str
) -> None:
    headers = bearer(await make_key(db, role, **BOUND[role]))
    assert (await http.get(f"/v1/{kind}/{own}", headers=headers)).status_code == 200
    hidden = await http.get(f"/v1/{kind}/{foreign}", headers=headers)
    nothing = await http.get(f"/v1/{kind}/nothing", headers=headers)
    assert hidden.status_code == nothing.status_code == 404
    assert hidden.text == nothing.text.replace("nothing", foreign)
    codes = {item["code"] for item in (await http.get(f"/v1/{kind}", headers=headers)).json()["items"]}
    assert own in codes
    assert foreign not in codes


async def test_an_approver_of_a_location_sees_the_exceptions_of_that_location_only(
    db: Database, http: httpx.AsyncClient
) -> None:
    async with db.transaction() as tx:
        ids = await raise_exceptions(
            tx, [Trouble("negative_stock", f"A at {code}", "look", payload={"location": code}) for code in ("S1", "S2")]
        )
    theirs, other = ids["negative_stock", "A at S1"], ids["negative_stock", "A at S2"]
    headers = bearer(await make_key(db, "approver", location="S1", person="ann"))
    assert [item["id"] for item in (await http.get("/v1/exceptions", headers=headers)).json()["items"]] == [str(theirs)]
    for address in (f"/v1/exceptions/{other}", f"/v1/exceptions/{other}/resolve"):
        method = "POST" if address.endswith("resolve") else "GET"
        body = {"why": "x"} if method == "POST" else None
        assert (await http.request(method, address, json=body, headers=headers)).status_code == 404


async def test_a_bound_admin_does_not_change_the_network(db: Database, http: httpx.AsyncClient) -> None:
    headers = bearer(await make_key(db, "admin", location="S1"))
    answer = await http.put("/v1/locations/S1", json={"name": "mine"}, headers=headers)
    assert answer.status_code == 403


# how a "no" is told


@pytest.fixture
async def admin(db: Database) -> dict[str, str]:
    return bearer(await make_key(db, "admin", person="ann"))


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"{", None),
        (b"", None),
        (b"\xff\xfe", None),
        (b'"text"', None),
        (b"[1]", None),
        (b"[" * 100_000, None),
        (b'[{"code": 1}]', "code"),
        (b'[{"code": "X", "kind": "store", "name": "a\\u0000b"}]', "name"),
        (b'[{"code": "X", "kind": "store", "safety_stock": 99999999999999999999}]', "safety_stock"),
        (b'[{"code": "X", "kind": "store", "lat": 1e999}]', None),
        (b'[{"code": "X", "kind": "store", "color": "red"}]', "color"),
    ],
)
async def test_bad_input_is_told_with_its_place_and_is_never_a_failure_of_ours(
    http: httpx.AsyncClient, admin: dict[str, str], content: bytes, field: str | None
) -> None:
    answer = await http.put(
        "/v1/locations", content=content, headers={**admin, "content-type": "application/json"}
    )  # fmt: skip
    assert answer.status_code == 400, answer.text
    body = answer.json()
    assert body["type"] == "/problems/bad-input"
    if field is not None:
        assert body["items"][0]["field"] == field, body
        assert body["items"][0]["row"] == 1


@pytest.mark.parametrize(
    "query", ["cursor=%00", "cursor=!!", "limit=0", "limit=501", "limit=x", "code=%00", "code=%ff"]
)
async def test_bad_queries_are_told(http: httpx.AsyncClient, admin: dict[str, str], query: str) -> None:
    answer = await http.get(f"/v1/skus?{query}", headers=admin)
    assert answer.status_code in (200, 400), answer.text
    if "code" not in query:
        assert answer.status_code == 400, answer.text


async def test_a_body_over_the_limit_is_refused_before_it_is_read_whole(
    http: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    for extra in ({}, {"Idempotency-Key": "k"}):
        answer = await http.post(
            f"/v1/exceptions/{uuid4()}/resolve", content=b'{"why":"' + b"x" * 2_100_000 + b'"}',
            headers={**admin, **extra, "content-type": "application/json"},
        )  # fmt: skip
        assert answer.status_code == 413, answer.text
        assert answer.json()["type"] == "/problems/too-large"


async def test_unknown_addresses_and_methods_are_problems_too(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/nothing")).json()["type"] == "/problems/not-found"
    assert (await http.delete("/health/live")).json()["type"] == "/problems/method-not-allowed"


async def test_a_failure_tells_an_id_and_nothing_of_itself(
    app: Litestar, http: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    answer = await http.get("/test/broken", headers=admin)
    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    assert answer.json()["incident"] in answer.json()["detail"]


async def test_every_problem_type_can_be_looked_up(http: httpx.AsyncClient) -> None:
    known = (await http.get("/problems")).json()
    assert {"/problems/out-of-stock", "/problems/not-found", "/problems/idempotency-key-reused"} <= known.keys()


# Idempotency-Key


class Counter:
    """A door that counts how often it was really opened."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> "Counter":
        """Counts from nothing."""
        self.count = 0
        self.begun = asyncio.Event()
        self.wait: asyncio.Event | None = None
        return self

    def handlers(self) -> list[Any]:
        """The doors that are counted."""
        counter = self

        @post("/test/count", opt={"roles": frozenset({"admin", "operator"})})
        async def count(data: dict[str, Any]) -> dict[str, Any]:
            counter.count += 1
            counter.begun.set()
            if counter.wait is not None:
                await counter.wait.wait()
            if data.get("fail"):
                raise RuntimeError("broken")
            return {"count": counter.count, **data}

        @post("/test/stream", opt={"roles": frozenset({"admin"}), "stream": True}, request_max_body_size=None)
        async def stream(request: Request[Any, Any, Any]) -> dict[str, int]:
            counter.count += 1
            size = 0
            async for part in request.stream():
                size += len(part)
            return {"count": counter.count, "size": size}

        return [count, stream]


async def test_the_same_key_with_the_same_body_gets_the_first_answer(
    app: Litestar, http: httpx.AsyncClient, admin: dict[str, str], key: str
) -> None:
    counter = app.state.counter.start()
    headers = {**admin, "Idempotency-Key": key}
    first = await http.post("/test/count", json={"a": 1}, headers=headers)
    again = await http.post("/test/count", json={"a": 1}, headers=headers)
    assert (first.status_code, first.json()) == (again.status_code, again.json()) == (201, {"count": 1, "a": 1})
    assert again.headers["idempotent-replayed"] == "true"
    assert counter.count == 1


async def test_the_same_key_with_another_body_is_refused(
    app: Litestar, http: httpx.AsyncClient, admin: dict[str, str], key: str
) -> None:
    counter = app.state.counter.start()
    headers = {**admin, "Idempotency-Key": key}
    await http.post("/test/count", json={"a": 1}, headers=headers)
    other = await http.post("/test/count", json={"a": 2}, headers=headers)
    assert other.status_code == 422
    assert other.json()["type"] == "/problems/idempotency-key-reused"
    assert counter.count == 1


async def test_two_callers_may_use_the_same_key(
    db: Database, app: Litestar, http: httpx.AsyncClient, admin: dict[str, str], key: str
) -> None:
    counter = app.state.counter.start()
    operator = bearer(await make_key(db, "operator"))
    for caller in (admin, operator):
        await http.post("/test/count", json={}, headers={**caller, "Idempotency-Key": key})
    assert counter.count == 2


async def test_a_failure_is_not_remembered(
    app: Litestar, http: httpx.AsyncClient, admin: dict[str, str], key: str
) -> None:
    counter = app.state.counter.start()
    headers = {**admin, "Idempotency-Key": key}
    for _ in range(2):
        assert (await http.post("/test/count", json={"fail": True}, headers=headers)).status_code == 500
    assert counter.count == 2


async def test_a_refusal_is_remembered(app: Litestar, http: httpx.AsyncClient, admin: dict[str, str], key: str) -> None:
    counter = app.state.counter.start()
    headers = {**admin, "Idempotency-Key": key}
    first = await http.post("/test/count", content=b"[]", headers=headers)
    again = await http.post("/test/count", content=b"[]", headers=headers)
    assert first.status_code == again.status_code == 400
    assert first.json() == again.json()
    assert again.headers["content-type"].startswith("application/problem+json")
    assert counter.count == 0


async def test_a_request_that_is_under_way_is_not_done_twice(
    app: Litestar, http: httpx.AsyncClient, admin: dict[str, str], key: str
) -> None:
    counter = app.state.counter.start()
    counter.wait = asyncio.Event()
    headers = {**admin, "Idempotency-Key": key}
    first = asyncio.create_task(http.post("/test/count", json={}, headers=headers))
    await counter.begun.wait()
    assert (await http.post("/test/count", json={}, headers=headers)).status_code == 409
    counter.wait.set()
    assert (await first).status_code == 201
    assert counter.count == 1


async def test_a_stream_is_done_once_and_compared_without_being_kept(
    app: Litestar, http: httpx.AsyncClient, admin: dict[str, str], key: str
) -> None:
    app.state.counter.start()
    headers = {**admin, "Idempotency-Key": key}
    answers = [
        await http.post("/test/stream", content=content, headers=headers)
        for content in (b"x" * 300_000, b"x" * 300_000, b"y" * 300_000)
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 422]
    assert answers[0].json() == answers[1].json() == {"count": 1, "size": 300_000}


@pytest.mark.parametrize("key", ["", " ", "x" * 201, "é"])
async def test_a_key_that_cannot_be_kept_is_refused(
    app: Litestar, http: httpx.AsyncClient, admin: dict[str, str], key: str
) -> None:
    app.state.counter.start()
    headers: list[tuple[bytes, bytes]] = [(b"Idempotency-Key", key.encode())]
    headers += [(name.encode(), value.encode()) for name, value in admin.items()]
    assert (await http.post("/test/count", json={}, headers=headers)).status_code == 400


# lists, history, health, description


async def test_lists_are_paged_by_cursor_without_gap_or_double(
    db: Database, http: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    seen: list[str] = []
    cursor = None
    while True:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await http.get("/v1/skus", params=query, headers=admin)).json()
        seen += [item["code"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == ["A", "B", "C", "D", "E"]


async def test_a_change_over_the_api_is_in_its_history_under_the_persons_name(
    db: Database, http: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    assert (await http.put("/v1/locations/S1", json={"name": "Broadway"}, headers=admin)).json()["name"] == "Broadway"
    (step,) = (await http.get("/v1/locations/S1/history", headers=admin)).json()["items"]
    assert (step["who"], step["step"]) == ("ann", "changed")
    assert step["detail"] == {"before": {"name": "S1"}, "after": {"name": "Broadway"}}


async def test_a_code_in_the_body_that_is_not_the_addresss_is_refused(
    db: Database, http: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    answer = await http.put("/v1/locations/S1", json={"code": "S2", "name": "x"}, headers=admin)
    assert answer.status_code == 400


async def test_ready_says_which_part_is_away(db: Database, http: httpx.AsyncClient) -> None:
    assert (await http.get("/health/ready")).json()["ready"] is True
    async with db.transaction() as tx:
        await tx.execute("delete from migration where name like '0003%'")
    answer = await http.get("/health/ready")
    assert answer.status_code == 503
    assert "0003" in answer.json()["migrations"]


async def test_the_service_opens_its_own_servers_and_closes_them_at_its_end(settings: Settings) -> None:
    app = create_app(settings=settings)
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://oms.test") as client:
        ready = (await client.get("/health/ready")).json()
        assert ready == {"ready": True, "database": "ok", "migrations": "ok", "redis": "ok"}
    assert app.state.db.pool.is_closing()


async def test_without_redis_the_service_is_ready_and_says_that_it_is_slower(settings: Settings) -> None:
    app = create_app(settings=msgspec.structs.replace(settings, redis_url="redis://127.0.0.1:1"))
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://oms.test") as client:
        answer = await client.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["redis"] != "ok"


async def test_metrics_count_by_route_and_not_by_address(
    db: Database, http: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    for code in ("S1", "S2", "nothing"):
        await http.get(f"/v1/locations/{code}", headers=admin)
    text = (await http.get("/metrics")).text
    for status in ("200", "404"):
        assert f'oms_requests_total{{method="GET",route="/v1/locations/{{code}}",status="{status}"}}' in text
    assert "/v1/locations/S1" not in text
    assert "oms_exceptions_open " in text


async def test_the_description_lists_every_operation_and_calls_no_outside_host(
    app: Litestar, http: httpx.AsyncClient
) -> None:
    page = (await http.get("/docs")).text
    assert "http://" not in page and "https://" not in page and "<script" not in page
    paths = (await http.get("/docs/openapi.json")).json()["paths"]
    assert "/v1/locations" in paths
    for path in (path for path in paths if not path.startswith("/docs")):
        assert f"<code>{path}</code>" in page
