"""What a stranger writes for batches: predict takes a list; how many come together is for the settings to say."""

from time import sleep
from typing import Any

import litserve as ls


class BatchesAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.seen = 0

    def decode_request(self, request: dict[str, Any]) -> Any:
        return request["input"]

    def predict(self, x: list[Any]) -> list[dict[str, Any]]:
        sleep(0.2)  # long enough for more requests to queue
        return [{"output": item, "batch": len(x)} for item in x]


if __name__ == "__main__":
    ls.LitServer(BatchesAPI(max_batch_size=4, batch_timeout=0.1)).run(port=8000)
