"""A model at two replicas, each a process of `litport replica`: what a gateway's callers notice of their ends."""

import json
import os
import signal
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import REPOSITORY, Platform, litport, serving
from tests.services import certificate
from tests.services.polling import wait_until
from tests.services.ports import free_port
from tests.services.replicas import replica_process, write_secret

STRANGERS = REPOSITORY / "tests/services/strangers"
USERS = 8


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"instances": ["http://127.0.0.1:8100/v1"]}, "expected scheme, host and port alone"),
        ({"instances": ["http://a:1", "http://a:1/"]}, "expected different addresses"),
        ({"instances": ["http://a:1"], "replicas": 2}, "models.echo.replicas: expected 1 beside instances"),
        ({"instances": ["http://a:1"]}, "cluster.secret_file: expected the file of the secret"),
    ],
    ids=["a path", "twice", "replicas", "no secret"],
)
def test_config_check_says_what_is_wrong_with_addresses(
    model: dict[str, Any], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import litport as command_line

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"models": {"echo": {"engine": "litserve", "api": "echo", **model}}}))
    assert command_line.main(["config", "check", str(recipe)]) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.long
def test_replicas_that_die_drain_and_come_back(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    recipe = _recipe(tmp_path, "sleeps", {"api": f"{STRANGERS / 'sleeps.py'}:SleepsAPI"}, ports)
    with ExitStack() as stack:
        processes = [stack.enter_context(replica_process(tmp_path, recipe, "sleeps", port)) for port in ports]
        platform = stack.enter_context(serving(tmp_path, str(recipe)))
        wait_until(lambda: _states(platform) == ["ready", "ready"])
        outcomes: Counter[int] = Counter()
        done = threading.Event()
        users = [threading.Thread(target=_ask, args=(platform, outcomes, done)) for _ in range(USERS)]
        for user in users:
            user.start()
        try:
            wait_until(lambda: outcomes[200] >= 5 * USERS)
            os.kill(processes[0].pid, signal.SIGKILL)
            wait_until(lambda: _states(platform) != ["ready", "ready"], every_s=0.005)
            _wait_for_more(outcomes, 5 * USERS)
            lost = outcomes[503]
            print(f"killed: {lost} of {outcomes.total()} requests failed")
            assert lost <= USERS, "those that the dead one had"
            stack.enter_context(replica_process(tmp_path, recipe, "sleeps", ports[0]))
            wait_until(lambda: _states(platform) == ["ready", "ready"], 30)
            processes[1].terminate()
            assert processes[1].wait(timeout=20) == 0
            _wait_for_more(outcomes, 5 * USERS)
            assert outcomes.keys() <= {200, 503}
            assert outcomes[503] == lost, "one that drains fails nothing"
        finally:
            done.set()
            for user in users:
                user.join()
        assert _states(platform) == ["ready", "starting"]


@pytest.mark.long
def test_a_litapi_answers_through_a_replica_as_here(tmp_path: Path) -> None:
    """Streams, uploads, refusals, deadlines, one that goes and comes back; two of them by TLS."""
    ports = [free_port()]
    slow = _recipe(tmp_path, "slow", {"api": f"{STRANGERS / 'slow.py'}:SlowAPI", "cancel_grace_s": 30}, ports)
    with ExitStack() as stack:
        process = stack.enter_context(replica_process(tmp_path, slow, "slow", ports[0]))
        cert_file, key_file = certificate.write(tmp_path)
        tls = ("--server.tls_cert_file", str(cert_file), "--server.tls_key_file", str(key_file))
        kinds = []
        for name, api in (("count", "streams.py:CountdownAPI"), ("upload", "kinds.py:UploadAPI")):
            ports.append(free_port())
            model = {"api": f"{STRANGERS}/{api}", **({"stream": True} if name == "count" else {})}
            kinds.append(_recipe(tmp_path, name, model, ports[-1:], "https"))
            stack.enter_context(replica_process(tmp_path, kinds[-1], name, ports[-1], *tls))
        environ = {"SSL_CERT_FILE": str(cert_file)}
        platform = stack.enter_context(serving(tmp_path, str(slow), *map(str, kinds), environ=environ))
        parts = platform.http.post("/predict/count", json={"from": 3}).text
        assert parts.count("number") == 3
        answer = platform.http.post("/predict/upload", files={"request": ("a.png", b"\x89PNG" * 1000, "image/png")})
        assert (answer.status_code, answer.json()["size"]) == (200, 4000)
        assert platform.http.post("/predict/upload", json={}).status_code in (400, 422)
        paths = platform.http.get("/openapi.json").json()["paths"]
        assert {"/predict/count", "/predict/upload", "/predict/slow"} <= paths.keys()

        body = {"name": "stuck", "how": "asleep", "begun": str(tmp_path / "stuck")}
        late = platform.http.post("/predict/slow", json=body, headers={"x-request-timeout": "1"})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        following = {"name": "next", "how": "at once", "begun": str(tmp_path / "next")}
        seen = platform.http.post("/predict/slow", json=following, timeout=10).json()["seen"]
        assert seen == ["stuck", "next"], "the same worker, interrupted"

        os.kill(process.pid, signal.SIGKILL)
        platform.wait_for("slow", state="starting")
        refusal = platform.http.post("/predict/slow", json=following)
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (503, "model_not_ready")
        stack.enter_context(replica_process(tmp_path, slow, "slow", ports[0]))
        platform.wait_for("slow", 30, state="ready")
        assert platform.http.post("/predict/slow", json=following).status_code == 200
        listing = litport("ps", "--url", platform.url).stdout
        assert "slow" in listing


def _recipe(folder: Path, name: str, model: dict[str, Any], ports: list[int], scheme: str = "http") -> Path:
    recipe = folder / f"{name}.yaml"
    addresses = [f"{scheme}://127.0.0.1:{port}" for port in ports]
    settings = {
        "cluster": {"secret_file": str(write_secret(folder))},
        "server": {"cache_dir": str(folder)},
        "models": {name: {"engine": "litserve", **model, "instances": addresses}},
    }
    recipe.write_text(json.dumps(settings))
    return recipe


def _states(platform: Platform) -> list[str]:
    instances: Any = platform.status()["sleeps"]["instances"]
    return [instance["state"] for instance in instances]


def _wait_for_more(outcomes: Counter[int], count: int) -> None:
    before = outcomes[200]
    wait_until(lambda: outcomes[200] >= before + count)


def _ask(platform: Platform, outcomes: Counter[int], done: threading.Event) -> None:
    with httpx.Client(base_url=platform.url, timeout=30) as client:
        while not done.is_set():
            outcomes[client.post("/predict/sleeps", json={"input": 0.02}).status_code] += 1
