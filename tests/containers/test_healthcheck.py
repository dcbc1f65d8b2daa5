"""The images' HEALTHCHECK, run as the images run it, against a server that is ready, is not, or is not there."""

import contextlib
import http.server
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.services import certificate
from tests.services.ports import refusing_port


@contextlib.contextmanager
def answering(status: int, tls: tuple[Path, Path] | None = None) -> Iterator[int]:
    """A server that answers `/ready` with this status and everything else with 404; gives its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/ready" else 404)
            self.end_headers()
            self.wfile.write(b'{"ready": true}')

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def check(port: int, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-IS", str(REPOSITORY / "docker" / "healthcheck.py")],
        env={"LITPORT_SERVER__PORT": str(port), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1), (404, 1)])
def test_only_a_platform_that_is_ready_is_healthy(status: int, expected: int) -> None:
    with answering(status) as port:
        done = check(port, LITPORT_SERVER__HOST="0.0.0.0")
    assert done.returncode == expected
    assert done.stdout.startswith(str(status))


def test_a_certificate_is_not_asked_whose_it_is(tmp_path: Path) -> None:
    files = certificate.write(tmp_path)
    with answering(200, files) as port:
        assert check(port, LITPORT_SERVER__TLS_CERT_FILE=str(files[0])).returncode == 0
        assert check(port).returncode == 1


def test_nobody_there_is_unhealthy_and_said_in_one_line() -> None:
    with refusing_port() as port:
        done = check(port)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "ConnectionRefusedError: [Errno 111] Connection refused\n"
