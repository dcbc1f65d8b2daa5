"""APIs of people whose validators, exceptions and answers are not what a framework expects of them."""

import time
from collections import OrderedDict
from dataclasses import dataclass

import litserve as ls
from fastapi import HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, field_validator

PRICES = {"apple": 3}


class Order(BaseModel):
    fruit: str

    @field_validator("fruit")
    @classmethod
    def _has_price(cls, fruit: str) -> str:
        if fruit == "gone":
            raise HTTPException(410, "sold out")
        PRICES[fruit]
        return fruit


class OrderAPI(ls.LitAPI):
    """Its validator raises what pydantic does not expect."""

    def decode_request(self, request: Order) -> str:
        return request.fruit

    def predict(self, x):
        return [PRICES[fruit] for fruit in x] if isinstance(x, list) else PRICES[x]


class ListedHeadersError(HTTPException):
    """Its headers are pairs."""

    def __init__(self) -> None:
        super().__init__(429, "slow down")
        self.headers = [("Retry-After", 3)]  # type: ignore[assignment]


class UnspeakableError(Exception):
    """Neither its detail nor its text can be had."""

    status_code = 418

    @property
    def detail(self) -> str:
        raise RuntimeError("no detail")

    def __str__(self) -> str:
        raise RuntimeError("no text")


class RaisesAPI(ls.LitAPI):
    """Raises what it is asked for, or answers with such headers."""

    def predict(self, x):
        match x["raise"]:
            case "number":
                raise HTTPException(429, "quota", headers={"Retry-After": 30, "X-None": None})  # type: ignore[dict-item]
            case "outside":
                raise HTTPException(
                    400, "size", headers={"X-Size": "größe 漢", "X-Line": "a\nb", "X Y": "z", "X-Ok": "ü"}
                )
            case "pairs":
                raise ListedHeadersError
            case "unspeakable":
                raise UnspeakableError
            case "informational":
                raise HTTPException(100, "wait")
            case "response":
                response = JSONResponse({"x": 1})
                response.raw_headers.append((b"x-line", b"a\r\nb"))
                return response
        return "fine"


class AsyncRaisesAPI(RaisesAPI):
    """The same, and slow requests beside it."""

    def __init__(self) -> None:
        super().__init__(enable_async=True)

    async def decode_request(self, request):
        return request

    async def predict(self, x):
        return super().predict(x)

    async def encode_response(self, output):
        return output


class ColumnsAPI(ls.LitAPI):
    """Makes its outputs of columns by itself."""

    def predict(self, x):
        return OrderedDict(text=[value["text"] for value in x], size=[len(value["text"]) for value in x])

    def unbatch(self, output):
        return [{"text": text, "size": size} for text, size in zip(output["text"], output["size"], strict=True)]


@dataclass
class ConfiguredAPI(ls.LitAPI):
    """A dataclass, whose fields are its settings."""

    threshold: float = 0.5

    def __post_init__(self) -> None:
        ls.LitAPI.__init__(self)

    def predict(self, x):
        return self.threshold


try:
    import a_package_that_nobody_has  # type: ignore[import-not-found]  # noqa: F401
except ImportError:

    class FallbackAPI(ls.LitAPI):
        """There where a package is not."""

        def predict(self, x):
            return "fallback"


class LargeAPI(ls.LitAPI):
    """Answers with as many bytes as it is asked for."""

    def predict(self, x):
        time.sleep(0.01)  # is not quick, so that it gets no work ahead
        return "x" * x["size"]
