"""The Open Inference Protocol on the shared platform: real vectors and pictures, in JSON and in binary form."""

import json
import struct
from typing import Any

import httpx
import numpy as np
import pytest

from tests.conftest import Platform
from tests.end_to_end.test_generic import CAT, SENTENCES

VECTORS = "/v2/models/all-minilm-l6-v2"
PICTURES = "/v2/models/efficientnet-lite0"
TEXTS = {"name": "text", "datatype": "BYTES", "shape": [len(SENTENCES)], "data": SENTENCES}


def _binary(elements: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def _post(platform: Platform, path: str, header: Any, binary: bytes = b"") -> httpx.Response:
    """As tritonclient sends it: without a content type, and with the length of the header where bytes follow it."""
    text = json.dumps(header).encode()
    headers = {"inference-header-content-length": str(len(text))} if binary else {}
    request = platform.http.build_request("POST", path, content=text + binary, headers=headers, timeout=60)
    assert "content-type" not in request.headers
    return platform.http.send(request)


def _outputs(answer: httpx.Response) -> dict[str, Any]:
    """The outputs of a binary answer: arrays of FP32, and lists of bytes."""
    size = int(answer.headers["inference-header-content-length"])
    outputs: dict[str, Any] = {}
    for output in json.loads(answer.content[:size])["outputs"]:
        part = answer.content[size : size + output["parameters"]["binary_data_size"]]
        size += len(part)
        if output["datatype"] == "FP32":
            outputs[output["name"]] = np.frombuffer(part, "<f4").reshape(output["shape"])
        else:
            elements = []
            while part:
                length = struct.unpack_from("<I", part)[0]
                elements.append(part[4 : 4 + length])
                part = part[4 + length :]
            outputs[output["name"]] = elements
    assert size == len(answer.content)
    return outputs


def test_vectors_are_those_of_the_openai_route_in_json_and_in_binary(platform: Platform) -> None:
    body = {"model": "all-minilm-l6-v2", "input": SENTENCES}
    expected = [row["embedding"] for row in platform.http.post("/v1/embeddings", json=body, timeout=60).json()["data"]]
    answer = _post(platform, f"{VECTORS}/infer", {"id": "r", "inputs": [TEXTS]}).json()
    [output] = answer.pop("outputs")
    assert answer == {"id": "r", "model_name": "all-minilm-l6-v2", "model_version": "1"}
    assert output["shape"] == [len(SENTENCES), 384]
    np.testing.assert_allclose(np.reshape(output["data"], (-1, 384)), expected, atol=1e-5)

    binary = _binary([sentence.encode() for sentence in SENTENCES])
    texts = {"name": "text", "datatype": "BYTES", "shape": [4], "parameters": {"binary_data_size": len(binary)}}
    header = {"inputs": [texts], "parameters": {"binary_data_output": True}}
    reply = _post(platform, f"{VECTORS}/versions/1/infer", header, binary)
    assert reply.headers["content-type"] == "application/octet-stream"
    np.testing.assert_allclose(_outputs(reply)["embedding"], expected, atol=1e-5)


def test_pictures_of_one_request_get_a_row_each(platform: Platform) -> None:
    single = platform.http.post("/predict/efficientnet-lite0", files={"image": CAT.read_bytes()}, timeout=60).json()
    binary = _binary([CAT.read_bytes()] * 3)
    image = {"name": "image", "datatype": "BYTES", "shape": [3], "parameters": {"binary_data_size": len(binary)}}
    header = {"inputs": [image], "parameters": {"binary_data_output": True, "top_k": 2}}
    outputs = _outputs(_post(platform, f"{PICTURES}/infer", header, binary))
    best = single["predictions"][:2]
    assert outputs["labels"] == [entry["label"].encode() for entry in best] * 3
    np.testing.assert_allclose(outputs["scores"], [[entry["score"] for entry in best]] * 3, atol=1e-4)


def test_health_and_metadata_are_as_the_protocol_has_them(platform: Platform) -> None:
    get = platform.http.get
    assert get("/v2/health/live").json() == {"live": True}
    assert get("/v2/health/ready").json() == {"ready": True}
    assert get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert get(f"{VECTORS}/ready").json() == {"name": "all-minilm-l6-v2", "ready": True}
    metadata = get(VECTORS).json()
    assert metadata == get(f"{VECTORS}/versions/1").json()
    assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert metadata["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 384]}]
    assert platform.status()["all-minilm-l6-v2"]["paths"] == [
        "/v1/embeddings",
        "/predict/all-minilm-l6-v2",
        f"{VECTORS}/infer",
    ]


@pytest.mark.parametrize(
    ("path", "inputs", "status", "problem"),
    [
        (VECTORS, [], 400, "expected 1 inputs but got 0 for model 'all-minilm-l6-v2': missing 'text'"),
        (VECTORS, [TEXTS | {"shape": [2, 2]}], 400, "unexpected shape for input 'text' for model 'all-minilm-l6-v2'"),
        (VECTORS, [TEXTS | {"datatype": "FP32"}], 400, "data-type is 'FP32', but model 'all-minilm-l6-v2' expects"),
        (VECTORS, [TEXTS | {"data": ["a", "", "b", "c"]}], 400, "input 'text': expected no empty input, but item 1"),
        (VECTORS, [TEXTS | {"shape": [1], "data": ["word " * 900]}], 400, "at most 256 tokens, item 0 has 902"),
        (PICTURES, [TEXTS | {"name": "image"}], 400, "input 'image': element 0: expected a picture"),
        (f"{VECTORS}/versions/2", [TEXTS], 404, "version 2 is not found; there is version 1"),
        ("/v2/models/nobody", [TEXTS], 404, "Request for unknown model: 'nobody' is not found"),
        (
            "/v2/models/smollm2-135m-instruct",
            [TEXTS],
            400,
            "does not serve /v2; it serves /tokenize|/v1/chat/completions",
        ),
        ("/v2/models/squares", [TEXTS], 400, "model 'squares' does not serve /v2; it serves /predict/squares"),
    ],
)
def test_errors_are_a_text_that_names_what_is_wrong(
    platform: Platform, path: str, inputs: Any, status: int, problem: str
) -> None:
    answer = _post(platform, f"{path}/infer", {"inputs": inputs})
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}
    assert any(part in answer.json()["error"] for part in problem.split("|"))


def test_what_is_not_there_has_the_same_form(platform: Platform) -> None:
    for answer in (
        platform.http.post("/v2/repository/index"),
        platform.http.get("/v2/models/stats"),
        platform.http.get(f"{VECTORS}/infer"),
        _post(platform, f"{VECTORS}/infer", [[[[]]]] * 2),
        platform.http.post(f"{VECTORS}/infer", content=b"[" * 1000 + b"]" * 1000),
    ):
        assert 400 <= answer.status_code < 500
        assert isinstance(answer.json()["error"], str)
    assert platform.http.get("/v2/models/smollm2-135m-instruct/ready").status_code == 400


def test_its_requests_are_counted_and_audited(platform: Platform) -> None:
    answer = _post(platform, f"{VECTORS}/infer", {"inputs": [TEXTS]})
    line = platform.audited(answer.headers["x-request-id"])
    assert (line["model"], line["status"], line["path"]) == ("all-minilm-l6-v2", 200, f"{VECTORS}/infer")
    page = httpx.get(platform.http.get("/status").json()["metrics_address"]).text
    series = (
        'litport_requests_total{key="anonymous",model="all-minilm-l6-v2",route="/v2/models/{model}/infer",status="200"}'
    )
    assert series in page
