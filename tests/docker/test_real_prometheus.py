"""Dashboards and rules on the real Prometheus, which watches a platform under load: all have data, and it is right."""

import math
from collections import Counter

import httpx
import pytest

from tests.docker import queries, series
from tests.docker.conftest import Watched

pytestmark = pytest.mark.long
QUERIES = queries.queries()
RECORDED = sorted(series.recorded())
# Series that not every machine has, and why; a query of theirs may be without data only where the page has none.
NOT_EVERYWHERE = {
    "litport_host_throttled_seconds_total": "the control group tells nothing of throttling",
    "litport_host_throttled_periods_total": "the control group tells nothing of throttling",
}


@pytest.fixture(scope="module")
def absent(watched: Watched) -> set[str]:
    page = httpx.get(watched.metrics_address, timeout=10).text
    return {name for name in NOT_EVERYWHERE if f"\n{name} " not in page}


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_every_query_of_every_dashboard_has_data(watched: Watched, absent: set[str], query: queries.Query) -> None:
    if missing := series.names_in(query.expression) & absent:
        pytest.skip(NOT_EVERYWHERE[missing.pop()])
    values = watched.prometheus.query(query.expression).values()
    assert any(math.isfinite(value) for value in values), f"{query.expression} gives {list(values)}"


@pytest.mark.parametrize("name", RECORDED)
def test_every_recorded_series_has_data(watched: Watched, name: str) -> None:
    values = watched.prometheus.query(name).values()
    assert any(math.isfinite(value) for value in values), f"{name} gives {list(values)}"


def test_every_rule_is_evaluated_without_a_mistake_and_no_alert_fires(watched: Watched) -> None:
    rules = watched.prometheus.rules()
    assert {rule["name"] for rule in rules} == {rule.get("alert") or rule["record"] for rule in series.rules()}
    assert [rule for rule in rules if rule["health"] != "ok"] == []
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []


def test_every_request_of_the_load_is_counted_once_with_its_model_and_status(watched: Watched) -> None:
    for name, load in watched.loads.items():
        by_status = Counter(str(request["status"]) for request in load.requests)
        assert by_status["200"] == len(load.requests) >= 8, (name, by_status)
        for status, count in by_status.items():
            watched.grew_by(f'sum(litport_requests_total{{model="{name}", status="{status}"}})', count)
        watched.grew_by(f'sum(litport_requests_total{{model="{name}"}})', len(load.requests))
        watched.grew_by(f'sum(litport_request_duration_seconds_count{{model="{name}"}})', len(load.requests))


def test_tokens_are_counted_as_the_answers_say_to_the_token(watched: Watched) -> None:
    for name, load in watched.loads.items():
        for direction, field in (("input", "prompt_tokens"), ("output", "output_tokens")):
            if total := load.total(field):
                watched.grew_by(f'sum(litport_tokens_total{{model="{name}", direction="{direction}"}})', total)
    assert watched.loads[watched.language_model].total("output_tokens")


def test_vllms_own_count_is_that_of_the_answers_and_of_the_canaries(watched: Watched) -> None:
    name = watched.language_model
    canaries = f'sum(litport_canaries_total{{model="{name}", result="ok"}})'  # each is one token
    own = f'sum(vllm:generation_tokens_total{{model="{name}"}})'
    watched.grew_by(f"{own} - {canaries}", watched.loads[name].total("output_tokens"))


def test_each_request_of_a_stream_has_one_first_token(watched: Watched) -> None:
    name = watched.language_model
    series = f'sum(litport_time_to_first_token_seconds_count{{model="{name}"}})'
    watched.grew_by(series, len(watched.loads[name].requests))


def test_steps_of_litserve_are_those_of_the_requests_and_of_the_canaries(watched: Watched) -> None:
    for name, load in watched.loads.items():
        if load.kind == "litserve":
            http = f'sum(litserve_step_requests_total{{model="{name}", step="http"}})'
            canaries = f'sum(litport_canaries_total{{model="{name}", result="ok"}})'
            count = len(load.requests)
            # A canary that finds the model at work by then asks it nothing, and so has no step.
            without_canaries = watched.growth(f"{http} - {canaries}")
            watched.prometheus.wait_for(
                f"({watched.growth(http)} >= bool {count}) * ({without_canaries} <= bool {count})", 1
            )


def test_the_gpu_is_the_models_that_is_on_it(watched: Watched) -> None:
    owner = f'litport_gpu_utilization_ratio{{gpu="0", model="{watched.language_model}"}}'
    watched.prometheus.wait_for(f"sum({owner})", 0.37)
    watched.prometheus.wait_for('sum(litport_gpu_instance_memory_used_bytes{gpu="1", mig_instance="0"})', 1000)
