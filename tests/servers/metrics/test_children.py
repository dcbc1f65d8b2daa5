"""The pages of the models' processes on ours: relabelled, merged, and only while there is a process."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from servers.metrics import children
from servers.models.instance import State
from servers.models.supervisor import Supervisor
from tests.services.supervision import group_of, supervising, wait_until_state
from tests.services.tiny_engine import TinyEngine

PAGE = """\
# HELP tiny_requests_total Requests
# TYPE tiny_requests_total counter
tiny_requests_total{path="/a b",said="{\\"model=\\\\\\"x"} 3.0
tiny_requests_total{model="inner",path="/"} 4.0
# HELP tiny_wait_seconds Waiting
# TYPE tiny_wait_seconds histogram
tiny_wait_seconds_bucket{le="0.1"} 1.0
tiny_wait_seconds_bucket{le="+Inf"} 2.0
tiny_wait_seconds_sum 0.5
tiny_wait_seconds_count 2.0
# TYPE tiny_requests_created gauge
tiny_requests_created{path="/"} 1.7e9
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 8.0
# TYPE python_info gauge
python_info{version="3.11"} 1.0
# TYPE litport_requests_total counter
litport_requests_total{model="forged"} 9.0
"""


def found(page: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels; none may be there twice."""
    families = list(text_string_to_metric_families(page))
    assert len({family.name for family in families}) == len(families), "a family in two places"
    samples = [sample for family in families for sample in family.samples]
    by_name = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(by_name) == len(samples)
    return by_name


def labels(**pairs: str) -> frozenset[tuple[str, str]]:
    return frozenset(pairs.items())


async def ready(supervisor: Supervisor) -> None:
    for model in supervisor.models.values():
        await wait_until_state(model, State.READY)


def test_series_are_told_apart_by_model_and_those_of_a_name_stand_together(tmp_path: Path) -> None:
    async def run() -> str:
        async with supervising(tmp_path, TinyEngine("one"), TinyEngine("org/two")) as supervisor:
            (tmp_path / "run" / "metrics").write_text(PAGE)
            await ready(supervisor)
            return await children.pages(supervisor.models)

    samples = found(asyncio.run(run()))
    for model in ("one", "org/two"):
        assert samples["tiny_requests_total", labels(model=model, path="/a b", said='{"model=\\"x')] == 3
        assert samples["tiny_requests_total", labels(model=model, path="/", exported_model="inner")] == 4
        assert samples["tiny_wait_seconds_bucket", labels(model=model, le="+Inf")] == 2
        assert samples["tiny_wait_seconds_sum", labels(model=model)] == 0.5
        assert samples["litport_model_scrape_success", labels(model=model)] == 1
    assert len(samples) == 14  # and nothing of the processes, of when series were made, or in our name


def test_a_process_that_is_gone_has_no_series(tmp_path: Path) -> None:
    async def run() -> tuple[str, str, str]:
        async with supervising(tmp_path, TinyEngine("one"), TinyEngine("two")) as supervisor:
            await ready(supervisor)
            before = await children.pages(supervisor.models)
            victim = supervisor.models["one"]
            os.kill(group_of(victim), signal.SIGKILL)
            meanwhile = await children.pages(supervisor.models)
            await asyncio.sleep(0.2)
            await wait_until_state(victim, State.READY)
            return before, meanwhile, await children.pages(supervisor.models)

    before, meanwhile, after = (found(page) for page in asyncio.run(run()))
    one, two = ("tiny_pid", labels(model="one")), ("tiny_pid", labels(model="two"))
    assert one not in meanwhile
    assert meanwhile["litport_model_scrape_success", labels(model="one")] == 0
    assert meanwhile[two] == before[two] == after[two]
    assert after[one] != before[one]


def test_a_process_that_does_not_answer_costs_a_second_and_its_own_series_only(tmp_path: Path) -> None:
    async def run() -> tuple[str, float]:
        async with supervising(tmp_path, TinyEngine("one"), TinyEngine("two"), canary_interval_s=None) as supervisor:
            await ready(supervisor)
            victim = supervisor.models["one"].choose().group_id
            assert victim is not None
            os.kill(victim, signal.SIGSTOP)
            begin_s = time.monotonic()
            page = await children.pages(supervisor.models)
            os.kill(victim, signal.SIGCONT)
            return page, time.monotonic() - begin_s

    page, spent_s = asyncio.run(run())
    assert ("tiny_pid", labels(model="one")) not in found(page)
    assert ("tiny_pid", labels(model="two")) in found(page)
    assert 0.9 < spent_s < 3


@pytest.mark.parametrize("page", ["", "no metrics\n", "{}", "# TYPE x gauge\nx\nx y\n", '# TYPE x gauge\nx{a="b} 1\n'])
def test_a_page_that_is_none_takes_nothing_else_with_it(tmp_path: Path, page: str) -> None:
    async def run() -> str:
        async with supervising(tmp_path, TinyEngine("one")) as supervisor:
            (tmp_path / "run" / "metrics").write_text(page)
            await ready(supervisor)
            return await children.pages(supervisor.models)

    assert ("litport_model_scrape_success", labels(model="one")) in found(asyncio.run(run()))
