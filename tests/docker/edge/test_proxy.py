"""What passes through the edge, and when it opens: keys, request ids, addresses, TLS."""

import json
import shutil
import signal
import socket
import subprocess

import httpx
import pytest

from tests.conftest import Platform
from tests.docker.edge.conftest import BEARER, EDGE, KEY, WITH_NGINX, Edge, edge_before, reached, recorder
from tests.services.polling import wait_until
from tests.services.ports import free_port


@WITH_NGINX
def test_keys_are_litports_and_its_errors_are_left_as_they_are(edge: Edge, litport: Platform) -> None:
    with httpx.Client(verify=edge.trust, timeout=10) as client:
        for path in ("/v1/models", "/metrics", "/predict/none", "/v1/%6dodels"):
            for headers in ({}, BEARER):
                headers = {**headers, "x-request-id": "the-same-in-both"}
                through = client.get(edge.url + path, headers=headers)
                direct = client.get(litport.url + path, headers=headers)
                assert (through.status_code, through.json()) == (direct.status_code, direct.json()), path
        assert client.get(f"{edge.url}/v1/models").json()["error"]["code"] == "invalid_api_key"
        assert client.get(f"{edge.url}/ready").status_code == 200


@WITH_NGINX
def test_a_request_id_passes_and_the_edge_logs_it_beside_the_address(edge: Edge, litport: Platform) -> None:
    headers = {**BEARER, "x-request-id": "of-the-client"}
    url = f"{edge.url}/predict/echo?secret=1"
    answer = httpx.post(url, json={"input": 1}, headers=headers, verify=edge.trust, timeout=10)
    assert answer.headers["x-request-id"] == "of-the-client"
    wait_until(lambda: reached(litport, "of-the-client"), 5)  # it is noted once the answer is out
    lines = [json.loads(line) for line in edge.log.read_text().splitlines() if line.startswith("{")]
    line = next(line for line in lines if line["request_id"] == "of-the-client")
    assert (line["client"], line["status"], line["path"]) == ("127.0.0.1", "200", "/predict/echo")
    assert "secret" not in edge.log.read_text()
    assert KEY not in edge.log.read_text()


@WITH_NGINX
def test_what_a_client_claims_about_its_address_is_replaced() -> None:
    claims = {"X-Forwarded-For": "192.0.2.1", "X-Real-IP": "192.0.2.1", "Forwarded": "for=192.0.2.1"}
    claims |= {"X-Forwarded-Proto": "http", "X-Forwarded-Host": "elsewhere"}
    with recorder() as (port, heads), edge_before(port) as edge:
        httpx.get(edge.url, headers=claims, verify=edge.trust, timeout=10)
    (head,) = heads
    assert "192.0.2.1" not in head
    assert "elsewhere" not in head
    assert "x-forwarded-for: 127.0.0.1\n" in head.lower() + "\n"
    assert "x-forwarded-proto: https\n" in head.lower() + "\n"


@WITH_NGINX
def test_without_litport_the_answer_is_a_503_that_says_when_to_try_again() -> None:
    with edge_before(free_port()) as edge:
        answer = httpx.get(f"{edge.url}/v1/models", verify=edge.trust, timeout=10)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["error"]["code"] == "unreachable"


@WITH_NGINX
def test_a_plain_request_is_sent_to_https_with_its_method(edge: Edge) -> None:
    answer = httpx.post(f"http://127.0.0.1:{edge.http_port}/v1/models?a=b", timeout=10)
    assert answer.status_code == 308
    assert answer.headers["location"] == "https://127.0.0.1/v1/models?a=b"


@WITH_NGINX
def test_old_tls_is_not_spoken_and_http_2_is_offered(edge: Edge) -> None:
    context = edge.trust
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", edge.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as wire,
    ):
        assert wire.selected_alpn_protocol() == "h2"
        assert wire.version() in ("TLSv1.2", "TLSv1.3")
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in (EDGE / "nginx.conf").read_text(encoding="utf-8")


@WITH_NGINX
def test_the_configuration_gives_no_warning(edge: Edge) -> None:
    assert not [line for line in edge.log.read_text().splitlines() if "[warn]" in line or "[emerg]" in line]


@pytest.mark.skipif(shutil.which("wget") is None, reason="NOT TESTED: require_keys.sh, as wget is missing")
def test_the_edge_opens_only_where_keys_are_needed(litport: Platform) -> None:
    def check(url: str) -> "subprocess.CompletedProcess[str]":
        words = ["sh", str(EDGE / "require_keys.sh"), url, "echo", "open"]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)

    with_keys = check(litport.url)
    assert (with_keys.returncode, with_keys.stdout) == (0, "open\n")
    with recorder() as (port, _):
        open_to_all = check(f"http://127.0.0.1:{port}")
    assert (open_to_all.returncode, open_to_all.stdout) == (1, "")
    assert "answered without a key; put keys into docker/secrets" in open_to_all.stderr


@pytest.mark.skipif(shutil.which("wget") is None, reason="NOT TESTED: require_keys.sh, as wget is missing")
def test_an_edge_that_waits_says_for_what_and_can_be_stopped() -> None:
    words = ["sh", str(EDGE / "require_keys.sh"), f"http://127.0.0.1:{free_port()}", "echo", "open"]
    words = ["env", "--default-signal=QUIT", *words]  # a shell cannot trap what is ignored, as in the background
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        assert waiting.stderr.readline().startswith("the edge waits for a 401 from http://127.0.0.1:")
        waiting.send_signal(signal.SIGQUIT)
        assert waiting.wait(timeout=20) == 0, "its wget and its sleep end first"
