"""The way of inference requests with tensors through a worker: past the API's own route or spec, into the same batches.

`decode_tensors` of the API makes of the tensors what its decode_request takes; without it decode_request gets a dict of
arrays. encode_response answers with a dict of the outputs.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from servers.apis.rejection import Rejection
from servers.engines.litserve.host.direct_reply import DirectReply
from servers.engines.litserve.host.encode import EncodeError, to_json
from servers.engines.litserve.host.tensors.answer import answer
from servers.engines.litserve.host.tensors.declaration import Declaration
from servers.engines.litserve.host.tensors.request import LENGTH_HEADER, InferenceRequest, parse
from servers.engines.litserve.host.ticket import Ticket
from servers.engines.litserve.host.work import Work


class TensorRoute:
    """Inference requests to the API of the model `name`."""

    def __init__(self, api: Any, declaration: Declaration, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._decode = getattr(api, "decode_tensors", None)
        self._declaration = declaration
        self._name = name
        self._loop = loop

    def work(self, ticket: Ticket, body: bytes) -> Work:
        """The work of this request. Raises RefusalError, and what decode_tensors raises."""
        headers: Mapping[str, str] = dict(ticket.request.headers)
        request = parse(body, headers.get(LENGTH_HEADER), self._declaration, self._name)
        value = request.tensors if self._decode is None else self._decode(request.tensors, request.parameters)
        work = Work(value, TensorReply(ticket, request, self._name, self._loop), ticket.request)
        ticket.add(work)
        return work


class TensorReply(DirectReply):
    """Answers with tensors; a Response of the API's own, such as an error, goes out as it is."""

    def __init__(self, ticket: Ticket, request: InferenceRequest, name: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(ticket, to_json, loop)
        self._request = request
        self._name = name

    def whole(self, value: Any) -> None:
        """Send the outputs of `value`; the caller flushes. Raises EncodeError."""
        if isinstance(value, Rejection):
            value = value.response()
        if isinstance(value, Response):
            if value.status_code < 400:
                raise EncodeError(f"encode_response: expected a dict with the outputs, got a {type(value).__name__}")
            super().whole(value)
            return
        body, headers = answer(value, self._request, self._name)
        self._send(body, headers)
