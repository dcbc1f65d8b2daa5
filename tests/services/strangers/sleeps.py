"""A LitAPI that takes its time: sleeps for `input` seconds."""

import time

import litserve as ls


class SleepsAPI(ls.LitAPI):
    def setup(self, device):
        self.device = device

    def predict(self, request):
        time.sleep(request["input"])
        return {"output": request["input"]}
