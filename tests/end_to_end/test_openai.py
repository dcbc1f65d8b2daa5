"""The unmodified openai SDK against the running platform, with the real vLLM behind it."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.conftest import Platform

CHAT = "smollm2-135m-instruct"
EMBED = "all-minilm-l6-v2"
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{platform.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


def test_chat_answers(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=CHAT, messages=QUESTION, temperature=0, max_tokens=20)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == CHAT


def test_chat_streams_with_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=CHAT,
            messages=QUESTION,
            temperature=0,
            max_tokens=20,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "The capital of France is Paris."
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (37, 8)


def test_completions_answer(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=CHAT, prompt="1, 2, 3, 4,", max_tokens=4, temperature=0)
    assert "5" in answer.choices[0].text


def test_structured_output_keeps_to_its_json_schema(client: openai.OpenAI) -> None:
    schema: Any = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "inhabitants": {"type": "integer"}},
        "required": ["city", "inhabitants"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=CHAT,
        messages=QUESTION,
        max_tokens=80,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}},
    )
    document = json.loads(answer.choices[0].message.content or "")
    assert set(document) == {"city", "inhabitants"}
    assert isinstance(document["inhabitants"], int)


def test_logprobs_come_with_the_tokens(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=CHAT, messages=QUESTION, max_tokens=3, temperature=0, logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [token.token for token in logprobs.content] == ["The", " capital", " of"]
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in logprobs.content)


def test_a_stop_word_ends_the_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=CHAT, messages=QUESTION, temperature=0, stop=[" France"])
    assert answer.choices[0].message.content == "The capital of"


def test_a_seed_makes_sampling_repeatable_and_n_gives_several_answers(client: openai.OpenAI) -> None:
    def sample(seed: int) -> list[str | None]:
        answer = client.chat.completions.create(
            model=CHAT, messages=QUESTION, max_tokens=12, temperature=1.5, seed=seed, n=3
        )
        return [choice.message.content for choice in answer.choices]

    first = sample(7)
    assert len(set(first)) > 1, "three samples at this temperature differ"
    assert sample(7) == first
    assert sample(8) != first


def test_a_tool_call_is_passed_through(client: openai.OpenAI) -> None:
    weather: Any = {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
        },
    }
    answer = client.chat.completions.create(
        model=CHAT,
        messages=QUESTION,
        max_tokens=60,
        temperature=0,
        tools=[{"type": "function", "function": weather}],
        tool_choice={"type": "function", "function": {"name": "weather"}},
    )
    calls = answer.choices[0].message.tool_calls
    assert calls
    assert calls[0].type == "function"
    assert calls[0].function.name == "weather"
    assert set(json.loads(calls[0].function.arguments)) == {"city"}


def test_responses_and_messages_are_reachable_too(client: openai.OpenAI, platform: Platform) -> None:
    response = client.responses.create(model=CHAT, input="What is the capital of France?", max_output_tokens=20)
    assert response.output_text
    message = client.post(
        f"{platform.url}/v1/messages",
        body={"model": CHAT, "max_tokens": 20, "messages": QUESTION},
        cast_to=dict[str, object],
    )
    assert message["type"] == "message"
    tokens = client.post(f"{platform.url}/tokenize", body={"model": CHAT, "prompt": "Paris"}, cast_to=dict[str, object])
    assert tokens["count"] == 1


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_embeddings_come_from_the_litserve_model(client: openai.OpenAI, encoding_format: str) -> None:
    answer = client.embeddings.create(
        model=EMBED,
        input=["a cat", "a kitten", "a treaty"],
        encoding_format=encoding_format,  # type: ignore[arg-type] # one of the two that it takes
    )
    assert [item.index for item in answer.data] == [0, 1, 2]
    assert answer.usage.prompt_tokens > 0
    if encoding_format == "float":
        cat, kitten, treaty = (item.embedding for item in answer.data)
        assert _dot(cat, cat) == pytest.approx(1, abs=1e-5)
        assert _dot(cat, kitten) > 0.6 > 0.3 > _dot(cat, treaty)


def test_the_model_list_names_every_model(client: openai.OpenAI) -> None:
    listed = {model.id: model.model_dump() for model in client.models.list()}
    assert set(listed) == {CHAT, EMBED, "efficientnet-lite0", "squares"}
    assert {name: (model["kind"], model["state"]) for name, model in listed.items()} == {
        CHAT: ("vllm", "ready"),
        EMBED: ("litserve", "ready"),
        "efficientnet-lite0": ("litserve", "ready"),
        "squares": ("litserve", "ready"),
    }
    assert client.models.retrieve(CHAT).id == CHAT


def test_an_unknown_model_is_openais_404(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=QUESTION)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


def test_vllms_own_refusal_comes_through_in_openais_shape(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=CHAT, messages=QUESTION, temperature=-1)
    assert "temperature" in caught.value.message


def _dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
