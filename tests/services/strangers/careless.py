"""What people write without a thought for what LitServe does with it: each fails there, or is quietly wrong."""

import time
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import litserve as ls
import numpy as np
from fastapi import HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

if TYPE_CHECKING:
    from fastapi import Request

T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    item: T


class GenericAPI(ls.LitAPI):
    """A request that cannot be pickled."""

    def decode_request(self, request: Box[int]) -> int:
        return request.item

    def predict(self, x: int) -> int:
        return x + 1


class QuotedAPI(ls.LitAPI):
    """Names its type for type checkers only."""

    def decode_request(self, request: "Request"):
        return request["input"]

    def predict(self, x):
        return x


class BusyAPI(ls.LitAPI):
    def predict(self, x):
        raise HTTPException(503, "busy", {"retry-after": "3"})


class SendsAPI(ls.LitAPI):
    """Answers with responses that read as they go, or with values that are no JSON."""

    def predict(self, x):
        match x["kind"]:
            case "stream":
                return StreamingResponse(iter(["a", "b"]), media_type="text/csv")
            case "surrogate":
                return "\ud800"
            case "picture":
                from PIL import Image

                return {"image": Image.new("RGB", (2, 2))}
            case "numpy":
                return {"scores": np.arange(3, dtype=np.float32), "best": np.int64(2), "is_sure": np.bool_(True)}
            case "nan":
                return {"scores": [{"label": "a", "score": np.float32("nan")}]}
            case "set":
                return {"labels": {"a"}, "took": timedelta(seconds=1)}
            case "zip":
                return zip(["a"], [1], strict=True)
            case "bytes":
                return {"raw": b"\xff"}
        return BytesIO()


class Score(BaseModel):
    label: str
    score: float


class PromiseAPI(ls.LitAPI):
    """Does not keep what its signature promises."""

    def predict(self, x):
        return {"label": x["label"]}

    def encode_response(self, output) -> Score:
        return output


class NestedAPI(ls.LitAPI):
    """Asks for fields within fields, in decode_request and, without one, in predict."""

    def predict(self, x):
        return x["image"]["data"]


class PartsAPI(ls.LitAPI):
    """Yields parts that are no text, or values that JSON does not have."""

    def predict(self, x):
        yield from x.get("parts") or [{"score": np.float32(0.5) if x["named"] == "numpy" else float("nan")}]

    def encode_response(self, output: Iterator[Any]) -> Iterator[Any]:
        yield from output


class StatefulHealthAPI(ls.LitAPI):
    """Is healthy once it is set up, which only the worker is."""

    def setup(self, device: str) -> None:
        self.device_name = device

    def predict(self, x):
        return x

    def health(self) -> bool:
        return self.device_name == "cpu"


class PlainVectorsAPI(ls.LitAPI):
    """Knows nothing of `dimensions`."""

    def __init__(self) -> None:
        super().__init__(spec=ls.OpenAIEmbeddingSpec())

    def predict(self, x):
        return [[0.5, 0.25, 0.125] for _ in ([x] if isinstance(x, str) else x)]


class FailingChatAPI(ls.LitAPI):
    """A chat that fails before its first word, or after it."""

    def __init__(self) -> None:
        super().__init__(spec=ls.OpenAISpec())

    def predict(self, x):
        if x[-1]["content"] == "early":
            raise HTTPException(429, "not now", {"retry-after": "7"})
        yield "one"
        time.sleep(0.5)  # until it is on its way
        raise ValueError("a secret")

    def decode_request(self, request):
        return [message.model_dump() for message in request.messages]
