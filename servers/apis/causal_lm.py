"""Text generation with any causal language model of transformers, streamed or not, with or without batches.

It is the baseline that vLLM is compared with: the same requests on the same weights through a plain, correct loop. It
is not a second LLM server: it has no OpenAI routes, and a batch runs until its longest answer ends.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litserve
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from servers.apis import pretrained
from servers.apis.rejection import Rejection


class GenerationRequest(BaseModel):
    """The JSON body: one of prompt, messages and prompt_token_ids, and how to continue it."""

    model_config = ConfigDict(extra="forbid")

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = Field(default=None, min_length=1)
    prompt_token_ids: list[NonNegativeInt] | None = Field(default=None, min_length=1)
    max_tokens: PositiveInt = 128
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # greedy by default
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stop: str | list[str] = []
    ignore_eos: bool = False

    @model_validator(mode="after")
    def _has_one_prompt(self) -> "GenerationRequest":
        prompts = [name for name in ("prompt", "messages", "prompt_token_ids") if getattr(self, name) is not None]
        if len(prompts) != 1:
            names = " and ".join(prompts) or "none"
            raise ValueError(f"expected one of prompt, messages and prompt_token_ids, got {names}")
        if "" in self.stops:
            raise ValueError("stop: expected no empty string")
        return self

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else self.stop


class CausalLMAPI(litserve.LitAPI):  # type: ignore[misc] # litserve ships no complete types
    """Text generation with a transformers model: batched, streamed, greedy or sampled."""

    input_description = (
        '{"prompt": text | "messages": [...] | "prompt_token_ids": [...], "max_tokens", "temperature", "top_p", '
        '"seed", "stop", "ignore_eos"}'
    )
    output_description = (
        '{"text", "token_ids", "finish_reason", "usage"}; streamed: a JSON line a token, the last with finish_reason'
    )
    response_schema = {  # noqa: RUF012 # a constant
        "type": "object",
        "required": ["text", "token_ids", "finish_reason", "usage"],
        "properties": {
            "text": {"type": "string"},
            "token_ids": {"type": "array", "items": {"type": "integer"}},
            "finish_reason": {"type": "string", "enum": ["stop", "length"]},
            "usage": {
                "type": "object",
                "properties": {
                    "prompt_tokens": {"type": "integer"},
                    "completion_tokens": {"type": "integer"},
                    "total_tokens": {"type": "integer"},
                },
            },
        },
    }
    uses_torch = True
    example_request = {"prompt": "canary", "max_tokens": 1}  # noqa: RUF012 # a constant

    def __init__(
        self,
        model_dir: str,
        *,
        dtype: str = "auto",
        max_model_len: int | None = None,
        max_batch_size: int = 1,
        batch_timeout: float = 0.005,
        stream: bool = False,
    ) -> None:
        super().__init__(max_batch_size=max_batch_size, batch_timeout=batch_timeout, stream=stream)
        self._model_dir = Path(model_dir)
        self._dtype = dtype
        self._max_model_len = max_model_len

    def setup(self, device: str) -> None:
        """Load the model onto `device`; dtype "auto" is that of the weights."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from servers.apis.generation import Generation

        self._tokenizer = AutoTokenizer.from_pretrained(self._model_dir, trust_remote_code=False)
        model = pretrained.load(AutoModelForCausalLM, self._model_dir, dtype=self._dtype).to(device).eval()
        self._vocabulary_size = model.config.vocab_size
        self._limit = self._max_model_len or model.config.max_position_embeddings
        self._generation = Generation(model, self._tokenizer)

    def decode_request(self, request: GenerationRequest) -> Any:
        """The request as a Prompt of token ids, or a Rejection. The body itself is checked before it is queued."""
        from servers.apis.generation import Prompt

        ids = self._token_ids(request)
        if isinstance(ids, Rejection):
            return ids
        if len(ids) + request.max_tokens > self._limit:
            return Rejection(
                f"max_tokens: this model has room for {self._limit} tokens, and the prompt's {len(ids)} and "
                f"max_tokens {request.max_tokens} are more; shorten one of them"
            )
        return Prompt(
            token_ids=ids,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=request.stops,
            ignore_eos=request.ignore_eos,
        )

    @property
    def predict(self) -> Any:
        """The function for the mode: LitServe needs a generator function for streams and a plain one otherwise."""
        return self._predict_stream if self.stream else self._predict_whole

    @property
    def encode_response(self) -> Any:
        """The function for the mode, as with `predict`."""
        return self._encode_stream if self.stream else self._encode_whole

    def _predict_whole(self, x: Any) -> Any:
        if self.max_batch_size > 1:
            return self._complete(x)
        return self._complete([x])[0]

    def _predict_stream(self, x: Any) -> Iterator[Any]:
        requests = x if self.max_batch_size > 1 else [x]
        for lines in self._lines(requests):
            yield lines if self.max_batch_size > 1 else lines[0]

    def _encode_whole(self, output: Any) -> Any:
        return output.response() if isinstance(output, Rejection) else output

    def _encode_stream(self, output: Any) -> Any:
        # LitServe ends each object with a line feed, and sends nothing for "" (a row without a token in this step).
        yield from output

    def _complete(self, requests: list[Any]) -> list[Any]:
        answers: list[Any] = [{"text": "", "token_ids": []} for _ in requests]
        for lines in self._lines(requests):
            for row, line in enumerate(lines):
                if line and "error" not in line:
                    answers[row]["text"] += line.pop("text")
                    answers[row]["token_ids"] += line.pop("token_ids")
                    answers[row].update(line)
        return [
            request if isinstance(request, Rejection) else answer
            for request, answer in zip(requests, answers, strict=True)
        ]

    def _lines(self, requests: list[Any]) -> Iterator[list[Any]]:
        """For each step a line (a dict) for each request, or "" where it has none."""
        rejections = [request if isinstance(request, Rejection) else None for request in requests]
        if any(rejections):  # status 200 of the stream is on its way by now, so the error is a line
            yield [{"error": error.detail, "status": error.status} if error else "" for error in rejections]
        rows = [row for row, error in enumerate(rejections) if error is None]
        counts = [0] * len(rows)
        for steps in self._generation.steps([requests[row] for row in rows]) if rows else ():
            lines: list[Any] = [""] * len(requests)
            for index, step in enumerate(steps):
                if step is None:
                    continue
                counts[index] += 1
                line: dict[str, Any] = {"text": step.text, "token_ids": [step.token_id]}
                if step.finish_reason:
                    line["finish_reason"] = step.finish_reason
                    line["usage"] = _usage(len(requests[rows[index]].token_ids), counts[index])
                lines[rows[index]] = line
            yield lines

    def _token_ids(self, request: GenerationRequest) -> list[int] | Rejection:
        if request.prompt_token_ids is not None:
            if max(request.prompt_token_ids) >= self._vocabulary_size:
                return Rejection(f"prompt_token_ids: expected ids below {self._vocabulary_size}")
            return list(request.prompt_token_ids)
        ids: list[int]
        if request.messages is None:
            ids = self._tokenizer(request.prompt)["input_ids"]
            return ids or Rejection("prompt: expected text, got none")
        from jinja2 import TemplateError

        try:
            text = self._tokenizer.apply_chat_template(request.messages, tokenize=False, add_generation_prompt=True)
        except (
            TemplateError,
            ValueError,
            TypeError,
            KeyError,
        ) as error:  # it works on the client's objects
            return Rejection(f"messages: this model's chat template refuses them: {error}")
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
