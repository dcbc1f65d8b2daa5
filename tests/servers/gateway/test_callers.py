"""Who gets in, how much of the house they get, and what is written down of it: keys, limits, CORS, TLS, audit."""

import concurrent.futures
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from clients import unreachable
from configs.errors import UserError
from tests.services import certificate
from tests.services.front_door import open_door
from tests.services.tiny_engine import TinyEngine

CHAT = "/v1/chat/completions"
ALICE, BOB = "alice-0123456789", "bob-0123456789ab"
ALPHA, BETA = "alpha-0123456789", "beta-0123456789ab"


def keys_file(folder: Path, **entries: Any) -> Path:
    """A keys file that only its owner reads."""
    file = folder / "keys.yaml"
    file.write_text(json.dumps(entries))
    file.chmod(0o600)
    return file


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def error_of(response: httpx.Response, status: int) -> dict[str, object]:
    assert response.status_code == status, response.text
    error: dict[str, object] = response.json()["error"]
    assert set(error) - {"request_id"} == {"message", "type", "param", "code"}
    return error


def test_with_keys_everything_but_health_and_readiness_needs_one(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one"), auth={"api_keys": [ALPHA, BETA]}) as door:
        assert door.client.get("/health").status_code == door.client.get("/ready").status_code == 200
        for path in ("/v1/models", "/status", "/nowhere"):
            response = door.client.get(path)
            assert error_of(response, 401)["code"] == "invalid_api_key"
            assert response.headers["www-authenticate"] == "Bearer"
        for headers in ({"authorization": f"Bearer {BETA}"}, {"x-api-key": ALPHA}):
            assert door.client.post(CHAT, json={"model": "one"}, headers=headers).status_code == 200
        for headers in (
            {"authorization": "Bearer gamma"},
            {"x-api-key": "alph"},
            {"authorization": ALPHA},
        ):
            error_of(door.client.post(CHAT, json={"model": "one"}, headers=headers), 401)


def test_a_key_opens_the_models_it_names_and_no_other(tmp_path: Path) -> None:
    file = keys_file(tmp_path, alice={"key": ALICE, "models": ["one"]}, bob={"key": BOB})
    with open_door(tmp_path, TinyEngine("one"), TinyEngine("two"), auth={"keys_file": file}) as door:
        for key, model, status in ((ALICE, "one", 200), (ALICE, "two", 403), (BOB, "two", 200)):
            for path, body in ((CHAT, {"model": model}), (f"/predict/{model}", {})):
                response = door.client.post(path, json=body, headers=bearer(key))
                assert response.status_code == status, response.text
        error = error_of(door.client.post("/predict/two", json={}, headers=bearer(ALICE)), 403)
        assert error["message"] == "key 'alice' may not call model 'two'; it may call one"


def test_a_key_that_has_used_its_minute_waits_and_the_others_do_not(tmp_path: Path) -> None:
    file = keys_file(tmp_path, alice={"key": ALICE, "requests_per_minute": 2}, bob={"key": BOB})
    with open_door(tmp_path, TinyEngine("one"), auth={"keys_file": file}) as door:
        answers = [door.client.post("/predict/one", json={}, headers=bearer(ALICE)) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert error_of(answers[-1], 429)["code"] == "rate_limit_exceeded"
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 30
        assert door.client.post("/predict/one", json={}, headers=bearer(BOB)).status_code == 200


def test_a_key_may_have_so_many_requests_at_a_time(tmp_path: Path) -> None:
    file = keys_file(tmp_path, alice={"key": ALICE, "max_in_flight": 2}, bob={"key": BOB})
    with open_door(tmp_path, TinyEngine("one"), auth={"keys_file": file}) as door:

        def ask(key: str) -> int:
            return door.client.post("/predict/one", json={"wait_s": 1}, headers=bearer(key)).status_code

        with concurrent.futures.ThreadPoolExecutor(10) as threads:
            hers = [threads.submit(ask, ALICE) for _ in range(5)]
            his = [threads.submit(ask, BOB) for _ in range(5)]
            assert sorted(answer.result() for answer in hers) == [200, 200, 429, 429, 429]
            assert [answer.result() for answer in his] == [200] * 5
        assert ask(ALICE) == 200


def test_one_caller_cannot_push_the_others_out_of_a_full_model(tmp_path: Path) -> None:
    file = keys_file(tmp_path, alice={"key": ALICE}, bob={"key": BOB})
    limits = {"max_running": 1, "max_waiting": 4}
    with open_door(tmp_path, TinyEngine("one"), model=limits, auth={"keys_file": file}) as door:

        def ask(key: str) -> tuple[int, float]:
            begin_s = time.monotonic()
            answer = door.client.post("/predict/one", json={"wait_s": 0.3}, headers=bearer(key))
            return answer.status_code, time.monotonic() - begin_s

        with concurrent.futures.ThreadPoolExecutor(14) as threads:
            hers = [threads.submit(ask, ALICE) for _ in range(12)]
            time.sleep(0.15)
            his = [threads.submit(ask, BOB) for _ in range(2)]
            assert [answer.result()[0] for answer in his] == [200, 200]
            statuses = [answer.result()[0] for answer in hers]
        assert statuses.count(200) + statuses.count(429) == 12
        assert statuses.count(200) <= 4


def test_beyond_what_may_wait_the_answer_is_a_429_with_an_advice(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one"), model={"max_running": 2, "max_waiting": 1}) as door:
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            asked = [threads.submit(door.client.post, "/predict/one", json={"wait_s": 0.5}) for _ in range(8)]
            answers = [answer.result() for answer in asked]
        assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 5
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert error_of(refused, 429)["code"] == "overloaded"
        assert refused.headers["retry-after"] == "1"
        model = door.client.get("/status").json()["models"][0]
        assert (model["running"], model["waiting"]) == (0, 0)


def test_web_pages_may_call_only_from_the_origins_that_are_listed(tmp_path: Path) -> None:
    asks = {"origin": "https://a.example", "access-control-request-method": "POST"}
    with open_door(tmp_path, TinyEngine("one")) as door:
        assert door.client.options(CHAT, headers=asks).status_code == 405
        assert "access-control-allow-origin" not in door.client.get("/health", headers=asks).headers
    (tmp_path / "second").mkdir()
    server = {"cors_origins": ["https://a.example"]}
    with open_door(tmp_path / "second", TinyEngine("one"), server=server, auth={"api_keys": [ALPHA]}) as door:
        # What the official SDKs send from a page.
        names = "authorization,anthropic-version,traceparent,x-stainless-os,x-stainless-retry-count"
        preflight = door.client.options(CHAT, headers={**asks, "access-control-request-headers": names})
        assert (preflight.status_code, preflight.headers["access-control-allow-headers"]) == (200, names)
        assert preflight.headers["access-control-allow-origin"] == "https://a.example"
        answer = door.client.post(CHAT, json={"model": "one"}, headers={**bearer(ALPHA), **asks})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://a.example")
        exposed = answer.headers["access-control-expose-headers"]
        assert {"x-request-id", "x-litport-ignored-fields"} <= set(exposed.split(", "))
        strange = {**asks, "origin": "https://b.example", "access-control-request-headers": names}
        assert "access-control-allow-origin" not in door.client.options(CHAT, headers=strange).headers
        other = door.client.get("/health", headers={"origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers


def test_with_a_certificate_the_port_speaks_https_only(tmp_path: Path) -> None:
    cert_file, key_file = certificate.write(tmp_path)
    with open_door(tmp_path, TinyEngine("one"), server={"tls_cert_file": cert_file, "tls_key_file": key_file}) as door:
        assert str(door.client.base_url).startswith("https://")
        assert door.client.post(CHAT, json={"model": "one"}).status_code == 200
        assert error_of(door.client.get("/nowhere", headers={"x": "y" * 40_000}), 431)["code"] == "headers_too_large"
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{door.port}/health", timeout=5)
        address = f"127.0.0.1:{door.port}"
        assert unreachable.describe(f"http://{address}").endswith(f"the port speaks HTTPS; expected https://{address}")
        assert "its certificate is not trusted (self-signed certificate)" in unreachable.describe(f"https://{address}")


def test_clients_say_that_a_port_does_not_speak_https(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one")) as door:
        address = f"127.0.0.1:{door.port}"
        words = f"https://{address}: the port does not speak HTTPS; expected http://{address}"
        assert unreachable.describe(f"https://{address}") == words


def test_a_certificate_that_does_not_fit_is_told_before_anything_is_served(tmp_path: Path) -> None:
    cert_file, key_file = certificate.write(tmp_path)
    (tmp_path / "other").mkdir()
    _, other_key = certificate.write(tmp_path / "other")
    for server, words in (
        ({"tls_cert_file": cert_file}, "server.tls_key_file"),
        ({"tls_cert_file": cert_file, "tls_key_file": other_key}, "cannot use"),
        ({"tls_cert_file": cert_file, "tls_key_file": tmp_path / "none"}, "No such file"),
        ({"tls_cert_file": cert_file, "tls_key_file": certificate.encrypt(key_file)}, "without a pass phrase"),
    ):
        from configs.settings import LitportSettings
        from servers.gateway.server import Server

        with pytest.raises(UserError, match=words):
            Server(None, LitportSettings.from_layers([{"server": server}]))  # type: ignore[arg-type] # not reached


def test_the_audit_log_says_who_used_what_and_nothing_of_its_content(tmp_path: Path) -> None:
    file = keys_file(tmp_path, alice={"key": ALICE})
    audit = tmp_path / "audit" / "log.jsonl"
    usage = {"usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}
    with open_door(tmp_path, TinyEngine("one"), auth={"keys_file": file}, telemetry={"audit_file": audit}) as door:
        body = {"model": "one", "messages": [{"role": "user", "content": "a secret of mine"}]}
        ended = door.client.post(CHAT, json=body | {"fail": 200, "with": usage}, headers=bearer(ALICE))
        assert ended.status_code == 200
        door.client.post(CHAT, json=body, headers=bearer("wrong-0123456789"))
        door.client.post(CHAT, json=body | {"model": "none"}, headers=bearer(ALICE))
        door.client.get("/health")
        audit.replace(tmp_path / "rotated")  # as logrotate does
        door.client.post("/predict/one", json=body, headers=bearer(ALICE))
    text = (tmp_path / "rotated").read_text() + audit.read_text()
    assert not any(secret in text for secret in ("secret of mine", ALICE, "wrong-"))
    lines = [json.loads(line) for line in text.splitlines()]
    told = [(line["key"], line["model"], line["status"], line["output_tokens"]) for line in lines]
    assert told == [
        ("alice", "one", 200, 5),
        (None, None, 401, None),
        ("alice", None, 404, None),
        ("alice", "one", 200, None),
    ]
    assert lines[0]["input_tokens"] == 7
    assert lines[0]["request_id"] == ended.headers["x-request-id"]
    assert lines[0]["client"] == "127.0.0.1"
