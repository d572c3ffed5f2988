"""The OpenAPI description as one HTML page: no script and nothing from another host, so it works offline."""

from __future__ import annotations

import json
import shlex
from html import escape
from typing import Any
from urllib.parse import urlencode

from ofp_platform.api.live_example import LiveExample
from ofp_platform.api.openapi import openapi

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --post: #0a7d46; --get: #1f63c4; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1.5rem; }
h1 { margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 0; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
section { border: 1px solid var(--line); border-radius: .5rem; margin: 1.25rem 0; padding: 1rem; }
.method { border-radius: .3rem; color: #fff; font-size: .85rem; margin-right: .5rem; padding: .15rem .5rem; }
.post { background: var(--post); } .get { background: var(--get); }
pre { background: var(--soft); border-radius: .4rem; font-size: .85rem; line-height: 1.4; margin: .3rem 0; }
pre { overflow-x: auto; padding: .7rem; }
details { border-top: 1px solid var(--line); padding: .35rem 0; } summary { cursor: pointer; } summary b { margin-right: .4rem; }
nav a { display: inline-block; margin-right: 1rem; }
"""


def _json(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"


def _curl(address: str, path: str, operation: dict[str, Any]) -> str:
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", parameter["example"])
    queries = {query["name"]: query["example"] for query in _queries(operation) if "example" in query}
    if queries:
        path = f"{path}?{urlencode(queries)}"
    lines = [f"curl -s {shlex.quote(address + path)}"]
    if body := operation.get("requestBody"):
        lines.append("  -H 'content-type: application/json'")
        lines.append(f"  -d {shlex.quote(json.dumps(body['content']['application/json']['example']))}")
    if operation["security"]:
        lines.append('  -H "authorization: Bearer $OFP_API_TOKEN"')
    command = " \\\n".join(lines)
    return f"<h3>With curl</h3><pre>{escape(command)}</pre>"


def _queries(operation: dict[str, Any]) -> list[dict[str, Any]]:
    return [parameter for parameter in operation.get("parameters", []) if parameter["in"] == "query"]


def _schema_name(content: dict[str, Any]) -> str:
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    return f' &middot; <a href="#schema-{escape(name)}">{escape(name)}</a>' if name else ""


def _answers(operation: dict[str, Any]) -> str:
    parts = ["<h3>Answers</h3>"]
    for status, answer in operation["responses"].items():
        content = answer.get("content", {}).get("application/json", {})
        head = f"<b>{escape(status)}</b>{escape(answer['description'])}{_schema_name(content)}"
        if "example" in content:
            open_attribute = " open" if status == "200" else ""
            parts.append(f"<details{open_attribute}><summary>{head}</summary>{_json(content['example'])}</details>")
        else:
            parts.append(f"<details><summary>{head}</summary><p>No example.</p></details>")
    return "".join(parts)


def _operation(address: str, method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [
        f'<section id="{escape(operation["operationId"])}">',
        f'<h2><span class="method {method}">{method.upper()}</span>{escape(path)}</h2>',
        f"<p><b>{escape(operation['summary'])}.</b> {escape(operation.get('description', ''))}</p>",
        f"<p>{_scope(operation)}</p>",
    ]
    if queries := _queries(operation):
        rows = (f"<li><code>{escape(query['name'])}</code> {escape(query.get('description', ''))}</li>" for query in queries)
        parts.append(f"<h3>Query</h3><ul>{''.join(rows)}</ul>")
    if body := operation.get("requestBody"):
        content = body["content"]["application/json"]
        parts.append(f"<h3>Request{_schema_name(content)}</h3>{_json(content['example'])}")
    parts += [_curl(address, path, operation), _answers(operation), "</section>"]
    return "".join(parts)


def _scope(operation: dict[str, Any]) -> str:
    scopes = [scope for option in operation["security"] for scope in option["bearer"]]
    return f"Scope: <code>{escape(', '.join(scopes))}</code>." if scopes else "Open to everybody."


def _schemas(schemas: dict[str, Any]) -> str:
    rows = (
        f'<details id="schema-{escape(name)}"><summary><b>{escape(name)}</b>{escape(schema.get("description", ""))}'
        f"</summary>{_json(schema)}</details>"
        for name, schema in schemas.items()
    )
    return f"<section><h2>Schemas</h2>{''.join(rows)}</section>"


def docs_page(address: str, live: LiveExample | None = None) -> bytes:
    """The page of the service at an address (http://host:port), UTF-8; with `live`, its commands work for who has a key."""
    description = openapi(live)
    info = description["info"]
    operations = [(method, path, operation) for path, item in description["paths"].items() for method, operation in item.items()]
    links = "".join(f'<a href="#{escape(op["operationId"])}">{escape(op["operationId"])}</a>' for _, _, op in operations)
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
        f"<p>{escape(info['description'])}</p>"
        f'<nav>{links}<a href="/openapi.json">openapi.json</a></nav>'
        f"{''.join(_operation(address, *operation) for operation in operations)}"
        f"{_schemas(description['components']['schemas'])}</body></html>"
    )
    return page.encode()
