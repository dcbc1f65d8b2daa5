"""The generic models through the front door: pictures, vectors, and a stranger's API."""

import base64
from pathlib import Path

import pytest
import skimage

from servers.store import Store
from tests.conftest import Platform

CAT = Path(skimage.__file__).parent / "data" / "chelsea.png"
SENTENCES = ["A cat sits on the mat.", "Serving costs something.", "x", "The same words, " * 20]


def test_a_picture_of_a_cat_is_a_cat_by_upload_and_by_base64(platform: Platform) -> None:
    path = "/predict/efficientnet-lite0"
    picture = CAT.read_bytes()
    uploaded = platform.http.post(path, files={"image": ("cat.png", picture, "image/png")}, timeout=60).json()
    encoded = platform.http.post(path, json={"image": base64.b64encode(picture).decode()}, timeout=60).json()
    assert uploaded == encoded
    assert len(uploaded["predictions"]) == 5
    assert {"tabby", "tiger cat", "Egyptian cat"} & {found["label"] for found in uploaded["predictions"]}


def test_embeddings_equal_transformers_with_mean_pooling(platform: Platform, model_cache: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = Store(model_cache).pull("all-minilm-l6-v2")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    batch = tokenizer(SENTENCES, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    expected = (hidden * mask).sum(1) / mask.sum(1)

    body = {"model": "all-minilm-l6-v2", "input": SENTENCES}
    answer = platform.http.post("/v1/embeddings", json=body, timeout=60).json()
    served = torch.tensor([item["embedding"] for item in answer["data"]])
    assert torch.cosine_similarity(served, expected).min() >= 0.9999


def test_a_field_that_an_embedding_spec_drops_is_named(platform: Platform) -> None:
    body = {"model": "all-minilm-l6-v2", "input": "x", "truncate": True, "encoding_format": "base64"}
    answer = platform.http.post("/v1/embeddings", json=body, timeout=60)
    assert (answer.status_code, answer.headers["x-litport-ignored-fields"]) == (200, "truncate")
    empty = platform.http.post("/v1/embeddings", json={**body, "input": []}, timeout=60)
    assert (empty.status_code, empty.json()["error"]["param"]) == (400, "input")


def test_an_api_written_for_plain_litserve_runs_unchanged_from_its_file(platform: Platform) -> None:
    answer = platform.http.post("/predict/squares", json={"input": 7}, timeout=60)
    assert answer.json() == {"output": 49}


def test_a_form_for_an_api_that_takes_json_is_called_one(platform: Platform) -> None:
    answer = platform.http.post("/predict/squares", data={"input": "7"}, timeout=60)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].endswith("; the body came as application/x-www-form-urlencoded")


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b""])
def test_a_body_that_is_no_json_is_the_clients_mistake(platform: Platform, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = platform.http.post("/predict/squares", content=body, headers=headers, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_json"
