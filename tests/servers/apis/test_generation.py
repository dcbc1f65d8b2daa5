from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from servers.apis.generation import Generation, Prompt

PROMPTS = ["a", "The quick brown fox", "0123456789 " * 4]


@pytest.fixture(scope="module")
def parts(tiny_lm: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(tiny_lm).eval(), AutoTokenizer.from_pretrained(tiny_lm)


def test_greedy_is_what_generate_gives_in_a_batch_of_unequal_prompts_too(parts: tuple[Any, Any]) -> None:
    model, tokenizer = parts
    expected = [_by_transformers(model, tokenizer, text, 24) for text in PROMPTS]
    assert _generate(parts, [_prompt(tokenizer, text, 24) for text in PROMPTS]) == expected
    assert [_generate(parts, [_prompt(tokenizer, text, 24)])[0] for text in PROMPTS] == expected
    assert len({tuple(ids) for ids in expected}) == len(PROMPTS)


def test_rows_leave_the_batch_when_they_are_done_and_change_nothing_for_the_others(parts: tuple[Any, Any]) -> None:
    model, tokenizer = parts
    lengths = [1, 20, 7]
    prompts = [_prompt(tokenizer, text, length) for text, length in zip(PROMPTS, lengths, strict=True)]
    widths: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _, __, kwargs: widths.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        answers = _generate(parts, prompts)
    finally:
        hook.remove()
    assert answers == [_by_transformers(model, tokenizer, *each) for each in zip(PROMPTS, lengths, strict=True)]
    assert widths == [3] * 1 + [2] * 6 + [1] * 13


def test_a_seed_gives_the_same_tokens_whatever_the_batch(parts: tuple[Any, Any]) -> None:
    _, tokenizer = parts
    sampled = [_prompt(tokenizer, text, 12, temperature=0.8, top_p=0.9, seed=seed) for seed, text in enumerate(PROMPTS)]
    together = _generate(parts, sampled)
    assert [_generate(parts, [prompt])[0] for prompt in sampled] == together
    other = _generate(parts, [_prompt(tokenizer, PROMPTS[0], 12, temperature=0.8, top_p=0.9, seed=99)])
    assert other[0] != together[0]


def test_a_tiny_top_p_is_greedy_and_top_p_leaves_only_the_likeliest(parts: tuple[Any, Any]) -> None:
    _, tokenizer = parts
    greedy = _generate(parts, [_prompt(tokenizer, "abc", 10)])
    assert _generate(parts, [_prompt(tokenizer, "abc", 10, temperature=1.0, top_p=1e-6, seed=1)]) == greedy


def test_the_end_token_ends_a_row_unless_it_is_to_be_ignored(parts: tuple[Any, Any]) -> None:
    model, tokenizer = parts
    ids = _generate(parts, [_prompt(tokenizer, "abc", 6)])[0]
    before = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [ids[2], 999]  # a model may have several
    try:
        steps = [row for (row,) in Generation(model, tokenizer).steps([_prompt(tokenizer, "abc", 6)])]
        ignoring = _generate(parts, [_prompt(tokenizer, "abc", 6, ignore_eos=True)])[0]
    finally:
        model.generation_config.eos_token_id = before
    end = ids.index(ids[2]) + 1
    assert [step.token_id for step in steps if step] == ids[:end]
    assert [step.finish_reason for step in steps if step] == [None] * (end - 1) + ["stop"]
    assert ignoring == ids


def _prompt(tokenizer: Any, text: str, max_tokens: int, **options: Any) -> Prompt:
    return Prompt(tokenizer(text)["input_ids"], max_tokens, **options)


def _generate(parts: tuple[Any, Any], prompts: Sequence[Prompt]) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in prompts]
    for steps in Generation(*parts).steps(prompts):
        for row, step in zip(rows, steps, strict=True):
            if step:
                row.append(step.token_id)
    return rows


def _by_transformers(model: Any, tokenizer: Any, text: str, max_tokens: int) -> list[int]:
    inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    output = model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens)
    ids: list[int] = output[0, inputs["input_ids"].shape[1] :].tolist()
    return ids
