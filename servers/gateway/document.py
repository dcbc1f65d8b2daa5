"""A request's JSON document: read strictly, and the fields that OpenAI-style requests share checked.

It exists so that bad input is answered at once with a 4xx that names the field, what was expected and what came, and is
neither parsed differently behind the door nor answered by an engine's 500. What vLLM itself refuses quickly and by name
(ranges of temperature, token ids out of its vocabulary, prompts over its context, broken grammars) is left to it. It
refuses to change a document: what is accepted goes on as the same bytes, and no message repeats what a prompt said.
"""

import json
import math
import re
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NoReturn

import msgspec

from configs.settings import Limits
from servers.gateway.errors import ApiError
from servers.gateway.request import model_in

# vLLM's routes that take sampling parameters.
GENERATION_ROUTES = frozenset(
    {
        "/cohere/v2/chat",
        "/cohere/v2/chat/render",
        "/v1/chat/completions",
        "/v1/chat/completions/batch",
        "/v1/chat/completions/render",
        "/v1/completions",
        "/v1/completions/render",
        "/v1/messages",
        "/v1/messages/render",
        "/v1/responses",
        "/v1/responses/render",
    }
)

# Up to here the body is parsed by Python's json, which can see a key twice; beyond, by msgspec, several times as fast,
# and the last of two keys wins, as it does in the engines.
_SMALL_BYTES = 2**20
# 64 MiB of "[]," would be 22 million lists: seconds and gigabytes in whichever process parses them. Honest bodies that
# large are pictures and arrays of numbers. The marks are counted beyond _SMALL_BYTES, the containers always.
_MAX_CONTAINERS = 2**19
_MAX_MARKS = 2**21
_MAX_INT32 = 2**31 - 1
# A sequence is one prompt with one choice; vLLM takes 1024 prompts and 16384 choices of each.
_MAX_SEQUENCES = 2048
_MAX_TOKEN_IDS = 1024
_MAX_LOGIT_BIASES = 1024
# No vocabulary is larger. -1 asks vLLM for all of it, which it allows only where it was started so.
_MAX_LOGPROBS = 2**20
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True)
class Document:
    """What the front door needs to know of a body: the `model` it names, and what it may cost.

    `tokens` is an estimate for admission, made without a tokenizer: a token for each four bytes of prompt text and for
    each token id, at least one, and as many as may be generated where the request says. Pictures and sound count as
    nothing, and so does what the model generates when the request gives no limit.
    """

    model: str | None
    tokens: int


def read(
    body: bytes, content_type: str, limits: Limits, *, generation: bool = False, any_value: bool = False
) -> Document:
    """Read a body strictly. Raises ApiError 400 for what it holds, 415 for its content type.

    `generation` checks the sampling parameters, too. `any_value` is for routes whose model decides what it takes: there
    JSON may be any value, and a body that is not declared to be JSON is not looked at.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    is_json = media_type == "application/json" or media_type.endswith("+json")
    if media_type == "multipart/form-data" and not generation:
        return Document(None if any_value else model_in(body, "multipart/form-data"), 1)
    if any_value and not is_json:
        return Document(None, 1)
    if media_type and not is_json:
        message = f"expected a body of application/json, got content type {_quoted(media_type)}"
        raise ApiError(415, message, code="unsupported_media_type")
    document = _parsed(body, limits.max_json_depth, only_object=not any_value)
    if not isinstance(document, dict):
        return Document(None, 1)
    model = document.get("model")
    if any_value:
        return Document(None, 1)  # the path names the model; a field of that name is the model's own
    if model is not None and not isinstance(model, str):
        _refuse_type("model", "a string", model)
    if generation:
        check_generation(document, limits)
    return Document(model, _tokens(document))


def check_generation(document: Mapping[str, Any], limits: Limits) -> None:
    """Check the sampling parameters of a document. Raises ApiError 400 naming the first that is at fault."""
    for name, value in document.items():
        # null is "not given"; where vLLM does not take it, vLLM says so.
        if value is not None and (check := _CHECKS.get(name)):
            check(name, value, limits)
    sequences = _prompt_count(document) * _choices(document)
    if sequences > _MAX_SEQUENCES:
        message = f"prompt: expected at most {_MAX_SEQUENCES} prompts times choices (n), got {sequences}"
        raise ApiError(400, message, code="invalid_value", param="prompt")


# What a body is.


def _parsed(body: bytes, max_depth: int, *, only_object: bool) -> Any:
    if only_object and body[:64].lstrip(b" \t\r\n")[:1] == b"[":  # before 64 MiB of them are counted
        raise ApiError(400, "the body: expected an object, got a list", code="invalid_type")
    is_small = len(body) <= _SMALL_BYTES
    try:
        text = body.decode() if is_small else ""
        if not is_small and not body.isascii():
            body.decode()
    except UnicodeDecodeError as problem:
        raise _invalid(f"byte {problem.start} is not UTF-8") from None
    _check_shape(body, max_depth, 0 if is_small else _MAX_MARKS if only_object else 2 * _MAX_MARKS)
    try:
        if not is_small:
            # Where any value is taken, none of it is asked for, and so none is built.
            document = msgspec.json.decode(body) if only_object else msgspec.json.decode(body, type=msgspec.Raw)
        else:
            document = _STRICT.decode(text)
            if _SURROGATE.search(body):
                _check_encodable(document)
    except json.JSONDecodeError as problem:
        raise _invalid(f"{problem.msg} at character {problem.pos}") from None
    except msgspec.DecodeError as problem:
        raise _invalid(str(problem)) from None
    except RecursionError:  # the depth was checked: only where that limit is close to Python's own
        raise _invalid("it is nested too deeply") from None
    except ValueError:  # what is left of it: Python's limit for the digits of an int, far beyond any number's use
        raise _invalid("a whole number in it has too many digits") from None
    if only_object and not isinstance(document, dict):
        raise ApiError(400, f"the body: expected an object, got {_seen(document)}", code="invalid_type")
    return document


def _check_shape(body: bytes, max_depth: int, max_marks: int) -> None:
    """Refuse a body that is nested too deeply or has too many parts, before anything is built from it."""
    if not max_marks:
        brackets = body.count(b"[") + body.count(b"{")
    else:
        marks = body.translate(None, _NO_MARKS)
        brackets = marks.count(b"[") + marks.count(b"{")
        # Those in strings are counted, too, which only a text longer than any model reads could mind.
        if max(brackets, marks.count(b","), marks.count(b'"'), marks.count(b"\\")) > max_marks:
            message = f'a body of {len(body)} bytes may have at most {max_marks} of each of , " \\ and opening brackets'
            raise _invalid(message)
    if brackets <= max_depth:
        return
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_strings = b"".join(body.translate(None, _NO_OUTLINE).split(b'"')[::2])
    steps = array("b", outside_strings.translate(_STEPS))
    if len(steps) > 2 * _MAX_CONTAINERS:
        raise _invalid(f"expected at most {_MAX_CONTAINERS} lists and objects, got {len(steps) // 2}")
    depth = max(accumulate(steps), default=0)
    if depth > max_depth:
        raise _invalid(f"it is nested {depth} deep, and at most {max_depth} is taken (limits.max_json_depth)")


_NO_MARKS = bytes(set(range(256)) - set(b'"[{,\\'))
_NO_OUTLINE = bytes(set(range(256)) - set(b'"[]{}'))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        twin = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _invalid(f"the key {_quoted(twin)} is there twice in one object", _as_param(twin))
    return document


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _invalid("a number in it is too large for a double")
    return number


def _no_constant(text: str) -> NoReturn:
    raise _invalid(f"{text} is no JSON value")


_STRICT = json.JSONDecoder(object_pairs_hook=_without_twins, parse_float=_finite, parse_constant=_no_constant)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def _check_encodable(document: Any) -> None:
    """Refuse half a surrogate pair, which JSON can spell and no encoding can carry; servers answer 500 to it."""
    for name, value in document.items() if isinstance(document, dict) else [("", document)]:
        try:
            json.dumps({name: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _invalid("a string in it has half of a surrogate pair", _as_param(name)) from None


def _as_param(key: str) -> str | None:
    # Any other key may be one that cannot be encoded.
    return _shortened(key) if key.isascii() and key.isprintable() and key else None


def _invalid(problem: str, param: str | None = None) -> ApiError:
    return ApiError(400, f"the body cannot be read as JSON: {problem}", code="invalid_json", param=param)


# What the fields of a generation hold. Integers are bounded where vLLM would carry any to its engine, whose protocol
# ends at 64 bits: beyond, it answers 500.

_Check = Callable[[str, Any, Limits], None]


def _whole(minimum: int, maximum: int = _MAX_INT32) -> _Check:
    def check(name: str, value: Any, _: Limits) -> None:
        _check_whole(name, value, minimum, maximum)

    return check


def _check_whole(name: str, value: Any, minimum: int, maximum: int) -> None:
    expected = f"a whole number of {minimum} to {maximum}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _refuse_type(name, expected, value)
    if not minimum <= value <= maximum or value != int(value):
        _refuse(name, expected, value)


def _choice_count(name: str, value: Any, limits: Limits) -> None:
    _check_whole(name, value, 1, limits.max_choices)


def _logprobs(name: str, value: Any, _: Limits) -> None:
    if not isinstance(value, bool):  # chat asks by true or false, completions by a number
        _check_whole(name, value, -1, _MAX_LOGPROBS)


def _number(name: str, value: Any, _: Limits) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _refuse_type(name, "a number", value)
    if abs(value) > 1e308:  # an int may be larger than any double
        _refuse(name, "a number that a double can hold", value)


def _boolean(name: str, value: Any, _: Limits) -> None:
    if not isinstance(value, bool):
        _refuse_type(name, "true or false", value)


def _object(name: str, value: Any, _: Limits) -> None:
    if not isinstance(value, dict):
        _refuse_type(name, "an object", value)


def _messages(name: str, value: Any, _: Limits) -> None:
    if not isinstance(value, list):
        _refuse_type(name, "a list of messages", value)
    if not value:
        _refuse(name, "at least one message", value)


def _input(name: str, value: Any, _: Limits) -> None:
    """Of /v1/responses: vLLM takes the first part of an assistant's message for a text, and fails when it is not."""
    for number, item in enumerate(value if isinstance(value, list) else ()):
        says = isinstance(item, dict) and (item.get("type"), item.get("role")) == ("message", "assistant")
        parts = item.get("content") if says else None
        if isinstance(parts, list) and not (parts and isinstance(parts[0], dict) and "text" in parts[0]):
            _refuse(f"{name}[{number}].content", "a text as the first part of an assistant's message", parts)


def _prompt(name: str, value: Any, _: Limits) -> None:
    # Of /v1/responses it is an object, the name of a stored one.
    if not isinstance(value, (str, list, dict)):
        _refuse_type(name, "a string, or a list of strings or of token ids", value)


def _stop(name: str, value: Any, limits: Limits) -> None:
    texts = [value] if isinstance(value, str) else value
    expected = f"a string, or a list of at most {limits.max_stop_sequences} strings, none of them empty"
    if not isinstance(texts, list):
        _refuse_type(name, expected, value)
    if len(texts) > limits.max_stop_sequences:
        _refuse(name, f"{expected} (limits.max_stop_sequences)", value)
    for text in texts:
        if not isinstance(text, str):
            _refuse_type(name, expected, text)
        if not text:
            _refuse(name, expected, text)


def _token_ids(name: str, value: Any, _: Limits) -> None:
    expected = f"a list of at most {_MAX_TOKEN_IDS} token ids"
    if not isinstance(value, list):
        _refuse_type(name, expected, value)
    if len(value) > _MAX_TOKEN_IDS:
        _refuse(name, expected, value)
    for number, token_id in enumerate(value):
        _check_whole(f"{name}[{number}]", token_id, 0, _MAX_INT32)


def _logit_bias(name: str, value: Any, _: Limits) -> None:
    expected = f"an object of at most {_MAX_LOGIT_BIASES} token ids, each with a number of -100 to 100"
    if not isinstance(value, dict):
        _refuse_type(name, expected, value)
    if len(value) > _MAX_LOGIT_BIASES:
        _refuse(name, expected, value)
    for token_id, bias in value.items():
        if not re.fullmatch(r"[0-9]{1,10}", token_id):  # int() would take "1_0" and Arabic digits
            raise ApiError(400, f"{name}: expected {expected}, got another key", code="invalid_value", param=name)
        if isinstance(bias, bool) or not isinstance(bias, (int, float)):
            _refuse_type(name, expected, bias)
        if not -100 <= bias <= 100:
            _refuse(name, expected, bias)


def _repetition_detection(name: str, value: Any, limits: Limits) -> None:
    _object(name, value, limits)
    for key, number in value.items():
        _check_whole(f"{name}.{_shortened(key)}", number, 0, _MAX_INT32)


_CHECKS: dict[str, _Check] = {
    # 0 is for vLLM to judge: /v1/completions scores a prompt so (echo).
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
    "structured_outputs": _object,  # vLLM asks it for a key before it looks at its type, and answers 500
    "repetition_detection": _repetition_detection,
}


def _refuse(name: str, expected: str, value: Any, code: str = "invalid_value") -> NoReturn:
    raise ApiError(400, f"{name}: expected {expected}, got {_seen(value)}", code=code, param=name)


def _refuse_type(name: str, expected: str, value: Any) -> NoReturn:
    _refuse(name, expected, value, "invalid_type")


def _seen(value: Any) -> str:
    """A value in few words, without its text."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            text = str(value)
            return text if len(text) <= 40 else f"a number of {len(text)} digits"
        case str():
            return f"a string of {len(value)} characters" if value else "an empty string"
        case list():
            return f"a list of {len(value)}" if value else "an empty list"
        case _:
            return f"an object of {len(value)} keys" if value else "an empty object"


def _shortened(text: str) -> str:
    return text if len(text) <= 64 else f"{text[:61]}..."


def _quoted(text: str) -> str:
    return ascii(_shortened(text))[:80]


# What a request may cost.

_PROMPTS = ("prompt", "messages", "input", "system", "instructions", "tools", "text", "texts", "query", "documents")
_MEDIA = frozenset({"audio_url", "file", "image", "image_url", "input_audio", "source", "video_url"})
_OUTPUTS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


def _tokens(document: Mapping[str, Any]) -> int:
    text_bytes = sum(_text_bytes(document[name]) for name in _PROMPTS if name in document)
    outputs = next((int(document[name]) for name in _OUTPUTS if _is_count(document.get(name))), 0)
    generated = outputs * _choices(document) * _prompt_count(document)
    return max(1, text_bytes // _BYTES_PER_TOKEN) + generated


def _text_bytes(prompt: Any) -> int:
    size = 0
    rest = [prompt]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            # No surrogate is left, so UTF-8 takes it.
            size += len(value) if value.isascii() else len(value.encode())
        elif isinstance(value, list):
            if value and isinstance(value[0], int):  # token ids
                size += _BYTES_PER_TOKEN * len(value)
            else:
                rest += value
        elif isinstance(value, dict):
            rest += [part for key, part in value.items() if key not in _MEDIA]
    return size


def _prompt_count(document: Mapping[str, Any]) -> int:
    prompt = document.get("prompt")
    return len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1


def _choices(document: Mapping[str, Any]) -> int:
    return max([int(document[name]) for name in ("n", "best_of") if _is_count(document.get(name))], default=1)


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 1
