"""What a stranger gets wrong slowly: every request leaves something behind, memory or an open file, as told."""

import os

import litserve as ls


class LeaksAPI(ls.LitAPI):
    def __init__(self, what: str = "memory") -> None:
        super().__init__()
        self.what = what

    def setup(self, device: str) -> None:
        self.kept = []

    def predict(self, request: dict) -> dict:
        if self.what == "memory":
            self.kept.append(b"x" * 100_000)
        else:
            self.kept.append(os.open(os.devnull, os.O_RDONLY))
        return {"output": len(self.kept)}
