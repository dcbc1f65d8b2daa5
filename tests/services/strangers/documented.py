"""LitAPIs of the kinds that LitServe's documentation shows, written anew: one class for each way to write one."""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator

import litserve as ls
import numpy as np
from fastapi import HTTPException
from pydantic import BaseModel, Field


class SimpleAPI(ls.LitAPI):
    """Two models, one after the other."""

    def setup(self, device: str) -> None:
        self.square = lambda x: x**2
        self.cube = lambda x: x**3

    def decode_request(self, request):
        return request["input"]

    def predict(self, x):
        return {"squared": self.square(x), "cubed": self.cube(x)}

    def encode_response(self, output):
        return {"output": output["squared"] + output["cubed"], "device": str(self.device)}


double = lambda x: x * 2  # noqa: E731


class UnpicklableAPI(ls.LitAPI):
    """Its constructor makes what no other process can be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.model = double

    def predict(self, x):
        return self.model(x["input"])


class BareAPI(ls.LitAPI):
    """Nothing but predict."""

    def predict(self, x):
        return x


class Question(BaseModel):
    text: str = Field(min_length=2)
    top_k: int = 3


class Label(BaseModel):
    label: str
    score: float


class TypedAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.labels = ["cat", "dog"]

    def decode_request(self, request: Question) -> Question:
        return request

    def predict(self, x: Question) -> list[Label]:
        return [Label(label=label, score=len(x.text) / 7) for label in self.labels][: x.top_k]

    def encode_response(self, output: list[Label]) -> list[Label]:
        return output


class FormAPI(ls.LitAPI):
    """A file and a field, as a form or as JSON with base64."""

    def decode_request(self, request):
        content = request["content"]
        if isinstance(content, str):
            return base64.b64decode(content), request.get("name", "")
        return content.file.read(), request.get("name", content.filename)

    def predict(self, x):
        data, name = x
        return {"size": len(data), "sum": sum(data) % 997, "name": name}


class BatchedAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.model = lambda x: x**2

    def decode_request(self, request):
        return np.asarray(request["input"], dtype=np.float64)

    def predict(self, x):
        return self.model(x)

    def encode_response(self, output):
        return {"output": output.tolist()}


class CollatingAPI(ls.LitAPI):
    """A batch and an unbatch of its own, each with the context."""

    def decode_request(self, request, context):
        context["scale"] = request.get("scale", 1)
        return request["input"]

    def batch(self, inputs, context):
        return [item * each["scale"] for item, each in zip(inputs, context, strict=True)]

    def predict(self, x, context):
        return {"rows": [item + len(x) * 0 for item in x]}["rows"]

    def unbatch(self, output, context):
        return [(row, each["scale"]) for row, each in zip(output, context, strict=True)]

    def encode_response(self, output, context):
        return {"output": output[0], "scale": [output[1], context["scale"]]}


class StreamAPI(ls.LitAPI):
    def predict(self, x):
        if x.get("fail") == "first":
            raise HTTPException(418, "not before the first part")
        for number in range(x["count"]):
            if x.get("fail") == number:
                raise ValueError("in the middle")
            yield number

    def encode_response(self, output):
        for number in output:
            yield {"output": number}


class StreamTextAPI(ls.LitAPI):
    """Parts as text, bytes, and a model."""

    def predict(self, x):
        yield from ["é", b"\xff\x00", Label(label="x", score=0.5)]

    def encode_response(self, output):
        yield from output


class EventsAPI(ls.LitAPI):
    """Events made by hand."""

    def predict(self, x):
        yield from x["prompt"].split()

    def encode_response(self, output):
        for word in output:
            yield f"data: {word}\n\n"
        yield "data: [DONE]\n\n"


class BatchedStreamAPI(ls.LitAPI):
    def batch(self, inputs):
        return [item["prompt"] for item in inputs]

    def predict(self, x):
        for step in range(3):
            yield [f"{prompt}{step}" for prompt in x]

    def encode_response(self, output):
        for outputs in output:
            yield [{"text": text} for text in outputs]


class AsyncAPI(ls.LitAPI):
    def __init__(self) -> None:
        super().__init__(enable_async=True)

    async def decode_request(self, request):
        return request["input"]

    async def predict(self, x):
        await asyncio.sleep(0.001)
        return x * 2

    async def encode_response(self, output):
        return {"output": output}


class AsyncStreamAPI(ls.LitAPI):
    def __init__(self) -> None:
        super().__init__(enable_async=True, stream=True)

    async def predict(self, x) -> AsyncIterator[int]:
        for number in range(x["count"]):
            await asyncio.sleep(0.001)
            yield number

    async def encode_response(self, output: AsyncIterator[int]) -> AsyncIterator[str]:
        async for number in output:
            yield f"{number},"


class LimitError(Exception):
    """Looks like an HTTPException, and cannot be pickled."""

    def __init__(self, status: int, *, detail: str) -> None:
        super().__init__(detail)
        self.status_code = status
        self.detail = detail


class FailingAPI(ls.LitAPI):
    def decode_request(self, request):
        if request.get("where") == "decode":
            raise HTTPException(422, {"field": "where"})
        return request

    def predict(self, x):
        match x.get("where"):
            case "predict":
                raise ValueError("a secret")
            case "limit":
                raise LimitError(429, detail="slower")
            case "local":

                class OwnError(Exception):
                    pass

                raise OwnError(lambda: 0)
            case "key":
                return {}["other"]
        return {"text": x["text"]}


class ColumnsAPI(ls.LitAPI):
    """predict of a batch returns columns, or text, or too little."""

    def decode_request(self, request):
        return request["kind"]

    def predict(self, x):
        match x[0]:
            case "columns":
                return {"label": ["a"] * len(x), "score": [0.5] * len(x)}
            case "text":
                return "ab"
            case "short":
                return x[:-1]
        return x


class PoisonedAPI(ls.LitAPI):
    """One bad input fails predict of its whole batch."""

    def decode_request(self, request):
        if request["input"] == "undecodable":
            raise HTTPException(400, "undecodable")
        return request["input"]

    def predict(self, x):
        if "poison" in x:
            raise ValueError("poison")
        return [{"output": item, "together": len(x)} for item in x]

    def encode_response(self, output):
        return {**output, "bad": float("nan")} if output["output"] == "unencodable" else output


class UnevenStreamsAPI(ls.LitAPI):
    """Streams of a batch that end one after the other: with None for those that are finished, or left out."""

    def predict(self, x):
        for step in range(max(item["count"] for item in x)):
            parts = [f"{item['name']}{step}" if step < item["count"] else None for item in x]
            if x[0].get("leave_out"):
                parts = [part for part in parts if part is not None]
            yield parts

    def encode_response(self, output: Iterator[list[str]]) -> Iterator[list[str]]:
        yield from output
