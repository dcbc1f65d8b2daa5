"""Streams through the edge: events arrive one by one, and a client that leaves is noticed."""

import itertools
import json
import os
import time

import httpx

from tests.conftest import Platform
from tests.docker.edge.conftest import BEARER, WITH_HTTP2, WITH_NGINX, Edge, edge_before
from tests.services.polling import wait_until

PARTS, PAUSE_S = 6, 0.25
STREAM = {"from": PARTS, "pause_s": PAUSE_S}


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
    begin_s = time.perf_counter()
    wait_until(lambda: not _running(litport), 5)
    print("seconds until Litport knew:", round(time.perf_counter() - begin_s, 3))


def _running(litport: Platform) -> object:
    answer = httpx.get(f"{litport.url}/status", headers=BEARER, timeout=10).json()
    return next(model["running"] for model in answer["models"] if model["name"] == "streams")
