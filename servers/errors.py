"""The error that a request is answered with, in OpenAI's shape.

    {"error": {"message": ..., "type": ..., "param": ..., "code": ..., "request_id": ...}}

An error never holds the content of a request or a key.
"""

from collections.abc import Mapping

import msgspec

# The OpenAI SDK waits that long at most; where it is told to wait longer, it does not try again.
MAX_RETRY_AFTER_S = 120
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A response other than success, made by the front door. `param` names the wrong field, where there is one."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self, request_id: str | None = None) -> bytes:
        """The JSON document of the error."""
        return msgspec.json.encode({"error": self.detail(request_id)})

    def detail(self, request_id: str | None = None) -> dict[str, str | None]:
        """The `error` object of the document; without a request id where the request had none yet."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        detail = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return detail if request_id is None else {**detail, "request_id": request_id}


class BystanderError(ApiError):
    """The model's process ended, and the request is no cause of it."""


class UnservedError(BystanderError):
    """No process of the model has taken the request, so that another model may get it."""
