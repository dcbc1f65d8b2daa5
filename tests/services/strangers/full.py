"""A LitAPI whose device has room for little."""

import litserve as ls
import torch


class FullAPI(ls.LitAPI):
    def setup(self, device):
        self.device = device

    def decode_request(self, request):
        return request["gib"]

    def predict(self, x):
        if max(x) > 1:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {max(x):.2f} GiB.")
        return x

    def encode_response(self, output):
        return {"gib": output}
