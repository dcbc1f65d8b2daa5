"""LitAPIs on the worker host behind the front door: they answer as on LitServe's server, and a worker may die alone."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from servers.processes.group import ProcessGroup
from tests.conftest import REPOSITORY, Platform, serving
from tests.services.page_reader import metrics_url, values
from tests.services.polling import wait_until

pytestmark = pytest.mark.long

_STRANGERS = REPOSITORY / "tests" / "services" / "strangers"
_TWINS: dict[str, dict[str, Any]] = {
    "echo": {"api": "echo"},
    "embed": {"api": "embedding", "source": "all-minilm-l6-v2"},
    "countdown": {"api": f"{_STRANGERS}/streams.py:CountdownAPI", "stream": True},
}
_HOSTED: dict[str, dict[str, Any]] = {
    "batches": {"api": f"{_STRANGERS}/batches.py:BatchesAPI", "max_batch_size": 4},
    "dies": {"api": f"{_STRANGERS}/dies.py:DiesAPI", "workers_per_device": 2},
    "form": {"api": f"{_STRANGERS}/documented.py:FormAPI"},
    "poisoned": {"api": f"{_STRANGERS}/documented.py:PoisonedAPI", "max_batch_size": 3},
    "slow": {"api": f"{_STRANGERS}/slow.py:SlowAPI", "timeout_s": 0.5},
    "stream": {"api": f"{_STRANGERS}/documented.py:StreamAPI", "stream": True},
}


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[Platform]:
    """The APIs on the host, which is the default; `NAME-plain` is the same API on LitServe's own server."""
    folder = tmp_path_factory.mktemp("hosted")
    plain = {f"{name}-plain": {"engine": "litserve", "serving": "litserve", **_TWINS[name]} for name in _TWINS}
    own = {"own-loop": {"engine": "litserve", "api": f"{_STRANGERS}/broken.py:OwnLoopAPI"}}
    host = {name: {"engine": "litserve", **settings} for name, settings in (_TWINS | _HOSTED).items()}
    recipe = folder / "hosted.yaml"
    recipe.write_text(json.dumps({"models": {**host, **plain, **own}}))
    with serving(folder, str(recipe), "--server.cache_dir", str(model_cache)) as platform:
        yield platform


def _post_together(platform: Platform, model: str, bodies: list[dict[str, Any]]) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: platform.http.post(f"/predict/{model}", json=body, timeout=30), bodies))


@pytest.mark.parametrize(
    ("model", "body"),
    [
        ("echo", {"input": ["é", 1.5, None]}),
        ("echo", {"input": "x" * 400_000}),
        ("countdown", {"from": 3}),
        ("countdown", {"from": 0}),
    ],
    ids=["echo", "a large echo", "a stream", "an empty stream"],
)
def test_an_api_answers_as_on_litserve(hosted: Platform, model: str, body: dict[str, Any]) -> None:
    ours, plain = (hosted.http.post(f"/predict/{name}", json=body, timeout=30) for name in (model, f"{model}-plain"))
    assert (ours.status_code, ours.content) == (plain.status_code, plain.content)
    assert ours.status_code == 200
    assert ours.headers.get("content-type") == plain.headers.get("content-type")
    if ours.content:
        assert ours.headers.get("content-length") == plain.headers.get("content-length")


def test_embeddings_are_those_of_litserve(hosted: Platform) -> None:
    texts = ["A cat sits on the mat.", "Serving costs something."]
    ours, plain = (
        hosted.http.post("/v1/embeddings", json={"model": model, "input": texts}, timeout=60).json()
        for model in ("embed", "embed-plain")
    )
    assert ours["usage"] == plain["usage"]
    for our_item, plain_item in zip(ours["data"], plain["data"], strict=True):
        assert our_item["embedding"] == pytest.approx(plain_item["embedding"], abs=1e-6)
    refused = hosted.http.post("/v1/embeddings", json={"model": "embed", "input": 5}, timeout=60)
    assert refused.status_code in (400, 422)
    assert refused.json()["error"]["type"] == "invalid_request_error"


def test_the_document_describes_the_routes_as_on_litserve(hosted: Platform) -> None:
    paths = hosted.http.get("/openapi.json").json()["paths"]
    for model in ("echo", "countdown"):
        ours, plain = (paths[f"/predict/{name}"]["post"]["requestBody"] for name in (model, f"{model}-plain"))
        assert ours == plain
    assert "embed" in paths["/v1/embeddings"]["post"]["description"]


def test_the_parts_of_a_stream_come_one_by_one(hosted: Platform) -> None:
    with hosted.http.stream("POST", "/predict/countdown", json={"from": 3, "pause_s": 0.2}) as answer:
        begin_s = time.monotonic()
        lines = [(line, time.monotonic() - begin_s) for line in answer.iter_lines()]
    assert [json.loads(line)["number"] for line, _ in lines] == [3, 2, 1]
    assert lines[-1][1] - lines[0][1] > 0.3


def test_a_stream_that_fails_in_the_middle_breaks_off_and_nobody_is_to_blame(hosted: Platform) -> None:
    body = {"count": 3, "fail": 2}
    for _ in range(3):
        with hosted.http.stream("POST", "/predict/stream", json=body) as answer:
            assert answer.status_code == 200
            with pytest.raises(httpx.RemoteProtocolError):
                answer.read()
    assert hosted.http.post("/predict/stream", json={"count": 1, "fail": 0}).status_code == 500
    assert hosted.status()["stream"]["restarts"] == 0


def test_requests_that_come_together_are_a_batch(hosted: Platform) -> None:
    answers = _post_together(hosted, "batches", [{"input": number} for number in range(9)])
    assert [answer.json()["output"] for answer in answers] == list(range(9))
    assert max(answer.json()["batch"] for answer in answers) == 4


def test_one_request_that_fails_does_not_fail_its_batch(hosted: Platform) -> None:
    for _ in range(3):
        answers = _post_together(hosted, "poisoned", [{"input": text} for text in ("a", "poison", "undecodable")])
        assert [answer.status_code for answer in answers] == [200, 500, 400]
    assert answers[2].json()["error"]["message"] == "undecodable"


def test_a_file_is_uploaded_as_a_form(hosted: Platform) -> None:
    upload = {"content": ("a.bin", b"\x00\x01\xff", "application/octet-stream")}
    answer = hosted.http.post("/predict/form", files=upload)
    assert answer.json() == {"size": 3, "sum": 256, "name": "a.bin"}


def test_work_is_left_when_its_time_is_over_and_a_request_waits_only_so_long(hosted: Platform, tmp_path: Path) -> None:
    def ask(name: str, how: str, **headers: str) -> httpx.Response:
        body = {"name": name, "begun": str(tmp_path / name), "how": how}
        return hosted.http.post("/predict/slow", json=body, headers=headers, timeout=30)

    before = ask("before", "now").json()
    with ThreadPoolExecutor() as pool:
        long = pool.submit(ask, "long", "asleep", **{"x-request-timeout": "2"})
        wait_until((tmp_path / "long").exists, 10)
        late = ask("late", "now")
        assert (late.status_code, late.json()["error"]["message"]) == (504, "Request timed out")
        assert long.result().json()["error"]["code"] == "timeout"
    after = ask("after", "now").json()
    assert after["pid"] == before["pid"]
    assert after["seen"] == ["before", "long", "after"]


def test_a_worker_that_dies_fails_only_what_it_had_and_its_killer_is_known(hosted: Platform) -> None:
    def restarts() -> Any:
        return hosted.status()["dies"]["restarts"]

    group_id = hosted.status()["dies"]["group_id"]
    fatal = {"input": "out of memory"}
    for count in (1, 2):
        answers = _post_together(hosted, "dies", [fatal, *({"input": number} for number in range(5))])
        assert [answer.status_code for answer in answers] == [503, *[200] * 5]
        assert answers[0].json()["error"]["code"] == "model_died"
        wait_until(lambda count=count: restarts() == count, 20)  # type: ignore[misc]
        time.sleep(1)  # deaths within a second count as one for the quarantine
    refused = hosted.http.post("/predict/dies", json=fatal)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "request_quarantined")
    assert hosted.http.post("/predict/dies", json={"input": 1}).status_code == 200
    status = hosted.status()["dies"]
    assert (status["state"], status["group_id"]) == ("ready", group_id)
    assert isinstance(group_id, int)
    titles = [member.title for member in ProcessGroup(group_id).members()]
    assert len([title for title in titles if "resource_tracker" not in title]) == 3
    assert "was killed by SIGKILL" in hosted.log.read_text()


def test_an_api_that_the_host_cannot_run_is_served_by_litserves_own_server_and_everybody_says_so(
    hosted: Platform,
) -> None:
    assert hosted.http.post("/predict/own-loop", json={"a": 1}).json() == {"a": 1}
    reason = "on LitServe's own server: its loop OwnLoop is not LitServe's"
    status = hosted.status()
    assert {name: (status[name]["serving"], status[name]["detail"]) for name in ("echo", "echo-plain", "own-loop")} == {
        "echo": ("host", ""),
        "echo-plain": ("litserve", "on LitServe's own server: serving: litserve"),
        "own-loop": ("litserve", reason),
    }
    assert f"own-loop: ready: {reason}" in hosted.log.read_text()


def test_litserves_own_server_has_no_series_of_its_own_and_none_is_missed(hosted: Platform) -> None:
    page = httpx.get(metrics_url(hosted)).text
    assert not [line for line in page.splitlines() if line.startswith("litserve_") and 'model="echo-plain"' in line]
    assert 'litport_model_scrape_success{model="echo-plain"} 1' in page


def test_the_metrics_count_steps_and_batches(hosted: Platform) -> None:
    def read(model: str) -> dict[str, float]:
        page = values(httpx.get(metrics_url(hosted)).text)
        label = f"('model', '{model}')"
        names = {name: value for name, value in page.items() if label in name and name.startswith("litserve_")}
        return {name.replace(label, ""): value for name, value in names.items()}

    hosted.http.post("/predict/echo", json={"input": 1})
    ours = read("echo")
    before = ours["litserve_step_requests_total[, ('step', 'http')]"]
    for _ in range(5):
        hosted.http.post("/predict/echo", json={"input": 1})
    after = read("echo")
    assert after["litserve_step_requests_total[, ('step', 'http')]"] >= before + 5
    seconds = {name: value for name, value in after.items() if name.startswith("litserve_step_seconds")}
    whole_s = seconds.pop("litserve_step_seconds_total[, ('step', 'http')]")
    assert 0 < sum(seconds.values()) <= whole_s
    assert after["litserve_batch_size_count[]"] == after["litserve_step_requests_total[, ('step', 'http')]"]


def test_what_is_at_rest_has_answered_its_canaries(hosted: Platform) -> None:
    page = values(httpx.get(metrics_url(hosted)).text)
    failed = {name: value for name, value in page.items() if "litport_canaries_total" in name and "failed" in name}
    assert set(failed.values()) == {0}
    assert {str(model["state"]) for model in hosted.status().values()} == {"ready"}
