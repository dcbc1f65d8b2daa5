"""Calls a platform by NVIDIA's client: `python with_triton.py HOST:PORT PICTURE` prints what came of it as JSON."""

import importlib
import json
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

http: Any = importlib.import_module("tritonclient.http")
utils: Any = importlib.import_module("tritonclient.utils")
EMBEDDER, CLASSIFIER = "all-minilm-l6-v2", "efficientnet-lite0"
TEXTS = ["A cat sits on the mat.", "Serving costs something.", "x"]


def tensor(name: str, elements: list[Any], *, binary: bool = True, shape: list[int] | None = None) -> Any:
    """An input of BYTES."""
    array = np.array(elements, dtype=object).reshape(shape or [len(elements)])
    value = http.InferInput(name, list(array.shape), "BYTES")
    value.set_data_from_numpy(array, binary_data=binary)
    return value


def error_of(call: Callable[[], Any]) -> list[Any]:
    """Status and message of the error that the client raises."""
    try:
        return ["none", str(call())]
    except utils.InferenceServerException as error:
        return [error.status(), error.message()]


def embed(client: Any, *, binary_input: bool, binary_output: bool) -> list[list[float]]:
    """The vectors of the texts."""
    output = http.InferRequestedOutput("embedding", binary_data=binary_output)
    result = client.infer(EMBEDDER, [tensor("text", TEXTS, binary=binary_input)], outputs=[output], request_id="r")
    assert result.get_response()["id"] == "r"
    vectors: list[list[float]] = result.as_numpy("embedding").tolist()
    return vectors


def main(address: str, picture: bytes) -> dict[str, Any]:
    """Everything that the client can do here, and errors."""
    client = http.InferenceServerClient(address, concurrency=8)
    numbers = http.InferInput("text", [2], "FP32")
    numbers.set_data_from_numpy(np.zeros(2, np.float32))
    cut = tensor("text", TEXTS)
    cut._raw_data = cut._raw_data[:-1]  # the client itself sends no such body
    labels = client.infer(CLASSIFIER, [tensor("image", [picture] * 2)], parameters={"top_k": 3})
    classes = http.InferRequestedOutput("scores", class_count=2)
    calls = [client.async_infer(EMBEDDER, [tensor("text", TEXTS)]) for _ in range(8)]
    shapes = [list(call.get_result().as_numpy("embedding").shape) for call in calls]
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "models_ready": [client.is_model_ready(name) for name in (EMBEDDER, CLASSIFIER, "nobody")],
        "metadata": client.get_model_metadata(EMBEDDER),
        "vectors": [
            embed(client, binary_input=first, binary_output=second)
            for first, second in product((True, False), repeat=2)
        ],
        "labels": [[label.decode() for label in row] for row in labels.as_numpy("labels").tolist()],
        "scores": labels.as_numpy("scores").tolist(),
        "shapes": shapes,
        "errors": {
            "name": error_of(lambda: client.infer(EMBEDDER, [tensor("words", TEXTS)])),
            "shape": error_of(lambda: client.infer(EMBEDDER, [tensor("text", TEXTS, shape=[1, 3])])),
            "datatype": error_of(lambda: client.infer(EMBEDDER, [numbers])),
            "cut": error_of(lambda: client.infer(EMBEDDER, [cut])),
            "no picture": error_of(lambda: client.infer(CLASSIFIER, [tensor("image", [picture, b"none"])])),
            "classification": error_of(
                lambda: client.infer(CLASSIFIER, [tensor("image", [picture])], outputs=[classes])
            ),
            "timeout": error_of(lambda: client.infer(EMBEDDER, [tensor("text", TEXTS)], timeout=5)),
            "unknown": error_of(lambda: client.get_model_metadata("nobody")),
            "language model": error_of(lambda: client.infer("smollm2-135m-instruct", [tensor("text", TEXTS)])),
            "repository": error_of(client.get_model_repository_index),
        },
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]).read_bytes())))
