"""The live page's drawing: what is absent is a dash, and names of others are only text."""

import re
from typing import Any

import msgspec

from clients.documents import Status
from clients.playground.live import Sample, draw

MODEL: dict[str, Any] = {
    "name": "m",
    "kind": "vllm",
    "source": None,
    "state": "ready",
    "detail": "",
    "in_state_s": 1,
    "phases_s": {},
    "restarts": 0,
    "required": True,
    "running": 1,
    "waiting": 0,
    "process_count": None,
    "memory_bytes": None,
    "paths": [],
}
OLD = {"models": [MODEL]}
RECENT = {
    "window_s": 30,
    "requests": 60,
    "failed": 0,
    "input_tokens_per_s": 0.0,
    "requests_per_s": 2.0,
    "output_tokens_per_s": 12.5,
    "duration_s": {"p50": 0.25, "p95": 1.5},
    "ttft_s": None,
}
GPU = {"index": 0, "name": "card", "utilization_percent": 40, "memory_used_bytes": None, "power_w": 61.6}
NEW = {
    "models": [{**MODEL, "cpu_cores": 1.25, "memory_bytes": 2**31, "recent": RECENT}],
    "hardware": {
        "cpu_percent": 12.4,
        "memory_available_bytes": 3 * 2**30,
        "memory_total_bytes": 8 * 2**30,
        "gpus": [GPU, {**GPU, "index": 1, "lost": True}],
        "nvml_error": None,
    },
}


def sample(at_s: float, document: dict[str, Any]) -> Sample:
    platform = {"version": "1", "address": "http://x", "uptime_s": 1, "in_flight": 0}
    return Sample(at_s, msgspec.convert({**platform, **document}, Status))


def figures(page: str) -> dict[str, str]:
    return dict(re.findall(r"<span>([^<]*)</span><b>([^<]*)</b>", page))


def test_only_a_model_that_writes_text_has_figures_of_tokens() -> None:
    tokens = {"output tokens/s", "ttft p50 / p95"}
    for kind, paths, has_tokens in (
        ("litserve", ["/predict/m"], False),
        ("litserve", ["/v1/chat/completions", "/predict/m"], True),
        ("vllm", [], True),
        ("vllm", ["/v1/embeddings"], False),
    ):
        page = draw([sample(0, {"models": [{**MODEL, "kind": kind, "paths": paths}]})])
        assert tokens & set(figures(page)) == (tokens if has_tokens else set())


def test_what_a_platform_that_does_not_answer_said_before_is_not_shown_as_true() -> None:
    page = draw([sample(0, NEW)], "Nothing answers.")
    assert "Nothing answers." in page
    assert '<span class="state unknown">unknown</span>' in page
    assert set(figures(page).values()) == {"-", "- / -"}


def test_a_platform_that_says_little_is_shown_with_dashes() -> None:
    shown = figures(draw([sample(0, OLD)]))
    assert shown.pop("running / waiting") == "1 / 0"
    assert shown.pop("memory used / all") == shown.pop("duration p50 / p95") == "- / -"
    assert set(shown.values()) == {"-", "- / -"}


def test_what_is_said_is_shown_with_its_unit() -> None:
    page = draw([sample(0, NEW)])
    models, host = page.split("<h3>host")
    assert figures(models) == {
        "running / waiting": "1 / 0",
        "requests/s": "2.00",
        "output tokens/s": "12.5",
        "duration p50 / p95": "250 ms / 1.50 s",
        "ttft p50 / p95": "- / -",
        "CPU cores": "1.25",
        "memory": "2.0 GiB",
    }
    host, first, second = host.split("<h3>GPU")
    assert figures(host) == {"CPU": "12 %", "memory used / all": "5.0 GiB / 8.0 GiB"}
    assert figures(first) == {"utilization": "40 %", "memory used / all": "- / -", "power": "62 W"}
    assert "lost" in second


def test_a_chart_has_a_gap_where_nothing_is_known() -> None:
    samples = [sample(0, NEW), sample(2, NEW), sample(4, {"models": []}), sample(6, NEW), sample(30, NEW)]
    path = re.search(r'aria-label="requests/s[^>]*><path d="([^"]*)"', draw(samples))
    assert path is not None
    assert re.sub(r"[^ML]", "", path[1]) == "MLMM"


def test_words_of_others_are_text() -> None:
    model = {**MODEL, "name": "<b>", "state": "<i>", "detail": "<script>"}
    for problem in (None, "<u>"):
        page = draw([sample(0, {"models": [model]})], problem)
        assert re.findall(r"<(?:b>&|script|i>|u>)", page) == []
        assert ("&lt;u&gt;" if problem else "&lt;script&gt;") in page
