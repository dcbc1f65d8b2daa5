"""The page at `/`: the models, and where to go from here. HTML without scripts, made anew for each request."""

import html
from collections.abc import Sequence

from clients.documents import TAKES_REQUESTS, ModelStatus, Status
from servers.gateway.openapi.docs_page import File


def page(status: Status, needs_key: bool) -> File:
    """The page as a file; where the platform has keys it names no model."""
    models = _KEYED if needs_key else _models(status.models)
    body = _HTML.replace("MODELS", models).replace("ADDRESS", html.escape(status.address))
    return File(body.encode(), "text/html; charset=utf-8", "no-cache")


def _models(models: Sequence[ModelStatus]) -> str:
    if not models:
        return "<p>No model is served.</p>"
    ready = sum(model.state in TAKES_REQUESTS for model in models)
    rows = "".join(map(_row, models))
    head = "<thead><tr><th>model</th><th>state</th><th>paths</th></tr></thead>"
    return f"<p>{ready} of {len(models)} models ready.</p><table>{head}<tbody>{rows}</tbody></table>"


def _row(model: ModelStatus) -> str:
    name, state, detail = (html.escape(text) for text in (model.name, model.state, model.detail))
    paths = "".join(f"<li>{html.escape(path)}</li>" for path in model.paths)
    note = f"<small>{detail}</small>" if detail else ""
    return (
        f'<tr><th scope="row">{name}</th><td><span class="state {state}">{state}</span>{note}</td>'
        f"<td><ul>{paths or '<li>-</li>'}</ul></td></tr>"
    )


_KEYED = """<p>This server wants a key. With one, <code>curl -H "Authorization: Bearer KEY" ADDRESS/v1/models</code>
lists the models.</p>"""

_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Litport</title>
<link rel="icon" href="docs/favicon-32x32.png">
<style>
:root { --text: #1d2733; --soft: #526071; --line: #d8dee6; --page: #fff; --link: #1d5fd1; --ready: #0b5d33;
  --failed: #a3261b; --wait: #7a4b00; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6ebf1; --soft: #a5b1bf; --line: #37424f; --page: #14191f; --link: #8ab6ff; --ready: #8fe0b3;
    --failed: #ffb3aa; --wait: #f5cf8a; }
}
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem; color: var(--text); background: var(--page);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .75rem; }
h2 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
a { color: var(--link); }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
thead th:first-child { width: 26%; }
thead th:last-child { width: 34%; }
th, td { text-align: left; vertical-align: top; padding: .45rem .75rem .45rem 0; border-top: 1px solid var(--line);
  overflow-wrap: anywhere; font-weight: 400; }
thead th { border: 0; color: var(--soft); font-size: .85rem; }
tbody th { font-weight: 600; }
td ul { list-style: none; margin: 0; padding: 0; font-size: .9rem; }
small { display: block; color: var(--soft); }
.state { color: var(--wait); }
.state.ready { color: var(--ready); }
.state.failed { color: var(--failed); }
@media (max-width: 600px) {
  table { display: block; }
  thead { display: none; }
  tr { display: block; border-top: 1px solid var(--line); padding: .5rem 0; }
  th, td { border: 0; padding: 0; }
  tbody th, td:nth-child(2) { display: inline-block; max-width: 100%; margin-right: .5rem; }
  td:nth-child(3) { display: block; }
}
code { font-size: .9rem; overflow-wrap: anywhere; }
dt { margin-top: .5rem; }
dd { margin: 0; color: var(--soft); }
</style>
</head>
<body>
<h1>Litport</h1>
MODELS
<h2>From here</h2>
<dl>
<dt><a href="docs">Documentation</a></dt><dd>every route, to be tried in the browser</dd>
<dt><code>litport playground --url ADDRESS</code></dt><dd>a page to chat, predict, compare, and watch the models</dd>
<dt><code>litport chat MODEL "Hello" --url ADDRESS</code></dt><dd>the same from a terminal</dd>
<dt><a href="openapi.json">openapi.json</a>, <a href="v1/models">v1/models</a>, <a href="status">status</a></dt>
<dd>for programs</dd>
</dl>
</body>
</html>
"""
