"""The real nginx with the edge's configuration, before the real Litport: what passes, and what ends at the edge."""

import contextlib
import http.server
import itertools
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from configs.settings import Limits
from tests.conftest import Platform, serving
from tests.docker.queries import DOCKER
from tests.services import certificate
from tests.services.polling import wait_until
from tests.services.ports import free_port

EDGE = DOCKER / "edge"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CURL = shutil.which("curl")
WITH_NGINX = pytest.mark.skipif(NGINX is None, reason="NOT TESTED: the edge, as nginx is missing")
HTTP2 = CURL and "HTTP2" in subprocess.run([CURL, "--version"], capture_output=True, text=True, check=False).stdout
WITH_HTTP2 = pytest.mark.skipif(not HTTP2, reason="NOT TESTED: the edge over HTTP/2, as curl is missing or has none")

KEY = "a-key-of-the-tests"
BEARER = {"authorization": f"Bearer {KEY}"}
PARTS, PAUSE_S = 6, 0.25
STREAM = {"from": PARTS, "pause_s": PAUSE_S}
LARGE_BYTES = 100 * 2**20
_NOBODY = 65534


@dataclass(frozen=True)
class Edge:
    """A running nginx: its ports, its certificate, its log, and Litport behind it."""

    port: int
    http_port: int
    certificate: Path
    log: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def trust(self) -> ssl.SSLContext:
        """What a client needs to believe its certificate."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def wire(self) -> ssl.SSLSocket:
        """A raw HTTP/1.1 connection."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        return self.trust.wrap_socket(plain, server_hostname="127.0.0.1")

    def curl(self, *words: str) -> "subprocess.Popen[bytes]":
        """curl over HTTP/2, with the key; its answer comes unbuffered."""
        assert CURL is not None
        common = ["-sSN", "--http2", "--cacert", str(self.certificate), "-H", f"Authorization: Bearer {KEY}"]
        return subprocess.Popen([CURL, *common, *words], stdout=subprocess.PIPE)


@contextlib.contextmanager
def edge_before(upstream_port: int, change: Callable[[str], str] = lambda text: text) -> Iterator[Edge]:
    """Run nginx with the edge's own configuration, but for its ports and paths, as a user without rights."""
    assert NGINX is not None
    port, http_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="edge-") as name:
        folder = Path(name)
        cert_file, key_file = certificate.write(folder)
        text = (EDGE / "nginx.conf").read_text(encoding="utf-8")
        for given, wanted in (
            ("/tmp/", f"{folder}/"),
            ("listen 8080", f"listen 127.0.0.1:{http_port}"),
            ("listen 8443", f"listen 127.0.0.1:{port}"),
            ("http://litport:8000", f"http://127.0.0.1:{upstream_port}"),
            ("/etc/nginx/tls/fullchain.pem", str(cert_file)),
            ("/etc/nginx/tls/privkey.pem", str(key_file)),
        ):
            assert given in text
            text = text.replace(given, wanted)
        if _version() < (1, 25, 1):
            text = text.replace(" ssl;\n    http2 on;", " ssl http2;")
        (folder / "nginx.conf").write_text(change(text), encoding="utf-8")
        log = folder / "log"
        log.touch()
        user, groups = None, None
        if os.geteuid() == 0:
            user, groups = _NOBODY, ()
            for path in (folder, *folder.iterdir()):
                os.chown(path, _NOBODY, _NOBODY)
        with log.open("ab") as output:
            words = [NGINX, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
            nginx = subprocess.Popen(words, stdout=output, stderr=output, user=user, group=user, extra_groups=groups)
        try:
            wait_until(lambda: _is_open(port, nginx, log), problem=log.read_text)
            yield Edge(port, http_port, cert_file, log)
        finally:
            nginx.terminate()
            assert nginx.wait(timeout=20) == 0


@pytest.fixture(scope="module")
def litport(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("behind")
    streams = ["tests/services/strangers/streams.py:CountdownAPI", "--models.streams.stream", "true"]
    keys = ["--auth.api_keys", KEY, "--telemetry.audit_file", str(folder / "audit.jsonl")]
    with serving(folder, "configs/recipes/echo.yaml", *streams, *keys, "--server.cache_dir", str(folder)) as platform:
        yield platform


@pytest.fixture(scope="module")
def edge(litport: Platform) -> Iterator[Edge]:
    with edge_before(int(litport.url.rsplit(":", 1)[1])) as edge:
        yield edge


def audited(litport: Platform) -> list[dict[str, object]]:
    """What Litport noted of each request that reached it."""
    file = litport.log.with_name("audit.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def reached(litport: Platform, request_id: str) -> bool:
    """Whether Litport saw this request; one that is refused is noted before its client is told."""
    return any(line["request_id"] == request_id for line in audited(litport))


def came_one_by_one(arrivals: list[float], protocol: str) -> bool:
    """Whether the parts came as they were made; on a busy machine one of them may be late."""
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    print(f"seconds between arrivals over {protocol}:", [round(gap, 3) for gap in gaps])
    made_for_s = (PARTS - 1) * PAUSE_S
    return (
        len(arrivals) == PARTS and sum(gap > PAUSE_S / 2 for gap in gaps) >= PARTS - 2 and sum(gaps) > made_for_s * 0.8
    )


def ask_for_a_stream(edge: Edge) -> list[float]:
    """When each part of it arrived."""
    arrivals: list[float] = []
    with (
        httpx.Client(verify=edge.trust, headers=BEARER) as client,
        client.stream("POST", f"{edge.url}/predict/streams", json=STREAM, timeout=30) as answer,
    ):
        assert answer.status_code == 200
        for piece in answer.iter_raw():
            arrivals += [time.perf_counter()] * piece.count(b"number")
    return arrivals


@WITH_NGINX
def test_chunks_of_a_stream_arrive_one_by_one(edge: Edge) -> None:
    assert came_one_by_one(ask_for_a_stream(edge), "HTTP/1.1")


@WITH_NGINX
def test_the_measurement_sees_an_edge_that_buffers(litport: Platform) -> None:
    def buffering(text: str) -> str:
        assert "proxy_buffering off;" in text
        return text.replace("proxy_buffering off;", "proxy_buffering on;")

    with edge_before(int(litport.url.rsplit(":", 1)[1]), buffering) as edge:
        assert not came_one_by_one(ask_for_a_stream(edge), "HTTP/1.1, buffered")


@WITH_NGINX
@WITH_HTTP2
def test_chunks_of_a_stream_arrive_one_by_one_over_http_2(edge: Edge) -> None:
    arrivals: list[float] = []
    words = ["-d", json.dumps(STREAM), "-H", "Content-Type: application/json", "-w", "HTTP/%{http_version}"]
    with edge.curl(*words, f"{edge.url}/predict/streams") as curl:
        assert curl.stdout is not None
        while piece := os.read(curl.stdout.fileno(), 65536):
            arrivals += [time.perf_counter()] * piece.count(b"number")
            last = piece
    assert last.endswith(b"HTTP/2")
    assert came_one_by_one(arrivals, "HTTP/2")


@WITH_NGINX
def test_a_client_that_leaves_a_stream_is_gone_for_litport_too(edge: Edge, litport: Platform) -> None:
    endless = {"from": 1000, "pause_s": 0.1}
    with (
        httpx.Client(verify=edge.trust, headers=BEARER) as client,
        client.stream("POST", f"{edge.url}/predict/streams", json=endless, timeout=30) as answer,
    ):
        pieces = answer.iter_raw()
        next(pieces)
        assert _running(litport) == 1
    left_at = time.perf_counter()
    while _running(litport):
        assert time.perf_counter() - left_at < 5
        time.sleep(0.02)
    print("seconds until Litport knew:", round(time.perf_counter() - left_at, 3))


@WITH_NGINX
def test_a_head_of_5_mb_ends_at_the_edge(edge: Edge, litport: Platform) -> None:
    with edge.wire() as wire:
        with contextlib.suppress(ConnectionError, ssl.SSLError):  # it may be closed before all of it is sent
            wire.sendall(
                b"GET / HTTP/1.1\r\nHost: edge\r\nX-Request-ID: large-head\r\nX-Large: "
                + b"x" * 5_000_000
                + b"\r\n\r\n"
            )
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "headers_too_large"
    assert not reached(litport, "large-head")


@WITH_NGINX
@WITH_HTTP2
def test_a_large_head_over_http_2_ends_at_the_edge(edge: Edge, litport: Platform) -> None:
    words = ["-H", "X-Request-ID: large-head-2", "-H", "X-Large: " + "x" * 50_000]
    words += ["-o", "/dev/null", "-w", "%{http_code}"]
    with edge.curl(*words, edge.url) as curl:
        status, _ = curl.communicate(timeout=30)
    assert status in (b"431", b"400", b"000")
    assert not reached(litport, "large-head-2")


@WITH_NGINX
def test_a_slow_head_and_a_silent_client_are_cut_off_in_time(edge: Edge, litport: Platform) -> None:
    lasted: dict[str, float] = {}

    def drip() -> None:
        with edge.wire() as wire:
            started = time.perf_counter()
            wire.sendall(b"GET / HTTP/1.1\r\nHost: edge\r\nX-Request-ID: slow-head\r\nX-Slow: ")
            wire.settimeout(1)
            while True:
                with contextlib.suppress(TimeoutError):
                    if not wire.recv(65536):
                        break
                try:
                    wire.sendall(b"x")
                except (ConnectionError, ssl.SSLError):
                    break
                assert time.perf_counter() - started < 30
            lasted["a head of a byte a second"] = time.perf_counter() - started

    def stay_silent() -> None:
        with socket.create_connection(("127.0.0.1", edge.port), timeout=30) as wire:
            started = time.perf_counter()
            with contextlib.suppress(ConnectionError):
                assert not wire.recv(1)
            lasted["no TLS handshake"] = time.perf_counter() - started

    threads = [threading.Thread(target=target) for target in (drip, stay_silent)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("seconds until cut off:", {what: round(seconds, 1) for what, seconds in lasted.items()})
    assert len(lasted) == len(threads)
    assert all(seconds < Limits().header_timeout_s + 3 for seconds in lasted.values())
    assert not reached(litport, "slow-head")


@WITH_NGINX
def test_a_body_of_100_mb_is_refused_before_any_of_it_is_sent(edge: Edge, litport: Platform) -> None:
    with edge.wire() as wire:
        head = "POST /predict/echo HTTP/1.1\r\nHost: edge\r\nX-Request-ID: large-body\r\n"
        wire.sendall(f"{head}Content-Length: {LARGE_BYTES}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_too_large"
    assert not reached(litport, "large-body")


@WITH_NGINX
@WITH_HTTP2
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_body_of_100_mb_that_is_really_sent_is_refused(
    edge: Edge, litport: Platform, version: str, tmp_path: Path
) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGE_BYTES)
    sent = [
        version,
        "-H",
        "X-Request-ID: sent-body",
        "-T",
        file.name,
        "-X",
        "POST",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{size_upload}",
    ]
    with edge.curl(*sent, f"{edge.url}/predict/echo") as curl:
        answer, _ = curl.communicate(timeout=60)
    status, size = answer.split()
    assert status == b"413"
    assert int(size) < LARGE_BYTES / 4
    assert not reached(litport, "sent-body")


@WITH_NGINX
@WITH_HTTP2
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_body_of_no_stated_length_is_cut_off_at_the_limit(
    edge: Edge, litport: Platform, version: str, tmp_path: Path
) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGE_BYTES)
    sent = [version, "-T", "-", "-X", "POST", "-o", "/dev/null", "-w", "%{http_code} %{size_upload}"]
    assert CURL is not None
    common = ["-sS", "--cacert", str(edge.certificate), "-H", f"Authorization: Bearer {KEY}"]
    with (tmp_path / "large").open("rb") as body:
        words = [CURL, *common, *sent, f"{edge.url}/predict/echo"]
        done = subprocess.run(words, stdin=body, capture_output=True, check=False, timeout=120)
    status, size = done.stdout.split()
    assert status == b"413"
    assert int(size) <= Limits().max_body_bytes + 2**22
    assert httpx.get(f"{litport.url}/health", timeout=10).status_code == 200


@WITH_NGINX
def test_a_body_within_the_limit_passes(edge: Edge) -> None:
    body = {"input": "x" * 3_000_000}
    answer = httpx.post(f"{edge.url}/predict/echo", json=body, headers=BEARER, verify=edge.trust, timeout=60)
    assert answer.json() == {"output": body["input"]}


@WITH_NGINX
def test_keys_are_litports_and_its_errors_are_left_as_they_are(edge: Edge, litport: Platform) -> None:
    with httpx.Client(verify=edge.trust, timeout=10) as client:
        for path in ("/v1/models", "/metrics", "/predict/none", "/v1/%6dodels"):
            for headers in ({}, BEARER):
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
def test_one_address_may_have_so_many_requests_at_a_time() -> None:
    def fewer(text: str) -> str:
        assert "limit_conn clients 256;" in text
        return text.replace("limit_conn clients 256;", "limit_conn clients 2;")

    with recorder(hold_s=1) as (port, heads), edge_before(port, fewer) as edge:
        answers: list[httpx.Response] = []

        def ask() -> None:
            answers.append(httpx.get(edge.url, verify=edge.trust, timeout=10))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "too_many_connections"
    assert len(heads) == 2


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


def test_the_edges_limits_are_those_of_the_settings() -> None:
    text = (EDGE / "nginx.conf").read_text(encoding="utf-8")
    limits = Limits()
    assert limits.request_timeout_s is not None
    expected = {
        "client_header_timeout": f"{limits.header_timeout_s:g}s",
        "large_client_header_buffers": f"2 {limits.max_header_bytes // 2**10}k",
        "client_max_body_size": f"{limits.max_body_bytes // 2**20}m",
        "client_body_timeout": f"{limits.body_timeout_s:g}s",
        "send_timeout": f"{limits.write_timeout_s:g}s",
        "keepalive_timeout": f"{limits.keep_alive_timeout_s:g}s",
        "proxy_read_timeout": f"{limits.request_timeout_s + 10:g}s",
    }
    assert {name: re.findall(rf"\b{name} ([^;]+);", text) for name in expected} == {
        name: [value] for name, value in expected.items()
    }


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
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        assert waiting.stderr.readline().startswith("the edge waits for a 401 from http://127.0.0.1:")
        waiting.send_signal(signal.SIGQUIT)
        assert waiting.wait(timeout=10) == 0


@contextlib.contextmanager
def recorder(hold_s: float = 0) -> Iterator[tuple[int, list[str]]]:
    """A server that keeps the heads that it gets, and answers 200 after a while."""
    heads: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            heads.append("\n".join(f"{name}: {value}" for name, value in self.headers.items()))
            time.sleep(hold_s)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 # the base class's name
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], heads
        finally:
            server.shutdown()
            thread.join()


def _running(litport: Platform) -> object:
    answer = httpx.get(f"{litport.url}/status", headers=BEARER, timeout=10).json()
    return next(model["running"] for model in answer["models"] if model["name"] == "streams")


def _version() -> tuple[int, ...]:
    assert NGINX is not None
    told = subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(map(int, told.rpartition("nginx/")[2].split()[0].split(".")))


def _is_open(port: int, nginx: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert nginx.poll() is None, log.read_text()
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False
