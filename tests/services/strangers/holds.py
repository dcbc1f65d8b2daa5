"""A LitAPI that holds memory, and answers after the time that the request names."""

import os
import time
from typing import Any

import litserve as ls


class HoldsAPI(ls.LitAPI):  # type: ignore[misc] # litserve has no types
    """Holds `mib` of memory once it is set up."""

    def __init__(self, mib: int = 100) -> None:
        super().__init__()
        self._mib = mib

    def setup(self, device: str) -> None:
        self._held = b"x" * (self._mib * 2**20)

    def predict(self, request: dict[str, Any]) -> dict[str, int]:
        time.sleep(request.get("wait_s", 0))
        return {"pid": os.getpid()}
