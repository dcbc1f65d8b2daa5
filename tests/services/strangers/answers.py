"""LitAPIs that answer with values and responses of every kind."""

import datetime
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

import litserve as ls
import numpy as np
from fastapi import Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
from pydantic import BaseModel


class Label(BaseModel):
    label: str
    score: float


class Colour(StrEnum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: float


class ValuesAPI(ls.LitAPI):
    """Answers with the value that is asked for by name."""

    def predict(self, x):
        if x["value"] == "tensors":
            import torch

            weights = torch.ones(1, requires_grad=True)
            return {"score": torch.tensor(0.5), "vector": torch.tensor([1, 2]), "graph": weights * 1}
        return {
            "text": "é\u2028</script>",
            "none": None,
            "floats": [1e16, 1e-7, 0.1, 1.0, -0.0, 123456789.123],
            "big": 2**70,
            "tuple": (1, 2),
            "set": {1},
            "keys": {1: "a", None: "b", 2.5: "c", False: "d"},
            "date": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
            "delta": datetime.timedelta(seconds=1.5),
            "path": PurePosixPath("a/b"),
            "enum": Colour.RED,
            "point": Point(1, 2.5),
            "model": Label(label="x", score=0.25),
            "models": [{"deep": Label(label="x", score=0.25)}],
            "bytes": b"abc",
            "float64": np.float64(0.1),
            "response": Response(b"<p>", 201, {"x-own": "1"}, "text/html"),
            "large": "x" * 2_000_000,
            "float32": np.float32(0.5),
            "int64": [np.int64(3)],
            "array": np.arange(3),
            "nan": {"scores": [0.5, float("nan")]},
            "object": {"a": [object()]},
            "counts": {"of": dict(zip(*np.unique([3, 3, 5], return_counts=True), strict=True))},
            "pairs": {(1, 2): 3},
        }[x["value"]]


class Narrow(BaseModel):
    label: str


class NarrowAPI(ls.LitAPI):
    """What it promises is less than what it returns."""

    def predict(self, x):
        return {"label": x["label"], "secret": 1}

    def encode_response(self, output) -> Narrow:
        return output


class RepliesAPI(ls.LitAPI):
    """Answers with responses of every kind."""

    def predict(self, x):
        match x["kind"]:
            case "html":
                return HTMLResponse("<p>é</p>")
            case "json":
                return JSONResponse({"a": "é"}, 202, {"x-own": "1"})
            case "text":
                return PlainTextResponse("é", 418)
            case "redirect":
                return RedirectResponse("/elsewhere")
            case "empty":
                return PlainTextResponse("", 204)
            case "cookie":
                response = JSONResponse({})
                response.set_cookie("a", "1")
                response.set_cookie("b", "2")
                return response
            case "picture":
                return PlainTextResponse(bytes(range(256)) * 2000, media_type="image/png")
            case "file":
                return FileResponse("/etc/hostname")
        return x["kind"]
