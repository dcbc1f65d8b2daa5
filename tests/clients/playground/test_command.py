"""`litport playground` as a command and as a server: what it refuses."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.clients.playground.conftest import Playground, playing
from tests.conftest import REPOSITORY, litport
from tests.services.ports import port_in_use


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    """What ends with the tests, or with the one that closes it."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def playground(stack: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Playground:
    return stack.enter_context(playing(tmp_path_factory.mktemp("playground"), "http://127.0.0.1:9"))


def test_without_gradio_one_line_says_what_installs_it() -> None:
    program = "import sys; sys.modules['gradio'] = None; import litport; sys.exit(litport.main())"
    command = [sys.executable, "-P", "-c", program, "playground", "--port", "0"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stderr == (
        "litport: the playground needs Gradio: `make playground` installs it (the extra `playground`)\n"
    )


def test_a_port_that_is_taken_is_one_line() -> None:
    with port_in_use() as port:
        ended = litport("playground", "--port", str(port))
    assert ended.returncode == 2
    assert ended.stderr == f"litport: --port: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


def test_a_page_of_another_name_is_refused(playground: Playground) -> None:
    assert httpx.get(playground.url).status_code == 200
    assert httpx.get(playground.url, headers={"host": "elsewhere.example:80"}).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/deep_link?session_hash=x",
        "/gradio_api/file=http://127.0.0.1:9/x",
        "/gradio_api/file=https://127.0.0.1:9/x",
        "/gradio_api/proxy=http://127.0.0.1:9/x",
        "/gradio_api/runs",
        "/monitoring",
    ],
)
def test_what_would_store_or_fetch_is_refused(playground: Playground, path: str) -> None:
    assert httpx.get(playground.url + path).status_code == 403


def test_the_browser_is_told_to_ask_nobody_else(playground: Playground) -> None:
    answer = httpx.get(playground.url)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "frame-ancestors 'none'" in policy


def test_files_of_this_machine_are_not_served(playground: Playground, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    assert httpx.get(f"{playground.url}/gradio_api/file={secret}").status_code == 403


def test_it_ends_at_once_and_in_silence_while_pages_are_open(playground: Playground, stack: ExitStack) -> None:
    with httpx.Client() as client:
        request = client.build_request("GET", f"{playground.url}/gradio_api/heartbeat/visitor")
        answer = client.send(request, stream=True)
        assert answer.status_code == 200
        stack.close()  # the last test of it
    assert playground.log.read_text() == ""
