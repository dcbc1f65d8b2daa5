"""Calls a platform by KServe's client: `python with_kserve.py HOST:PORT PICTURE` prints what came of it as JSON."""

import asyncio
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

kserve: Any = importlib.import_module("kserve")
EMBEDDER, CLASSIFIER = "all-minilm-l6-v2", "efficientnet-lite0"
TEXTS = ["A cat sits on the mat.", "Serving costs something.", "x"]


def request(model: str, name: str, elements: list[Any], *, binary: bool, shape: list[int] | None = None) -> Any:
    """A request with one input of BYTES."""
    value = kserve.InferInput(name, shape or [len(elements)], "BYTES")
    value.set_data_from_numpy(np.array(elements, dtype=object).reshape(shape or [len(elements)]), binary_data=binary)
    return kserve.InferRequest(model, [value])


async def main(url: str, picture: bytes) -> dict[str, Any]:
    """Everything that the client can do here, and an error."""
    client = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2"))
    vectors = []
    for binary in (True, False):
        answer = await client.infer(url, request(EMBEDDER, "text", TEXTS, binary=binary), model_name=EMBEDDER)
        vectors.append(answer.outputs[0].as_numpy().tolist())
    labels = await client.infer(url, request(CLASSIFIER, "image", [picture], binary=True), model_name=CLASSIFIER)
    try:
        await client.infer(url, request(EMBEDDER, "text", TEXTS, binary=True, shape=[1, 3]), model_name=EMBEDDER)
        error = "none"
    except Exception as problem:  # the client's own class
        error = str(problem)
    return {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "models_ready": [await client.is_model_ready(url, name) for name in (EMBEDDER, CLASSIFIER, "nobody")],
        "vectors": vectors,
        "labels": labels.outputs[0].as_numpy().tolist(),
        "error": error,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(f"http://{sys.argv[1]}", Path(sys.argv[2]).read_bytes()))))
