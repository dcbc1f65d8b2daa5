"""A LitAPI whose worker is killed by some requests, and which cannot start once a file is there.

Such a request may name a file that tells that it has `begun`, and one `until` which it waits.
"""

import os
import signal
import time
from pathlib import Path

import litserve as ls


class DiesAPI(ls.LitAPI):
    def __init__(self, broken_when=None):
        super().__init__()
        self.broken_when = broken_when

    def setup(self, device):
        if self.broken_when and Path(self.broken_when).exists():
            raise ValueError("the weights are gone")

    def predict(self, request):
        if request["input"] == "out of memory":
            if "until" in request:
                Path(request["begun"]).touch()
                while not Path(request["until"]).exists():
                    time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return {"output": request["input"]}
