"""The devices of a model's workers, counted as LitServe counts them."""

import sys

from litserve.connector import check_cuda_with_nvidia_smi

from configs.errors import UserError


def device_names(accelerator: str | None, devices: int | str | list[int] | None, uses_torch: bool) -> list[str]:
    """The `device` of each worker's setup(): "cpu", "cuda:0", "mps:0"; LitServe gives a CPU one whatever `devices` is.

    LitServe's "auto" takes a GPU only where the main process has imported torch; here `uses_torch` counts as well, for
    APIs that import it in setup(). Raises UserError.
    """
    kind = (accelerator or "auto").lower()
    if kind in ("auto", "gpu"):
        kind = _available(is_asked_for=kind == "gpu", uses_torch=uses_torch)
    if kind == "cpu":
        return ["cpu"]
    if kind not in ("cuda", "mps"):
        raise UserError(f"accelerator: expected auto, cpu, cuda, gpu or mps, got {accelerator!r}")
    count = check_cuda_with_nvidia_smi() if kind == "cuda" else 1
    if not count:
        raise UserError("accelerator 'cuda': nvidia-smi names no GPU on this machine; remove it, or set cpu")
    if devices in (None, "auto"):
        devices = count
    if isinstance(devices, str):
        raise UserError(f"devices: expected a number or a list of numbers, got {devices!r}")
    assert devices is not None
    if not devices:
        raise UserError(f"accelerator {kind!r}: this machine has no such device")
    return [f"{kind}:{number}" for number in (range(devices) if isinstance(devices, int) else devices)]


def _available(is_asked_for: bool, uses_torch: bool) -> str:
    if check_cuda_with_nvidia_smi() > 0:
        return "cuda" if is_asked_for or uses_torch or "torch" in sys.modules else "cpu"
    if sys.platform == "darwin":
        import torch

        if torch.backends.mps.is_available():
            return "mps"
    if is_asked_for:
        raise UserError("accelerator 'gpu': this machine has none")
    return "cpu"
