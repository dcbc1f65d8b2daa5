"""The real nginx with the edge's configuration, in front of the real Litport."""

import contextlib
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

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


def _version() -> tuple[int, ...]:
    assert NGINX is not None
    told = subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(map(int, told.rpartition("nginx/")[2].split()[0].split(".")))


def _is_open(port: int, nginx: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert nginx.poll() is None, log.read_text()
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False
