"""How busy the hardware was: samples taken in the background, and what they say about a stretch of time.

A result says nothing while nobody knows whether the machine was working, waiting or throttled. The sampler reads the
models' processes, the host and the GPUs in a thread of its own. It judges nothing: what the numbers mean is the
report's affair. On a machine without a GPU the list of GPUs is empty, and `nvml_error` says why.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from servers.telemetry.cpu import Host, HostSample, ModelSample, Processes
from servers.telemetry.window import summarise

if TYPE_CHECKING:
    from servers.telemetry.nvml import GpuSample


# Intervals without a sample after which the last one is no longer true.
_MISSED = 5


@dataclass(frozen=True)
class Sample:
    """Everything that was read at one moment: `t_s` on the clock of time.monotonic()."""

    t_s: float
    models: Mapping[str, ModelSample]
    host: HostSample
    gpus: "tuple[GpuSample, ...]"


class Sampler:
    """Samples every `interval_s` seconds from entering the block to leaving it, one sample at each end included.

    `processes` maps a model to the id of its root process or process group, or is a function that returns this map
    and is called for every sample, after the first from a thread of the sampler's. `max_samples` keeps only the latest,
    for one that runs as long as a platform does; None keeps all. Context switches cost a file a thread to read, so they
    are read less often. What goes wrong in the thread ends it and is raised on leaving; where there is `on_failure`, it
    is told, and sampling goes on.

    Measured without a GPU, for 12 processes among 83 on the host: 1.1 ms of CPU a sample, and 1.5 (with 24 threads) or
    9.3 (with 492) where the context switches are read, too: 0.6 and 0.9 % of one core at two samples a second.
    """

    def __init__(
        self,
        processes: Callable[[], Mapping[str, int]] | Mapping[str, int],
        interval_s: float = 0.5,
        max_samples: int | None = None,
        switches_every_s: float = 2.0,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        if interval_s <= 0:
            raise ValueError(f"interval_s must be above 0, got {interval_s}")
        self._processes = processes
        self.interval_s = interval_s
        self._max_samples = max_samples
        self._switches_every_s = switches_every_s
        self._on_failure = on_failure
        self._samples: list[Sample] = []
        self._nvml_error: str | None = None
        self._switches_s: float | None = None
        self._failure: BaseException | None = None
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def __enter__(self) -> Self:
        from servers.telemetry.nvml import (
            Gpus,
        )  # the driver's library is opened here, not where the command line is read

        self._reader = Processes()
        self._host = Host()
        self._gpus = Gpus()
        self._nvml_error = self._gpus.error
        try:
            self._take()
        except BaseException:
            self._gpus.close()
            raise
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._thread.join()
        self._gpus.close()
        if self._failure is not None and value is None:
            raise self._failure

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples so far, oldest first. May be asked for while sampling goes on."""
        return tuple(self._samples)

    @property
    def fresh(self) -> tuple[Sample, ...]:
        """The samples, or none once reading has failed for a while: what was read long ago says nothing of now."""
        samples = self.samples
        return samples if samples and time.monotonic() - samples[-1].t_s <= _MISSED * self.interval_s else ()

    @property
    def nvml_error(self) -> str | None:
        """Why there are no GPUs, in one line; None where NVIDIA's driver answered."""
        return self._nvml_error

    def summary(self, start_s: float, end_s: float) -> dict[str, Any]:
        """What the samples say about the time from `start_s` to `end_s` (time.monotonic()), ready for JSON.

        See `servers.telemetry.window.summarise`; `nvml_error` is added.
        """
        return {**summarise(self.samples, start_s, end_s), "nvml_error": self._nvml_error}

    def series(self) -> list[dict[str, Any]]:
        """The samples as plain dictionaries, ready for JSON; keys are the fields of `Sample` and of what it holds."""
        return [asdict(sample) for sample in self.samples]

    def _run(self) -> None:
        due_s = time.monotonic()
        try:
            leaving = False
            while not leaving:
                due_s = max(due_s + self.interval_s, time.monotonic())
                leaving = self._leaving.wait(due_s - time.monotonic())
                self._try(whole=leaving)
        except BaseException as problem:
            self._failure = problem

    def _try(self, whole: bool) -> None:
        try:
            self._take(whole)
        except Exception as problem:
            if self._on_failure is None:
                raise
            self._on_failure(problem)

    def _take(self, whole: bool = False) -> None:
        t_s = time.monotonic()
        switches = whole or self._switches_s is None or t_s - self._switches_s >= self._switches_every_s
        if switches:
            self._switches_s = t_s
        roots = self._processes() if callable(self._processes) else self._processes
        models, owners = self._reader.read(roots, switches)
        self._samples.append(Sample(t_s, models, self._host.read(), self._gpus.read(owners, t_s)))
        if self._max_samples is not None:
            del self._samples[: -self._max_samples]
