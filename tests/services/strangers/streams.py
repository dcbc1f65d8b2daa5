"""What a stranger writes for streams: predict and encode_response yield, one by one or a list a batch."""

from collections.abc import Iterator
from time import sleep
from typing import Any

import litserve as ls


class CountdownAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        pass

    def predict(self, x: dict[str, Any]) -> Iterator[int]:
        for number in range(x["from"], 0, -1):
            sleep(x.get("pause_s", 0))
            yield number

    def encode_response(self, output: Iterator[int]) -> Iterator[dict[str, int]]:
        for number in output:
            yield {"number": number}


class BatchedCountdownAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        pass

    def predict(self, x: list[dict[str, Any]]) -> Iterator[list[int]]:
        for number in range(max(item["from"] for item in x), 0, -1):
            yield [number for _ in x]

    def encode_response(self, output: Iterator[list[int]]) -> Iterator[list[dict[str, int]]]:
        for numbers in output:
            yield [{"number": number} for number in numbers]


if __name__ == "__main__":
    ls.LitServer(CountdownAPI(stream=True)).run(port=8000)
