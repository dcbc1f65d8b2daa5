"""vLLM's own parser judges vLLM's options, without a model and before anything starts."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from configs.settings import VllmModel
from servers.engines.vllm import options as vllm_options
from servers.engines.vllm.options import check, check_cached, to_argv

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt": ({"max-model-length": 4096}, "max-model-length with value 4096; did you mean max-model-len?"),
    "abbreviated": ({"max-model-le": 4096}, "did you mean max-model-len?"),
    "short": ({"tp": 2}, "did you mean tensor-parallel-size?"),
    "negated": ({"no-enforce-eager": True}, "did you mean enforce-eager?"),
    "help": ({"help": True}, "expected an option of vLLM"),
    "type": ({"max-num-seqs": "many"}, "expected a whole number, got 'many'"),
    "choice": ({"dtype": "float_16"}, "expected one of auto, bfloat16"),
    "flag": ({"enforce-eager": "yes"}, "expected true or false, got 'yes'"),
    "no_flag": ({"max-model-len": True}, "got true"),
    "no_opposite": ({"disable-log-stats": False}, "leave it out"),
    "above": ({"gpu-memory-utilization": 1.5}, "expected a value less than or equal to 1, got 1.5"),
    "below": ({"max-model-len": -5}, "expected a value greater than or equal to -1, got -5"),
    "zero": ({"block-size": 0}, "expected a value greater than 0, got 0"),
    "nested": ({"compilation-config": {"moode": 3}}, "vLLM says of moode: Unexpected keyword argument"),
    "list": ({"allowed-origins": ["*"]}, """write it as text: '["*"]'"""),
    "stray": ({"max-model-len": [1, 2]}, "expected one value, got a list"),
    "twice": ({"-tp": 1, "tensor-parallel-size": 1}, "-tp, the same option; keep one"),
    "together": ({"enable-auto-tool-choice": True}, "requires --tool-call-parser"),
    "file": ({"chat-template": "./no/such.jinja"}, "doesn't exist"),
    "secret": ({"hf-token": ["hunter2", "x"]}, "got a list"),
}
RIGHT: dict[str, dict[str, Any]] = {
    "plain": {"max-model-len": "4k", "dtype": "bfloat16", "gpu-memory-utilization": 0.5, "max-num-seqs": 8},
    "flags": {"enforce-eager": True, "enable-prefix-caching": False, "disable-log-stats": True, "hf-token": True},
    "unset": {"seed": None},
    "lists": {"allowed-media-domains": ["a", "b"], "lora-modules": [{"name": "a", "path": "b"}], "middleware": ["a"]},
    "json": {"compilation-config": {"mode": 0}, "hf-overrides": {"a": 1}, "allowed-origins": '["*"]'},
    "dotted": {"compilation-config.mode": 0},
    "short_dotted": {"-cc.mode": 0, "-tp": 1},
    "deprecated": {"disable-cascade-attn": True},
}


@pytest.fixture(scope="module")
def problems() -> list[str]:
    """All cases in one process, because importing vLLM takes seconds."""
    args = {name: case for name, (case, _) in WRONG.items()} | RIGHT
    return check(args, {("models", "misspelt", "args", "max-model-length"): "x.yaml:3"})


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_option_is_one_line_that_names_it(problems: list[str], name: str) -> None:
    args, expected = WRONG[name]
    (line,) = [problem for problem in problems if problem.startswith(f"models.{name}.args")]
    assert expected in line
    assert "\n" not in line
    assert "hunter2" not in line
    if name != "together" and name != "file":
        assert line.startswith(tuple(f"models.{name}.args.{option}: " for option in args))


def test_the_line_says_where_the_option_came_from(problems: list[str]) -> None:
    assert problems[0].endswith("(from x.yaml:3)")


@pytest.mark.parametrize("name", RIGHT)
def test_what_vllm_takes_is_taken(problems: list[str], name: str) -> None:
    assert [problem for problem in problems if problem.startswith(f"models.{name}.")] == []


def test_a_clean_check_is_not_paid_for_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"a": VllmModel(engine="vllm", source="x", args={"max-model-len": 64})}
    runs: list[Any] = []

    def clean(args: Any, origins: Any) -> list[str]:
        runs.append(args)
        return []

    monkeypatch.setattr(vllm_options, "check", clean)
    for _ in range(2):
        assert check_cached(models, tmp_path) == []
    assert runs == [{"a": {"max-model-len": 64}}]
    other = {"a": VllmModel(engine="vllm", source="x", args={"max-model-len": 65})}
    monkeypatch.setattr(vllm_options, "check", lambda args, origins: ["wrong"])
    assert [check_cached(other, tmp_path) for _ in range(2)] == [["wrong"], ["wrong"]]


def test_models_without_options_start_no_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    assert check_cached({"a": VllmModel(engine="vllm", source="x")}, tmp_path) == []


def test_without_vllm_the_advice_is_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_options, "DISTRIBUTIONS", ("no-such-vllm",))
    (line,) = check_cached({"a": VllmModel(engine="vllm", source="x")}, tmp_path)
    assert line.startswith("models.a.engine: expected vLLM to be installed")


def test_options_become_words_as_vllm_wants_them() -> None:
    args = {
        "max_model_len": 4096,
        "enforce-eager": True,
        "enable_prefix_caching": False,
        "seed": None,
        "allowed-media-domains": ["a", 5],
        "compilation_config.pass_config.a_b": 0,
        "hf-overrides": {"a_b": [1]},
        "chat-template": "-x",
        "-tp": 2,
    }
    assert to_argv(args) == [
        "--max-model-len=4096",
        "--enforce-eager",
        "--no-enable-prefix-caching",
        "--allowed-media-domains",
        "a",
        "5",
        "--compilation-config.pass_config.a_b=0",
        '--hf-overrides={"a_b": [1]}',
        "--chat-template=-x",
        "-tp=2",
    ]
