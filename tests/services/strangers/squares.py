"""What a stranger writes for plain LitServe: a constructor of its own, no batches, no streams, nothing of ours."""

import litserve as ls


class SquaresAPI(ls.LitAPI):
    def __init__(self, power: int = 2) -> None:
        super().__init__()
        self.power = power

    def setup(self, device: str) -> None:
        self.model = lambda x: x**self.power

    def decode_request(self, request: dict[str, float]) -> float:
        return request["input"]

    def predict(self, x: float) -> float:
        return self.model(x)

    def encode_response(self, output: float) -> dict[str, float]:
        return {"output": output}


if __name__ == "__main__":
    ls.LitServer(SquaresAPI()).run(port=8000)
