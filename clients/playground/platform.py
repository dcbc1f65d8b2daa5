"""The platform as the page sees it: its address, its answers, and a sentence for every failure.

It stores no answer. A key is sent in a header and used nowhere else.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from clients.documents import Status, read_status
from clients.playground.request import Request

_CONNECT_S = 10.0
_DOCUMENT_S = 10.0  # the front door's own documents come at once

T = TypeVar("T")


class Problem(Exception):  # noqa: N818 # the visitor reads it
    """Why there is no answer, as a sentence for the visitor. `status` is the HTTP status, if there is one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Platform:
    """A platform at `url`. `default_key` is used where the page's field is empty."""

    def __init__(self, url: str, default_key: str | None = None) -> None:
        self.url = url
        self._default_key = default_key
        self._client = httpx.AsyncClient(base_url=url, limits=httpx.Limits(max_connections=None))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def has_key(self, key: str | None) -> bool:
        """Whether requests carry a key when the page's field holds `key`."""
        return bool(self._key(key))

    async def status(self, key: str | None) -> Status:
        """`GET /status`. Raises Problem."""
        return await self._get("/status", key, read_status)

    async def openapi(self, key: str | None) -> dict[str, Any]:
        """`GET /openapi.json`. Raises Problem."""
        return await self._get("/openapi.json", key, msgspec.json.Decoder(dict[str, Any]).decode)

    async def change(self, action: str, model: str, order: Mapping[str, Any], key: str | None) -> bytes:
        """What came of a change of the platform, once it is made. Raises Problem."""
        timeout = httpx.Timeout(_CONNECT_S, read=None)
        path = f"/admin/{action}/{quote(model)}"
        async with self._exchange("POST", path, key, timeout=timeout, json=order) as response:
            return await response.aread()

    async def answer(self, request: Request, key: str | None) -> bytes:
        """The whole answer to a request. Raises Problem."""
        async with self.open(request, key) as response:
            return await response.aread()

    @contextlib.asynccontextmanager
    async def open(self, request: Request, key: str | None) -> AsyncIterator[httpx.Response]:
        """The answer to a request, to be read as it arrives. Raises Problem, also while it is read."""
        timeout = httpx.Timeout(_CONNECT_S, read=None)
        async with self._exchange("POST", request.path, key, timeout=timeout, **request.content()) as response:
            yield response

    async def _get(self, path: str, key: str | None, read: Callable[[bytes], T]) -> T:
        async with self._exchange("GET", path, key, timeout=_DOCUMENT_S) as response:
            try:
                return read(await response.aread())
            except msgspec.DecodeError:
                raise Problem(f"{self.url}{path} did not answer as a Litport platform does.") from None

    @contextlib.asynccontextmanager
    async def _exchange(self, method: str, path: str, key: str | None, **options: Any) -> AsyncIterator[httpx.Response]:
        headers = {**options.pop("headers", {}), **self._authorization(key)}
        has_begun = False
        try:
            async with self._client.stream(method, path, headers=headers, **options) as response:
                if response.status_code >= 400:
                    await response.aread()
                    raise await self._problem(response, key)
                has_begun = True
                yield response
        except httpx.TimeoutException:
            raise Problem(f"{self.url} did not answer in time.") from None
        except httpx.TransportError as problem:
            if has_begun or isinstance(problem, (httpx.ReadError, httpx.RemoteProtocolError)):
                raise Problem("The answer broke off: the connection was closed before its end.") from None
            raise Problem(f"Nothing answers at {self.url}. Is `litport serve` running there?") from None

    def _key(self, key: str | None) -> str | None:
        return (key or "").strip() or self._default_key

    def _authorization(self, key: str | None) -> dict[str, str]:
        key = self._key(key)
        if not key:
            return {}
        if not key.isascii() or not key.isprintable():
            raise Problem("The key holds characters that no key has. Was it copied whole?")
        return {"authorization": f"Bearer {key}"}

    async def _problem(self, response: httpx.Response, key: str | None) -> Problem:
        status = response.status_code
        message, code = _error(response)
        if status == 401:
            reason = "The platform does not know this key." if self.has_key(key) else "The platform wants a key."
            return Problem(f"{reason} Enter one at the top of the page.", status)
        if code == "model_not_ready":
            message += await self._details(message, key)
        wait = response.headers.get("retry-after")
        again = f" Try again in {wait} s." if wait else ""
        return Problem(f"{message.rstrip('.')}.{again}" if message else f"The answer was {status}.{again}", status)

    async def _details(self, message: str, key: str | None) -> str:
        """The detail in /status of the model that a message names."""
        with contextlib.suppress(Problem):
            for model in (await self.status(key)).models:
                if f"'{model.name}'" in message and model.detail and model.detail not in message:
                    return f" ({model.detail})"
        return ""


def _error(response: httpx.Response) -> tuple[str, str | None]:
    """The message and the code of an error in OpenAI's shape, or the beginning of any other answer."""
    try:
        error = response.json()["error"]
        return str(error["message"]), error.get("code")
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code}: {response.text[:300]}", None
