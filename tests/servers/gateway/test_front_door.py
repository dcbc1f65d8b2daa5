"""What the front door promises to clients, over real connections to real child processes."""

import gzip
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from servers.gateway.port_holder import describe_holder
from servers.models.instance import State
from tests.services.front_door import Door, open_door
from tests.services.polling import wait_until
from tests.services.supervision import group_of
from tests.services.tiny_engine import TinyEngine

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Two models: one that chats, predicts and keeps responses, one that only embeds."""
    one = TinyEngine("org/one")
    two = TinyEngine("two", routes=frozenset({"/v1/embeddings"}), predict_path=None)
    with open_door(tmp_path_factory.mktemp("door"), one, two, limits={"max_body_bytes": 100_000}) as door:
        yield door


def error_of(response: httpx.Response, status: int) -> dict[str, object]:
    """The error of an answer in OpenAI's shape."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) - {"request_id"} == {"message", "type", "param", "code"}
    assert error.get("request_id") == response.headers.get("x-request-id")
    return dict(error)


def test_a_request_reaches_the_model_that_its_body_names(door: Door) -> None:
    answer = door.client.post(CHAT, json={"model": "org/one", "messages": [{}]}).json()
    assert answer["path"] == CHAT
    assert answer["pid"] == door.supervisor.models["org/one"].choose().group_id


def test_without_a_name_the_only_model_with_that_route_is_meant(door: Door) -> None:
    assert door.client.post("/v1/embeddings", json={"input": "x"}).json()["path"] == "/v1/embeddings"


def test_a_form_names_its_model_too(door: Door) -> None:
    files = {"file": ("a.wav", b"RIFF", "audio/wav")}
    error = error_of(door.client.post("/v1/audio/transcriptions", data={"model": "nobody"}, files=files), 404)
    assert "'nobody'" in str(error["message"])


def test_predict_without_a_name_is_the_only_model_that_predicts(door: Door, tmp_path: Path) -> None:
    assert door.client.post("/predict", json={}).json()["path"] == "/predict"
    with open_door(tmp_path, TinyEngine("one"), TinyEngine("two")) as both:
        error = error_of(both.client.post("/predict", json={}), 400)
        assert error["message"] == "name a model in the path: /predict/one, /predict/two"


def test_predict_takes_a_model_with_a_slash_and_any_body(door: Door) -> None:
    answer = door.client.post("/predict/org/one?top_k=3", content=b"\x00" * 1000).json()
    assert (answer["path"], answer["query"], answer["bytes"]) == ("/predict", "top_k=3", 1000)


def test_only_harmless_headers_go_on_and_none_of_the_childs_identity_comes_back(door: Door) -> None:
    sent = {"authorization": "Bearer secret", "cookie": "a=b", "x-api-key": "secret", "traceparent": "00-1-2-01"}
    response = door.client.post(CHAT, json={"model": "org/one"}, headers=sent)
    seen = response.json()["headers"]
    assert not {"authorization", "cookie", "x-api-key"} & set(seen)
    assert seen["traceparent"] == "00-1-2-01"
    assert "server" not in response.headers


def test_a_compressed_body_is_a_415_that_names_what_is_taken(door: Door) -> None:
    body = gzip.compress(b'{"model": "org/one"}')
    for path in (CHAT, "/predict/org/one"):
        response = door.client.post(path, content=body, headers={"content-encoding": "GZip"})
        message = "Content-Encoding: expected a body that is not compressed (identity), got 'gzip'"
        assert error_of(response, 415)["message"] == message
        assert response.headers["accept-encoding"] == "identity"
    plain = door.client.post(CHAT, json={"model": "org/one"}, headers={"content-encoding": "identity"})
    assert plain.status_code == 200


def test_a_platform_that_has_a_port_is_told_with_its_models(door: Door) -> None:
    assert describe_holder("127.0.0.1", door.port) == f"Litport test with org/one, two, process {os.getpid()}"


def test_a_request_id_is_kept_or_made_and_is_the_same_everywhere(door: Door) -> None:
    response = door.client.post(CHAT, json={"model": "org/one"}, headers={"x-request-id": "mine-1"})
    assert response.headers["x-request-id"] == response.json()["headers"]["x-request-id"] == "mine-1"
    response = door.client.post(CHAT, json={"model": "org/one"}, headers={"x-request-id": "a b\tc"})
    assert len(response.headers["x-request-id"]) == 32
    assert response.headers["x-request-id"] == response.json()["headers"]["x-request-id"]


def test_an_unknown_model_is_a_404_that_names_the_known_ones(door: Door) -> None:
    error = error_of(door.client.post(CHAT, json={"model": "gpt-9"}), 404)
    assert (error["code"], error["param"], error["type"]) == ("model_not_found", "model", "invalid_request_error")
    assert "'gpt-9' does not exist; there are: org/one, two" in str(error["message"])


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"{", "invalid_json", None),
        (b"", "invalid_json", None),
        (b'{"model": "\xff"}', "invalid_json", None),
        (b'{"model": 5}', "invalid_type", "model"),
        (b"[]", "invalid_type", None),
        (b"[" * 50_000, "invalid_type", None),
        (b'{"messages": ' + b"[" * 50_000, "invalid_json", None),
    ],
)
def test_a_body_that_cannot_be_read_is_a_400(door: Door, body: bytes, code: str, param: str | None) -> None:
    response = door.client.post(CHAT, content=body, headers={"content-type": "application/json"})
    error = error_of(response, 400)
    assert (error["code"], error["param"]) == (code, param)


def test_a_route_that_the_model_does_not_have_names_those_it_has(door: Door) -> None:
    error = error_of(door.client.post("/v1/embeddings", json={"model": "org/one"}), 400)
    assert "it serves /v1/chat/completions, /v1/responses, /predict/org/one" in str(error["message"])
    error = error_of(door.client.post("/predict/two", json={}), 400)
    assert "it serves /v1/embeddings" in str(error["message"])


@pytest.mark.parametrize("path", ["/invocations", "/sleep", "/v1/load_lora_adapter", "/metrics", "/redoc", "/v1"])
def test_what_is_not_allowed_is_not_there(door: Door, path: str) -> None:
    assert error_of(door.client.post(path, json={"model": "org/one"}), 404)["code"] == "unknown_route"


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("/v1/chat/completion", "did you mean /v1/chat/completions?"),
        ("/v1/embeddings/", "did you mean /v1/embeddings?"),
        ("/chat/completions", "did you mean /v1/chat/completions?"),
        ("/api/generate", "GET /status lists models and routes"),
        (f"/v1/chat/completions{'s' * 80}", "GET /status lists models and routes"),
    ],
)
def test_a_path_that_is_nearly_a_route_is_answered_with_the_route(door: Door, path: str, advice: str) -> None:
    assert str(error_of(door.client.post(path, json={}), 404)["message"]).endswith(f"is not served here; {advice}")


def test_the_page_at_the_root_names_the_models_and_the_documentation(door: Door) -> None:
    page = door.client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for text in ("org/one", "/predict/org/one", "2 of 2 models ready", 'href="docs"', "litport playground --url"):
        assert text in page.text
    assert door.client.post("/").headers["allow"] == "GET"


@pytest.mark.parametrize(
    "path", ["/v1/chat%2Fcompletions", "/v1/%63hat/completions", "/v1//chat/completions", "/v1/x/../chat/completions"]
)
def test_a_path_that_is_written_in_another_way_is_another_path(door: Door, path: str) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=10) as wire:
        wire.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        assert wire.recv(4096).startswith(b"HTTP/1.1 404 ")


def test_a_listed_model_may_be_asked_for_with_its_slash_encoded_as_the_sdk_does(door: Door) -> None:
    assert door.client.get("/v1/models/org%2Fone").json()["id"] == "org/one"


def test_one_document_describes_the_routes_of_all_models(door: Door) -> None:
    document = door.client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert "/v1/models" in document["paths"]


def test_a_wrong_method_is_a_405_that_names_the_right_one(door: Door) -> None:
    response = door.client.get(CHAT)
    assert error_of(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "POST"
    assert door.client.delete("/v1/models/two").headers["allow"] == "GET"


def test_a_body_over_the_limit_is_refused_before_it_is_read(door: Door) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as connection:
        connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")
    chunks = (b"x" * 10_000 for _ in range(11))
    error = error_of(door.client.post(CHAT, content=chunks), 413)
    assert "limits.max_body_bytes" in str(error["message"])


@pytest.mark.parametrize(
    ("status", "given", "message", "param"),
    [
        (400, {"detail": "no picture"}, "no picture", None),
        (422, {"detail": [{"loc": ["body", "input"], "msg": "Field required"}]}, "input: Field required", "input"),
        (500, {"detail": "Internal server error"}, "Internal server error", None),
        (418, ["odd"], '["odd"]', None),
    ],
)
def test_a_childs_error_takes_openais_shape(
    door: Door, status: int, given: object, message: str, param: str | None
) -> None:
    response = door.client.post("/predict/org/one", json={"fail": status, "with": given})
    error = error_of(response, status)
    assert (error["message"], error["param"]) == (message, param)


def test_an_error_that_has_the_shape_already_is_left_alone(door: Door) -> None:
    given = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    response = door.client.post("/predict/org/one", json={"fail": 529, "with": given})
    assert (response.status_code, response.json()) == (529, given)


def test_a_stream_arrives_piece_by_piece_and_unchanged(door: Door) -> None:
    begin = time.monotonic()
    arrivals = []
    with door.client.stream("POST", CHAT, json={"model": "org/one", "events": 4, "wait_s": 0.2}) as response:
        pieces = []
        for piece in response.iter_raw():
            pieces.append(piece)
            arrivals.append(time.monotonic() - begin)
    assert b"".join(pieces) == b"data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\ndata: [DONE]\n\n"
    assert len(pieces) >= 4
    assert arrivals[-1] - arrivals[0] > 0.5, "nothing was held back"


def test_a_client_that_leaves_is_noticed_by_the_child(door: Door) -> None:
    note = door.supervisor.models["org/one"].choose().socket.parent / "left"
    with door.client.stream("POST", CHAT, json={"model": "org/one", "events": 1000, "wait_s": 0.01}) as response:
        next(response.iter_raw())
    wait_until(note.exists, 2, problem=lambda: "the child still streams")
    assert int(note.read_text()) < 1000
    assert door.app.in_flight == 0


def test_the_model_list_tells_kind_and_state(door: Door) -> None:
    listed = door.client.get("/v1/models").json()
    assert [(entry["id"], entry["kind"], entry["state"]) for entry in listed["data"]] == [
        ("org/one", "tiny", "ready"),
        ("two", "tiny", "ready"),
    ]
    assert door.client.get("/v1/models/org/one").json()["id"] == "org/one"
    error_of(door.client.get("/v1/models/three"), 404)


def test_health_and_readiness_are_told(door: Door) -> None:
    assert door.client.get("/health").json() == {"status": "ok"}
    assert door.client.get("/ready").json() == {"ready": True, "models": {"org/one": "ready", "two": "ready"}}


def test_status_tells_address_and_memory_of_each_model(door: Door) -> None:
    models = door.client.get("/status").json()["models"]
    assert all(model["memory_bytes"] > 10_000_000 and model["process_count"] == 2 for model in models)
    assert models[0]["paths"] == [CHAT, "/v1/responses", "/predict/org/one"]


def test_a_kept_response_is_asked_for_by_its_id(door: Door) -> None:
    assert door.client.get("/v1/responses/resp_1").json()["path"] == "/v1/responses/resp_1"
    assert door.client.post("/v1/responses/resp_1/cancel").json()["path"] == "/v1/responses/resp_1/cancel"
    error_of(door.client.get("/v1/responses/a/b"), 404)


def test_when_the_process_dies_requests_end_with_an_error_and_a_broken_stream_is_not_taken_for_whole(
    tmp_path: Path,
) -> None:
    with open_door(tmp_path, TinyEngine("one")) as door:
        model = door.supervisor.models["one"]

        def kill() -> None:
            os.kill(group_of(model), signal.SIGKILL)

        def die_during(body: dict[str, object], restarts: int) -> httpx.Response:
            wait_until(lambda: model.state is State.READY and model.restarts == restarts)
            door.loop.call_soon_threadsafe(door.loop.call_later, 0.4, kill)
            return door.client.post(CHAT, json={"model": "one", **body})

        answer = die_during({"wait_s": 30}, 0)
        assert error_of(answer, 503)["code"] == "model_died"
        assert 1 <= int(answer.headers["retry-after"]) <= 10, "its last start took about a second"
        events = die_during({"events": 1000, "wait_s": 0.05}, 1).text
        assert json.loads(events.split("data: ")[-1])["error"]["code"] == "model_died"
        with pytest.raises(httpx.RemoteProtocolError):
            die_during({"events": 1000, "wait_s": 0.05, "content_type": "application/x-ndjson"}, 2)
        wait_until(lambda: model.state is not State.READY, 5)
        error = error_of(door.client.post(CHAT, json={"model": "one"}), 503)
        assert error["code"] == "model_not_ready"
