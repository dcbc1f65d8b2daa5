"""Gives the memory of the host that vLLM's sleep held back to the system: an extension of its workers.

torch keeps pinned memory for later copies, so the weights' copy of level 1 would stay there once they are on the GPU.
"""


class HostMemory:
    """What `--worker-extension-cls` adds to a worker, to be asked through `/collective_rpc`."""

    def release_host_memory(self) -> None:
        """Release what torch keeps, where this device has pinned memory."""
        import torch

        if torch.accelerator.is_available():
            torch.accelerator.empty_host_cache()
