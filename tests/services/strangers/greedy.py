"""A LitAPI that takes as much memory as a request says, for a moment."""

import os

import litserve as ls


class GreedyAPI(ls.LitAPI):
    def predict(self, x):
        block = bytearray(x["mib"] * 1024**2)
        block[::4096] = b"x" * len(block[::4096])  # pages that are touched, not only promised
        return {"pid": os.getpid(), "size": len(block)}
