"""What is served equals what the model itself says: the same weights, called without a server."""

from pathlib import Path

import pytest

from servers.store import Store
from tests.conftest import Platform

CHAT = "smollm2-135m-instruct"
PROMPTS = (
    "What is the capital of France?",
    "Name three colours.",
    "Write one sentence about the sea.",
    "What is 2 + 2?",
    "Explain photosynthesis to a child.",
)
TOKENS = 24


@pytest.fixture(scope="module")
def expected(model_cache: Path) -> dict[str, list[int]]:
    """transformers' own greedy tokens for each prompt, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Store(model_cache).pull(CHAT)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    answers = {}
    for prompt in PROMPTS:
        messages = [{"role": "user", "content": prompt}]
        encoded = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        generated = model.generate(**encoded, max_new_tokens=TOKENS, do_sample=False)
        answers[prompt] = generated[0, encoded["input_ids"].shape[1] :].tolist()
    return answers


def test_greedy_chat_equals_transformers_to_the_token(platform: Platform, expected: dict[str, list[int]]) -> None:
    served = {}
    for prompt in PROMPTS:
        body = {
            "model": CHAT,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": TOKENS,
            "temperature": 0,
            "return_token_ids": True,
        }
        answer = platform.http.post("/v1/chat/completions", json=body, timeout=120)
        served[prompt] = answer.json()["choices"][0]["token_ids"]
    assert served == expected
