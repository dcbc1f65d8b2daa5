"""A conversation in the terminal, as a person types it, and `litport run`, which serves the model for it."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import litport
from tests.services.polling import wait_until
from tests.services.ports import free_port
from tests.services.terminal import CTRL_C, CTRL_D, UP, terminal


class Parrot(BaseHTTPRequestHandler):
    """Says how many messages came and repeats the last one; `slow` never ends, `wrong` is refused."""

    def do_POST(self) -> None:
        messages = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"]
        text = messages[-1]["content"]
        if text == "wrong":
            self.send_error(400, "no")
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for piece in (f"{len(messages)}: ", text.upper()):
            chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": piece}}]})
            self.wfile.write(f"data: {chunk}\n\n".encode())
        while text == "slow":
            time.sleep(0.05)
            self.wfile.write(b": \n\n")  # fails once the client has left
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Parrot) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that left is no fault here
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_conversation_can_be_edited_interrupted_and_ended(url: str) -> None:
    with terminal("chat", "m", "--url", url) as screen:
        screen.wait("> ")
        screen.type("hello\r")
        screen.wait("1: HELLO\r\n> ")
        screen.type(f"{UP} again\r")
        screen.wait("3: HELLO AGAIN\r\n> ")
        screen.type("slow\r")
        screen.wait("5: SLOW")
        screen.type(CTRL_C)
        screen.wait("> ")
        screen.type("wrong\r")
        screen.wait(r"400: <!DOCTYPE .* </html>\r\n> ")  # on one line
        screen.type("on\r")
        screen.wait("7: ON\r\n> ", 5)  # the half answer stays, the refused question does not
        screen.press(CTRL_C, "/bye or Ctrl-D ends the conversation\r\n> ")
        screen.type("/clear\r")
        screen.wait("> ")
        screen.type("anew\r")
        screen.wait("1: ANEW\r\n> ")
        screen.type("/bye\r")
        assert screen.end() == 0
        assert screen.modes() == screen.before


@pytest.mark.long
def test_a_conversation_that_fails_at_once_or_is_given_up_ends(url: str) -> None:
    with terminal("chat", "m", "--url", url) as screen:
        screen.wait("> ")
        screen.type("wrong\r")
        assert screen.end() == 1
    with terminal("chat", "m", "--url", url) as screen:
        screen.wait("> ")
        screen.type(CTRL_D)
        assert screen.end() == 0


@pytest.mark.long
def test_run_serves_a_model_for_one_conversation(tmp_path: Path) -> None:
    api = tmp_path / "parrot.py"
    api.write_text(
        "import litserve as ls\n"
        "class Parrot(ls.LitAPI):\n"
        "    def __init__(self): super().__init__(spec=ls.OpenAISpec(), stream=True)\n"
        "    def setup(self, device): ...\n"
        "    def predict(self, request):\n"
        "        yield f'{len(request.messages)}: '\n"
        "        yield request.messages[-1].content.upper()\n"
    )
    port = free_port()
    with terminal("run", str(api), "--server.port", str(port)) as screen:
        screen.wait("> ", 60)
        screen.type("hello\r")
        screen.wait("1: HELLO\r\n> ")
        assert litport("status", "--url", f"127.0.0.1:{port}").returncode == 0, "others may use it, too"
        beside = litport("run", str(api), "again", environ={"LITPORT_SERVER__PORT": str(port)})
        assert (beside.stdout, beside.stderr) == ("1: AGAIN\n", f"http://127.0.0.1:{port} serves parrot already\n")
        screen.process.kill()
        screen.process.wait()
        wait_until(lambda: litport("status", "--url", f"127.0.0.1:{port}").returncode, 20)


@pytest.mark.long
def test_run_says_why_there_is_no_conversation(tmp_path: Path) -> None:
    api = tmp_path / "broken.py"
    api.write_text(
        "import litserve as ls\n"
        "class Broken(ls.LitAPI):\n"
        "    def setup(self, device): raise RuntimeError('no weights here')\n"
        "    def predict(self, request): ...\n"
    )
    ended = litport("run", str(api), "hi", "--server.port", str(free_port()))
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "RuntimeError: no weights here" in ended.stderr
    api.write_text(api.read_text().replace("raise RuntimeError('no weights here')", "..."))
    ended = litport("run", str(api), "hi", "--server.port", str(free_port()))
    assert ended.returncode == 2
    assert ended.stderr.startswith("litport: broken takes no chats, it has /predict/broken; ")
