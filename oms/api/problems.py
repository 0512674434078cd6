"""Every "no" as application/problem+json (RFC 9457); a failure of ours never tells its text."""

from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import structlog
from litestar import Request, Response, get
from litestar.exceptions import HTTPException, ValidationException

from oms import errors
from oms.api import PUBLIC

log = structlog.get_logger(__name__)

STATUS: dict[type[errors.Refusal], int] = {
    errors.Refusal: 409,
    errors.BadInput: 400,
    errors.Unauthenticated: 401,
    errors.NotAllowed: 403,
    errors.NotFound: 404,
    errors.OutOfStock: 409,
    errors.Conflict: 409,
    errors.KeyReused: 422,
    errors.FeedRefused: 422,
    errors.Busy: 503,
}
"""The HTTP status of each refusal; known here alone."""

OTHER = {
    400: ("bad-input", "The input is not valid"),
    401: ("unauthenticated", "A valid API key is needed"),
    403: ("not-allowed", "Not allowed"),
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "This address does not take this method"),
    413: ("too-large", "The body is too large"),
    415: ("unsupported-media-type", "This content type is not understood here"),
    429: ("busy", "Busy, try again shortly"),
    500: ("failed", "It failed on our side"),
    503: ("unavailable", "A part of the system is not reachable, try again shortly"),
}
"""Problems that no refusal names: status to (type, title)."""

UNREACHABLE = (OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError)


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong, where, and what to do."""

    type: str
    title: str
    status: int
    detail: str
    items: list[dict[str, Any]] = []


def status_of(refusal: errors.Refusal) -> int:
    """The status of a refusal: its own, or that of the nearest ancestor that has one."""
    return next(STATUS[kind] for kind in type(refusal).__mro__ if kind in STATUS)


def answer(
    *, status: int, type: str, title: str, detail: str, headers: dict[str, str] | None = None, **more: Any
) -> Response[bytes]:
    """A problem as a response; `type` is stable and can be looked up at /problems."""
    body = {"type": f"/problems/{type}", "title": title, "status": status, "detail": detail, **more}
    return Response(
        msgspec.json.encode(body), status_code=status, media_type="application/problem+json", headers=headers or {}
    )


def refused(_: Request[Any, Any, Any], refusal: errors.Refusal) -> Response[bytes]:
    """A named refusal."""
    status = status_of(refusal)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        headers["Retry-After"] = str(max(1, round(refusal.extra.get("retry_after_seconds", 1))))
    more: dict[str, Any] = {**refusal.extra}
    if refusal.items:
        more["items"] = refusal.items
    more = {name: value for name, value in more.items() if name not in ("type", "title", "status", "detail")}
    return answer(status=status, type=refusal.type, title=refusal.title, detail=refusal.detail, headers=headers, **more)


def not_understood(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What the framework refuses: unknown addresses, methods, sizes, and input that does not fit, field by field."""
    status = error.status_code
    if status >= 500:
        return failed(_, error)
    kind, title = OTHER.get(status, OTHER[400])
    if isinstance(error, ValidationException):
        items = [
            {"field": str(part.get("key") or part.get("source") or ""), "reason": str(part.get("message", ""))}
            for part in (error.extra if isinstance(error.extra, list) else [])
            if isinstance(part, dict)
        ]
        detail = "; ".join(f"{item['field'] or 'body'}: {item['reason']}" for item in items) or error.detail
        return answer(status=status, type=kind, title=title, detail=detail, items=items)
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() in ("allow", "retry-after")}
    return answer(status=status, type=kind, title=title, detail=error.detail or title, headers=headers)


def not_storable(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A value that the database cannot hold (a zero byte, a number too large): input, not a failure."""
    log.info("value_not_storable", error=type(error).__name__)
    kind, title = OTHER[400]
    return answer(
        status=400, type=kind, title=title,
        detail="A value cannot be stored: a number is out of range or a text holds a character that is not allowed.",
    )  # fmt: skip


def too_deep(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """JSON nested deeper than anything that we ask for."""
    kind, title = OTHER[400]
    return answer(status=400, type=kind, title=title, detail="The body is nested too deeply.")


def unreachable(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """PostgreSQL is away: nothing was granted, try again."""
    log.warning("unreachable", error=type(error).__name__)
    kind, title = OTHER[503]
    return answer(
        status=503, type=kind, title=title, headers={"Retry-After": "1"},
        detail="The outcome is not known. Repeat the request with the same Idempotency-Key.",
    )  # fmt: skip


def failed(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A bug: logged under an id, and only the id is told."""
    incident = str(uuid4())
    log.error("failed", incident=incident, path=request.scope.get("path_template"), exc_info=error)
    kind, title = OTHER[500]
    return answer(status=500, type=kind, title=title, detail=f"It is logged as {incident}.", incident=incident)


HANDLERS: dict[Any, Any] = {
    errors.Refusal: refused,
    HTTPException: not_understood,
    asyncpg.DataError: not_storable,
    UnicodeError: not_storable,
    RecursionError: too_deep,
    Exception: failed,
    **dict.fromkeys(UNREACHABLE, unreachable),
}


@get("/problems", opt={"roles": PUBLIC}, tags=["health"])
async def problems() -> dict[str, str]:
    """What each problem type means."""
    named = {kind.type: (kind.__doc__ or kind.title).splitlines()[0] for kind in STATUS}
    return {f"/problems/{name}": text for name, text in ({t: title for t, title in OTHER.values()} | named).items()}


routes: list[Any] = [problems]
