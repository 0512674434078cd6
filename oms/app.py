"""The service: doors collected, keys checked before anything is read, refusals told as problem+json."""

import asyncio
import gc
import importlib
import os
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from litestar import Litestar, Request, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import LitestarDeprecationWarning
from litestar.handlers import BaseRouteHandler
from litestar.middleware import DefineMiddleware
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ASGIApp, Receive, Scope, Send

from oms import access, errors, fresh, logs, near, settle
from oms.api import PUBLIC, idempotency, problems
from oms.api.admission import CONNECTIONS_SHARE, LANES, Admission, Lane
from oms.api.explorer import Explorer
from oms.api.metrics import Measured, Measures
from oms.cache import Cache
from oms.db import LANE, START_SECONDS_MAX, Database
from oms.flows.promise import asked
from oms.settings import Settings

DOORS = (
    "atp",
    "promises",
    "enquiries",
    "aisle",
    "reservations",
    "orders",
    "updates",
    "posts",
    "fulfillments",
    "work",
    "collections",
    "fulfillers",
    "stock",
    "returns",
    "feeds",
    "runs",
    "what_if",
    "routings",
    "policies",
    "settlements",
    "exceptions",
    "network",
    "pushes",
    "health",
)

BODY_BYTES_MAX = 2_000_000
"""The largest body where a handler states no other limit; a larger one is answered 413."""


class RouteWithoutRoles(Exception):
    """A handler does not say who may call it: the service refuses to be built."""


def clock() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


def collect() -> list[Any]:
    """The handlers of all doors."""
    handlers: list[Any] = [*problems.routes]
    for name in DOORS:
        handlers += importlib.import_module(f"oms.api.{name}").routes
    return handlers


def check_roles(handlers: Sequence[Any]) -> None:
    """Raises RouteWithoutRoles unless each handler names roles that exist."""
    known = {*access.ROLES, *PUBLIC}
    for handler in handlers:
        roles = handler.opt.get("roles") if isinstance(handler, BaseRouteHandler) else None
        if not isinstance(roles, frozenset) or not roles or not roles <= known:
            raise RouteWithoutRoles(
                f"{handler} must state opt={{'roles': frozenset({{…}})}} of {', '.join(sorted(known))}"
            )


class Gate:
    """Who calls, and may they: asked before the body is read. Then the Idempotency-Key, where one is given."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self.app, self.state = app, state

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Passes what is allowed; raises Unauthenticated or NotAllowed."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        handler = scope["route_handler"]
        roles = handler.opt.get("roles", frozenset())
        if roles == PUBLIC:
            await self.app(scope, receive, send)
            return
        db: Database = self.state.db
        actor = await access.find(db, bearer_of(scope))
        if actor is None:
            raise errors.Unauthenticated("send a live key as `Authorization: Bearer cp_…`")
        if actor.role not in roles:
            raise errors.NotAllowed(f"a key of role {actor.role} may not do this")
        scope["state"]["actor"] = actor
        lane = lane_of(handler)
        if lane is None:
            await self._pass(actor, scope, receive, send)
            return
        with self.state.admission.admitted(lane):
            LANE.set(lane.name)
            await self._pass(actor, scope, receive, send)

    async def _pass(self, actor: access.Actor, scope: Any, receive: Receive, send: Send) -> None:
        db: Database = self.state.db
        key = None
        if scope["method"] == "POST" and scope["route_handler"].opt.get("idempotency") != "own":
            key = idempotency.key_of(scope)
        if key is None:
            await self.app(scope, receive, send)
            return
        assert actor.key_id is not None
        await idempotency.once(
            db=db, key_id=actor.key_id, key=key, app=self.app, scope=scope, receive=receive, send=send
        )


def lane_of(handler: Any) -> Lane | None:
    """The lane of a route, by its tag."""
    return next((LANES[tag] for tag in handler.tags or () if tag in LANES), None)


def bearer_of(scope: Scope) -> str:
    """The key in the Authorization header, or an empty text."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, key = value.decode("latin-1").partition(" ")
            return key.strip() if kind.lower() == "bearer" else ""
    return ""


def given(state: State) -> dict[str, Provide]:
    """What handlers are given, by name.

    Each asks for the one before it: resolved in a row they cost a third of what the framework's task group for
    independent ones does. Those that most handlers ask for come first.
    """

    def give_db() -> Database:
        db: Database = state.db
        return db

    def give_actor(request: Request[Any, Any, Any], db: Any) -> Any:
        return request.scope["state"].get("actor")

    def give_now(actor: Any) -> datetime:
        now: datetime = state.clock()
        return now

    def give_cache(now: Any) -> Cache:
        cache: Cache = state.cache
        return cache

    def give_settings(cache: Any) -> Settings:
        settings: Settings = state.settings
        return settings

    return {
        name: Provide(give, sync_to_thread=False)
        for name, give in (
            ("db", give_db), ("actor", give_actor), ("now", give_now), ("cache", give_cache),
            ("settings", give_settings),
        )
    }  # fmt: skip


GC_THRESHOLDS = (20_000, 50, 100)


def create_app(
    *,
    settings: Settings,
    db: Database | None = None,
    cache: Cache | None = None,
    clock: Callable[[], datetime] = clock,
    also: Sequence[Any] = (),
) -> Litestar:
    """The service. Where `db` and `cache` are not given, it opens those of the settings and closes them at its end.

    `also` are handlers beside the doors, held to the same rules.
    """
    handlers = [*collect(), *also]
    check_roles(handlers)
    measures = Measures()
    state = State(
        {"settings": settings, "db": db, "cache": cache, "clock": clock, "measures": measures, "admission": Admission()}
    )

    @asynccontextmanager
    async def opened(app: Litestar) -> AsyncIterator[None]:
        connections_max = settings.database_connections_max
        own_db = None
        if db is None:
            own_db = await Database.open(
                settings.database_url, connections_max=connections_max, lanes=CONNECTIONS_SHARE,
                patience_seconds=START_SECONDS_MAX,
            )  # fmt: skip
        own_cache = await Cache.open(settings.redis_url) if cache is None else None
        app.state.db, app.state.cache = own_db or db, own_cache or cache
        fresh.of(app.state.db)
        writing = asyncio.create_task(asked.follow(app.state.db), name="enquiries")
        memory = near.of(app.state.cache)
        memory.start()
        state.admission.start()
        try:
            yield
        finally:
            state.admission.stop()
            await memory.stop()
            await settle.close_all(app.state.db)
            writing.cancel()
            await asked.close(app.state.db)
            if own_cache is not None:
                await own_cache.close()
            if own_db is not None:
                await own_db.close()

    with warnings.catch_warnings():
        # its next major wants every parameter marked; we are pinned below it
        warnings.simplefilter("ignore", LitestarDeprecationWarning)
        return build(handlers, state=state, measures=measures, opened=opened)


def build(handlers: Sequence[Any], *, state: State, measures: Measures, opened: Any) -> Litestar:
    """Handlers, what they are given, and what stands before them."""
    return Litestar(
        list(handlers),
        state=state,
        lifespan=[opened],
        middleware=[DefineMiddleware(Measured, measures=measures), DefineMiddleware(Gate, state=state)],
        dependencies=given(state),
        exception_handlers=problems.HANDLERS,
        request_max_body_size=BODY_BYTES_MAX,
        openapi_config=OpenAPIConfig(
            title="Commonpool", version="1", path="/docs",
            description="Availability, reservations, orders, feeds. Errors are application/problem+json.",
            render_plugins=[Explorer(path="/"), JsonRenderPlugin(path="/openapi.json")],
            openapi_router=Router("/docs", route_handlers=[], opt={"roles": PUBLIC}),
            components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}),
            security=[{"key": []}], use_handler_docstrings=True,
        ),
        logging_config=None,
        debug=False,
    )  # fmt: skip


def from_environment(also: Sequence[Any] = ()) -> Litestar:
    """The service of this process's OMS_* variables: what a server process builds."""
    settings = Settings.read(os.environ)
    logs.configure(settings.log_level)
    app = create_app(settings=settings, also=also)
    # what stands now stands for good: looking through it again and again took a quarter of the time under load
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    return app
