"""What vLLM does in silence is counted, told or refused: with the real vLLM and the official SDKs."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import psutil
import pytest

from servers.engines.connection import Reply, TokenCount
from servers.engines.vllm.connection import VllmConnection
from servers.errors import ApiError
from tests.conftest import Platform

CHAT = "smollm2-135m-instruct"
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."
COUNTED = (37, 8)  # the tokens of the question in its template, and those of the answer
STORY: Any = [{"role": "user", "content": "Count from 1 to 1000, one number a line."}]
DEADLINE = {"x-request-timeout": "1.5"}
# What goes to vLLM's process past the front door begins no trace.
UNTRACED = {"content-type": "application/json", "traceparent": f"00-{1:032x}-{1:016x}-00"}
LONG: Any = {"extra_headers": DEADLINE, "extra_body": {"ignore_eos": True}}
_numbers = itertools.count()


@pytest.fixture(scope="module")
def of_openai(platform: Platform) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{platform.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def of_anthropic(platform: Platform) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=platform.url, api_key="none", max_retries=0, timeout=120) as client:
        yield client


def _post(platform: Platform, path: str, **body: object) -> tuple[str, tuple[object, object]]:
    """The answer's text, and the tokens that the audit log has for the request."""
    request_id = f"plain-{next(_numbers)}"
    headers = {"x-request-id": request_id}
    answer = platform.http.post(path, json={"model": CHAT, **body}, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    assert "litport-tokens" not in answer.text
    assert "x-litport-tokens" not in answer.headers
    line = platform.audited(request_id)
    return answer.text, (line["input_tokens"], line["output_tokens"])


@pytest.mark.parametrize("stream_options", [None, {"include_usage": False}, {"include_usage": True}])
def test_the_tokens_of_a_chat_stream_are_counted_whether_or_not_it_names_them(
    platform: Platform, stream_options: object
) -> None:
    options = {"stream": True, "stream_options": stream_options, "max_tokens": 20, "temperature": 0}
    text, tokens = _post(platform, "/v1/chat/completions", messages=QUESTION, **options)
    assert tokens == COUNTED
    events = text.removesuffix("\n\n").split("\n\n")
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"]) == ANSWER
    assert ("usage" in chunks[-1]) == (stream_options == {"include_usage": True})


@pytest.mark.parametrize(
    "extra", [{"return_token_ids": True}, {"logprobs": True, "top_logprobs": 5}, {"prompt_logprobs": 5}]
)
def test_the_tokens_of_an_answer_are_counted_whatever_stands_behind_its_usage(
    platform: Platform, extra: dict[str, object]
) -> None:
    text, tokens = _post(platform, "/v1/chat/completions", messages=QUESTION, max_tokens=20, temperature=0, **extra)
    usage = json.loads(text)["usage"]
    assert tokens == (usage["prompt_tokens"], usage["completion_tokens"])
    assert tokens[0] == COUNTED[0]


def test_the_tokens_of_completions_messages_and_responses_are_counted(platform: Platform) -> None:
    for stream in (False, True):
        prompt = {"prompt": "1, 2, 3,", "max_tokens": 4, "stream": stream}
        assert _post(platform, "/v1/completions", **prompt)[1] == (8, 4)
        short = {"max_tokens": 4, "stream": stream, "temperature": 0}
        assert _post(platform, "/v1/messages", messages=QUESTION, **short)[1] == (37, 4)
        question = {"input": QUESTION[0]["content"], "max_output_tokens": 4, "stream": stream}
        assert _post(platform, "/v1/responses", **question)[1] == (37, 4)


def test_tokens_from_the_cache_are_named(of_openai: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "one two three four " * 80}]
    answers = [of_openai.chat.completions.create(model=CHAT, messages=messages, max_tokens=1) for _ in range(2)]
    usage = answers[1].usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens
    assert usage.prompt_tokens_details.cached_tokens > 0


@pytest.mark.parametrize("field", ["guided_json", "guided_choice", "guided_regex", "guided_grammar", "functions"])
def test_a_constraint_that_vllm_would_drop_is_a_400_that_names_its_successor(
    of_openai: openai.OpenAI, field: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        of_openai.chat.completions.create(model=CHAT, messages=QUESTION, max_tokens=1, extra_body={field: ["x"]})
    assert (caught.value.code, caught.value.param) == ("unsupported_field", field)


def test_a_conversation_and_a_response_that_would_not_be_stored_are_a_400(of_openai: openai.OpenAI) -> None:
    for field, value in (("conversation", "conv_1"), ("store", True)):
        with pytest.raises(openai.BadRequestError) as caught:
            of_openai.responses.create(model=CHAT, input="Hello", extra_body={field: value})
        assert caught.value.param == field


def test_other_fields_that_vllm_ignores_are_named_in_a_header(of_openai: openai.OpenAI) -> None:
    create = of_openai.chat.completions.with_raw_response.create
    answer = create(model=CHAT, messages=QUESTION, max_tokens=1, extra_body={"tempereture": 0, "zeal": 1})
    assert answer.headers["x-litport-ignored-fields"] == "tempereture (did you mean temperature?), zeal"
    answer = create(model=CHAT, messages=QUESTION, max_tokens=1, temperature=0, extra_body={"min_p": 0.1})
    assert "x-litport-ignored-fields" not in answer.headers


def test_an_answer_that_the_end_of_the_context_cuts_is_told(platform: Platform) -> None:
    """The context is taken to be as long as prompt and answer: one of 4096 tokens takes long to fill on a CPU."""

    async def ask(limit: int) -> Reply:
        connection = VllmConnection(_socket(platform), CHAT, "cut")
        connection.context_tokens = sum(COUNTED)
        try:
            document = {"model": CHAT, "messages": QUESTION, "temperature": 0, "max_tokens": limit}
            reply = await connection.send("POST", "/v1/chat/completions", json.dumps(document).encode(), UNTRACED)
            await reply.read()
            return reply
        finally:
            await connection.close()

    header = (b"x-litport-cut-answer", b"8 tokens of 20; the context is full")
    assert header in asyncio.run(ask(20)).headers
    assert asyncio.run(ask(20)).tokens == TokenCount(*COUNTED, cut_at=20)
    assert asyncio.run(ask(8)).tokens == TokenCount(*COUNTED)


@pytest.mark.parametrize(
    ("path", "body", "prompt_tokens"),
    [
        ("/v1/chat/completions", {"messages": QUESTION}, 37),
        ("/v1/messages", {"messages": QUESTION}, 37),
        ("/v1/completions", {"prompt": "1, 2, 3,"}, 8),
        ("/v1/completions", {"prompt": [[1, 2], [1, 2, 3]]}, 3),
        ("/v1/responses", {"input": QUESTION[0]["content"]}, 37),
    ],
)
def test_it_is_refused_by_vllms_own_count_where_the_settings_say_so(
    platform: Platform, path: str, body: dict[str, object], prompt_tokens: int
) -> None:
    field = "max_output_tokens" if path == "/v1/responses" else "max_tokens"

    async def ask(limit: int) -> None:
        connection = VllmConnection(_socket(platform), CHAT, "refuse")
        connection.context_tokens = 4096
        try:
            document = json.dumps({"model": CHAT, field: limit, "stream": True, **body}).encode()
            (await connection.send("POST", path, document, UNTRACED)).close()
        finally:
            await connection.close()

    with pytest.raises(
        ApiError, match=f"at most {4096 - prompt_tokens} beside a prompt of {prompt_tokens} tokens"
    ) as caught:
        asyncio.run(ask(4097 - prompt_tokens))
    assert (caught.value.code, caught.value.param) == ("context_overflow", field)
    asyncio.run(ask(4096 - prompt_tokens))


def _socket(platform: Platform) -> Path:
    """The socket of vLLM's process."""
    group_id = platform.status()[CHAT]["group_id"]
    assert isinstance(group_id, int)
    argv = psutil.Process(group_id).cmdline()
    return Path(argv[argv.index("--uds") + 1])


def test_vllms_validation_errors_are_those_of_the_part_that_was_meant(
    of_openai: openai.OpenAI, of_anthropic: anthropic.Anthropic
) -> None:
    wrong: Any = [{"role": "user", "content": [{"type": "input_txt", "text": "Hello"}]}]
    with pytest.raises(openai.BadRequestError) as caught:
        of_openai.responses.create(model=CHAT, input=wrong)
    assert caught.value.param == "input.0.content.0.type"
    assert "'input_text', or 'input_image'" in caught.value.message
    assert len(caught.value.message) < 300
    wrong = [{"role": "user", "content": 5}]
    with pytest.raises(anthropic.BadRequestError, match="content: Input should be a valid string") as refused:
        of_anthropic.messages.create(model=CHAT, max_tokens=1, messages=wrong)
    body: Any = refused.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")


def test_a_deadline_within_a_stream_is_an_exception_in_every_sdk(
    of_openai: openai.OpenAI, of_anthropic: anthropic.Anthropic
) -> None:
    events: list[object] = []
    create: Any = of_openai.chat.completions.create
    with pytest.raises(openai.APIError, match="x-request-timeout"):
        events.extend(create(model=CHAT, messages=QUESTION, max_tokens=2000, stream=True, **LONG))
    assert len(events) > 2
    create = of_openai.responses.create
    with pytest.raises(openai.APIError, match="x-request-timeout"):
        events.extend(create(model=CHAT, input="Hello", max_output_tokens=2000, stream=True, **LONG))
    create = of_anthropic.messages.create
    with pytest.raises(anthropic.APIStatusError, match="x-request-timeout"):
        events.extend(create(model=CHAT, messages=STORY, max_tokens=3000, stream=True, extra_headers=DEADLINE))


def test_token_ids_of_somebody_elses_tokenizer_are_not_embedded(of_openai: openai.OpenAI) -> None:
    ids: Any
    for ids in ([1, 2, 3], [[1, 2], [3]]):
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False") as caught:
            of_openai.embeddings.create(model="all-minilm-l6-v2", input=ids)
        assert (caught.value.code, caught.value.param) == ("token_ids_not_taken", "input")


def test_a_forced_tool_call_has_an_object_of_arguments(
    of_openai: openai.OpenAI, of_anthropic: anthropic.Anthropic
) -> None:
    schema: Any = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = of_openai.chat.completions.create(
        model=CHAT,
        messages=QUESTION,
        max_tokens=60,
        temperature=0,
        tools=[{"type": "function", "function": {"name": "weather", "parameters": schema}}],
        tool_choice={"type": "function", "function": {"name": "weather"}},
    )
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert set(json.loads(call.function.arguments)) == {"city"}
    create: Any = of_anthropic.messages.create
    message = create(
        model=CHAT,
        max_tokens=60,
        messages=QUESTION,
        tools=[{"name": "weather", "input_schema": schema}],
        tool_choice={"type": "tool", "name": "weather"},
    )
    [use] = [part for part in message.content if part.type == "tool_use"]
    assert set(use.input) == {"city"}
