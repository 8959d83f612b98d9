"""/openapi.json, and /docs, which shows it as HTML that needs no script and nothing from elsewhere."""

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.web.browsers import PAGE_HEADERS
from serving.web.compression import compress
from serving.web.openapi.document import openapi_document
from serving.web.openapi.reasons import REASONS

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h2 { margin-top: 2.5rem; }
h3 { margin: 2rem 0 0; overflow-wrap: anywhere; }
.method { text-transform: uppercase; }
code, pre { font-family: ui-monospace, monospace; font-size: 0.9em; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0; display: block; overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.75rem 0.25rem 0; border-bottom: 1px solid #8886; }
"""


def documentation_routes() -> Sequence[Route]:
    """The routes of the document and of the page; both are made once."""
    document = openapi_document()
    headers = {"cache-control": "no-cache"}
    page = to_html(document)
    return (
        _route("/openapi.json", json.dumps(document, ensure_ascii=False, indent=1), "application/json", headers),
        _route("/docs", page, "text/html", {**headers, **PAGE_HEADERS}),
        _route("/docs.css", _STYLE, "text/css", headers),
    )


def _route(path: str, text: str, media_type: str, headers: Mapping[str, str]) -> Route:
    content = text.encode()

    async def send(request: Request) -> Response:
        response = Response(content, headers=headers, media_type=media_type)
        compress(response, request.headers)
        return response

    return Route(path, send)


def to_html(document: dict[str, Any]) -> str:
    """An OpenAPI document as a page."""
    info = document["info"]
    body = [
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
        f"<p>{escape(info['summary'])} {escape(info['description'])}</p>",
        '<p><a href="/openapi.json">openapi.json</a></p>',
    ]
    for tag in document["tags"]:
        body.append(f"<h2>{escape(tag['name'])}</h2><p>{escape(tag['description'])}</p>")
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    body += _operation(method, path, operation)
    body.append("<h2>Schemas</h2>")
    for name, schema in document["components"]["schemas"].items():
        body += _schema(name, schema)
    rows = [(f'<code id="{reason}">{reason}</code>', escape(text)) for reason, text in REASONS.items()]
    body.append(f"<h2>Reasons of errors</h2>{_table(('reason', 'when'), rows)}")
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>pawserve: HTTP API</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="/docs.css">'
        '<link rel="icon" href="/icon.svg" type="image/svg+xml">'
        f"</head><body><main>{''.join(body)}</main></body></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f'<h3 id="{operation["operationId"]}"><code><span class="method">{method}</span> {escape(path)}</code></h3>'
    yield f"<p>{escape(operation['summary'])} {escape(operation['description'])}</p>"
    if parameters := operation.get("parameters"):
        rows = [(f"<code>{each['name']}</code>", each["in"], escape(each["description"])) for each in parameters]
        yield _table(("parameter", "in", "meaning"), rows)
    if request := operation.get("requestBody"):
        bodies = [
            (f"<code>{escape(kind)}</code>", _type_of(each["schema"])) for kind, each in request["content"].items()
        ]
        yield _table(("request body", "content"), bodies)
    rows = [
        (status, escape(each["description"]), ", ".join(_type_of(kind["schema"]) for kind in each["content"].values()))
        for status, each in operation["responses"].items()
    ]
    yield _table(("status", "meaning", "body"), rows)


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f'<h3 id="schema-{name}"><code>{name}</code></h3>'
    if text := schema.get("description"):
        yield f"<p>{escape(text)}</p>"
    if schema["type"] == "array":
        yield f"<p>{_type_of(schema)}</p>"
        schema = schema["items"]
    rows = [
        (f"<code>{escape(field)}</code>", _type_of(each), escape(each.get("description", "")))
        for field, each in schema.get("properties", {}).items()
    ]
    if rows:
        yield _table(("field", "type", "meaning"), rows)


def _type_of(schema: dict[str, Any]) -> str:
    """The type, as HTML, with a link where it is a schema of its own."""
    if reference := schema.get("$ref"):
        name = escape(reference.rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type_of(schema.get('items', {}))}"
    if choices := schema.get("enum"):
        return " or ".join(f"<code>{escape(each)}</code>" for each in choices)
    text = " or ".join(kind) if isinstance(kind, list) else str(kind)
    detail = schema.get("format") or schema.get("contentEncoding") or schema.get("contentMediaType")
    return escape(f"{text} ({detail})" if detail else text)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{each}</th>' for each in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
