"""Answers of servers become what is compared, or it is said that there is nothing to compare."""

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks.analysis.measurement import Answer
from benchmarks.load.request import EMBEDDINGS
from benchmarks.load.workload import Item
from benchmarks.rungs.answer import answer_of_text
from benchmarks.rungs.server.rung import ServerRung
from tests.services import certificate


@pytest.mark.parametrize(
    ("document", "answer"),
    [
        ({"choices": [{"token_ids": [4, 5], "logprobs": {"token_logprobs": [-1.0, -2.0]}}]}, Answer([4, 5], [-1, -2])),
        ({"choices": [{"logprobs": {"content": [{"id": 4, "logprob": -1.0}]}}]}, Answer([4], [-1])),
        ({"token_ids": [4]}, Answer([4])),
        ({"data": [{"embedding": [0.5]}]}, Answer(vectors=[[0.5]])),
        ({"predictions": [{"label": "cat", "score": 0.5}]}, Answer(labels=["cat"], scores=[0.5])),
    ],
)
def test_an_answer_is_its_tokens_vectors_or_labels(document: dict[str, Any], answer: Answer) -> None:
    assert answer_of_text(json.dumps(document)) == answer


@pytest.mark.parametrize("logprobs", [None, {"content": [{"token": "a", "logprob": -1.0}]}])
def test_a_completion_without_token_ids_cannot_be_compared(logprobs: dict[str, Any] | None) -> None:
    document = {"choices": [{"text": "a", "logprobs": logprobs}]}
    with pytest.raises(ValueError, match="it names no token ids"):
        answer_of_text(json.dumps(document))


class Embedder(BaseHTTPRequestHandler):
    """Answers every request with one vector."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps({"data": [{"embedding": [0.5]}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_a_server_is_trusted_by_the_variable_and_no_proxy_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert_file, key_file = certificate.write(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert_file))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    with HTTPServer(("127.0.0.1", 0), Embedder) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"https://127.0.0.1:{server.server_address[1]}"
            rung = ServerRung("a server", url, EMBEDDINGS, "m", tmp_path / "log")
            assert rung.answer([Item(0, token_ids=[[1]])]) == [Answer(vectors=[[0.5]])]
        finally:
            server.shutdown()
            thread.join()
