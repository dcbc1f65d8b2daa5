"""What a stranger gets wrong: a model that cannot be loaded."""

import litserve as ls


class BrokenAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        raise FileNotFoundError("weights.bin")


class StubbornAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        while True:
            pass
