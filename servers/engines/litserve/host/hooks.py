"""The methods of a LitAPI as the host calls them: with the request's context where they ask for it.

LitServe gives a method the argument `context` if its signature names it; that is looked up once here.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from litserve import LitAPI
from litserve.callbacks import CallbackRunner

from servers.engines.litserve.host.encode import part_formatter
from servers.engines.litserve.host.work import Work

Call = Callable[[Any, Any], Any]


class Hooks:
    """decode_request, batch, predict, unbatch, encode_response of `api`; each takes its argument and the context.

    `has_own_unbatch` is whether the API itself makes outputs of what predict returns for a batch.
    """

    def __init__(self, api: Any, callbacks: CallbackRunner | None = None) -> None:
        self.decode = _with_context(api.decode_request)
        self.batch = _with_context(api.batch)
        self.predict = _with_context(api.predict)
        self.unbatch = _with_context(api.unbatch)
        self.encode = _with_context(api.encode_response)
        self.has_own_unbatch = getattr(api.unbatch, "__func__", None) is not LitAPI.unbatch
        self.format_part = part_formatter(api)
        self._api = api
        self._callbacks = callbacks
        self._populate = getattr(api.spec, "populate_context", None)

    def tell(self, event: str) -> None:
        """Call an event of LitServe's callbacks; what they raise is logged."""
        if self._callbacks is not None:
            self._callbacks.trigger_event(event, lit_api=self._api)

    def prepare(self, works: Sequence[Work]) -> None:
        """Give each work its context."""
        if self._populate is not None:
            for work in works:
                self._populate(work.context, work.value)


def _with_context(method: Callable[..., Any]) -> Call:
    if "context" in inspect.signature(method).parameters:
        return lambda value, context: method(value, context=context)
    return lambda value, _context: method(value)
