"""A rung with a server: started by a command and loaded over HTTP, or somebody else's and only loaded."""

import json
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.analysis.breakdown import RowReader, break_down
from benchmarks.analysis.measurement import Answer, Measurement
from benchmarks.load import generator
from benchmarks.load.request import Endpoint, ReadAs, calls
from benchmarks.load.workload import Item
from benchmarks.rungs import series
from benchmarks.rungs.answer import answer_of_text
from benchmarks.rungs.process import ChildProcess, RungError
from servers.processes.reaper import Reaper

# Until the last request's series are there: vLLM counts a request a moment after its client has the answer.
_SETTLE_S = 0.5

Read = Callable[[], tuple[Mapping[str, float], Mapping[str, float] | None]]
"""Reads the series of the server and those of the front door, if there is one."""


@dataclass
class ServerRung:
    """A server at `url`. `command` starts it (None: somebody else does); it is ready when `ready_path` answers 200.

    `model` is the name that the server knows; `read_series` returns what the server and the front door have counted so
    far, and `row_readers` make rows of it.
    """

    name: str
    url: str
    endpoint: Endpoint
    model: str
    log_file: Path
    command: tuple[Sequence[str], Mapping[str, str]] | None = None
    ready_path: str = "/health"
    start_timeout_s: float = 600
    read_series: Read = field(default=lambda: ({}, None))
    row_readers: Sequence[RowReader] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    reaper: Reaper | None = None
    pid: int | None = None
    batch_size: int | None = None
    machines: int | None = None
    _child: ChildProcess | None = None

    @property
    def read_as(self) -> ReadAs | None:
        """How the load generator reads the answers."""
        return self.endpoint.read_as

    def start(self) -> None:
        """Start the server and wait for it."""
        if self.command is None:
            return
        argv, environ = self.command
        self._child = ChildProcess(self.name, argv, environ, self.log_file, reaper=self.reaper)
        self.pid = self._child.pid
        self._child.wait_ready(self.url + self.ready_path, self.start_timeout_s)

    def measure(self, items: Sequence[Item], users: int, time_limit_s: float, processes: int) -> Measurement:
        """Load the server with the items."""
        requests = calls(items, self.endpoint, self.model)
        server_before, door_before = self.read_series()
        try:
            load = generator.generate(
                self.url, self.endpoint.read_as, requests, users, time_limit_s, processes, self.headers
            )
        except generator.GeneratorError as problem:
            raise RungError(f"{self.name}: {problem}") from None
        if not load.records:
            raise RungError(f"{self.name}: no request was sent")
        time.sleep(_SETTLE_S)
        server_after, door_after = self.read_series()
        server = series.difference(server_before, server_after)
        door = series.difference(door_before, door_after) if door_before and door_after else None
        complete = not any(record.failed for record in load.records)
        rows = break_down(load.records, server, door, self.row_readers) if complete else None
        return Measurement(tuple(load.records), rows, tuple(load.costs), series.prefix_cache_hit_rate(server))

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """Ask without streaming."""
        # As the load generator, it asks no proxy, and trusts what this machine trusts, or SSL_CERT_FILE.
        trust: dict[str, Any] = {"trust_env": False, "verify": ssl.create_default_context()}
        with httpx.Client(base_url=self.url, timeout=600, headers=dict(self.headers), **trust) as client:
            return [self._answer(client, item) for item in items]

    def end(self) -> None:
        """End the server, if it is ours."""
        if self._child is not None:
            self._child.end()
            self._child = self.pid = None

    def _answer(self, client: httpx.Client, item: Item) -> Answer:
        (call,) = calls([item], self.endpoint, self.model)
        body: str | bytes = call.body
        if self.endpoint.form in ("completions", "chat"):
            options: dict[str, Any] = {"temperature": 0, "max_tokens": item.output_tokens, "ignore_eos": True}
            options |= {"stream": False, "logprobs": 1 if item.token_ids else True, "return_token_ids": True}
            document = {**json.loads(call.body), **options}
            document.pop("stream_options")
            body = json.dumps(document)
        response = client.post(call.path, content=body, headers={"content-type": call.content_type})
        if response.status_code != 200:
            raise RungError(f"{self.name}: {call.path} answered {response.status_code}: {response.text[:300]}")
        return answer_of_text(response.text)

    def __repr__(self) -> str:
        return f"ServerRung({self.name!r})"
