"""A LitAPI called in a loop: decode, predict, encode, without a server.

The steps of a server's worker run here on the same object, so the difference to a server is the cost of serving. The
best batch size is searched once, among the powers of two.
"""

import inspect
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.load.workload import Item
from benchmarks.rungs.answer import answer_of
from benchmarks.rungs.bare.feed import Feed
from benchmarks.rungs.bare.outcome import Outcome
from servers.apis import export_hook, registry
from servers.apis.equality import Variant

_TRIAL_S = 1.0
# A larger batch must be this much faster, as it costs latency. One that is this much slower ends the search.
_WORTH = 1.02
_HOPELESS = 0.7


class ApiModel:
    """The LitAPI `reference`, built with `arguments` and set up on `device`; batches of `batch_size`.

    `variant` has the fields of `servers.apis.equality.Variant`, None for eager float32.
    """

    def __init__(
        self, reference: str, arguments: dict[str, Any], device: str, variant: dict[str, Any] | None = None
    ) -> None:
        self.batch_size = 1
        self._api = registry.load(reference)(**arguments)
        if variant is not None:
            export_hook.attach(self._api, Variant(**variant))
        self._api.pre_setup()
        self._api.setup(device)

    def find_batch_size(self, items: Sequence[Item], largest: int) -> None:
        """Keep the batch size, a power of two up to `largest`, that answers the most items a second."""
        best = 0.0
        size = best_size = 1
        while size <= min(largest, len(items)):
            rate = self._trial(items, size)
            if rate > best * _WORTH:
                best, best_size = rate, size
            elif rate < best * _HOPELESS:
                break
            size *= 2
        self.batch_size = best_size

    def run(self, items: Sequence[Item], users: int, time_limit_s: float) -> Outcome:
        """Answer the items in batches, as they come due."""
        del users  # a loop has no users
        feed = Feed(items, time_limit_s)
        records = []
        steps = dict.fromkeys(("decode", "predict", "encode"), 0.0)
        while batch := feed.wait(self.batch_size):
            sent_s = time.monotonic()
            _, times_s = self._answer([due.item for due in batch])
            for due in batch:
                record = due.record(sent_s)
                record.chunk_s, record.end_s = [times_s[-1]], times_s[-1]
                records.append(record)
                feed.finish(due.item)
            for name, begin_s, end_s in zip(steps, (sent_s, *times_s[:2]), times_s, strict=True):
                steps[name] += (end_s - begin_s) * len(batch)
        return Outcome(records, list(steps.items()))

    def answer(self, items: Sequence[Item]) -> Outcome:
        """The API's answer to each item, in a form to compare."""
        return Outcome(answers=[answer_of(self.predict(item)) for item in items])

    def predict(self, item: Item) -> Any:
        """The API's output for one item."""
        return self._answer([item])[0][0]

    def predict_all(self, items: Sequence[Item]) -> list[Any]:
        """The API's outputs for one batch, of `batch_size` items at most."""
        return self._answer(items)[0]

    def _trial(self, items: Sequence[Item], size: int) -> float:
        self.batch_size = size
        self._answer(items[:size])  # the first batch of a shape is slower
        answered = 0
        begin_s = now_s = time.monotonic()
        while now_s - begin_s < _TRIAL_S:
            start = answered % (len(items) - size + 1)
            self._answer(items[start : start + size])
            answered += size
            now_s = time.monotonic()
        return answered / (now_s - begin_s)

    def _answer(self, items: Sequence[Item]) -> tuple[list[Any], tuple[float, float, float]]:
        """The outputs, and when the batch was decoded, predicted and encoded."""
        api = self._api
        api.max_batch_size = self.batch_size
        inputs = [api.decode_request(_request(api, item)) for item in items]
        decoded_s = time.monotonic()
        outputs = api.unbatch(api.predict(api.batch(inputs))) if self.batch_size > 1 else [api.predict(inputs[0])]
        predicted_s = time.monotonic()
        responses = [api.encode_response(output) for output in outputs]
        return responses, (decoded_s, predicted_s, time.monotonic())


def _request(api: Any, item: Item) -> Any:
    """The item as `decode_request` gets it from the HTTP server."""
    from pydantic import BaseModel

    from servers.apis.embedding import InputRequest
    from servers.apis.picture_request import PictureRequest

    if item.token_ids is not None:
        return InputRequest(model="bench", input=item.token_ids)
    if item.picture is not None:
        return PictureRequest(item.picture, 5)
    annotation = inspect.signature(api.decode_request).parameters["request"].annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.model_validate(item.body)
    return item.body
