"""The sampling parameters of a request, checked before any engine sees them.

Some values make vLLM answer 500 or work without bound; these are checked here. Integers, for example, have bounds,
because vLLM passes any integer to its engine, whose protocol ends at 64 bits. What vLLM itself rejects quickly and by
name (ranges of temperature, token ids out of its vocabulary, prompts over its context, broken grammars) is left to it.
"""

import re
from collections.abc import Callable, Mapping, Sized
from typing import Any

from configs.settings import Limits
from servers.errors import ApiError
from servers.gateway.body.cost import choices, prompt_count
from servers.gateway.body.rejection import reject, reject_type, shorten

_MAX_INT32 = 2**31 - 1
# A sequence is one prompt with one choice; vLLM takes 1024 prompts and 16384 choices of each.
_MAX_SEQUENCES = 2048
_MAX_TOKEN_IDS = 1024
_MAX_LOGIT_BIASES = 1024
# No vocabulary is larger. -1 asks vLLM for all of it, which it allows only where it was started so.
_MAX_LOGPROBS = 2**20


def check(document: Mapping[str, Any], limits: Limits) -> None:
    """Check the sampling parameters of a document. Raises ApiError 400 that names the first wrong one."""
    for name, value in document.items():
        # null means "not set"; where vLLM does not accept it, vLLM says so.
        if value is not None and (check_field := _CHECKS.get(name)):
            check_field(name, value, limits)
    sequences = prompt_count(document) * choices(document)
    if sequences > _MAX_SEQUENCES:
        name = "prompt" if "prompt" in document else "messages"
        message = f"{name}: expected at most {_MAX_SEQUENCES} prompts times choices (n), got {sequences}"
        raise ApiError(400, message, code="invalid_value", param=name)


_Check = Callable[[str, Any, Limits], None]


def _whole(minimum: int, maximum: int = _MAX_INT32) -> _Check:
    def check(name: str, value: Any, _: Limits) -> None:
        _check_whole(name, value, minimum, maximum)

    return check


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_size(name: str, value: Any, kind: type[Sized], maximum: int, expected: str) -> None:
    if not isinstance(value, kind):
        reject_type(name, expected, value)
    if len(value) > maximum:
        reject(name, expected, value)


def _check_whole(name: str, value: Any, minimum: int, maximum: int) -> None:
    expected = f"a whole number of {minimum} to {maximum}"
    if not _is_number(value):
        reject_type(name, expected, value)
    if not minimum <= value <= maximum or value != int(value):
        reject(name, expected, value)


def _choice_count(name: str, value: Any, limits: Limits) -> None:
    _check_whole(name, value, 1, limits.max_choices)


def _logprobs(name: str, value: Any, _: Limits) -> None:
    if not isinstance(value, bool):  # chat asks by true or false, completions by a number
        _check_whole(name, value, -1, _MAX_LOGPROBS)


def _number(name: str, value: Any, _: Limits) -> None:
    if not _is_number(value):
        reject_type(name, "a number", value)
    if abs(value) > 1e308:  # an int may be larger than any double
        reject(name, "a number that a double can hold", value)


def _boolean(name: str, value: Any, _: Limits) -> None:
    if not isinstance(value, bool):
        reject_type(name, "true or false", value)


def _object(name: str, value: Any, _: Limits) -> None:
    if not isinstance(value, dict):
        reject_type(name, "an object", value)


def _messages(name: str, value: Any, _: Limits) -> None:
    if not isinstance(value, list):
        reject_type(name, "a list of messages", value)
    if not value:
        reject(name, "at least one message", value)


def _input(name: str, value: Any, _: Limits) -> None:
    """`input` of /v1/responses: vLLM expects text as the first part of an assistant's message, and fails without it."""
    for number, item in enumerate(value if isinstance(value, list) else ()):
        is_answer = isinstance(item, dict) and (item.get("type"), item.get("role")) == ("message", "assistant")
        parts = item.get("content") if is_answer else None
        if isinstance(parts, list) and not (parts and isinstance(parts[0], dict) and "text" in parts[0]):
            reject(f"{name}[{number}].content", "a text as the first part of an assistant's message", parts)


def _prompt(name: str, value: Any, _: Limits) -> None:
    # In /v1/responses it is an object that names a stored prompt.
    if not isinstance(value, (str, list, dict)):
        reject_type(name, "a string, or a list of strings or of token ids", value)


def _stop(name: str, value: Any, limits: Limits) -> None:
    texts = [value] if isinstance(value, str) else value
    expected = f"a string, or a list of at most {limits.max_stop_sequences} strings, none of them empty"
    if not isinstance(texts, list):
        reject_type(name, expected, value)
    if len(texts) > limits.max_stop_sequences:
        reject(name, f"{expected} (limits.max_stop_sequences)", value)
    for text in texts:
        if not isinstance(text, str):
            reject_type(name, expected, text)
        if not text:
            reject(name, expected, text)


def _token_ids(name: str, value: Any, _: Limits) -> None:
    _check_size(name, value, list, _MAX_TOKEN_IDS, f"a list of at most {_MAX_TOKEN_IDS} token ids")
    for number, token_id in enumerate(value):
        _check_whole(f"{name}[{number}]", token_id, 0, _MAX_INT32)


def _logit_bias(name: str, value: Any, _: Limits) -> None:
    expected = f"an object of at most {_MAX_LOGIT_BIASES} token ids, each with a number of -100 to 100"
    _check_size(name, value, dict, _MAX_LOGIT_BIASES, expected)
    for token_id, bias in value.items():
        if not re.fullmatch(r"[0-9]{1,10}", token_id):  # int() would take "1_0" and Arabic digits
            raise ApiError(400, f"{name}: expected {expected}, got another key", code="invalid_value", param=name)
        if not _is_number(bias):
            reject_type(name, expected, bias)
        if not -100 <= bias <= 100:
            reject(name, expected, bias)


def _repetition_detection(name: str, value: Any, limits: Limits) -> None:
    _object(name, value, limits)
    for key, number in value.items():
        _check_whole(f"{name}.{shorten(key)}", number, 0, _MAX_INT32)


_CHECKS: dict[str, _Check] = {
    # vLLM judges 0: with echo, /v1/completions scores a prompt by it.
    "max_tokens": _whole(0),
    "max_completion_tokens": _whole(0),
    "max_output_tokens": _whole(0),
    "min_tokens": _whole(0),
    "max_tool_calls": _whole(0),
    "top_k": _whole(-1),
    "stream_interval": _whole(1),
    "thinking_token_budget": _whole(-1),
    "n": _choice_count,
    "best_of": _choice_count,
    "logprobs": _logprobs,
    "top_logprobs": _whole(-1, _MAX_LOGPROBS),
    "prompt_logprobs": _whole(-1, _MAX_LOGPROBS),
    "temperature": _number,
    "top_p": _number,
    "min_p": _number,
    "presence_penalty": _number,
    "frequency_penalty": _number,
    "repetition_penalty": _number,
    "length_penalty": _number,
    "stream": _boolean,
    "stop": _stop,
    "stop_sequences": _stop,
    "stop_token_ids": _token_ids,
    "logit_bias": _logit_bias,
    "messages": _messages,
    "input": _input,
    "prompt": _prompt,
    "structured_outputs": _object,  # vLLM reads a key of it before its type, and answers 500
    "repetition_detection": _repetition_detection,
}
