"""Models that another server serves: a real Litport as the neighbour, and a stand-in that fails as networks do."""

import json
import re
import ssl
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import Platform, litport, serving, starting
from tests.services import certificate
from tests.services.openai_server import ANSWER, KEY, USAGE, OpenAiServer
from tests.services.polling import wait_until
from tests.services.ports import free_port

CHAT = "/v1/chat/completions"
QUESTION: Any = [{"role": "user", "content": 'a "model": "nested" of this size'}]
CALLERS_KEY = "the-key-of-a-caller"


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAiServer]:
    """The stand-in."""
    with OpenAiServer(free_port()) as server:
        server.start()
        yield server


@pytest.fixture(scope="module")
def spare() -> Iterator[OpenAiServer]:
    """Another one."""
    with OpenAiServer(free_port()) as server:
        server.start()
        yield server


@pytest.fixture(scope="module")
def laptop(server: OpenAiServer, spare: OpenAiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose models are elsewhere: at the stand-in, there with a wrong key, and with a spare behind it."""
    folder = tmp_path_factory.mktemp("laptop")
    url = f"http://127.0.0.1:{server.port}/v1"
    model = {"engine": "remote", "url": url, "model": "there", "canary_interval_s": 0.5, "aliases": ["gpt-4o-mini"]}
    locked = {"engine": "remote", "url": url, "model": "there", "api_key": "sk-wrong", "required": False}
    recipe = folder / "recipe.yaml"
    covered = {**model, "api_key": KEY, "aliases": [], "fallback": "spare"}
    behind = {**covered, "url": f"http://127.0.0.1:{spare.port}", "fallback": None}
    models = {"far": model, "locked": locked, "covered": covered, "spare": behind}
    recipe.write_text(json.dumps({"models": models}))
    environ = {"LITPORT_MODELS__FAR__API_KEY": KEY}
    arguments = ("--telemetry.audit_file", str(folder / "audit.jsonl"), "--auth.api_keys", f"[{CALLERS_KEY}]")
    with serving(folder, str(recipe), *arguments, environ=environ) as platform:
        platform.http.headers["authorization"] = f"Bearer {CALLERS_KEY}"
        yield platform


@pytest.fixture(autouse=True)
def _well(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "server" in request.fixturenames:
        request.getfixturevalue("server").fault = ""


def test_only_the_name_of_the_model_and_the_key_change_on_the_way(server: OpenAiServer, laptop: Platform) -> None:
    tools = b'"tools":[{"model":"inner"}],'
    body = b"{ " + tools + b'"messages":' + json.dumps(QUESTION).encode() + b',  "model" :\t"far" }'
    headers = {"content-type": "application/json", "cookie": "a=b", "baggage": "user=me"}
    answer = laptop.http.post(CHAT, content=body, headers=headers)
    assert (answer.status_code, answer.content) == (200, ANSWER + USAGE)
    path, sent, content = server.last()
    assert (path, content) == (CHAT, body.replace(b'"far"', b'"there"'))
    assert sent["authorization"] == f"Bearer {KEY}"
    assert sent["x-request-id"] == answer.headers["x-request-id"]
    assert not {"cookie", "baggage", "x-api-key"} & sent.keys()
    assert "set-cookie" not in answer.headers
    assert laptop.audited(answer.headers["x-request-id"])["output_tokens"] == 2


def test_the_sdk_is_answered_and_gets_a_stream(laptop: Platform) -> None:
    with openai.OpenAI(base_url=f"{laptop.url}/v1", api_key=CALLERS_KEY, max_retries=0) as client:
        listing = {model.id: model.created for model in client.models.list()}
        assert (listing["far"], listing["gpt-4o-mini"]) == (7, 7)
        chat = client.chat.completions
        assert chat.create(model="gpt-4o-mini", messages=QUESTION).choices[0].message.content == "hello"
        stream: Any = chat.create(model="far", messages=QUESTION, stream=True)
        assert "".join(chunk.choices[0].delta.content for chunk in stream if chunk.choices) == "hello"


def test_it_has_a_card_and_no_process(server: OpenAiServer, laptop: Platform) -> None:
    status = laptop.status()["far"]
    assert (status["kind"], status["state"], status["paths"]) == ("remote", "ready", [CHAT])
    assert status["address"] == f"http://127.0.0.1:{server.port}"
    assert [status[field] for field in ("socket", "log_file", "group_id", "memory_bytes")] == [None] * 4
    assert CHAT in laptop.http.get("/openapi.json").json()["paths"]
    page = httpx.get(laptop.http.get("/status").json()["metrics_address"]).text
    assert 'litport_model_info{engine="remote",model="far",source=""} 1.0' in page
    assert 'scrape_success{model="far"}' not in page


def test_that_the_server_is_full_is_passed_on(server: OpenAiServer, laptop: Platform) -> None:
    server.fault = "full"
    answer = laptop.http.post(CHAT, json={"model": "far", "messages": QUESTION})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "17")
    assert answer.json()["error"]["code"] == "overloaded"
    assert laptop.status()["far"]["state"] == "ready"


def test_what_a_full_server_refuses_goes_to_the_model_behind_it(
    server: OpenAiServer, spare: OpenAiServer, laptop: Platform
) -> None:
    server.fault = "full"
    answer = laptop.http.post(CHAT, json={"model": "covered", "messages": QUESTION})
    assert (answer.content, answer.headers["x-litport-served-by"]) == (ANSWER + USAGE, "spare")
    line = laptop.audited(answer.headers["x-request-id"])
    assert (line["model"], line["fallback_for"]) == ("spare", "covered")
    spare.fault = "full"
    answer = laptop.http.post(CHAT, json={"model": "covered", "messages": QUESTION})
    spare.fault = ""
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "17")
    assert "'covered' has no room" in answer.json()["error"]["message"]
    assert "x-litport-served-by" not in answer.headers


def test_a_key_that_is_refused_is_litports_fault_and_not_repeated(laptop: Platform) -> None:
    status = laptop.status()["locked"]
    assert status["state"] == "starting"
    assert "does not take the key of models.locked.api_key" in str(status["detail"])
    assert "sk-wrong" not in laptop.log.read_text() + json.dumps(status)
    answer = laptop.http.post(CHAT, json={"model": "locked", "messages": QUESTION})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_ready")


def test_a_stream_that_breaks_off_is_told(server: OpenAiServer, laptop: Platform) -> None:
    server.fault = "cut"
    answer = laptop.http.post(CHAT, json={"model": "far", "messages": QUESTION, "stream": True})
    *_, last = answer.text.strip().split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "model_died"


def test_at_the_deadline_the_server_is_left(server: OpenAiServer, laptop: Platform) -> None:
    server.fault, before = "silent", server.left
    headers = {"x-request-timeout": "0.3"}
    answer = laptop.http.post(CHAT, json={"model": "far", "messages": QUESTION}, headers=headers)
    assert answer.status_code == 504
    wait_until(lambda: server.left > before)


def test_a_server_that_goes_is_told_at_once_and_taken_back_when_it_comes(
    server: OpenAiServer, laptop: Platform
) -> None:
    server.stop()
    for _ in range(3):  # the same request again and again is no reason to refuse it later
        answer = laptop.http.post(CHAT, json={"model": "far", "messages": QUESTION})
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
    laptop.wait_for("far", state="starting", restarts=1)
    assert laptop.http.get("/ready").status_code == 503
    server.start()
    laptop.wait_for("far", state="ready")
    assert laptop.http.post(CHAT, json={"model": "far", "messages": QUESTION}).status_code == 200


def test_one_that_is_down_at_the_start_is_waited_for_where_it_is_not_required(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    cert_file, key_file = certificate.write(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert_file, key_file)
    with OpenAiServer(free_port(), tls) as server:
        model = {"engine": "remote", "url": f"https://127.0.0.1:{server.port}", "model": "there", "api_key": KEY}
        recipe.write_text(json.dumps({"models": {"far": {**model, "required": False}}}))
        with serving(tmp_path, str(recipe), environ={"SSL_CERT_FILE": str(cert_file)}) as platform:
            platform.wait_for("far", state="starting")
            wait_until(lambda: "cannot be reached" in str(platform.status()["far"]["detail"]))
            assert platform.status()["far"]["restarts"] == 0
            server.start()
            platform.wait_for("far", state="ready")
            answer = platform.http.post(CHAT, json={"model": "far", "messages": QUESTION})
            assert answer.content == ANSWER + USAGE


@pytest.mark.long
def test_commands_that_wait_for_a_server_that_is_away_are_told_within_seconds(tmp_path: Path) -> None:
    def away(**settings: Any) -> dict[str, Any]:
        url = f"http://127.0.0.1:{free_port()}"
        return {"engine": "remote", "url": url, "required": False, "start_timeout_s": 2, **settings}

    recipe, following = tmp_path / "recipe.yaml", tmp_path / "following.yaml"
    models = {"far": away(), "later": away(load="on_demand")}
    recipe.write_text(json.dumps({"models": models}))
    following.write_text(json.dumps({"models": {**models, "more": away()}}))
    with serving(tmp_path, str(recipe)) as platform, ThreadPoolExecutor() as pool:
        wait_until(
            lambda: re.search(r"warning.*far: starting: is asked again.*cannot be reached", platform.log.read_text())
        )
        port = ("--port", platform.url.rpartition(":")[2])
        loads = [pool.submit(litport, "load", name, *port, timeout_s=20) for name in models]
        applied = litport("apply", str(following), "--yes", *port, timeout_s=20)
        for outcome in (*(load.result() for load in loads), applied):
            assert "cannot be reached" in outcome.stderr + outcome.stdout
        assert [load.result().returncode for load in loads] == [2, 2]
        assert (applied.returncode, "more could not be started" in applied.stderr) == (1, True)
        states = {name: model["state"] for name, model in platform.status().items()}
        assert states == {"far": "starting", "later": "unloaded", "more": "unloaded"}


@pytest.mark.long
def test_one_that_is_required_ends_the_platform_and_an_unknown_certificate_is_named(tmp_path: Path) -> None:
    cert_file, key_file = certificate.write(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert_file, key_file)
    with OpenAiServer(free_port(), tls) as server:
        server.start()
        recipe = tmp_path / "recipe.yaml"
        model = {"engine": "remote", "url": f"https://127.0.0.1:{server.port}", "start_timeout_s": 0.5}
        recipe.write_text(json.dumps({"models": {"far": model}}))
        with starting(tmp_path, str(recipe)) as platform:
            assert platform.process.wait(timeout=30) == 1
            assert "cannot be reached: self-signed certificate" in platform.log.read_text()


@pytest.mark.long
def test_of_two_servers_the_one_that_is_there_answers_everybody(tmp_path: Path) -> None:
    with OpenAiServer(free_port()) as first, OpenAiServer(free_port()) as second:
        first.start()
        second.start()
        addresses = [f"http://127.0.0.1:{server.port}" for server in (first, second)]
        model = {"engine": "remote", "instances": addresses, "model": "there", "api_key": KEY, "canary_interval_s": 0.5}
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(json.dumps({"models": {"far": model}}))
        with serving(tmp_path, str(recipe)) as platform:

            def states() -> list[tuple[object, object]]:
                instances: Any = platform.status()["far"]["instances"]
                return [(instance["address"], instance["state"]) for instance in instances]

            def ask() -> int:
                return platform.http.post(CHAT, json={"model": "far", "messages": QUESTION}).status_code

            wait_until(lambda: states() == [(address, "ready") for address in addresses])
            for group in range(8):
                beginning = f"group {group} " + "x" * 1024
                for number in range(3):
                    messages = [{"role": "user", "content": f"{beginning} {number}"}]
                    assert platform.http.post(CHAT, json={"model": "far", "messages": messages}).status_code == 200
            groups = [
                Counter(re.findall(rb"group \d", b"".join(body for _, _, body in server.requests)))
                for server in (first, second)
            ]
            assert set((groups[0] + groups[1]).values()) == {3}
            assert not groups[0].keys() & groups[1].keys(), "prompts that begin alike go to one server"
            assert all(groups), "and both have some"
            for server, other in ((first, second), (second, first)):
                server.stop()
                assert [ask() for _ in range(20)] == [200] * 20
                wait_until(lambda: sorted(str(state) for _, state in states()) == ["ready", "starting"])
                assert platform.http.get("/ready").status_code == 200
                server.start()
                wait_until(lambda: [state for _, state in states()] == ["ready", "ready"])
                assert len(other.requests) > 20


def test_a_neighbours_models_answer_as_there(platform: Platform, tmp_path: Path) -> None:
    """Chat, embeddings and predictions of a real Litport, through another, by the SDK."""
    remote = {"engine": "remote", "url": f"{platform.url}/v1"}
    models = {
        "chat": {**remote, "model": "smollm2-135m-instruct"},
        "all-minilm-l6-v2": remote,
        "squares": remote,
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"models": models}))
    with serving(tmp_path, str(recipe)) as near:
        assert near.status()["chat"]["paths"] == platform.status()["smollm2-135m-instruct"]["paths"]
        assert near.status()["all-minilm-l6-v2"]["paths"] == ["/v1/embeddings", "/predict/all-minilm-l6-v2"]
        assert near.status()["squares"]["paths"] == ["/predict/squares"]
        question: Any = [{"role": "user", "content": "What is the capital of France?"}]
        texts = []
        for url, name in ((platform.url, "smollm2-135m-instruct"), (near.url, "chat")):
            with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
                answer = client.chat.completions.create(model=name, messages=question, max_tokens=8)
                stream: Any = client.chat.completions.create(model=name, messages=question, max_tokens=8, stream=True)
                parts = [chunk.choices[0].delta.content or "" for chunk in stream]
                vector = client.embeddings.create(model="all-minilm-l6-v2", input="a cat").data[0].embedding
                texts.append((answer.choices[0].message.content, "".join(parts), vector))
        assert texts[0] == texts[1]
        assert (
            near.http.post("/predict/squares", json={"input": 3}).json()
            == platform.http.post("/predict/squares", json={"input": 3}).json()
        )
        wrong = near.http.post(CHAT, json={"model": "chat", "messages": question, "max_tokens": -1})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "max_tokens")
