"""The GPU that is checked, and what a part needs to use it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.gpu_check.check import NotRunError
from servers.telemetry.cpu import Processes
from servers.telemetry.nvml import Gpus, GpuSample


@dataclass(frozen=True)
class Context:
    """Where the models run. `cpu` is a rehearsal: small models, and what needs the card is not run."""

    device: Literal["cuda", "cpu"]
    picture_model: str

    @property
    def on_card(self) -> bool:
        """Whether this is the real thing."""
        return self.device == "cuda"

    def require_card(self) -> None:
        """Raises NotRunError where the device is the card, and there is none or torch cannot use it."""
        if self.on_card:
            read_card()
            require_cuda()


def read_card(owners: Mapping[int, str] | None = None) -> GpuSample:
    """The first GPU now; `owners` maps process ids to models. Raises NotRunError where there is none."""
    gpus = Gpus()
    try:
        samples = gpus.read(owners or {}, time.monotonic())
    finally:
        gpus.close()
    if not samples:
        raise NotRunError(gpus.error or "no GPU: NVIDIA's driver answers and knows none")
    return samples[0]


def require_cuda() -> None:
    """Raises NotRunError where torch is missing or finds no CUDA device."""
    try:
        import torch
    except ImportError as error:
        raise NotRunError(f"torch: {error}") from None
    if not torch.cuda.is_available():
        raise NotRunError(f"torch {torch.__version__} finds no CUDA device")


def pids_on_card(roots: Mapping[str, int]) -> dict[str, list[int]]:
    """The processes on the card by the model whose process group they are of, for the groups `roots`."""
    _, owners = Processes().read(roots, switches=False)
    entries = read_card(owners).processes or ()
    return {name: [entry.pid for entry in entries if entry.model == name] for name in roots}
