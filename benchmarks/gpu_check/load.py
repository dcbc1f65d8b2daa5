"""Known loads of a GPU, by a process of its own: `python -m benchmarks.gpu_check.load`.

It reads commands as JSON lines, `{"do": ..., "seconds": ...}`, and answers each with a line:

- `idle`: nothing but the CUDA context;
- `hold` with `gib`: allocate so much more and keep it;
- `duty` with `share`: a kernel on one multiprocessor, for this share of the time; the answer has the share that CUDA's
  own events measured;
- `fill`: products of large matrices, which keep the multiprocessors busy;
- `stream`: copies, which keep the memory busy.
"""

import json
import sys
import time
from typing import Any

_PERIOD_S = 0.05
_CALIBRATION_CYCLES = 50_000_000
_MATRIX = 8192
_COPY_BYTES = 1 << 30


class _Card:
    def __init__(self) -> None:
        import torch

        self._torch: Any = torch
        self._held: list[Any] = []
        torch.zeros(1, device="cuda")
        self._cycles_per_s = _CALIBRATION_CYCLES / self._time(_CALIBRATION_CYCLES)

    def idle(self, seconds: float) -> dict[str, Any]:
        time.sleep(seconds)
        return {}

    def hold(self, seconds: float, gib: float) -> dict[str, Any]:
        self._held.append(self._torch.zeros(int(gib * 1024**3), dtype=self._torch.uint8, device="cuda"))
        self._torch.cuda.synchronize()
        time.sleep(seconds)
        return {}

    def duty(self, seconds: float, share: float) -> dict[str, Any]:
        begin_s = now_s = time.monotonic()
        spans = []
        while now_s - begin_s < seconds:
            spans.append(self._spin(int(share * _PERIOD_S * self._cycles_per_s)))
            if share < 1:
                self._torch.cuda.synchronize()
                time.sleep(max(0.0, now_s + _PERIOD_S - time.monotonic()))
            elif len(spans) > 2:  # two kernels are always queued, so there is no gap
                spans[-3][1].synchronize()
            now_s = time.monotonic()
        self._torch.cuda.synchronize()
        busy_s = sum(start.elapsed_time(end) for start, end in spans) / 1000
        return {"share": busy_s / (time.monotonic() - begin_s)}

    def fill(self, seconds: float) -> dict[str, Any]:
        a = self._torch.randn(_MATRIX, _MATRIX, device="cuda", dtype=self._torch.bfloat16)
        return self._repeat(seconds, lambda: a @ a)

    def stream(self, seconds: float) -> dict[str, Any]:
        source = self._torch.zeros(_COPY_BYTES, dtype=self._torch.uint8, device="cuda")
        target = self._torch.empty_like(source)
        return self._repeat(seconds, lambda: target.copy_(source))

    def _repeat(self, seconds: float, work: Any) -> dict[str, Any]:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            for _ in range(8):
                work()
            self._torch.cuda.synchronize()
        return {}

    def _spin(self, cycles: int) -> tuple[Any, Any]:
        start, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        self._torch.cuda._sleep(cycles)
        end.record()
        return start, end

    def _time(self, cycles: int) -> float:
        self._spin(cycles)  # the first kernel is slower
        start, end = self._spin(cycles)
        self._torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / 1000


def main() -> int:
    """Serve commands until standard input ends."""
    card = _Card()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        answer = getattr(card, command.pop("do"))(**command)
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
