"""Idempotency-Key: the same key with the same body gets the first answer again, with another body 422.

The answer is stored before it is sent. An answer that says "try again" (5xx, 429) is not kept. A handler that
stores its own answer in the transaction of its act says so by `opt={"idempotency": "own"}`; one whose body is a
stream says `opt={"stream": True}`: its body is hashed while it is read, never kept; an answer that was given
before the whole body was read is not kept either.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from litestar.exceptions import ClientException
from litestar.types import Message, Receive, Scope, Send

from oms.db import Database, Sql
from oms.errors import BadInput, Conflict, KeyReused

sql = Sql("idempotency")

KEY_CHARACTERS_MAX = 200


class _Stored(msgspec.Struct, frozen=True):
    status: int
    hash: bytes
    body: bytes


claim = sql.run("claim")
stored_answer = sql.maybe("stored_answer", _Stored)
store_answer = sql.run("store_answer")
give_up_claim = sql.run("give_up_claim")


def key_of(scope: Scope) -> str | None:
    """The request's Idempotency-Key, or None; BadInput where it is not 1 to 200 printable ASCII characters."""
    given = [value for name, value in scope["headers"] if name == b"idempotency-key"]
    if not given:
        return None
    key = given[0].decode("latin-1").strip()
    if len(given) > 1 or not 1 <= len(key) <= KEY_CHARACTERS_MAX or not key.isascii() or not key.isprintable():
        raise BadInput(f"Idempotency-Key must stand once, with 1 to {KEY_CHARACTERS_MAX} printable ASCII characters")
    return key


def start_hash(method: str, path: str, query: bytes = b"") -> "hashlib._Hash":
    """A SHA-256 that has read the method, the path and the query; feed it the body."""
    digest = hashlib.sha256()
    for part in (method.encode(), path.encode(), query):
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest


def request_hash(method: str, path: str, body: bytes, query: bytes = b"") -> bytes:
    """What makes two requests the same."""
    digest = start_hash(method, path, query)
    digest.update(body)
    return digest.digest()


async def once(
    *,
    db: Database,
    key_id: int,
    key: str,
    app: Callable[[Scope, Receive, Send], Awaitable[None]],
    scope: Any,
    receive: Receive,
    send: Send,
) -> None:
    """Runs the request under its key, or repeats the answer that it got the first time."""
    handler: Any = scope["route_handler"]
    limit = handler.resolve_request_max_body_size()
    digest = start_hash(str(scope["method"]), scope["path"], scope["query_string"])
    body: bytes | None = None
    if not handler.opt.get("stream"):
        body = await _read(receive, limit)
        digest.update(body)

    async with db.connection() as connection:
        is_first = await claim(connection, key_id=key_id, key=key) > 0
        stored = None if is_first else await stored_answer(connection, key_id=key_id, key=key)
    if not is_first:
        if stored is None or stored.status == 0:
            raise Conflict("a request with this Idempotency-Key is still under way; repeat it in a moment")
        if body is None:
            await _drain(receive, digest)
        if stored.hash != digest.digest():
            raise KeyReused("this Idempotency-Key came before with another body; use a new key for a new request")
        await _send_answer(send, stored.status, stored.body)
        return

    messages: list[Any] = []

    async def hold_back(message: Message) -> None:
        messages.append(message)

    async def read_again() -> Any:
        nonlocal body
        if body is not None:
            whole, body = body, None
            return {"type": "http.request", "body": whole, "more_body": False}
        return await receive()

    is_read = body is not None

    async def read_hashing() -> Any:
        nonlocal is_read
        message: Any = await receive()
        if message["type"] == "http.request":
            digest.update(message.get("body", b""))
            is_read = not message.get("more_body", False)
        return message

    answered = False
    try:
        await app(scope, read_hashing if body is None else read_again, hold_back)
        status = next((m["status"] for m in messages if m["type"] == "http.response.start"), 500)
        whole_answer = b"".join(m.get("body", b"") for m in messages if m["type"] == "http.response.body")
        if status < 500 and status != 429 and is_read:
            async with db.connection() as connection:
                await store_answer(
                    connection, key_id=key_id, key=key, hash=digest.digest(), status=status, body=whole_answer
                )
            answered = True
    finally:
        if not answered:
            async with db.connection() as connection:
                await give_up_claim(connection, key_id=key_id, key=key)
    for message in messages:
        await send(message)


async def _read(receive: Receive, limit: int | None) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            raise ClientException("the body ended before its end")
        part = message.get("body", b"")
        size += len(part)
        if limit is not None and size > limit:
            raise ClientException(f"the body is larger than {limit} bytes", status_code=413)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _drain(receive: Receive, digest: "hashlib._Hash") -> None:
    done = False
    while not done:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            return
        digest.update(message.get("body", b""))
        done = not message.get("more_body", False)


async def _send_answer(send: Send, status: int, body: bytes) -> None:
    media_type = b"application/problem+json" if status >= 400 else b"application/json"
    headers = [(b"content-length", str(len(body)).encode()), (b"idempotent-replayed", b"true")]
    if body:
        headers.append((b"content-type", media_type))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
