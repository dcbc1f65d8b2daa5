"""Each kind of LitAPI answers on the worker host as on plain LitServe, but for the differences that are meant."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from servers.apis import registry
from servers.store import Store
from tests.servers.apis import tiny
from tests.servers.engines.litserve.host import cases, twins
from tests.servers.engines.litserve.host.twins import Case, Outcome, Twins

# What is different in each answer, or in each process.
_OWN = [
    (rb"chatcmpl-[0-9a-f]+", b"chatcmpl-0"),
    (rb'"created":\d+', b'"created":0'),
    (rb'"pid": ?\d+', b'"pid":0'),
    (rb'"embedding":\[\d+\.0\]', b'"embedding":[0.0]'),
]
# Of the front door's own connection: aiohttp prefers files to long bodies.
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:Sending a large body")]


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    with twins.running(tmp_path_factory.mktemp("l"), cases.LIGHT) as both:
        yield both


@pytest.fixture(scope="module")
def batched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    """LitServe's batching workers are busy at rest, so that few tests should run beside them."""
    with twins.running(tmp_path_factory.mktemp("b"), cases.BATCHES) as both:
        yield both


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[Twins]:
    folder = tmp_path_factory.mktemp("m")
    models = {
        "causal-lm": tiny.language_model(folder / "lm"),
        "causal-lm-stream": folder / "lm",
        "pipeline": tiny.text_classifier(folder / "text"),
        "image-classification": tiny.picture_classifier(folder / "picture"),
        "embedding": Store(model_cache).pull("all-minilm-l6-v2"),
    }
    options: dict[str, Any] = {"pipeline": {"task": "text-classification"}}
    complete = [
        replace(
            case, settings={**case.settings, "model_dir": str(models[case.name]), "init": options.get(case.name, {})}
        )
        for case in cases.BUILT_IN
    ]
    with twins.running(tmp_path_factory.mktemp("u"), complete) as both:
        yield both


@pytest.mark.parametrize("case", cases.LIGHT, ids=lambda case: str(case.name))
def test_an_api_answers_as_on_plain_litserve(case: Case, light: Twins) -> None:
    _compare(case, light)


@pytest.mark.parametrize("case", cases.BATCHES, ids=lambda case: str(case.name))
def test_an_api_with_batches_answers_as_on_plain_litserve(case: Case, batched: Twins) -> None:
    _compare(case, batched)


@pytest.mark.parametrize("case", cases.BUILT_IN, ids=lambda case: str(case.name))
def test_a_built_in_api_answers_as_on_plain_litserve(case: Case, built_in: Twins) -> None:
    _compare(case, built_in)


def _compare(case: Case, both: Twins) -> None:
    hosted, plain = both.ask(case, *case.requests)
    for request, outcome, expected in zip(case.requests, hosted, plain, strict=True):
        assert _without_own(outcome) == _without_own(expected), request
    if "servers.apis" not in case.api and case.api not in registry.BUILT_IN:  # these declare more than signatures can
        route, expected_route = both.documents(case)
        assert _plain_words(route["post"]) == _plain_words(expected_route["post"])


def _without_own(outcome: Outcome) -> Outcome:
    body = outcome.body
    for pattern, replacement in _OWN:
        body = re.sub(pattern, replacement, body)
    return outcome._replace(body=body)


def _plain_words(route: dict[str, Any]) -> dict[str, Any]:
    """A route without its path's name and what Litport adds to the document."""
    added = {"description", "operationId", "responses"}
    plain = {name: value for name, value in route.items() if name not in added}
    words: dict[str, Any] = json.loads(re.sub(r"Body_endpoint_handler_\w+", "Body", json.dumps(plain)))
    return words
