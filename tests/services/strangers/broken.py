"""What a stranger gets wrong: a model that cannot be loaded."""

import os
import signal
import sys

import litserve as ls
from litserve.loops import SingleLoop


class BrokenAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        raise FileNotFoundError("weights.bin")


class StubbornAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        while True:
            pass


class DyingAPI(ls.LitAPI):
    """Killed in setup, as by a lack of memory."""

    def setup(self, device: str) -> None:
        sys.stderr.write("loading the last layer\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)


class LeavingAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        sys.exit(7)


class OwnLoop(SingleLoop):
    """A loop of its own, which only LitServe's server runs."""


class OwnLoopAPI(ls.LitAPI):
    def __init__(self) -> None:
        super().__init__(loop=OwnLoop())

    def predict(self, x: object) -> object:
        return x
