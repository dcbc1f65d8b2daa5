"""A LitAPI that allocates as much of the device as a request asks for, and frees it again."""

import litserve


class HungryAPI(litserve.LitAPI):  # type: ignore[misc] # litserve ships no complete types
    """`{"gib": 0.5}` to the bytes that were allocated."""

    uses_torch = True
    example_request = {"gib": 0.001}  # noqa: RUF012 # a constant

    def setup(self, device: str) -> None:
        """Keep the device."""
        self._device = device

    def decode_request(self, request: dict[str, float]) -> float:
        """The GiB asked for."""
        return float(request["gib"])

    def predict(self, x: float) -> int:
        """Allocate, and return the size."""
        import torch

        return int(torch.empty(int(x * 1024**3), dtype=torch.uint8, device=self._device).nbytes)

    def encode_response(self, output: int) -> dict[str, int]:
        """The size in a document."""
        return {"bytes": output}
