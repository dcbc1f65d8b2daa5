"""More LitAPIs of the kinds that LitServe's documentation shows: request types, forms, batches, streams."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import litserve as ls
import numpy as np
from fastapi import Body, Form, Request, UploadFile
from pydantic import BaseModel, Field, field_validator


class RequestAPI(ls.LitAPI):
    """Says that it takes a Request, and gets what is in its body."""

    def decode_request(self, request: Request):
        return request["input"]

    def predict(self, x):
        return {"type": type(x).__name__, "value": x if isinstance(x, str | int | list) else x.filename}


class DictAPI(ls.LitAPI):
    def decode_request(self, request: dict[str, float]) -> float:
        return sum(request.values())

    def predict(self, x: float) -> float:
        return x

    def encode_response(self, output: float) -> dict[str, float]:
        return {"sum": output}


class ListAPI(ls.LitAPI):
    def decode_request(self, request: list[int]) -> list[int]:
        return request

    def predict(self, x: list[int]) -> int:
        return max(x)


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str

    @field_validator("name")
    @classmethod
    def _is_short(cls, name: str) -> str:
        if len(name) > 5:
            raise ValueError("too long for a dog")
        return name


class UnionAPI(ls.LitAPI):
    def decode_request(self, request: Annotated[Cat | Dog, Field(discriminator="kind")]):
        return request

    def predict(self, x: Cat | Dog) -> dict[str, Any]:
        return x.model_dump()


@dataclass
class Coordinates:
    x: float
    y: float = 0.5


class DataclassAPI(ls.LitAPI):
    def decode_request(self, request: Coordinates) -> Coordinates:
        return request

    def predict(self, x: Coordinates) -> Coordinates:
        return Coordinates(x.y, x.x)

    def encode_response(self, output: Coordinates) -> Coordinates:
        return output


class EmbeddedAPI(ls.LitAPI):
    """The body holds the value under the parameter's name."""

    def decode_request(self, request: Annotated[int, Body(embed=True, ge=0)]) -> int:
        return request

    def predict(self, x: int) -> int:
        return -x


class QueryAPI(ls.LitAPI):
    """FastAPI takes a plain type from the query."""

    def decode_request(self, request: int) -> int:
        return request

    def predict(self, x: int) -> int:
        return x * 10


class Login(BaseModel):
    name: str
    age: int = 0


class FormModelAPI(ls.LitAPI):
    def decode_request(self, request: Annotated[Login, Form()]) -> Login:
        return request

    def predict(self, x: Login) -> Login:
        return x

    def encode_response(self, output: Login) -> Login:
        return output


class UploadAPI(ls.LitAPI):
    def decode_request(self, request: UploadFile):
        return request.filename, request.content_type, request.file.read()

    def predict(self, x):
        name, content_type, data = x
        return {"name": name, "content_type": content_type, "size": len(data), "start": data[:4].hex()}


class FilesAPI(ls.LitAPI):
    """Several files under one name, and fields beside them."""

    def decode_request(self, request):
        return [file.file.read() for file in request.getlist("file")], dict(request.items()).keys()

    def predict(self, x):
        files, names = x
        return {"sizes": [len(file) for file in files], "names": sorted(names)}


class PathAPI(ls.LitAPI):
    """Its own path, its own health, and what LitServe tells it."""

    def __init__(self) -> None:
        super().__init__(api_path="/v2/classify")

    def setup(self, device: str) -> None:
        self.given = device

    def predict(self, x):
        return {"device": self.device, "given": self.given, "worker": os.environ["LITSERVE_WORKER_ID"]}

    def health(self) -> bool:
        return True


class LogAPI(ls.LitAPI):
    """Logs a figure for loggers that nobody attached."""

    def predict(self, x):
        self.log("figure", x["figure"])
        return x


class StackedAPI(ls.LitAPI):
    """A batch of arrays, which LitServe's own batch() stacks."""

    def decode_request(self, request):
        return np.asarray(request["input"], dtype=np.float64)

    def predict(self, x):
        return (x * 2).sum(axis=1)

    def encode_response(self, output):
        return {"sum": float(output)}


class TensorsAPI(ls.LitAPI):
    """A batch of a framework's own: batch and unbatch without a context."""

    def batch(self, inputs):
        return {"texts": [item["text"] for item in inputs]}

    def predict(self, x):
        return {"lengths": [len(text) for text in x["texts"]]}["lengths"]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"length": output}


class UnbatchedStreamAPI(ls.LitAPI):
    """A batched stream that unbatches by itself."""

    def predict(self, x):
        for step in range(2):
            yield {"rows": [(item["name"], step) for item in x]}

    def unbatch(self, output):
        for step in output:
            yield step["rows"]

    def encode_response(self, output):
        for rows in output:
            yield [f"{name}{step} " for name, step in rows]


class ContextStreamAPI(ls.LitAPI):
    def decode_request(self, request, context):
        context["mark"] = request["mark"]
        return request["text"]

    def predict(self, x, context):
        for letter in x:
            yield letter + context["mark"]

    def encode_response(self, output, context):
        for part in output:
            yield {"part": part, "mark": context["mark"]}


class MixedAsyncAPI(ls.LitAPI):
    """Only predict is async; LitServe runs the others in a thread."""

    def __init__(self) -> None:
        super().__init__(enable_async=True)

    def decode_request(self, request):
        return request["input"]

    async def predict(self, x):
        return await asyncio.gather(*(self._double(item) for item in x))

    def encode_response(self, output):
        return {"output": output}

    async def _double(self, x):
        await asyncio.sleep(0)
        return x * 2


class MixedAsyncStreamAPI(ls.LitAPI):
    """An async predict, and an encode_response that is left out."""

    def __init__(self) -> None:
        super().__init__(enable_async=True, stream=True)

    async def predict(self, x) -> AsyncIterator[str]:
        for word in x["text"].split():
            yield f"{word}\n"

    async def encode_response(self, output) -> AsyncIterator[str]:
        async for part in output:
            yield part


class PictureAPI(ls.LitAPI):
    """A picture in base64 in, and its bytes out."""

    def decode_request(self, request):
        return base64.b64decode(request["image"])

    def predict(self, x):
        return {"size": len(x), "image": base64.b64encode(x[::-1]).decode()}
