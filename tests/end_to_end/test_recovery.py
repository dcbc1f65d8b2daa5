"""A process that is killed or stopped: its requests end, the model comes back by itself, the others do not notice.

Each test says what it measured (`pytest -rP`); docs/reliability.md has the table.
"""

import concurrent.futures
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from servers.processes.group import ProcessGroup
from tests.conftest import REPOSITORY, Platform, serving
from tests.services.fault import BACK_S, Fault, wait_until_gone
from tests.services.page_reader import Reader, metrics_url, state
from tests.services.polling import wait_until

CHAT = "smollm2-135m-instruct"
EMBED = "all-minilm-l6-v2"
KILL, STOP = signal.SIGKILL, signal.SIGSTOP
# Each is a model of its own: a process of the worker host, or of LitServe's own server.
HOST = ("main-process", "worker")
FALLBACK = ("litserve-main-process", "litserve-manager", "litserve-worker", "litserve-api-server")


@pytest.mark.parametrize(
    ("title", "number", "bound_s"),
    [
        # The kernel takes a process's memory before its sockets, which is slow on a busy machine.
        ("VLLM::EngineCore", KILL, 5),
        ("servers.engines.vllm.child", KILL, 5),
        ("VLLM::EngineCore", STOP, 15),
    ],
    ids=["engine core killed", "API server killed", "engine core stopped"],
)
@pytest.mark.long
def test_when_a_process_of_vllm_fails_requests_end_and_the_others_do_not_notice(
    platform: Platform, title: str, number: signal.Signals, bound_s: float
) -> None:
    platform.wait_for(CHAT, BACK_S, state="ready")  # after a fault before, whatever came of it
    stream = {
        "model": CHAT,
        "prompt": f"xyzzy {title} {number}",
        "max_tokens": 1500,
        "ignore_eos": True,
        "stream": True,
    }
    whole = {**stream, "stream": False}
    group_id = _group(platform, CHAT)

    def ask(body: dict[str, object]) -> httpx.Response:
        return platform.http.post("/v1/completions", json=body, timeout=120)

    reader = Reader(metrics_url(platform), every_s=0.1)
    reader.start()
    fault = Fault(platform, CHAT, _process(group_id, title), number, other=lambda: _ask(platform, EMBED))
    streamed, refused = fault.strike([lambda: ask(stream), lambda: ask(whole)])
    last = [event for event in streamed.text.split("data: ") if not event.startswith("[DONE]")][-1]
    assert json.loads(last)["error"], "ours, or vLLM's own where its server outlives its engine"
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_died")
    fault.hold(bound_s)
    wait_until_gone(group_id, timeout_s=5)
    fault.until_back()
    reader.close()
    assert reader.problems == []
    pages = [page for _, page in reader.pages]
    for page in pages:
        assert state(page, EMBED) == "ready"
        if state(page, CHAT) != "ready":
            assert ("vllm:" in page) == (f'litport_model_scrape_success{{model="{CHAT}"}} 1' in page)
    assert [page for page in pages if "vllm:" not in page], "the dead engine's series are gone"
    log_file = Path(str(platform.status()[CHAT]["log_file"]))
    assert "xyzzy" not in log_file.read_text() + platform.log.read_text(), "no prompt in a log or a crash report"
    # What transformers answers, on the first request after a start.
    assert _ask(platform, CHAT).json()["choices"][0]["message"]["content"] == "The capital of France is Paris."


@pytest.mark.long
def test_a_pause_of_the_whole_supervisor_costs_no_model_its_process(platform: Platform) -> None:
    """SIGSTOP for longer than `canary_timeout_s`, under load, as a suspended host or a debugger does it."""
    platform.wait_for(CHAT, BACK_S, state="ready")
    before = {name: status["restarts"] for name, status in platform.status().items()}
    done = threading.Event()

    def load(model: str) -> None:
        while not done.is_set():
            _ask(platform, model)

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for model in (CHAT, EMBED) * 3:
            pool.submit(load, model)
        for _ in range(2):
            time.sleep(1)
            platform.process.send_signal(STOP)
            time.sleep(9)
            platform.process.send_signal(signal.SIGCONT)
        done.set()
    time.sleep(10)  # two canaries and what they would have led to
    after = {name: (status["restarts"], status["state"]) for name, status in platform.status().items()}
    assert after == {name: (restarts, "ready") for name, restarts in before.items()}


@pytest.fixture(scope="module")
def sleepy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A model that sleeps for each process that is to fail, named after it, and one that is to notice nothing."""
    folder = tmp_path_factory.mktemp("sleepy")
    recipe = folder / "recipe.yaml"
    sleeps = {"engine": "litserve", "api": f"{REPOSITORY / 'tests/services/strangers/sleeps.py'}:SleepsAPI"}
    fallback = {**sleeps, "serving": "litserve"}
    recipe.write_text(json.dumps({"models": dict.fromkeys(HOST, sleeps) | dict.fromkeys(FALLBACK, fallback)}))
    squares = "tests/services/strangers/squares.py:SquaresAPI"
    with serving(folder, str(recipe), squares, "--server.cache_dir", str(folder)) as platform:
        yield platform


@pytest.mark.parametrize(
    ("victim", "number"),
    [
        ("main-process", KILL),
        ("litserve-worker", KILL),
        pytest.param("litserve-api-server", KILL, marks=pytest.mark.long),
        pytest.param("litserve-main-process", KILL, marks=pytest.mark.long),
        pytest.param("litserve-manager", KILL, marks=pytest.mark.long),
        pytest.param("litserve-worker", STOP, marks=pytest.mark.long),
        pytest.param("litserve-api-server", STOP, marks=pytest.mark.long),
        pytest.param("main-process", STOP, marks=pytest.mark.long),
    ],
)
def test_when_a_process_that_a_litapi_needs_fails_requests_end_and_the_others_do_not_notice(
    sleepy: Platform, victim: str, number: signal.Signals
) -> None:
    group_id = _group(sleepy, victim)
    fault = Fault(sleepy, victim, _of_litapi(group_id)[victim], number, other=lambda: _ask(sleepy, "squares"))
    (answer,) = fault.strike([lambda: sleepy.http.post(f"/predict/{victim}", json={"input": 60}, timeout=120)])
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_died")
    fault.hold(bound_s=15 if number is STOP else 2)
    wait_until_gone(group_id, timeout_s=5)
    fault.until_back()
    assert sleepy.http.post(f"/predict/{victim}", json={"input": 0}, timeout=30).json() == {"output": 0}


@pytest.mark.parametrize("number", [KILL, pytest.param(STOP, marks=pytest.mark.long)])
def test_when_a_worker_of_the_host_fails_only_its_request_ends_and_the_model_stays_ready(
    sleepy: Platform, number: signal.Signals
) -> None:
    group_id = _group(sleepy, "worker")
    restarts = sleepy.status()["worker"]["restarts"]
    pid = _of_litapi(group_id)["worker"]

    def ask(wait_s: int) -> httpx.Response:
        return sleepy.http.post("/predict/worker", json={"input": wait_s}, timeout=120)

    with concurrent.futures.ThreadPoolExecutor() as threads:
        lost = threads.submit(ask, 60)
        wait_until(lambda: sleepy.status()["worker"]["running"] == 1, 10)
        time.sleep(0.5)  # so the worker has it
        begin_s = time.monotonic()
        os.kill(pid, number)
        answer = lost.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_died")
    assert time.monotonic() - begin_s < (15 if number is STOP else 2)
    assert ask(0).json() == {"output": 0}, "it waits for the worker's successor"
    status = sleepy.wait_for("worker", 20, state="ready")
    wait_until(lambda: sleepy.status()["worker"]["restarts"] == restarts + 1, 20)  # type: ignore[operator]
    assert status["group_id"] == group_id
    assert pid not in [member.pid for member in ProcessGroup(group_id).members()]
    assert sleepy.http.get("/ready").status_code == 200
    assert _ask(sleepy, "squares").status_code == 200


def test_a_request_that_kills_its_worker_twice_is_not_tried_again(tmp_path: Path) -> None:
    killer = {"input": "out of memory"}  # what the kernel does to a worker that takes too much
    with serving(tmp_path, "tests/services/strangers/dies.py:DiesAPI", "--server.cache_dir", str(tmp_path)) as platform:

        def ask(body: object) -> tuple[int, object]:
            answer = platform.http.post("/predict/dies", json=body, timeout=60)
            return answer.status_code, answer.json().get("error", {}).get("code")

        for restarts in range(2):
            assert ask(killer) == (503, "model_died")
            platform.wait_for("dies", 60, state="ready", restarts=restarts + 1)
        assert ask(killer) == (422, "request_quarantined")
        assert ask({"input": "harmless"}) == (200, None)
        assert platform.status()["dies"]["restarts"] == 2
        log = platform.log.read_text()
    assert "killed its process twice and is in quarantine" in log
    assert "out of memory" not in log, "what a request says stays out of the log"


@pytest.mark.long
def test_a_model_that_fails_to_start_again_and_again_is_given_up_with_its_cause(tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    arguments = ["tests/services/strangers/dies.py:DiesAPI", "tests/services/strangers/squares.py:SquaresAPI"]
    arguments += ["--models.dies.init.broken_when", str(flag), "--models.dies.max_restarts", "2"]
    arguments += ["--models.dies.required", "false", "--server.cache_dir", str(tmp_path)]
    with serving(tmp_path, *arguments) as platform:
        platform.wait_for("dies", 60, state="ready")  # /ready does not wait for it, and a first start is not repeated
        flag.touch()
        os.kill(_of_litapi(_group(platform, "dies"))["worker"], KILL)
        status = platform.wait_for("dies", 60, state="failed")
        assert "failed again after 2 restarts" in str(status["detail"])
        assert "the weights are gone" in str(status["detail"])
        answer = platform.http.post("/predict/dies", json={"input": "x"}, timeout=30)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_ready")
        assert _ask(platform, "squares").status_code == 200


def _of_litapi(group_id: int) -> dict[str, int]:
    """The processes of a LitAPI by name, in the order in which they are started."""
    members = sorted(ProcessGroup(group_id).members(), key=lambda member: member.pid)
    children = [member.pid for member in members if "resource_tracker" not in member.title]
    return dict(zip(HOST if len(children) == len(HOST) else FALLBACK, children, strict=True))


def _group(platform: Platform, model: str) -> int:
    group_id = platform.status()[model]["group_id"]
    assert isinstance(group_id, int)
    return group_id


def _process(group_id: int, title: str) -> int:
    """The process of the group with that word in its command line."""
    return next(member.pid for member in ProcessGroup(group_id).members() if title in member.title)


def _ask(platform: Platform, model: str) -> httpx.Response:
    if model == EMBED:
        return platform.http.post("/v1/embeddings", json={"model": EMBED, "input": "x"}, timeout=60)
    if model == CHAT:
        question = [{"role": "user", "content": "What is the capital of France?"}]
        body = {"model": CHAT, "messages": question, "max_tokens": 20, "temperature": 0}
        return platform.http.post("/v1/chat/completions", json=body, timeout=60)
    return platform.http.post(f"/predict/{model}", json={"input": 2}, timeout=60)
