"""The API's description as a page of our own: no script, no outside host."""

from html import escape
from typing import Any

import msgspec
from litestar import Request
from litestar.openapi.plugins import OpenAPIRenderPlugin

STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
details { border: 1px solid #8884; border-radius: 6px; margin: .4rem 0; padding: .3rem .8rem }
summary { cursor: pointer } code, pre { font: 13px/1.45 ui-monospace, monospace }
pre { overflow: auto; background: #8881; padding: .6rem; border-radius: 6px }
.m { display: inline-block; min-width: 4.2em; font-weight: 700 } .q { opacity: .7 }
td, th { text-align: left; padding: .1rem .8rem .1rem 0; vertical-align: top }
"""

METHODS = ("get", "post", "put", "patch", "delete")


class Explorer(OpenAPIRenderPlugin):
    """Lists every operation with its parameters, body and answers."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The page for a schema."""
        schemas = openapi_schema.get("components", {}).get("schemas", {})
        groups: dict[str, list[str]] = {}
        for path, methods in sorted(openapi_schema.get("paths", {}).items()):
            for method in METHODS:
                operation = methods.get(method)
                if operation and not path.startswith("/docs"):
                    tag = (operation.get("tags") or [path.strip("/").split("/")[-1 if path.count("/") < 2 else 1]])[0]
                    groups.setdefault(tag, []).append(_operation(path, method, operation, schemas))
        info = openapi_schema.get("info", {})
        parts = [
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
            f"<title>{escape(info.get('title', ''))} API</title><link rel=icon href='data:,'><style>{STYLE}</style>",
            f"<h1>{escape(info.get('title', ''))} API <span class=q>{escape(info.get('version', ''))}</span></h1>",
            f"<p>{escape(info.get('description') or '')}</p>",
            "<p>Send a key as <code>Authorization: Bearer cp_…</code>; every POST that changes something takes "
            "<code>Idempotency-Key</code>. As OpenAPI: <a href='/docs/openapi.json'>/docs/openapi.json</a>. "
            "Problem types: <a href='/problems'>/problems</a>.</p>",
        ]
        for tag, operations in sorted(groups.items()):
            parts.append(f"<h2>{escape(tag)}</h2>{''.join(operations)}")
        return "".join(parts).encode()


def _operation(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    text = operation.get("description") or operation.get("summary") or ""
    parts = [
        f"<details><summary><span class=m>{method.upper()}</span> <code>{escape(path)}</code> "
        f"<span class=q>{escape(text.splitlines()[0] if text else '')}</span></summary>"
    ]
    if len(text.splitlines()) > 1:
        parts.append(f"<p>{escape(text)}</p>")
    parameters = operation.get("parameters") or []
    if parameters:
        rows = "".join(
            f"<tr><td><code>{escape(p['name'])}</code><td>{escape(p['in'])}<td>{escape(_type(p.get('schema', {})))}"
            f"<td>{'required' if p.get('required') else ''}<td>{escape(p.get('description') or '')}"
            for p in parameters
        )
        parts.append(f"<table><tr><th>parameter<th>in<th>type<th><th>{rows}</table>")
    content = (operation.get("requestBody") or {}).get("content", {})
    for media, body in content.items():
        parts.append(f"<p>Body, {escape(media)}:</p><pre>{escape(_example(body.get('schema', {}), schemas))}</pre>")
    for status, response in (operation.get("responses") or {}).items():
        parts.append(f"<p><b>{escape(str(status))}</b> {escape(response.get('description') or '')}</p>")
        for media in (response.get("content") or {}).values():
            if str(status).startswith("2"):
                parts.append(f"<pre>{escape(_example(media.get('schema', {}), schemas))}</pre>")
    return "".join([*parts, "</details>"])


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if schema.get("oneOf"):
        return " or ".join(_type(option) for option in schema["oneOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items') or {})}"
    named = schema.get("format") or schema.get("type") or "any"
    return " or ".join(map(str, named)) if isinstance(named, list) else str(named)


def _shape(schema: dict[str, Any], schemas: dict[str, Any], depth: int) -> Any:
    if depth > 5:
        return "…"
    if "$ref" in schema:
        return _shape(schemas.get(str(schema["$ref"]).rsplit("/", 1)[-1], {}), schemas, depth + 1)
    for union in ("oneOf", "anyOf"):
        if schema.get(union):
            real = [option for option in schema[union] if option.get("type") != "null"] or schema[union]
            return _shape(real[0], schemas, depth + 1)
    if schema.get("type") == "array":
        return [_shape(schema.get("items") or {}, schemas, depth + 1)]
    if schema.get("properties"):
        return {name: _shape(part, schemas, depth + 1) for name, part in schema["properties"].items()}
    return _type(schema)


def _example(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(_shape(schema, schemas, 0)), indent=2).decode()
