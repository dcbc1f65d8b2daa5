"""Samples of the hardware, taken in the background, and their summary over a window of time.

A benchmark result needs them to tell whether the machine worked, waited or was throttled. The sampler reads the models'
processes, the host and the GPUs in a thread of its own. It does not judge the numbers; the report does. On a machine
without a GPU the list of GPUs is empty, and `nvml_error` says why.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from servers.telemetry.cpu import Host, Processes, Roots
from servers.telemetry.sample import Sample
from servers.telemetry.window import summarise

_FRESH_INTERVALS = 5  # the last sample is out of date after this many intervals


class Sampler:
    """Samples every `interval_s` seconds from entering the block to leaving it, with one sample at each end.

    `processes` maps a model to the id of its root process or process group, or to several. It may be a function
    that returns this map; the sampler's thread then calls it for every sample after the first. `max_samples` keeps
    only the latest samples, as a platform runs for long; None keeps all. Context switches cost a file a thread to
    read, so the sampler reads them less often. An exception in the thread ends it and is raised on leaving the
    block; with `on_failure`, that function gets the exception and sampling goes on.

    Measured without a GPU, for 12 processes among 83 on the host: 1.1 ms of CPU a sample, and 1.5 ms (24 threads) or
    9.3 ms (492 threads) with context switches: 0.6 and 0.9 % of one core at two samples a second.
    """

    def __init__(
        self,
        processes: Callable[[], Roots] | Roots,
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
        # Imported here, as the command line shall not load the driver's library.
        from servers.telemetry.nvml import Gpus

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
        """The samples so far, oldest first. Can be read while sampling goes on."""
        return tuple(self._samples)

    @property
    def fresh(self) -> tuple[Sample, ...]:
        """The samples; none when reading has failed for a while, as old samples do not describe the present."""
        samples = self.samples
        return samples if samples and time.monotonic() - samples[-1].t_s <= _FRESH_INTERVALS * self.interval_s else ()

    @property
    def nvml_error(self) -> str | None:
        """Why there are no GPUs, in one line; None where NVIDIA's driver answered."""
        return self._nvml_error

    def summary(self, start_s: float, end_s: float) -> dict[str, Any]:
        """The summary of the time from `start_s` to `end_s` (time.monotonic()), ready for JSON.

        It is that of `servers.telemetry.window.summarise`, and `nvml_error`.
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
