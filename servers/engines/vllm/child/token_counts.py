"""The tokens that vLLM counted for a request, beside its answer, whatever the request asks for.

A stream without `include_usage` does not name them, and token ids or log-probabilities may stand between them and the
end of an answer. vLLM leaves its count in the request's state (`request_metadata.final_usage_info`). A whole answer
gets it as a header, an event stream as a comment behind its last event; `servers.engines.vllm.tokens` takes both out
again. vLLM loads this class by its option `--middleware`.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from servers.engines.vllm.tokens import COMMENT, HEADER

_Message = MutableMapping[str, Any]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[MutableMapping[str, Any], Any, _Send], Awaitable[None]]


class TokenCounts:
    """ASGI middleware: adds the count to answers of which vLLM has one."""

    def __init__(self, app: _App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: _Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            send = _counting(scope.setdefault("state", {}), send)
        await self._app(scope, receive, send)


def _counting(state: MutableMapping[str, Any], send: _Send) -> _Send:
    is_event_stream = False

    async def send_counted(message: _Message) -> None:
        nonlocal is_event_stream
        if message.get("more_body"):  # an event of a stream: most messages are
            await send(message)
            return
        if message["type"] == "http.response.start":
            types = [value for name, value in message["headers"] if name == b"content-type"]
            is_event_stream = any(value.startswith(b"text/event-stream") for value in types)
            if not is_event_stream and (count := _count(state)):
                message["headers"] = [*message["headers"], (HEADER, count)]
        elif is_event_stream and (count := _count(state)):
            message["body"] = message.get("body", b"") + COMMENT + count + b"\n\n"
        await send(message)

    return send_counted


def _count(state: MutableMapping[str, Any]) -> bytes | None:
    usage = getattr(state.get("request_metadata"), "final_usage_info", None)
    return None if usage is None else b"%d %d" % (usage.prompt_tokens, usage.completion_tokens or 0)
