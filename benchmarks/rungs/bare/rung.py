"""A rung without a server: a model in a process of its own, driven over its standard input."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.analysis.breakdown import RowReader, break_down, break_down_steps
from benchmarks.analysis.layer import Layer
from benchmarks.analysis.measurement import Answer, Measurement
from benchmarks.load.request import ReadAs
from benchmarks.load.workload import Item
from benchmarks.rungs.bare.outcome import Outcome
from benchmarks.rungs.process import ChildProcess, RungError
from benchmarks.rungs.series import prefix_cache_hit_rate
from servers.processes.interpreter import module_argv
from servers.processes.reaper import Reaper


@dataclass
class BareRung:
    """A model that the process `benchmarks.rungs.bare` loads as `spec` says; `sample` finds its best batch size.

    `layers` are those of the steps that the process times, by their names; `row_readers` make rows of its series.
    """

    name: str
    spec: Mapping[str, Any]
    environ: Mapping[str, str]
    log_file: Path
    layers: Mapping[str, Layer] = field(default_factory=dict)
    row_readers: Sequence[RowReader] = ()
    sample: Sequence[Item] = ()
    reaper: Reaper | None = None
    pid: int | None = None
    batch_size: int | None = None
    machines: int | None = None
    _child: ChildProcess | None = None
    _folder: "tempfile.TemporaryDirectory[str] | None" = None

    @property
    def read_as(self) -> ReadAs | None:
        """None: no load generator asks it."""
        return None

    def start(self) -> None:
        """Load the model, and find its best batch size where it has one."""
        self._folder = tempfile.TemporaryDirectory(prefix="litport-bare-")
        folder = Path(self._folder.name)
        items, spec = folder / "sample", folder / "spec.json"
        items.write_bytes(msgspec.msgpack.encode(list(self.sample)))
        spec.write_text(json.dumps({**self.spec, "rung": self.name, "items": str(items)}))
        argv = module_argv("benchmarks.rungs.bare", str(spec))
        self._child = ChildProcess(self.name, argv, self.environ, self.log_file, piped=True, reaper=self.reaper)
        self.pid = self._child.pid
        self.batch_size = self._read_line()["batch_size"]

    def measure(self, items: Sequence[Item], users: int, time_limit_s: float, processes: int) -> Measurement:
        """Have the process answer the items."""
        del processes
        outcome = self._run("run", items, users=users, time_limit_s=time_limit_s)
        records = sorted(outcome.records, key=lambda record: record.index)
        if not records:
            raise RungError(f"{self.name}: no request was answered")
        if outcome.series:
            rows = break_down(records, outcome.series, readers=self.row_readers)
        else:
            rows = break_down_steps(records, [(self.layers[step], spent_s) for step, spent_s in outcome.steps])
        return Measurement(tuple(records), rows, hit_rate=prefix_cache_hit_rate(outcome.series))

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """Have the process answer, greedily."""
        return self._run("answer", items).answers

    def end(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.end()
            self._child = self.pid = None
        if self._folder is not None:
            self._folder.cleanup()

    def _run(self, action: str, items: Sequence[Item], **options: Any) -> Outcome:
        assert self._folder is not None
        assert self._child is not None
        assert self._child.process.stdin is not None
        items_file, result_file = Path(self._folder.name, "items"), Path(self._folder.name, "result")
        items_file.write_bytes(msgspec.msgpack.encode(list(items)))
        command = {"do": action, "items": str(items_file), "result": str(result_file), **options}
        self._child.process.stdin.write(json.dumps(command) + "\n")
        self._read_line()
        return msgspec.msgpack.decode(result_file.read_bytes(), type=Outcome)

    def _read_line(self) -> dict[str, Any]:
        assert self._child is not None
        assert self._child.process.stdout is not None
        line = self._child.process.stdout.readline()
        if not line:
            self._child.process.wait()
            raise RungError(
                f"{self.name} ended with status {self._child.process.returncode}: {self._child.last_output()}"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer
