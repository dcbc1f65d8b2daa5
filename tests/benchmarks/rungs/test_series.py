"""A page of Prometheus series becomes the numbers of one measurement."""

import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from benchmarks.rungs.series import difference, parse, read
from tests.benchmarks.layers import layered_server

PAGE = """\
# HELP http_request_duration_seconds Latency
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{handler="/v1/completions",le="0.5",method="POST"} 3.0
http_request_duration_seconds_bucket{handler="/v1/completions",le="+Inf",method="POST"} 4.0
http_request_duration_seconds_count{handler="/v1/completions",method="POST"} 4.0
http_request_duration_seconds_sum{handler="/v1/completions",method="POST"} 6.5
http_request_duration_seconds_count{handler="/v1/chat/completions",method="POST"} 1.0
http_request_duration_seconds_sum{handler="/v1/chat/completions",method="POST"} 0.5
http_request_duration_seconds_count{handler="/metrics",method="GET"} 90.0
http_request_duration_seconds_sum{handler="/metrics",method="GET"} 900.0
# TYPE http_request_duration_seconds_created gauge
http_request_duration_seconds_created{handler="/v1/completions",method="POST"} 1.7e+09
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 10.0
vllm:prefix_cache_hits_total{engine="1",model_name="m"} 32.0
# TYPE litserve_step_seconds_total counter
litserve_step_seconds_total{step="queue"} 0.25
litserve_step_seconds_total{step="predict"} 2.0
# TYPE plain gauge
plain 7
"""


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        pages = {"/metrics": PAGE, "/all": '{"output": 1}'}
        self.send_response(200 if self.path in pages else 404)
        self.end_headers()
        self.wfile.write(pages.get(self.path, "no").encode())

    def log_message(self, *_: Any) -> None:
        """Nothing: a Unix socket has no client address to log."""


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    """The Unix socket of a server with that page."""
    path = tmp_path / "s"
    with _Server(str(path), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def test_labels_are_summed_over_and_reading_does_not_count() -> None:
    found = parse(PAGE)
    assert found["http_request_duration_seconds_count"] == 5
    assert found["http_request_duration_seconds_sum"] == 7
    assert found["vllm:prefix_cache_hits_total"] == 42
    assert found["plain"] == 7


def test_the_step_of_a_series_is_kept() -> None:
    found = parse(PAGE)
    assert found["litserve_step_seconds_total/queue"] == 0.25
    assert found["litserve_step_seconds_total/predict"] == 2
    assert "litserve_step_seconds_total" not in found


def test_buckets_and_times_of_creation_are_left_out() -> None:
    assert [name for name in parse(PAGE) if "bucket" in name or "created" in name] == []


def test_the_difference_is_what_was_added() -> None:
    assert difference({"a": 2, "gone": 1}, {"a": 5, "new": 3}) == {"a": 3, "new": 3}
    assert difference(parse(PAGE), parse(PAGE)) == dict.fromkeys(parse(PAGE), 0)
    assert difference({}, {}) == {}


def test_a_page_is_read_over_a_unix_socket(socket: Path) -> None:
    assert read("http://model/metrics", socket) == parse(PAGE)


def test_a_server_that_has_no_page_or_does_not_answer_has_no_series(socket: Path) -> None:
    assert read("http://model/other", socket) == {}
    assert read("http://127.0.0.1:9/metrics") == {}
    assert read("http://model/all", socket) == {}, "some servers answer every path with 200"


def test_an_empty_page_has_no_series() -> None:
    assert parse("") == {}


def test_no_proxy_is_asked_for_a_server_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    with layered_server(tmp_path) as url:  # which waits until it is ready
        assert read(f"{url}/metrics")
