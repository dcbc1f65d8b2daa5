import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.servers.conftest import Serve
from tests.servers.engines.litserve.child import Child

PROMPTS = ["The capital of France is", "Once upon a time, there was a girl who", "日本の首都は", "1, 2, 3, 4,"]
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "batched": {"max_batch_size": 4, "batch_timeout": 0.1},
    "streamed": {"stream": True},
    "streamed and batched": {"stream": True, "max_batch_size": 4, "batch_timeout": 0.1},
}


@pytest.fixture(scope="module")
def start(serve: Serve, tiny_lm: Path) -> Callable[[str], Child]:
    """A model of random weights, in one of the modes."""
    return lambda mode: serve(api="causal_lm", model_dir=str(tiny_lm), **MODES[mode])


@pytest.fixture(scope="module")
def folder(model_folder: Callable[[str], Path]) -> Path:
    return model_folder("smollm2-135m-instruct")


@pytest.fixture(scope="module")
def chat(serve: Serve, folder: Path) -> Child:
    """A real chat model; float32, because bfloat16 has ties in plenty and a batch may break them the other way."""
    return serve(api="causal_lm", model_dir=str(folder), init={"dtype": "float32"}, **MODES["batched"])


@pytest.mark.long
@pytest.mark.parametrize("mode", ["batched", "plain", "streamed", "streamed and batched"])
def test_every_mode_gives_the_tokens_that_transformers_generates(
    mode: str, start: Callable[[str], Child], tiny_lm: Path
) -> None:
    child = start(mode)
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        answers = list(pool.map(lambda prompt: _ask(child, prompt=prompt, max_tokens=20), PROMPTS))
    assert [answer["token_ids"] for answer in answers] == [ids for ids, _ in _by_transformers(tiny_lm, 20)]
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert answer == _ask(start("plain"), prompt=prompt, max_tokens=20)
        assert answer["usage"]["completion_tokens"] == len(answer["token_ids"])
        assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + len(answer["token_ids"])
        assert answer["finish_reason"] == ("length" if len(answer["token_ids"]) == 20 else "stop")


def test_a_batch_of_unequal_prompts_gets_the_texts_that_transformers_generates(chat: Child, folder: Path) -> None:
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        answers = list(pool.map(lambda prompt: _ask(chat, prompt=prompt, max_tokens=12), PROMPTS))
    assert [(answer["token_ids"], answer["text"]) for answer in answers] == _by_transformers(folder, 12)


@pytest.mark.long
def test_a_stream_is_a_line_a_token_and_only_the_last_line_sums_up(start: Callable[[str], Child]) -> None:
    answer = start("streamed").predict(prompt=PROMPTS[0], max_tokens=5, ignore_eos=True)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [len(line["token_ids"]) for line in lines] == [1] * 5
    assert ["usage" in line for line in lines] == [False] * 4 + [True]
    assert lines[-1]["finish_reason"] == "length"


def test_messages_are_put_through_the_models_chat_template(chat: Child) -> None:
    question = {"role": "user", "content": "What is the capital of France?"}
    answer = _ask(chat, messages=[question], max_tokens=16)
    assert "Paris" in answer["text"]
    assert answer["finish_reason"] == "stop"


@pytest.mark.long
def test_a_prompt_may_be_token_ids(start: Callable[[str], Child], tiny_lm: Path) -> None:
    from transformers import AutoTokenizer

    child = start("batched")
    ids = AutoTokenizer.from_pretrained(tiny_lm)(PROMPTS[0])["input_ids"]
    assert _ask(child, prompt_token_ids=ids, max_tokens=8) == _ask(child, prompt=PROMPTS[0], max_tokens=8)


def test_text_ends_before_a_stop_string(chat: Child) -> None:
    answer = _ask(chat, prompt=PROMPTS[3], max_tokens=20, stop=[", 8", "never"])
    assert answer["text"] == " 5, 6, 7"
    assert answer["finish_reason"] == "stop"


@pytest.mark.long
def test_sampling_repeats_with_its_seed(start: Callable[[str], Child]) -> None:
    def sample(seed: int) -> Any:
        return _ask(start("batched"), prompt="A poem:", max_tokens=12, temperature=1.0, top_p=0.9, seed=seed)["text"]

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(4)}) > 1


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 422, "expected one of prompt, messages and prompt_token_ids, got none"),
        ({"prompt": "a", "messages": [{}]}, 422, "got prompt and messages"),
        ({"prompt": "a", "max_tokens": 0}, 422, "max_tokens"),
        ({"prompt": "a", "temperature": -1}, 422, "temperature"),
        ({"prompt": "a", "top_p": 0}, 422, "top_p"),
        ({"prompt": "a", "temprature": 1}, 422, "temprature"),
        ({"prompt": "a", "stop": ""}, 422, "stop"),
        ({"prompt": ""}, 400, "prompt: expected text"),
        ({"prompt_token_ids": [257]}, 400, "prompt_token_ids: expected ids below 257"),
        ({"messages": [{"role": 1, "content": 2}]}, 400, "messages: this model's chat template refuses them"),
        ({"prompt": "a", "max_tokens": 9000}, 400, "room for 128 tokens, and the prompt's 1 and max_tokens 9000"),
    ],
)
def test_what_cannot_be_continued_is_the_clients_error(
    body: dict[str, Any], status: int, says: str, start: Callable[[str], Child]
) -> None:
    answer = start("batched").predict(**body)
    assert answer.status_code == status
    assert says in answer.text


@pytest.mark.long
@pytest.mark.parametrize("mode", ["streamed", "streamed and batched"])
def test_a_refusal_in_a_stream_is_a_line_and_spares_its_neighbours(mode: str, start: Callable[[str], Child]) -> None:
    child = start(mode)
    with ThreadPoolExecutor(2) as pool:
        bad = pool.submit(child.predict, prompt="a", max_tokens=9000)
        good = pool.submit(_ask, child, prompt=PROMPTS[3], max_tokens=4)
        (line,) = bad.result().text.splitlines()
        assert json.loads(line)["status"] == 400
        assert "room for 128 tokens" in json.loads(line)["error"]
        assert good.result()["usage"]["completion_tokens"] == 4
    assert child.predict(prompt="a", max_tokens=0).status_code == 422  # what the body itself shows is told before


def _ask(child: Child, **body: Any) -> dict[str, Any]:
    """The whole answer; of a stream, its lines put together."""
    answer = child.predict(**body)
    assert answer.status_code == 200, answer.text
    if not child.card["stream"]:
        whole: dict[str, Any] = answer.json()
        return whole
    lines = [json.loads(line) for line in answer.text.splitlines()]
    return {
        **lines[-1],
        "text": "".join(line["text"] for line in lines),
        "token_ids": [token for line in lines for token in line["token_ids"]],
    }


def _by_transformers(folder: Path, max_tokens: int) -> list[tuple[list[int], str]]:
    """Token ids and text by transformers' own generate, one prompt at a time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    answers = []
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        output = model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens)
        ids = output[0, inputs["input_ids"].shape[1] :].tolist()
        answers.append((ids, tokenizer.decode(ids, skip_special_tokens=True)))
    return answers
