"""The page at /docs: Swagger UI over the platform's OpenAPI document, from files that are installed here.

A person can see and try every route without any network beyond this server. The page itself needs no key. Where the
platform has keys the document needs one, so the page asks for it, keeps it in memory only, and sends it with each try.
The page loads, sends and stores nothing elsewhere.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_PAGE = "/docs"
_TYPES = {
    "/docs/favicon-32x32.png": "image/png",
    "/docs/page.css": "text/css",
    "/docs/page.js": "text/javascript",
    "/docs/swagger-ui-bundle.js": "text/javascript",
    "/docs/swagger-ui.css": "text/css",
}
PATHS = frozenset({_PAGE, *_TYPES})

# Swagger UI sets styles on elements, and its style sheet contains pictures.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FOREVER = "public, max-age=31536000, immutable"  # the page requests each by the digest of its content


@dataclass(frozen=True)
class File:
    """A body with its content type and how long it may be kept."""

    body: bytes
    content_type: str
    cache_control: str

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of its response."""
        fields = {
            "content-type": self.content_type,
            "content-length": str(len(self.body)),
            "cache-control": self.cache_control,
            "content-security-policy": _POLICY,
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
        }
        return [(name.encode(), value.encode()) for name, value in fields.items()]


@cache
def file(path: str, needs_key: bool) -> File:
    """The file at one of `PATHS`; read once. With `needs_key` the page asks for a key before it loads the document."""
    if path == _PAGE:
        page = _HTML.replace("NEEDS_KEY", "yes" if needs_key else "no")
        for name in _TYPES:
            page = page.replace(f'"{name[1:]}"', f'"{name[1:]}?{_digest(name)}"')
        return File(page.encode(), "text/html; charset=utf-8", "no-cache")
    kind = _TYPES[path]
    return File(_body(path), f"{kind}; charset=utf-8" if kind.startswith("text/") else kind, _FOREVER)


@cache
def _body(path: str) -> bytes:
    name = path.removeprefix("/docs/")
    if name in _TEXTS:
        return _TEXTS[name].encode()
    # Located, not imported: the package would import a web framework.
    spec = find_spec("fastapi_swagger")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name("resources").joinpath(name).read_bytes()


def _digest(path: str) -> str:
    return hashlib.sha256(_body(path)).hexdigest()[:12]


_HTML = """<!doctype html>
<html lang="en" data-needs-key="NEEDS_KEY">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Litport</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="stylesheet" href="docs/page.css">
</head>
<body>
<noscript>This page needs JavaScript; the document itself is at /openapi.json.</noscript>
<form id="ask" hidden>
<h1>Litport</h1>
<label for="key">This server wants a key. It stays in this page, until you close or reload it.</label>
<input id="key" type="password" autocomplete="off" spellcheck="false" required>
<button>Use it</button>
</form>
<p id="problem" role="alert" hidden></p>
<div id="routes"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/page.js"></script>
</body>
</html>
"""

_TEXTS = {
    "page.css": """#ask, #problem { max-width: 40em; margin: 2em auto; font-family: sans-serif; line-height: 1.5; }
#ask label { display: block; margin-bottom: 0.5em; }
#ask input { width: 20em; font: inherit; padding: 0.2em; }
#ask button { font: inherit; padding: 0.2em 1em; }
#problem { color: #b00020; }
.swagger-ui .info { margin: 20px 0; }
html { color-scheme: light dark; }
html.dark-mode { background: #1c2022; color: #e4e6e6; }
html.dark-mode #problem { color: #ff9d92; }
@media (max-width: 600px) {
  #ask, #problem { margin: 1em; }
  #ask input { width: 100%; box-sizing: border-box; margin-bottom: 0.5em; }
  .swagger-ui .wrapper, .swagger-ui .opblock-tag { padding-left: 8px; padding-right: 8px; }
  .swagger-ui .response-col_links { display: none; }
  .swagger-ui table.parameters, .swagger-ui table.responses-table { display: block; overflow-x: auto; }
}
""",
    "page.js": """"use strict";
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

const ask = document.getElementById("ask");
const input = document.getElementById("key");

function complain(words) {
  const problem = document.getElementById("problem");
  problem.textContent = words;
  problem.hidden = !words;
}

async function load(key) {
  complain("");
  let answer;
  try {
    answer = await fetch("openapi.json", key ? { headers: { Authorization: `Bearer ${key}` } } : {});
  } catch {
    complain("The server does not answer.");
    return;
  }
  if (answer.status === 401) {
    ask.hidden = false;
    input.focus();
    if (key) complain("This key is wrong: the server does not know it.");
    return;
  }
  if (!answer.ok) {
    complain(`The server did not give its document: ${answer.status} ${await answer.text()}`);
    return;
  }
  ask.hidden = true;
  input.value = "";
  show(await answer.json(), key);
}

function show(spec, key) {
  spec.servers = [{ url: new URL(".", location.href).href.replace(/\\/$/, "") }];
  if (!key) {  // nothing to authorize with
    delete spec.security;
    delete spec.components.securitySchemes;
  }
  for (const item of Object.values(spec.paths)) {
    const form = "multipart/form-data";
    const content = item.post?.requestBody?.content;
    // A person would rather choose a file than paste its base64.
    if (content?.[form]) item.post.requestBody.content = { [form]: content[form], ...content };
  }
  const ui = SwaggerUIBundle({
    spec,
    dom_id: "#routes",
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
    defaultModelsExpandDepth: -1,
    tryItOutEnabled: true,
    displayRequestDuration: true,
    persistAuthorization: false,
    validatorUrl: null,
    // The command line that is shown beside an answer has a placeholder, so that a picture of the page holds no key.
    showMutatedRequest: false,
    requestInterceptor: (request) => {
      if (key && request.headers.Authorization === "Bearer YOUR-KEY") request.headers.Authorization = `Bearer ${key}`;
      return request;
    },
    onComplete: () => { if (key) ui.preauthorizeApiKey("key", "YOUR-KEY"); },
  });
}

ask.addEventListener("submit", (event) => {
  event.preventDefault();
  // What a header can carry; fetch would throw at anything else.
  if (/^[\\x21-\\x7e]+$/.test(input.value)) load(input.value);
  else complain("This is no key: one has no spaces and only ASCII characters.");
});

if (document.documentElement.dataset.needsKey === "yes") {
  ask.hidden = false;
  input.focus();
} else {
  load("");
}
""",
}
