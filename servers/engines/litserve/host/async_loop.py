"""The requests of an API with `enable_async`: each is a task of its own on the worker's loop.

As in LitServe, methods that are not async run in a thread, so that they hold up nobody; those that an API has
from LitAPI do nothing that could, and are called as they are.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from litserve import LitAPI

from servers.engines.litserve.host.failure import RefusalError
from servers.engines.litserve.host.hooks import Hooks
from servers.engines.litserve.host.sync_loop import fail
from servers.engines.litserve.host.work import Work


class AsyncLoop:
    """Answers each work by itself."""

    def __init__(self, api: Any, hooks: Hooks, spans: Any = None) -> None:
        self._spans = spans
        if api.spec is not None and api.stream:
            api.spec = api.spec.as_async()
        self._decode = _async(api, "decode_request", hooks.decode)
        self._predict = _async(api, "predict", hooks.predict)
        self._encode = _async(api, "encode_response", hooks.encode)
        self._hooks = hooks
        self._is_stream = bool(api.stream)

    async def work(self, work: Work) -> None:
        """Answer one."""
        hooks = self._hooks
        work.begun_s = step_s = time.monotonic()
        step = "decode_s"
        running = None if self._spans is None else self._spans.begin([work])
        try:
            hooks.tell("on_before_decode_request")
            hooks.prepare((work,))
            work.input = await self._decode(work.value, work.context)
            work.decode_s, step_s = _since(step_s)
            hooks.tell("on_after_decode_request")
            hooks.tell("on_before_predict")
            step = "predict_s"
            output = await self._predict(work.input, work.context)
            work.predict_s, step_s = _since(step_s)
            hooks.tell("on_after_predict")
            hooks.tell("on_before_encode_response")
            step = "encode_s"
            response = await self._encode(output, work.context)
            if self._is_stream:
                await self._parts(work, response)
                work.predict_s += _since(step_s)[0]
                work.reply.finish()
            else:
                work.encode_s, _ = _since(step_s)
                work.reply.whole(response)
            work.is_over = True
            hooks.tell("on_after_encode_response")
        except asyncio.CancelledError:
            fail(work, RefusalError(499, "cancelled"))
            raise
        except Exception as error:
            setattr(work, step, _since(step_s)[0])
            fail(work, error)
        finally:
            work.reply.flush()
            if running is not None:
                self._spans.end(running)

    async def _parts(self, work: Work, parts: AsyncIterator[Any]) -> None:
        async for part in parts:
            body = self._hooks.format_part(part)
            await work.reply.room()
            work.reply.part(body)
            work.has_parts = True
            work.reply.flush()


def _since(step_s: float) -> tuple[float, float]:
    now_s = time.monotonic()
    return now_s - step_s, now_s


def _async(api: Any, name: str, call: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    method = getattr(api, name)
    if inspect.isasyncgenfunction(method):

        async def begin(value: Any, context: Any) -> Any:
            return call(value, context)

        return begin
    if inspect.iscoroutinefunction(method):
        return call
    if inspect.isgeneratorfunction(method):

        async def generate(value: Any, context: Any) -> Any:
            async def parts() -> AsyncIterator[Any]:
                for part in call(value, context):
                    yield part

            return parts()

        return generate
    is_own = method.__code__ is not getattr(LitAPI, name).__code__

    async def run(value: Any, context: Any) -> Any:
        result = await asyncio.to_thread(call, value, context) if is_own else call(value, context)
        return await result if inspect.iscoroutine(result) else result

    return run
