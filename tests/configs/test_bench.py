"""Every wrong setting of a benchmark is one line that names key, value, source and what would be right."""

from pathlib import Path

import pytest

from configs.bench import Bench
from configs.errors import SettingsError
from configs.loading import load

MODELS = "models: {a: {engine: litserve, api: echo}}\n"
RUNGS = "expected transformers, transformers-batched, vllm-offline, fastapi, litserve, vllm, litport, model"


def bench(folder: Path, text: str, *overrides: str) -> Bench:
    recipe = folder / "bench.yaml"
    recipe.write_text(f"{MODELS}bench: {text}\n", encoding="utf-8")
    return load([recipe], overrides, environ={}).settings.bench


def problem(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(SettingsError) as raised:
        bench(folder, text, *overrides)
    (line,) = raised.value.problems
    assert "\n" not in line
    return line


WRONG = [
    # lengths
    ("{workload: {input_tokens: many}}", "workload.input_tokens", "expected a number such as 64", "'many'"),
    ("{workload: {input_tokens: -3}}", "workload.input_tokens", "expected a number such as 64", "'-3'"),
    ("{workload: {input_tokens: 0}}", "workload.input_tokens", "expected lengths of 1 token or more", "'0'"),
    ("{workload: {output_tokens: 1.5}}", "workload.output_tokens", "expected a number such as 64", "'1.5'"),
    ("{workload: {output_tokens: uniform(9)}}", "workload.output_tokens", "uniform(LEAST, MOST)", "'uniform(9)'"),
    ("{workload: {output_tokens: 'uniform(9, 3)'}}", "workload.output_tokens", "the least before the most", "(9, 3)"),
    ("{workload: {output_tokens: 'uniform(0, 3)'}}", "workload.output_tokens", "1 token or more", "(0, 3)"),
    ("{workload: {input_tokens: 'lognormal(0.5, 1)'}}", "workload.input_tokens", "1 token or more", "(0.5, 1)"),
    ("{workload: {input_tokens: 'lognormal(64)'}}", "workload.input_tokens", "lognormal(MEDIAN, SIGMA)", "(64)"),
    ("{workload: {input_tokens: 'normal(64, 1)'}}", "workload.input_tokens", "expected a number such as", "normal"),
    # rungs
    ("{rungs: [vlm]}", "rungs", RUNGS, '["vlm"]'),
    ("{rungs: [vllm, 'http://']}", "rungs", "the URL of somebody else's server", '["vllm", "http://"]'),
    ("{rungs: vllm}", "rungs", "expected a list", "'vllm'"),
    # the workload
    ("{workload: {path: /no/such.jsonl}}", "workload.path", "that exists", "'/no/such.jsonl'"),
    ("{workload: {kind: token}}", "workload.kind", "did you mean tokens?", "'token'"),
    ("{workload: {requests: 0}}", "workload.requests", "expected a whole number of 1 or more", "'0'"),
    ("{workload: {seed: -1}}", "workload.seed", "expected a whole number of 0 or more", "'-1'"),
    ("{workload: {turns: none}}", "workload.turns", "expected a whole number", "'none'"),
    ("{workload: words}", "workload", "expected a mapping of names to values", "'words'"),
    # the load
    ("{load: {shape: poissn}}", "load.shape", "did you mean poisson?", "'poissn'"),
    ("{load: {shape: poisson, rate_per_s: null}}", "load.rate_per_s", "for shape poisson", "null"),
    ("{load: {rate_per_s: 0}}", "load.rate_per_s", "expected a number above 0", "'0'"),
    ("{load: {rate_per_s: inf}}", "load.rate_per_s", "expected a number", "'inf'"),
    ("{load: {shape: trace, trace: /no/such}}", "load.trace", "a JSONL file for shape trace", "'/no/such'"),
    ("{load: {shape: trace, trace: /}}", "load.trace", "a JSONL file for shape trace", "'/'"),
    ("{load: {users: 0}}", "load.users", "expected a whole number of 1 or more", "'0'"),
    ("{load: {time_limit_s: 0}}", "load.time_limit_s", "expected a number above 0", "'0'"),
    # the rest
    ("{percentiles: [50, 100]}", "percentiles", "each item a whole number from 1 to 99", '["50", "100"]'),
    ("{passes: 0}", "passes", "expected a whole number of 1 or more", "'0'"),
    ("{warmup_requests: -1}", "warmup_requests", "expected a whole number of 0 or more", "'-1'"),
    ("{price_per_hour: free}", "price_per_hour", "expected a number above 0", "'free'"),
    ("{slo: {ttft_s: 0}}", "slo.ttft_s", "expected a number above 0", "'0'"),
    ("{validity: {max_drift: no}}", "validity.max_drift", "expected a number above 0", "'no'"),
    ("{validity: {max_generator_load: 2}}", "validity.max_generator_load", "expected a number above 0", "'2'"),
    # misspelt keys
    ("{pases: 3}", "pases", "no such setting; did you mean bench.passes?", "'3'"),
    ("{workload: {pth: x}}", "workload.pth", "no such setting; did you mean bench.workload.path?", "'x'"),
    ("{workload: {inputs_per_req: 5}}", "workload.inputs_per_req", "did you mean", "'5'"),
    ("{load: {rate_per_sec: 5}}", "load.rate_per_sec", "did you mean bench.load.rate_per_s?", "'5'"),
    ("{slo: {ttft: 1}}", "slo.ttft", "did you mean bench.slo.ttft_s?", "'1'"),
    ("{validity: {max_lag: 1}}", "validity.max_lag", "did you mean bench.validity.max_lag_s?", "'1'"),
]


@pytest.mark.parametrize(("text", "key", "expected", "value"), WRONG)
def test_a_wrong_setting_is_one_line(tmp_path: Path, text: str, key: str, expected: str, value: str) -> None:
    line = problem(tmp_path, text)
    assert line.startswith(f"bench.{key}: ")
    assert expected in line
    assert value in line
    assert "bench.yaml:2" in line


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("{load: {shape: poisson}}", "rate_per_s", "expected a number for shape poisson"),
        ("{load: {shape: constant}}", "rate_per_s", "expected a number for shape constant"),
        ("{load: {shape: bursts}}", "rate_per_s", "expected a number for shape bursts"),
        ("{load: {shape: trace}}", "trace", "expected a JSONL file for shape trace"),
    ],
)
def test_what_a_shape_needs_and_was_not_given_is_one_line(tmp_path: Path, text: str, key: str, expected: str) -> None:
    line = problem(tmp_path, text)
    assert line.startswith(f"bench.load.{key}: {expected}")
    assert "bench.yaml:2" in line
    assert "a mapping" not in line


def test_a_wrong_setting_on_the_command_line_names_it(tmp_path: Path) -> None:
    assert problem(tmp_path, "{}", "--bench.load.users", "none") == (
        "bench.load.users: expected a whole number of 1 or more, got 'none' (from command line --bench.load.users)"
    )
    assert "did you mean --bench.load.users?" in problem(tmp_path, "{}", "--bench.load.user", "3")


@pytest.mark.parametrize(
    "length", ["64", "1", "uniform(1, 1)", "uniform(8,24)", "lognormal(64, 0.5)", "lognormal(1, 0)", "lognormal(9.5,1)"]
)
def test_a_right_length_is_kept(tmp_path: Path, length: str) -> None:
    assert bench(tmp_path, f"{{workload: {{input_tokens: '{length}'}}}}").workload.input_tokens == length


def test_an_order_of_keys_does_not_matter(tmp_path: Path) -> None:
    for text in ("{load: {shape: poisson, rate_per_s: 5}}", "{load: {rate_per_s: 5, shape: poisson}}"):
        assert bench(tmp_path, text).load.rate_per_s == 5


def test_somebody_elses_server_is_a_rung(tmp_path: Path) -> None:
    rungs = ["vllm", "http://127.0.0.1:8001", "https://example.com/v1"]
    assert bench(tmp_path, f"{{rungs: {rungs}}}").rungs == rungs


def test_a_closed_load_needs_no_rate(tmp_path: Path) -> None:
    for shape in ("closed", "ramp"):
        assert bench(tmp_path, f"{{load: {{shape: {shape}}}}}").load.rate_per_s is None
