"""The connection to a model's server elsewhere: HTTP over TCP, with Litport's own key and the model's name there.

What passes in either direction is a list: of a request, nothing that says who called; of an answer, nothing that
concerns the account or the connections of this machine.
"""

import json
import ssl
from collections.abc import Mapping, Sequence
from functools import cache
from urllib.parse import parse_qsl, urlencode, urlsplit

from servers.engines.connection import Reply
from servers.engines.http_connection import Address, HttpConnection
from servers.engines.model_field import name_model

PREDICT = "/predict/"

_OWN_CONTEXT = frozenset({"authorization", "baggage"})
_PASSED = frozenset(
    {b"cache-control", b"content-encoding", b"content-length", b"content-type", b"retry-after", b"transfer-encoding"}
)
_LITPORT = b"x-litport-"
_PORTS = {"http": 80, "https": 443}


class RemoteConnection(HttpConnection):
    """The way to the model that the server at `url` calls `model`; `key` opens it. Connections are shared by requests.

    `setting` names the key in messages.
    """

    def __init__(self, url: str, model: str, key: str | None, setting: str) -> None:
        super().__init__(address_of(url))
        self._prefix = urlsplit(url).path
        self._model = model
        self._own_headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._setting = setting

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, query: str = ""
    ) -> Reply:
        """See `Connection`."""
        headers = {name: value for name, value in (headers or {}).items() if name not in _OWN_CONTEXT}
        if body and not path.startswith(PREDICT):
            body = name_model(body, headers.get("content-type", ""), self._model)
        if "model=" in query:  # of a stored response
            fields = parse_qsl(query, keep_blank_values=True)
            query = urlencode([(name, self._model if name == "model" else value) for name, value in fields])
        reply = await super().send(method, self._prefix + path, body, {**headers, **self._own_headers}, query)
        if reply.status == 401:
            reply.close()
            return self._refusal()
        reply.headers = _passed(reply.headers)
        return reply

    def _refusal(self) -> Reply:
        """The caller's key is right; Litport's own is not, and the server's words may quote it."""
        advice = (
            f"does not take the key of {self._setting}" if self._own_headers else f"asks for a key; set {self._setting}"
        )
        message = f"the model's server {advice}"
        error = {"message": message, "type": "server_error", "param": None, "code": "remote_key_refused"}
        headers = [(b"content-type", b"application/json")]
        return Reply.whole(502, headers, json.dumps({"error": error}).encode())


def address_of(url: str) -> Address:
    """Where the server of a URL listens; with `https`, its certificate must be one that this machine trusts."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    tls = _verifying() if parts.scheme == "https" else None
    return Address(parts.hostname, parts.port or _PORTS[parts.scheme], parts.netloc, tls)


@cache
def _verifying() -> ssl.SSLContext:
    """Trusts what this machine trusts: its certificates, or those of the variable SSL_CERT_FILE."""
    return ssl.create_default_context()


def _passed(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [pair for pair in headers if (name := pair[0].lower()) in _PASSED or name.startswith(_LITPORT)]
