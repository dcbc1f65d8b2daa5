"""Sentence embeddings over OpenAI's /v1/embeddings, through LitServe's own spec.

Lists in one request work together with batches across requests; LitServe's spec allows only one of the two. A text that
is too long is rejected and not truncated, as nobody can tell the vector of half a text from that of the whole.
"""

import base64
import contextlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import litserve
import msgspec
from fastapi import HTTPException
from litserve.specs.openai_embedding import EmbeddingRequest, EmbeddingResponse, OpenAIEmbeddingSpec
from pydantic import ConfigDict, PositiveInt, ValidationError, field_validator

from servers.apis.equality import Equality, Variant
from servers.apis.rejection import Rejection
from servers.apis.selection import select

if TYPE_CHECKING:
    from torch import Tensor

_MAX_INPUTS = 2048  # OpenAI's own limit for one request


class InputRequest(EmbeddingRequest):  # type: ignore[misc] # litserve ships no complete types
    """LitServe's request, with empty inputs rejected and a correct count of the inputs.

    LitServe's own class counts the tokens of the first list instead of the lists, counts one list of ids as many
    inputs, and raises IndexError for [].
    """

    model_config = ConfigDict(json_schema_extra={"description": f"Up to {_MAX_INPUTS} inputs, none of them empty."})

    dimensions: PositiveInt | None = None

    @field_validator("input")
    @classmethod
    def _is_not_empty(cls, value: Any) -> Any:
        _check_items(_items(value))
        return value

    def get_num_items(self) -> int:
        """The number of vectors in the answer."""
        return len(_items(self.input))


class EmbeddingSpec(OpenAIEmbeddingSpec):  # type: ignore[misc] # litserve ships no complete types
    """LitServe's spec, with lists also where requests are batched, and with 4xx answers.

    `request_type` and `render` are the worker host's short way around the endpoint (`host.specs.ShortSpec`).
    """

    request_type = InputRequest

    def pre_setup(self, lit_api: Any) -> None:
        """Register the route."""
        super().pre_setup(lit_api)
        self._max_batch_size = 1  # above 1 the endpoint would reject lists, which our predict takes

    async def embeddings_endpoint(self, request: InputRequest) -> EmbeddingResponse:
        """Answer POST /v1/embeddings; overridden for the type of `request`, from which FastAPI reads the body."""
        return await super().embeddings_endpoint(request)

    def render(self, request: InputRequest, response: Any) -> bytes:
        """The JSON that the endpoint would answer with. Raises HTTPException for a Rejection."""
        self._validate_response(response)
        vectors = response["embeddings"]
        if request.encoding_format == "base64":
            vectors = [base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() for vector in vectors]
        data = [{"index": index, "embedding": vector, "object": "embedding"} for index, vector in enumerate(vectors)]
        usage = {name: response[name] for name in ("prompt_tokens", "total_tokens")}
        return msgspec.json.encode({"data": data, "model": request.model, "object": "list", "usage": usage})

    def _validate_response(self, response: Any) -> None:
        if isinstance(response, Rejection):  # the first place in the API server that has the worker's answer
            raise HTTPException(response.status, response.detail)
        super()._validate_response(response)


@dataclass(frozen=True)
class Texts:
    """Texts that came as a tensor, and whose vectors go back as one."""

    input: list[str]
    dimensions: None = None


@dataclass(frozen=True)
class _Inputs:
    sequences: Sequence[Sequence[int]]
    dimensions: int | None
    is_tensor: bool


@dataclass(frozen=True)
class _Vectors:
    rows: "Tensor"  # (inputs, dimensions), float32
    token_count: int
    is_tensor: bool


class EmbeddingAPI(litserve.LitAPI):  # type: ignore[misc] # litserve ships no complete types
    """OpenAI embeddings of texts, batched within and across requests."""

    input_description = '{"input": text, [text, ...] or token ids, "model": name, "dimensions", "encoding_format"}'
    output_description = '{"data": [{"index": 0, "embedding": [...]}, ...], "usage": {...}}, as OpenAI has it'
    uses_torch = True
    variant = Variant()
    equality: Equality | None = None
    example_request = {"input": "canary", "model": "canary"}  # noqa: RUF012 # a constant

    def __init__(
        self,
        model_dir: str,
        *,
        forward_size: int = 32,
        max_batch_size: int = 1,
        batch_timeout: float = 0.005,
    ) -> None:
        if not isinstance(forward_size, int) or forward_size < 1:
            raise ValueError(f"init.forward_size: expected a whole number of 1 or more, got {forward_size!r}")
        super().__init__(max_batch_size=max_batch_size, batch_timeout=batch_timeout, spec=EmbeddingSpec())
        self._model_dir = Path(model_dir)
        self._forward_size = forward_size

    @property
    def tensors(self) -> dict[str, Any]:
        """Texts in, one vector for each out."""
        file = self._model_dir / "config.json"
        size = json.loads(file.read_text()).get("hidden_size", -1) if file.is_file() else -1
        return {
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": "embedding", "datatype": "FP32", "shape": [-1, size]}],
        }

    def setup(self, device: str) -> None:
        """Load the encoder onto `device`, a variant of it only with the proof.

        Raises ValueError when its folder asks for an unknown pooling, UserError when the proof fails.
        """
        from servers.apis import sentence_encoder

        def load(variant: Variant) -> Any:
            return sentence_encoder.from_folder(self._model_dir, device, variant, self._forward_size)

        items = _items_of(self.variant.checks)
        answer = partial(sentence_encoder.answer_proof, [item for _, item in items])
        self._encoder, self.equality = select(
            self.variant, "cosine", load, answer, self.max_batch_size, [name for name, _ in items]
        )

    def decode_tensors(self, tensors: Mapping[str, Any], _parameters: Mapping[str, Any]) -> Texts:
        """The texts of a request with tensors. Raises HTTPException."""
        texts = []
        for index, element in enumerate(tensors["text"].tolist()):
            try:
                texts.append(element.decode())
            except UnicodeDecodeError as problem:
                raise HTTPException(400, f"input 'text': element {index} is not UTF-8: {problem.reason}") from None
        try:
            _check_items(texts)
        except ValueError as problem:
            raise HTTPException(400, f"input 'text': {problem}") from None
        return Texts(texts)

    def decode_request(self, request: Any) -> Any:
        """The request with its inputs as token ids, or a Rejection."""
        encoder = self._encoder
        items = _items(request.input)
        sequences = encoder.tokenize(items) if isinstance(items[0], str) else items
        for index, sequence in enumerate(sequences):
            if len(sequence) > encoder.max_tokens:
                return Rejection(
                    f"input: this model takes at most {encoder.max_tokens} tokens, item {index} has {len(sequence)}; "
                    "shorten or split it"
                )
            if not sequence:
                return Rejection(f"input: item {index} has no tokens in this model's vocabulary")
            if not 0 <= min(sequence) <= max(sequence) < encoder.vocabulary_size:
                return Rejection(f"input: token ids of item {index} must lie in 0..{encoder.vocabulary_size - 1}")
        if request.dimensions is not None and request.dimensions > encoder.dimensions:
            return Rejection(f"dimensions: this model has {encoder.dimensions}, got {request.dimensions}")
        return _Inputs(sequences, request.dimensions, isinstance(request, Texts))

    def predict(self, x: Any) -> Any:
        """Embed the inputs of all requests together; a Rejection stays in its place."""
        requests = x if self.max_batch_size > 1 else [x]
        sequences = [ids for request in requests if not isinstance(request, Rejection) for ids in request.sequences]
        vectors = self._encoder.embed(sequences)
        results: list[Any] = []
        begin = 0
        for request in requests:
            if isinstance(request, Rejection):
                results.append(request)
                continue
            end = begin + len(request.sequences)
            results.append(_cut(vectors[begin:end], request))
            begin = end
        return results if self.max_batch_size > 1 else results[0]

    def encode_response(self, output: Any) -> Any:
        """The input of LitServe's spec for OpenAI's answer; prompt_tokens are the tokens that the model read.

        For texts that came as a tensor, the vectors.
        """
        if isinstance(output, Rejection):
            return output
        if output.is_tensor:
            return {"embedding": output.rows}
        tokens = {"prompt_tokens": output.token_count, "total_tokens": output.token_count}
        return {"embeddings": output.rows.tolist(), **tokens}


def _items(value: Any) -> Sequence[Any]:
    is_one = isinstance(value, str) or (bool(value) and isinstance(value[0], int))
    return [value] if is_one else value


def _items_of(checks: Sequence[Mapping[str, Any]]) -> list[tuple[str, str | Sequence[int]]]:
    """The texts and token ids of the checks, each with its check's name; what is no request of this API has none."""
    items: list[tuple[str, str | Sequence[int]]] = []
    for check in checks:
        if isinstance(check["body"], dict):
            with contextlib.suppress(ValidationError):
                request = InputRequest.model_validate({"model": "", **check["body"]})
                items += [(check["name"], item) for item in _items(request.input)]
    return items


def _check_items(items: Sequence[Any]) -> None:
    if not 1 <= len(items) <= _MAX_INPUTS:
        raise ValueError(f"expected 1 to {_MAX_INPUTS} inputs, got {len(items)}")
    for index, item in enumerate(items):
        if not item:
            raise ValueError(f"expected no empty input, but item {index} is empty")


def _cut(rows: "Tensor", request: _Inputs) -> _Vectors:
    from torch.nn.functional import normalize

    if request.dimensions is not None:  # as OpenAI does: the first numbers, scaled to unit length
        rows = normalize(rows[:, : request.dimensions], dim=-1)
    return _Vectors(rows, sum(map(len, request.sequences)), request.is_tensor)
