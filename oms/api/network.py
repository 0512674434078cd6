"""GET and PUT of the network's objects, and what became of each."""

from datetime import datetime
from typing import Annotated, Any

from litestar import get, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter

from oms.access import ROLES, Actor
from oms.api.paging import PAGE_MAX, Page, read_cursor, write_cursor
from oms.cache import Cache
from oms.db import Database
from oms.domain.network import KINDS
from oms.errors import BadInput, NotAllowed
from oms.flows import network
from oms.record import PastStep

READERS = frozenset({"planner", "operator", "approver", "admin"})
SEEN = frozenset(ROLES)
WRITERS = frozenset({"admin"})
BODY_BYTES_MAX = 20_000_000
ROWS_MAX = 50_000
REFUSED_SHOWN_MAX = 1_000

OPEN_TO_ALL = ("locations", "channels", "sources", "skus")
"""Kinds that every role may read, each as far as its key sees."""
NO_CODE_PATH = ("units", "sku_aliases", "location_aliases", "incoming", "stock_owners", "listeners")
"""Kinds that are named by more than a code: they are listed and put as lists."""

Limit = Annotated[int, QueryParameter(ge=1, le=PAGE_MAX, description="Items of a page.")]
Cursor = Annotated[str | None, QueryParameter(max_length=1000, description="`next` of the page before.")]


async def change(
    db: Database, cache: Cache, *, kind: str, rows: list[dict[str, Any]], actor: Actor, now: datetime
) -> dict[str, int]:
    """Loads rows; BadInput with one item per fault where any is refused, and then nothing was applied."""
    if actor.is_bound:
        raise NotAllowed("this key is bound to a part of the network; the network is changed by an unbound one")
    if len(rows) > ROWS_MAX:
        raise BadInput(f"{len(rows)} rows at once are too many; at most {ROWS_MAX}, or use `oms load`")
    loaded = await network.load(db, cache=cache, kind=kind, rows=rows, who=actor.who, now=now)
    if loaded.refused:
        items: list[dict[str, Any]] = [
            {"row": fault.row, "field": fault.field, "reason": fault.reason}
            for fault in loaded.refused[:REFUSED_SHOWN_MAX]
        ]
        rows_refused = len({fault.row for fault in loaded.refused})
        raise BadInput(f"{rows_refused} of {len(rows)} rows are refused; nothing was applied", items=items)
    return {"created": loaded.created, "changed": loaded.changed, "unchanged": loaded.unchanged}


def doors_of(kind: str) -> list[HTTPRouteHandler]:
    """The handlers of one kind."""
    path = f"/v1/{kind.replace('_', '-')}"
    name = KINDS[kind].one
    readers = SEEN if kind in OPEN_TO_ALL else READERS

    @get(path, opt={"roles": readers}, tags=["network"], name=f"list_{kind}", summary=f"List {kind}",
         description=f"Each {name} that the key may see, in order of code.")  # fmt: skip
    async def list_them(
        *, db: Database, actor: Actor, code: list[str] | None = None, cursor: Cursor = None, limit: Limit = 100
    ) -> Page[dict[str, Any]]:
        after = read_cursor(cursor, str) or ""
        page = await network.listed(db, actor=actor, kind=kind, codes=code, after=after, limit=limit)
        return Page(items=page.items, next=None if page.next is None else write_cursor(page.next))

    @put(path, opt={"roles": WRITERS}, tags=["network"], name=f"put_{kind}", summary=f"Load {kind}",
         request_max_body_size=BODY_BYTES_MAX,
         description="Creates and changes; a column that is not given keeps what is there. If one row is refused, "
         "nothing is applied.")  # fmt: skip
    async def put_them(
        *, db: Database, cache: Cache, actor: Actor, now: datetime, data: list[dict[str, Any]]
    ) -> dict[str, int]:
        return await change(db, cache, kind=kind, rows=data, actor=actor, now=now)

    if kind in NO_CODE_PATH:
        return [list_them, put_them]

    @get(path + "/{code:str}", opt={"roles": readers}, tags=["network"], name=f"get_{kind}", summary=f"One {name}")
    async def get_one(*, db: Database, actor: Actor, code: str) -> dict[str, Any]:
        return await network.show(db, actor=actor, kind=kind, code=code)

    @put(path + "/{code:str}", opt={"roles": WRITERS}, tags=["network"], name=f"put_one_{kind}",
         summary=f"Create or change one {name}")  # fmt: skip
    async def put_one(
        *, db: Database, cache: Cache, actor: Actor, now: datetime, code: str, data: dict[str, Any]
    ) -> dict[str, Any]:
        key = KINDS[kind].key[0]
        if data.setdefault(key, code) != code:
            raise BadInput(f"{key}: the body says {data[key]!r} and the address {code!r}")
        await change(db, cache, kind=kind, rows=[data], actor=actor, now=now)
        return await network.show(db, actor=actor, kind=kind, code=code)

    @get(path + "/{code:str}/history", opt={"roles": READERS}, tags=["network"], name=f"history_{kind}",
         summary=f"What became of one {name}: when, who, before and after")  # fmt: skip
    async def get_history(
        *, db: Database, actor: Actor, code: str, cursor: Cursor = None, limit: Limit = 100
    ) -> Page[PastStep]:
        after = read_cursor(cursor, int) or 0
        steps = await network.past(db, actor=actor, kind=kind, code=code, after=after, limit=limit + 1)
        more = len(steps) > limit
        return Page(items=steps[:limit], next=write_cursor(steps[limit - 1].history_id) if more else None)

    return [list_them, put_them, get_one, put_one, get_history]


routes: list[Any] = [handler for kind in KINDS for handler in doors_of(kind)]
