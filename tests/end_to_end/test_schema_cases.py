"""Requests made from the platform's own OpenAPI document, right and wrong: whatever comes, the answer is an answer.

There are 60 of them, and SCHEMA_CASES (500) in the long form; 20000 take half an hour or more.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis.configuration import set_hypothesis_home_dir
from schemathesis.core.errors import UnsupportedSchema
from schemathesis.core.result import Err

from tests.conftest import REPOSITORY, Platform, serving

set_hypothesis_home_dir(REPOSITORY / ".cache" / "hypothesis")  # not a folder of its own beside the code

COUNT = 60
LONG_COUNT = int(os.environ.get("SCHEMA_CASES", "500"))
_LIMIT_S = 60
_SHARE_WITH_OWN_NAME = 10  # one in so many keeps the model name that was made for it
_TENSOR_ROUTES = ("/v2/models", "/v2/health")
_STRANGERS = {"/predict/squares"}
# What a 5xx may mean: not ready or died, too late, no room.
_EXPLAINED = {503, 504, 507}
_ERROR_FIELDS = {"message", "type", "param", "code"}


@dataclass
class Cases:
    """What was sent, and what was wrong with the answers."""

    sent: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    longest_s: float = 0

    @property
    def count(self) -> int:
        """How many were answered."""
        return sum(self.statuses.values())

    def blame(self, problem: str, example: str) -> None:
        """Count a problem; the shortest request that showed it is kept."""
        self.problems[problem] += 1
        self.examples[problem] = min(self.examples.get(problem, example), example, key=len)


def cases(url: str, openapi: dict[str, Any], count: int) -> Cases:
    """Send about `count` requests, spread over all operations of the document, half of them against its schemas.

    An operation that has only a few different requests gets no more than those. Requests are the same in every run.
    """
    models = _models(url)
    schema = schemathesis.openapi.from_dict(_without_deadlines(openapi))
    operations = []
    for found in schema.get_all_operations():
        if isinstance(found, Err):
            raise found.err()
        operations.append(found.ok())
    # What has a body has more to be wrong.
    shares = {operation.label: 8 if operation.body else 1 for operation in operations}
    result = Cases()
    for operation in operations:
        wanted = max(2, round(count * shares[operation.label] / sum(shares.values()) / 2))
        for mode in schemathesis.GenerationMode:
            try:
                _send_all(url, operation, mode, wanted, models, result)
            except hypothesis.errors.Unsatisfiable:
                result.sent[f"{operation.label} {mode.value}: nothing to make"] += 1
            except UnsupportedSchema:  # some of what it draws against a schema it cannot make
                if not result.sent[f"{operation.label} {mode.value}"]:
                    raise
                result.sent[f"{operation.label} {mode.value}: cut short"] += 1
    return result


def _send_all(
    url: str,
    operation: Any,
    mode: schemathesis.GenerationMode,
    count: int,
    models: dict[str, list[str]],
    result: Cases,
) -> None:
    @hypothesis.seed(0)
    @hypothesis.settings(
        max_examples=count,
        database=None,  # nothing is kept: the seed makes the same requests again
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def send(case: "schemathesis.Case[Any]") -> None:
        _tame(case, models, names_model=result.count % _SHARE_WITH_OWN_NAME != 0)
        result.sent[f"{operation.label} {mode.value}"] += 1
        if problem := _problem(case, url, result):
            result.blame(f"{operation.label} ({mode.value}): {problem}", case.as_curl_command()[:600])

    send()


def _problem(case: "schemathesis.Case[Any]", url: str, result: Cases) -> str | None:
    begin_s = time.monotonic()
    try:
        response = case.call(base_url=url, timeout=_LIMIT_S)
    except requests.exceptions.Timeout:
        return f"no answer within {_LIMIT_S} s"
    except requests.exceptions.InvalidHeader:
        return None  # our own client refuses to send it
    except requests.exceptions.ConnectionError as problem:
        return f"no answer: {problem}"
    finally:
        result.longest_s = max(result.longest_s, time.monotonic() - begin_s)
    result.statuses[response.status_code] += 1
    if response.status_code >= 500 and response.status_code not in _EXPLAINED:
        return f"{response.status_code}: {response.content[:300]!r}"
    if response.status_code >= 400 and case.method != "HEAD":
        is_text = case.path.startswith(_TENSOR_ROUTES)
        return text_problem(response) if is_text else shape_problem(response.status_code, response.content)
    return None


def text_problem(response: Any) -> str | None:
    """What is wrong with an error of the Open Inference Protocol."""
    error = json.loads(response.content)
    if error.keys() == {"error"} and isinstance(error["error"], str):
        return None
    return f"{response.status_code} is not in KServe's shape: {response.content[:300]!r}"


def shape_problem(status: int, body: bytes) -> str | None:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        error = None
    # Anthropic's routes have Anthropic's errors: no param and no code.
    wanted = {"message", "type"} if b'"type":"error"' in body[:30] else _ERROR_FIELDS
    if isinstance(error, dict) and error.keys() >= wanted and isinstance(error["message"], str):
        return None
    return f"{status} is not in OpenAI's shape: {body[:300]!r}"


def _models(url: str) -> dict[str, list[str]]:
    """The models that serve each path."""
    found: dict[str, list[str]] = {}
    for model in httpx.get(f"{url}/status", timeout=10).json()["models"]:
        for path in model["paths"]:
            found.setdefault(path, []).append(model["name"])
    return found


def _without_deadlines(openapi: dict[str, Any]) -> dict[str, Any]:
    """The document without the header that would end most requests before anything has looked at them."""
    deadline = {"$ref": "#/components/parameters/RequestTimeout"}
    return {
        **openapi,
        "paths": {
            path: {
                method: {
                    **operation,
                    "parameters": [each for each in operation.get("parameters", []) if each != deadline],
                }
                for method, operation in item.items()
            }
            for path, item in openapi["paths"].items()
        },
    }


def _tame(case: "schemathesis.Case[Any]", models: dict[str, list[str]], names_model: bool) -> None:
    """Have a request reach a model, and not keep it for minutes: a name that is served, few tokens, few choices."""
    body: Any = case.body
    if names_model and case.path == "/v2/models/{model}/infer":
        case.path_parameters = {"model": next(iter(models["/v1/embeddings"]))}
    names = models.get(case.path)
    if not isinstance(body, dict) or not names or case.path.startswith("/predict/"):
        return
    if names_model and isinstance(body.get("model"), str | None):
        body["model"] = names[0]
    if any(word in case.path for word in _GENERATING):
        body.setdefault("max_output_tokens" if "responses" in case.path else "max_tokens", None)
    for name, most in _MOST.items():
        if name in body and (body[name] is None or (_is_int(body[name]) and body[name] > most)):
            body[name] = most


_GENERATING = ("chat", "completions", "messages", "responses")
_MOST = {
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens"), 4),
    **dict.fromkeys(("n", "best_of"), 2),
}


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[Platform]:
    """Small models without vLLM, each with another kind of route."""
    folder = tmp_path_factory.mktemp("small")
    arguments = ("configs/recipes/echo.yaml", "all-minilm-l6-v2", "--server.cache_dir", str(model_cache))
    with serving(folder, *arguments, timeout_s=120) as platform:
        yield platform


@pytest.mark.long
def test_the_small_models_answer_whatever_their_document_allows_and_forbids(small: Platform) -> None:
    _check(small, LONG_COUNT)


@pytest.mark.parametrize("count", [COUNT, pytest.param(LONG_COUNT, marks=pytest.mark.long)])
def test_the_demo_answers_whatever_its_document_allows_and_forbids(platform: Platform, count: int) -> None:
    _check(platform, count // 2)  # each takes a sixth of a second to make: vLLM's schemas are large


def _check(platform: Platform, count: int) -> None:
    """Where nothing but a stranger's code answers, its exceptions are its own: those paths are left out."""
    openapi = platform.http.get("/openapi.json", timeout=20)
    assert openapi.status_code == 200, openapi.text
    restarts = {name: model["restarts"] for name, model in platform.status().items()}
    document = openapi.json()
    for path in _STRANGERS & document["paths"].keys():
        del document["paths"][path]
    result = cases(platform.url, document, count)
    print(f"{result.count} requests, longest {result.longest_s:.1f} s, {dict(result.statuses)}\n{dict(result.sent)}")
    told = [
        f"{times} x {problem}\n    {result.examples[problem]}" for problem, times in result.problems.most_common(20)
    ]
    assert not told, f"{result.problems.total()} problems:\n" + "\n".join(told)
    assert result.count > count / 2
    assert result.statuses[200] > 0
    assert {name: model["restarts"] for name, model in platform.status().items()} == restarts, (
        "a request killed a model"
    )
    assert platform.http.get("/ready", timeout=10).status_code == 200
