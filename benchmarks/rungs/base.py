"""A rung of the ladder: something that answers the workload, with a server or without.

Each is started, measured and ended by itself, in a process tree of its own; a URL is somebody else's and only measured.
A rung knows how it is asked and read; what it asks is given to it.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx
import msgspec

from benchmarks.analysis import breakdown
from benchmarks.analysis.breakdown import Breakdown
from benchmarks.load import generator
from benchmarks.load.generator import Cost
from benchmarks.load.workload import Item, calls
from benchmarks.rungs import scrape
from benchmarks.rungs.bare.api_model import answer_of
from benchmarks.rungs.bare.outcome import Answer, Outcome
from benchmarks.rungs.process import ChildProcess, RungError
from clients.record import RequestRecord, window
from servers.processes.reaper import Reaper

# Until the last request's series are there: vLLM counts a request a moment after its client has the answer.
_SETTLE_S = 0.5


@dataclass(frozen=True)
class Measurement:
    """One measurement of one rung. `costs` are those of the load's generators; a bare model has none.

    `hit_rate` is the share of prompt tokens that the prefix cache answered; None where the server does not say.
    """

    records: tuple[RequestRecord, ...]
    time: Breakdown | None
    costs: tuple[Cost, ...] = ()
    hit_rate: float | None = None

    @property
    def begin_s(self) -> float:
        """When the first request was due (`time.monotonic()`)."""
        return window(self.records)[0]

    @property
    def end_s(self) -> float:
        """When the last answer was complete."""
        return window(self.records)[1]

    @property
    def throughput_per_s(self) -> float:
        """Output tokens a second, or answers a second where nothing is generated; what failed does not count."""
        done = sum(record.output_tokens or 1 for record in self.records if not record.failed)
        return done / (self.end_s - self.begin_s)

    @property
    def e2e_s(self) -> float:
        """The mean end-to-end latency, in seconds."""
        return sum(record.e2e_s for record in self.records) / len(self.records)


class Rung(Protocol):
    """What the ladder needs of a rung."""

    name: str
    form: str | None
    pid: int | None
    batch_size: int | None

    def start(self) -> None:
        """Bring it up. Raises RungError."""
        ...

    def measure(self, items: Sequence[Item], users: int, time_limit_s: float, processes: int) -> Measurement:
        """Answer the items. Raises RungError when there is nothing to measure."""
        ...

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """Greedy answers, one at a time."""
        ...

    def end(self) -> None:
        """End it, and leave nothing of it."""
        ...


@dataclass
class ServerRung:
    """A server at `url`. `command` starts it (None: it is somebody else's) and is ready when `ready_path` answers.

    `form` is how it takes requests, `path` where; `read_as` how its answers are read. `series` returns what the server
    and the front door have counted so far.
    """

    name: str
    url: str
    form: str | None
    path: str
    read_as: str
    model: str
    log_file: Path
    command: tuple[Sequence[str], Mapping[str, str]] | None = None
    ready_path: str = "/health"
    start_timeout_s: float = 600
    series: Callable[[], tuple[Mapping[str, float], Mapping[str, float] | None]] = field(default=lambda: ({}, None))
    headers: Mapping[str, str] = field(default_factory=dict)
    reaper: Reaper | None = None
    pid: int | None = None
    batch_size: int | None = None
    _child: ChildProcess | None = None

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
        assert self.form is not None
        asked = calls(items, self.form, self.model, self.path)
        server_before, door_before = self.series()
        result = generator.generate(self.url, self.read_as, asked, users, time_limit_s, processes, self.headers)
        if not result.records:
            raise RungError(f"{self.name}: no request was sent")
        time.sleep(_SETTLE_S)
        server_after, door_after = self.series()
        server = scrape.difference(server_before, server_after)
        door = scrape.difference(door_before, door_after) if door_before and door_after else None
        whole = not any(record.failed for record in result.records)
        time_rows = breakdown.break_down(result.records, server, door) if whole else None
        return Measurement(tuple(result.records), time_rows, tuple(result.costs), _hit_rate(server))

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """Ask without streaming."""
        assert self.form is not None
        with httpx.Client(base_url=self.url, timeout=600, headers=dict(self.headers)) as client:
            return [self._ask(client, item) for item in items]

    def end(self) -> None:
        """End the server, if it is ours."""
        if self._child is not None:
            self._child.end()
            self._child = self.pid = None

    def _ask(self, client: httpx.Client, item: Item) -> Answer:
        (call,) = calls([item], self.form or "", self.model, self.path)
        body: str | bytes = call.body
        if self.form == "completions":
            wanted: dict[str, Any] = {"temperature": 0, "max_tokens": item.output_tokens, "ignore_eos": True}
            wanted |= {"stream": False, "logprobs": 1 if item.token_ids else True, "return_token_ids": True}
            document = {**json.loads(call.body), **wanted}
            document.pop("stream_options")
            body = json.dumps(document)
        response = client.post(call.path, content=body, headers={"content-type": call.content_type})
        if response.status_code != 200:
            raise RungError(f"{self.name}: {call.path} answered {response.status_code}: {response.text[:300]}")
        return _answer(response)

    def __repr__(self) -> str:
        return f"ServerRung({self.name!r})"


def _answer(response: httpx.Response) -> Answer:
    document: dict[str, Any] = json.loads(response.text.strip().rpartition("\n")[2])
    if "choices" in document:
        choice = document["choices"][0]
        said = choice.get("logprobs") or {}
        logprobs = said.get("token_logprobs") or [entry["logprob"] for entry in said.get("content") or ()]
        return Answer(token_ids=choice.get("token_ids"), logprobs=logprobs or None)
    if "token_ids" in document:
        return Answer(token_ids=document["token_ids"])
    if "data" in document:
        return Answer(vectors=[entry["embedding"] for entry in document["data"]])
    if document.keys() == {"vectors", "labels"}:
        return Answer(vectors=document["vectors"], labels=document["labels"])
    return answer_of(document)


def _hit_rate(server: Mapping[str, float]) -> float | None:
    queries = server.get("vllm:prefix_cache_queries_total")
    return server.get("vllm:prefix_cache_hits_total", 0.0) / queries if queries else None


@dataclass
class BareRung:
    """A model without a server, in a process of its own that is driven over its standard input."""

    name: str
    spec: Mapping[str, Any]
    environ: Mapping[str, str]
    log_file: Path
    sample: Sequence[Item] = ()
    reaper: Reaper | None = None
    form: str | None = None
    pid: int | None = None
    batch_size: int | None = None
    _child: ChildProcess | None = None
    _folder: "tempfile.TemporaryDirectory[str] | None" = None

    def start(self) -> None:
        """Load the model, and find its best batch size where it has one."""
        from servers.processes.interpreter import module_argv

        self._folder = tempfile.TemporaryDirectory(prefix="litport-bare-")
        folder = Path(self._folder.name)
        items, spec = folder / "sample", folder / "spec.json"
        items.write_bytes(msgspec.msgpack.encode(list(self.sample)))
        spec.write_text(json.dumps({**self.spec, "rung": self.name, "items": str(items)}))
        argv = module_argv("benchmarks.rungs.bare", str(spec))
        self._child = ChildProcess(self.name, argv, self.environ, self.log_file, piped=True, reaper=self.reaper)
        self.pid = self._child.pid
        self.batch_size = self._line()["batch_size"]

    def measure(self, items: Sequence[Item], users: int, time_limit_s: float, processes: int) -> Measurement:
        """Have the process answer the items."""
        del processes
        outcome = self._do("run", items, users=users, time_limit_s=time_limit_s)
        records = sorted(outcome.records, key=lambda record: record.index)
        if not records:
            raise RungError(f"{self.name}: no request was answered")
        rows = (
            breakdown.break_down(records, outcome.series)
            if outcome.series
            else breakdown.of_steps(records, outcome.steps)
        )
        return Measurement(tuple(records), rows, hit_rate=_hit_rate(outcome.series))

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """Have the process answer, greedily."""
        return self._do("answer", items).answers

    def end(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.end()
            self._child = self.pid = None
        if self._folder is not None:
            self._folder.cleanup()

    def _do(self, what: str, items: Sequence[Item], **options: Any) -> Outcome:
        assert self._folder is not None
        assert self._child is not None
        assert self._child.process.stdin is not None
        given, result = Path(self._folder.name, "items"), Path(self._folder.name, "result")
        given.write_bytes(msgspec.msgpack.encode(list(items)))
        command = {"do": what, "items": str(given), "result": str(result), **options}
        self._child.process.stdin.write(json.dumps(command) + "\n")
        self._line()
        return msgspec.msgpack.decode(result.read_bytes(), type=Outcome)

    def _line(self) -> dict[str, Any]:
        assert self._child is not None
        assert self._child.process.stdout is not None
        line = self._child.process.stdout.readline()
        if not line:
            self._child.process.wait()
            raise RungError(f"{self.name} ended with status {self._child.process.returncode}: {self._child.said()}")
        answer: dict[str, Any] = json.loads(line)
        return answer
