"""The document and the page of the running demo: what they offer works on all three models, with nothing written by us.

A client generated from /openapi.json calls each, every example is sent as it stands, and a browser tries each on /docs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import skimage
from openapi_spec_validator import validate
from playwright.sync_api import Locator, Page

from tests.conftest import Platform
from tests.services import generated
from tests.services.chromium import NEEDS_CHROMIUM, chromium

CHAT = "smollm2-135m-instruct"
CAT = Path(skimage.__file__).parent / "data" / "chelsea.png"
CATS = {"tabby", "tiger cat", "Egyptian cat"}


@pytest.fixture(scope="module")
def document(platform: Platform) -> dict[str, Any]:
    answer = platform.http.get("/openapi.json", timeout=20)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_the_document_of_the_demo_is_valid_and_names_its_models(document: dict[str, Any]) -> None:
    validate(document)
    assert CHAT in document["paths"]["/v1/chat/completions"]["post"]["description"]
    assert "all-minilm-l6-v2" in document["paths"]["/v1/embeddings"]["post"]["description"]
    assert "/predict/efficientnet-lite0" in document["paths"]


def test_every_example_of_the_document_works_as_it_stands(platform: Platform, document: dict[str, Any]) -> None:
    refused = {}
    tried = set()
    for path, item in document["paths"].items():
        content = item.get("post", {}).get("requestBody", {}).get("content", {})
        example = content.get("application/json", {}).get("example")
        if example is None:
            continue
        answer = platform.http.post(path, json=example, timeout=120)
        tried.add(path)
        if answer.status_code != 200:
            refused[path] = f"{answer.status_code}: {answer.text[:300]}"
    assert refused == {}
    assert {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/predict/efficientnet-lite0"} <= tried


_SCRIPT = """
import base64, json, sys
from pathlib import Path
import openapi_client
from openapi_client import models

url, picture = sys.argv[1:]
with openapi_client.ApiClient(openapi_client.Configuration(host=url)) as client:
    inference = openapi_client.InferenceApi(client)
    predict = openapi_client.PredictApi(client)
    platform = openapi_client.PlatformApi(client)
    chat = inference.create_chat_completion(
        models.Smollm2135mInstructChatCompletionRequest.from_dict({
            "model": "smollm2-135m-instruct",
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "temperature": 0,
            "max_tokens": 20,
        })
    )
    vectors = inference.create_embedding(
        models.AllMinilmL6V2InputRequest.from_dict({"model": "all-minilm-l6-v2", "input": ["a cat", "a kitten"]})
    )
    labels = predict.predict_efficientnet_lite0(
        models.PredictEfficientnetLite0Request(image=base64.b64encode(Path(picture).read_bytes()).decode(), top_k=3)
    )
    print(json.dumps({
        "chat": chat["choices"][0]["message"]["content"],
        "dimensions": [len(item.embedding.actual_instance) for item in vectors.data],
        "labels": [found.label for found in labels.predictions],
        "states": {model.name: model.state for model in platform.get_status().models},
    }))
"""


@pytest.mark.long
def test_a_client_that_a_generator_makes_calls_all_three_models(
    platform: Platform, document: dict[str, Any], tmp_path: Path
) -> None:
    client = generated.generate(document, tmp_path)
    answers = generated.call(client, _SCRIPT, platform.url, str(CAT))
    assert "Paris" in answers["chat"]
    assert answers["dimensions"] == [384, 384]
    assert set(answers["labels"]) & CATS
    assert set(answers["states"].values()) == {"ready"}


@pytest.fixture
def page(platform: Platform) -> Iterator[Page]:
    """The page in a browser; it must not have complained in the end."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 1400})
        console: list[str] = []
        page.on("console", lambda message: console.append(message.text))
        page.on("pageerror", lambda error: console.append(str(error)))
        page.goto(f"{platform.url}/docs")
        page.locator(".opblock").first.wait_for()
        yield page
    assert console == []


@NEEDS_CHROMIUM
@pytest.mark.long
def test_each_model_can_be_tried_on_the_page(page: Page) -> None:
    assert '"content": "The capital of France is Paris."' in _tried(_opened(page, "create_chat_completion"))
    assert '"embedding": [' in _tried(_opened(page, "create_embedding"))
    picture = _opened(page, "predict_efficientnet_lite0")
    picture.locator("input[type=file]").set_input_files(CAT)
    assert "tabby" in _tried(picture)


def _opened(page: Page, operation: str) -> Locator:
    block = page.locator(f"[id$='-{operation}'].opblock")
    block.locator("button.opblock-summary-control").click()
    block.locator("button.execute").wait_for(timeout=60_000)
    return block


def _tried(block: Locator) -> str:
    """Send what stands there; the body of the answer, which is a 200."""
    block.locator("button.execute").click()
    answer = block.locator(".live-responses-table .response").first
    answer.wait_for(timeout=120_000)
    assert answer.locator(".response-col_status").inner_text().split()[0] == "200", answer.inner_text()
    return answer.inner_text()
