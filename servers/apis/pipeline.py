"""Any transformers pipeline as a service: the task and its options come from the settings.

Bodies have the shape of the hub's inference API. Pipelines trust their caller: they open a text as a path or address
where they expect a picture or a sound, and `generate` runs code that a parameter names. Clients are not trusted like
that: media must come as base64, and only listed parameters are accepted.
"""

import base64
import io
import json
import wave
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import litserve
from pydantic import BaseModel, ConfigDict

from configs.errors import UserError
from servers.apis import equality, pictures
from servers.apis.rejection import Rejection

# A client may set these; other parameters of pipelines can open files, start processes or load code.
_CLIENT_PARAMETERS = frozenset({
    "aggregation_strategy", "candidate_labels", "do_sample", "function_to_apply",
    "hypothesis_template", "max_new_tokens", "multi_label", "num_beams",
    "repetition_penalty", "return_full_text", "return_timestamps",
    "temperature", "threshold", "top_k", "top_p",
})  # fmt: skip
_SOUND_TASKS = ("audio-classification", "automatic-speech-recognition", "zero-shot-audio-classification")
_TEXT_KEYS = frozenset({"candidate_labels", "question", "text"})  # allowed beside `image` or `audio`


class PipelineRequest(BaseModel):
    """The JSON body: what to work on, and options of this one call."""

    model_config = ConfigDict(extra="forbid")

    inputs: Any
    parameters: dict[str, Any] = {}


@dataclass(frozen=True)
class _Call:
    items: list[Any]
    is_list: bool  # whether the client sent a list and so expects one
    parameters: dict[str, Any]


class PipelineAPI(litserve.LitAPI):  # type: ignore[misc] # litserve ships no complete types
    """Any transformers pipeline, by the settings `init: {task: ...}`."""

    input_description = '{"inputs": what the task takes (pictures and sounds as base64), "parameters": {...}}'
    output_description = "what the task gives, as JSON; pictures as data URLs"
    uses_torch = True

    def __init__(
        self,
        task: str,
        model_dir: str,
        *,
        pipeline_kwargs: dict[str, Any] | None = None,
        call_kwargs: dict[str, Any] | None = None,
        client_parameters: Sequence[str] = (),
        max_batch_size: int = 1,
        batch_timeout: float = 0.005,
    ) -> None:
        super().__init__(max_batch_size=max_batch_size, batch_timeout=batch_timeout)
        self._task = task
        self._model_dir = model_dir
        self._pipeline_kwargs = pipeline_kwargs or {}
        self._call_kwargs = call_kwargs or {}
        self._client_parameters = _CLIENT_PARAMETERS | set(client_parameters)

    def setup(self, device: str) -> None:
        """Build the pipeline on `device`. Raises KeyError or ValueError for a task that cannot be served."""
        from transformers import pipeline
        from transformers.pipelines import SUPPORTED_TASKS, check_task

        name, _, _ = check_task(self._task)
        kind = SUPPORTED_TASKS[name]["type"]
        if kind == "video":
            raise ValueError(f"{self._task}: videos are not supported")
        self._medium = "text" if kind == "text" else "audio" if name in _SOUND_TASKS else "image"
        options = self._pipeline_kwargs
        if device.startswith("cpu") and not {"dtype", "torch_dtype"} & options.keys():
            options = {**options, "dtype": "float32"}  # whatever the weights are stored in
        self._pipeline = pipeline(self._task, model=self._model_dir, device=device, **options)
        # It answers with the vectors of all tokens, those of padding too.
        self._batches = name != "feature-extraction"
        tokenizer = self._pipeline.tokenizer
        if tokenizer is not None and tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token  # without one, transformers rejects every batch

    def export_modules(self) -> list[tuple[Any, dict[str, Any]]]:
        """The model, with what the task calls it with for two examples. Raises UserError for one that generates."""
        import torch

        model: Any = self._pipeline.model
        if model.can_generate() or self._medium == "audio":
            raise UserError(f"runtime: expected eager: the task {self._task} is not one forward of an encoder")
        calls: list[dict[str, Any]] = []
        hook = model.register_forward_pre_hook(lambda *call: calls.append(call[2]), with_kwargs=True)
        examples = equality.make_pictures()[:2] if self._medium == "image" else ["A cat sat on it.", "It rains."]
        options = self._call_kwargs
        if self._pipeline.task == "fill-mask":
            examples = [f"{text} {self._pipeline.tokenizer.mask_token}" for text in examples]
        elif self._pipeline.task == "zero-shot-classification":
            options = {"candidate_labels": ["animals", "weather"], **options}
        try:
            list(self._pipeline(examples, batch_size=2, **options))
        finally:
            hook.remove()
        inputs = {name: value for name, value in calls[0].items() if isinstance(value, torch.Tensor)}
        return [(model, inputs)]

    def decode_request(self, request: PipelineRequest) -> Any:
        """The inputs with their base64 decoded, or a Rejection."""
        if surplus := request.parameters.keys() - self._client_parameters:
            names = ", ".join(sorted(self._client_parameters))
            return Rejection(f"parameters: {', '.join(sorted(surplus))} cannot be set by a request, only {names}", 422)
        top_k = request.parameters.get("top_k")
        if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
            return Rejection(f"parameters.top_k: expected a whole number of 1 or more, got {json.dumps(top_k)}", 422)
        inputs = request.inputs
        # A list of objects is one conversation and not several inputs.
        is_list = isinstance(inputs, list) and not all(isinstance(item, dict) for item in inputs)
        try:
            items = [_unpack(item, self._medium) for item in (inputs if is_list else [inputs])]
        except ValueError as error:
            return Rejection(f"inputs: {error}", 422)
        return _Call(items, is_list, request.parameters)

    def predict(self, x: Any) -> Any:
        """Run requests with the same parameters together; a Rejection stays in its place."""
        calls = x if self.max_batch_size > 1 else [x]
        results = list(calls)
        groups: dict[str, list[int]] = {}
        for row, call in enumerate(calls):
            if not isinstance(call, Rejection):
                groups.setdefault(json.dumps(call.parameters, sort_keys=True), []).append(row)
        for rows in groups.values():
            for row, result in zip(rows, self._run([calls[row] for row in rows]), strict=True):
                results[row] = result
        return results if self.max_batch_size > 1 else results[0]

    def encode_response(self, output: Any) -> Any:
        """The result as JSON, or the rejection as its 4xx."""
        return output.response() if isinstance(output, Rejection) else to_json(output)

    def _run(self, calls: Sequence[_Call]) -> list[Any]:
        options = self._call_kwargs | calls[0].parameters
        # Copies, because some pipelines change the objects of their inputs, and a call may run again by itself.
        items = [copy(item) for call in calls for item in call.items]
        try:
            # For a list of inputs, every task returns a list with one entry for each item.
            size = len(items) if self._batches else 1
            results = iter(self._pipeline(items, batch_size=size, **options))
            return [[next(results) for _ in call.items] if call.is_list else next(results) for call in calls]
        except Exception as error:
            if len(calls) > 1:
                return [result for call in calls for result in self._run([call])]
            if (problem := self._too_much(items, options)) is not None:
                return [Rejection(problem)]
            if not isinstance(error, (TypeError, ValueError, KeyError)) and type(error).__name__ != "PipelineException":
                raise
            # From a pipeline, for unusable inputs.
            return [Rejection(f"the pipeline {self._task} cannot use these inputs or parameters: {error}")]

    def _too_much(self, items: Sequence[Any], options: Mapping[str, Any]) -> str | None:
        """What of a failed call is more than the model has: the tokens of a text, or the answers asked for."""
        from servers.apis.packing import first_position

        tokenizer, config = self._pipeline.tokenizer, self._pipeline.model.config
        if tokenizer is None:
            return None
        top_k, size = options.get("top_k"), getattr(config, "vocab_size", None)
        if self._pipeline.task == "fill-mask" and size and isinstance(top_k, int) and top_k > size:
            return f"parameters.top_k: expected at most {size}, the model's tokens, got {top_k}"
        positions = getattr(config, "max_position_embeddings", None) or 0
        limit = positions - first_position(self._pipeline.model.base_model) if positions > 0 else None
        for index, item in enumerate(items):
            if limit is not None and isinstance(item, str) and (count := len(tokenizer(item)["input_ids"])) > limit:
                return f"inputs: this model takes at most {limit} tokens, item {index} has {count}; shorten or split it"
        return None


def to_json(value: Any) -> Any:
    """Numpy and torch values as plain numbers and lists, pictures as PNG data URLs, other values unchanged."""
    from PIL.Image import Image

    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Image):
        buffer = io.BytesIO()
        value.save(buffer, format="PNG")
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return value


def _unpack(item: Any, medium: str) -> Any:
    """The item with its base64 decoded, where the task works on pictures ("image") or sounds ("audio")."""
    if medium == "text":
        return item
    if isinstance(item, str):
        return _sound(item) if medium == "audio" else pictures.decode(pictures.from_base64(item))
    if isinstance(item, dict) and item.keys() <= {"image", "audio", *_TEXT_KEYS}:
        return {key: value if key in _TEXT_KEYS else _unpack(str(value), key) for key, value in item.items()}
    expected = ", ".join(sorted({"image", "audio", *_TEXT_KEYS}))
    raise ValueError(f"expected base64, or an object with base64 under `image` or `audio` and no keys but {expected}")


def _sound(text: str) -> Any:
    """A 16-bit WAV file as float32 samples; other files stay bytes, which transformers decodes with ffmpeg."""
    import numpy as np

    data = pictures.from_base64(text)
    try:
        with wave.open(io.BytesIO(data)) as file:
            if file.getsampwidth() != 2:
                return data
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.float32) / 32768
            return {
                "raw": samples.reshape(-1, file.getnchannels()).mean(axis=1),
                "sampling_rate": file.getframerate(),
            }
    except (wave.Error, EOFError):
        return data
