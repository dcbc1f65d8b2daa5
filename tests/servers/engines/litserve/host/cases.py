"""LitAPIs and requests to them that are answered on the worker host as on plain LitServe."""

import base64
from typing import Any

from tests.servers.engines.litserve.child import STRANGERS
from tests.servers.engines.litserve.host.twins import Case, Raw

FORM = "multipart/form-data; boundary=x"
FIELDS = "application/x-www-form-urlencoded"
# One red pixel.
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
_CAT = base64.b64encode(b"a picture of a cat").decode()


def case(name: str, api: str, *requests: Any, **settings: Any) -> Case:
    """`api` is `file:Class` among the strangers, an import path, or the name of a built-in one with a colon."""
    file, _, class_name = api.partition(":")
    is_file = class_name and "." not in file
    return Case(name, f"{STRANGERS}/{file}.py:{class_name}" if is_file else api.rstrip(":"), requests, settings)


def chat(content: Any, **options: Any) -> dict[str, Any]:
    """A chat request of one message."""
    return {"model": "m", "messages": [{"role": "user", "content": content}], **options}


def vectors(texts: Any, **options: Any) -> dict[str, Any]:
    """A request for embeddings."""
    return {"input": texts, "model": "m", **options}


def upload(*parts: tuple[str, bytes], file_name: str | None = "a.bin") -> bytes:
    """A multipart body with these names and contents."""
    named = f'; filename="{file_name}"\r\nContent-Type: application/x-own' if file_name else ""
    bodies = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + content
        for name, content in parts
    ]
    return b"\r\n".join([*bodies, b"--x--\r\n"])


_BATCHES: dict[str, Any] = {"max_batch_size": 4, "batch_timeout": 0.01}
_VALUES = ["text", "none", "floats", "big", "tuple", "set", "keys", "date", "delta", "path", "enum", "point"]
_MORE_VALUES = ["model", "models", "bytes", "float64", "response", "large"]
_REPLIES = ["html", "json", "text", "redirect", "empty", "cookie", "picture", "file", "other"]
_TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "of a city", "parameters": {"type": "object", "properties": {}}},
}
_PICTURE = [
    {"type": "text", "text": "what?"},
    {"type": "image_url", "image_url": {"url": "data:,"}},
    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
]
_SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}

BODIES = [
    case("simple", "documented:SimpleAPI", {"input": 3}, {"input": 2.5}),
    case("bare", "documented:BareAPI", {"a": [1, None, "é", 1e300]}, [1], "x", 5, None, Raw("text/plain", b'{"a": 1}')),
    case("bare-more", "documented:BareAPI", Raw("", b'{"a": 1}'), 10**40, {"": {"": []}}, "x" * 300_000),
    case(
        "typed",
        "documented:TypedAPI",
        {"text": "hello"},
        {"text": "hello", "top_k": "1"},
        {"text": "hello", "more": 1},
        {"text": "x"},
        {},
        [],
        None,
        Raw("application/json", b'{"text": '),
        Raw("application/json", b""),
        Raw("application/json; charset=utf-8", b'{"text": "hello"}'),
        Raw("text/plain", b'{"text": "hello"}'),
        Raw("application/vnd.x+json", b'{"text": "hello"}'),
    ),
    case(
        "form",
        "documented:FormAPI",
        {"content": "AAH/", "name": "n"},
        Raw(FORM, upload(("content", b"\x00\x01\xff"))),
        Raw(FORM, upload(("content", b"\x00" * 3_000_000))),
        Raw(FIELDS, b"content=AAH%2F&name=n+m"),
    ),
    case("request", "kinds:RequestAPI", {"input": [1]}, Raw(FIELDS, b"input=a"), Raw(FORM, upload(("input", b"a")))),
    case("dict", "kinds:DictAPI", {"a": 1, "b": 2.5}, {"a": "x"}, {}, []),
    case("list", "kinds:ListAPI", [1, 3, 2], ["4"], {"a": 1}, [1, "x"]),
    case("union", "kinds:UnionAPI", {"kind": "cat"}, {"kind": "dog", "name": "rex"}, {"kind": "cow"}, {"kind": "dog"}),
    case("dataclass", "kinds:DataclassAPI", {"x": 1}, {"x": 1, "y": 2}, {"y": 2}),
    case("embedded", "kinds:EmbeddedAPI", {"request": 3}, 3, {"request": -1}),
    case("query", "kinds:QueryAPI", Raw("", b"", "request=4"), Raw("", b"", "request=x"), {"request": 4}),
    case(
        "form-model",
        "kinds:FormModelAPI",
        Raw(FIELDS, b"name=a&age=3"),
        Raw(FIELDS, b"age=x"),
        Raw(FORM, upload(("name", b"a"), file_name=None)),
    ),
    case("upload", "kinds:UploadAPI", Raw(FORM, upload(("request", b"\xff\xd8\xff\xe0 picture"))), Raw(FIELDS, b"a=1")),
    case(
        "files",
        "kinds:FilesAPI",
        Raw(FORM, upload(("file", b"a"), ("file", b"bc"), ("other", b""))),
    ),
    case("picture", "kinds:PictureAPI", {"image": _CAT}),
]
ANSWERS = [
    case("values", "answers:ValuesAPI", *({"value": value} for value in [*_VALUES, *_MORE_VALUES])),
    case(
        "replies",
        "answers:RepliesAPI",
        *({"kind": kind} for kind in _REPLIES),
    ),
    case("narrow", "answers:NarrowAPI", {"label": "x"}),
    case("failing", "documented:FailingAPI", *({"where": where} for where in ("decode", "predict", "key"))),
    case("own-path", "kinds:PathAPI", {}),
    case("log", "kinds:LogAPI", {"figure": 3}),
    case("methods", "documented:BareAPI", *(Raw("", b"", "", method) for method in ("GET", "PUT", "DELETE"))),
]
BATCHES = [
    case("batched", "documented:BatchedAPI", {"input": 3}, {"input": [1, 2]}, **_BATCHES),
    case("collating", "documented:CollatingAPI", {"input": 3}, {"input": 3, "scale": 2}, **_BATCHES),
    case("stacked", "kinds:StackedAPI", {"input": [1, 2]}, {"input": [3, 4.5]}, **_BATCHES),
    case("tensors", "kinds:TensorsAPI", {"text": "abc"}, {"text": ""}, **_BATCHES),
    case("batches", "batches:BatchesAPI", {"input": [1]}, max_batch_size=2, batch_timeout=0.01),
    case("slow-batches", "slow:SlowBatchesAPI", {"name": "a", "begun": "/dev/null", "how": "now"}, **_BATCHES),
    case("talking-batches", "talks:TalkingBatchesAPI", {"name": "a"}, **_BATCHES),
    case("batched-stream", "documented:BatchedStreamAPI", {"prompt": "p"}, stream=True, **_BATCHES),
    case("unbatched-stream", "kinds:UnbatchedStreamAPI", {"name": "p"}, stream=True, **_BATCHES),
    case("batched-countdown", "streams:BatchedCountdownAPI", {"from": 3}, stream=True, **_BATCHES),
    case(
        "slow-stream-batches",
        "slow:SlowStreamBatchesAPI",
        {"begun": "/dev/null", "how": "now"},
        stream=True,
        **_BATCHES,
    ),
    case("vector-batches", "specs:VectorBatchesAPI", vectors("text"), vectors(["text", "b"])),
]
STREAMS = [
    case("stream", "documented:StreamAPI", {"count": 3}, {"count": 0}, stream=True),
    case("stream-text", "documented:StreamTextAPI", {}, stream=True),
    case("events", "documented:EventsAPI", {"prompt": "a b c"}, stream=True),
    case("context-stream", "kinds:ContextStreamAPI", {"text": "abc", "mark": "!"}, stream=True),
    case("countdown", "streams:CountdownAPI", {"from": 3}, {"from": 0}, {"from": 200}, stream=True),
    case("slow-stream", "slow:SlowStreamAPI", {"begun": "/dev/null", "how": "now"}, stream=True),
    case("talking-stream", "talks:TalkingStreamAPI", {"name": "a"}, stream=True),
]
ASYNC = [
    case("async", "documented:AsyncAPI", {"input": 4}),
    case("async-stream", "documented:AsyncStreamAPI", {"count": 3}),
    case("mixed-async", "kinds:MixedAsyncAPI", {"input": [1, 2]}),
    case("mixed-async-stream", "kinds:MixedAsyncStreamAPI", {"text": "a b"}),
    case("slow-async", "slow:SlowAsyncAPI", {"name": "a", "begun": "/dev/null", "how": "now"}),
    case("talking-async", "talks:TalkingAsyncAPI", {"name": "a"}, init={"enable_async": True}),
    case(
        "talking-async-stream",
        "talks:TalkingAsyncStreamAPI",
        {"name": "a"},
        stream=True,
        init={"enable_async": True},
    ),
]
SPECS = [
    case(
        "chat",
        "specs:ChatAPI",
        chat("one two"),
        chat("one two", stream=True),
        chat("one two", n=2),
        chat("one two", n=2, stream=True),
        chat("fail"),
        {"messages": "no"},
        {},
        Raw("", b"", "", "OPTIONS"),
    ),
    case("chat-usage", "specs:ChatUsageAPI", chat("x", temperature=0.5), chat("x", stream=True)),
    case("chat-async", "specs:AsyncChatAPI", chat("one two"), chat("one two", stream=True)),
    case(
        "tools",
        "specs:ToolsAPI",
        chat("weather?", tools=[_TOOL], tool_choice="auto"),
        chat("weather?", tools=[_TOOL], stream=True),
        chat(_PICTURE),
        chat("x", response_format={"type": "json_object"}),
        chat("x", response_format=_SCHEMA, max_completion_tokens=3, stop=["a"], metadata={"a": "b"}),
        chat("x", tools=[{"type": "function"}]),
    ),
    case("words", "specs:WordsAPI", chat("one two"), chat("one two", stream=True)),
    case("odd-chat", "specs:OddChatAPI", chat("x")),
    case(
        "vectors",
        "specs:VectorsAPI",
        vectors("text"),
        vectors(["text", "b"]),
        vectors("text", encoding_format="base64"),
        vectors([1, 2]),
        vectors(5),
        vectors("text", encoding_format="hex"),
        Raw("", b"", "", "OPTIONS"),
    ),
    case("vector-context", "specs:VectorContextAPI", vectors("a text"), vectors(["a", "b c"])),
    case("slow-embeddings", "slow:SlowEmbeddingsAPI", vectors("/dev/null now")),
]
STRANGERS_OWN = [
    case("squares", "squares:SquaresAPI", {"input": 3}, {"input": "x"}, init={"power": 3}),
    case("dies", "dies:DiesAPI", {"input": 1}),
    case("leaks", "leaks:LeaksAPI", {}, {}, init={"what": "files"}),
    case("sleeps", "sleeps:SleepsAPI", {"input": 0.01}),
    case("slow", "slow:SlowAPI", {"name": "a", "begun": "/dev/null", "how": "now"}),
    case(
        "talking", "talks:TalkingAPI", {"name": "a"}, {"name": "a", "fail": "badly"}, {"name": "b", "fail": "politely"}
    ),
    case("configured", "talks:ConfiguredAPI", {"name": "a"}, init={"format": "%(message)s"}),
    case("echo", "servers.apis.echo:EchoAPI", {"input": 1}, {"input": None}, Raw(FIELDS, b"input=a")),
]
LIGHT = [*BODIES, *ANSWERS, *STREAMS, *ASYNC, *SPECS, *STRANGERS_OWN]
CASES = [*LIGHT, *BATCHES]


_PROMPT = {"prompt": "one two", "max_tokens": 5, "ignore_eos": True}
# Their folders come with `model_dir`.
BUILT_IN = [
    case(
        "causal-lm",
        "causal_lm:",
        _PROMPT,
        {"prompt": "one", "max_tokens": 0},
        {"prompt": 5},
        {},
        {**_PROMPT, "seed": 3, "temperature": 0.7},
    ),
    case("causal-lm-stream", "causal_lm:", _PROMPT, {"prompt": 5}, {"prompt": "a", "max_tokens": -1}, stream=True),
    case("pipeline", "pipeline:", {"inputs": "hello"}, {"inputs": ["a", "b c"]}, {"inputs": 3}, {"other": 1}),
    case(
        "image-classification",
        "image_classification:",
        {"image": "no picture"},
        {"image": PICTURE, "top_k": 2},
        Raw(FORM, upload(("image", base64.b64decode(PICTURE)))),
        Raw(FORM, upload(("image", b"no picture"))),
        {"top_k": 2},
    ),
    case(
        "embedding",
        "embedding:",
        vectors("A cat sits on the mat."),
        vectors(["one", "two"], dimensions=8),
        vectors(["one"], encoding_format="base64"),
        vectors("one", dimensions=5000),
        vectors([1, 2, 3]),
        vectors([]),
        vectors(5),
    ),
]
