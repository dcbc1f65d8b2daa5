import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.litserve import LitServeModel
from servers.apis import reference, registry
from servers.engines import registry as engines
from servers.engines.base import TENSOR_PATH
from servers.gateway.routes import registry as routes
from tests.servers.engines.litserve.child import REPOSITORY, Child, running

DOCUMENT = (REPOSITORY / "docs" / "plugins.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, flags=re.DOTALL | re.MULTILINE)


MODELS = {name: model for block in blocks("yaml") for name, model in yaml.safe_load(block)["models"].items()}
CALLS = re.findall(
    r"^\$ curl -sN? localhost:8000(/predict/|/v2/models/)(\w+)(?:/infer)? --json (.*)\n((?:\{.*\n)+)",
    "".join(blocks("console")),
    re.M,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document's files, each named by its first line."""
    folder = tmp_path_factory.mktemp("document")
    for block in blocks("python"):
        name, _, text = block.partition("\n")
        (folder / name.removeprefix("# ")).write_text(text)
    return folder


@pytest.fixture(scope="module")
def children(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Child]]:
    with ExitStack() as stack:
        with ThreadPoolExecutor() as pool:  # side by side: each mostly waits for its processes
            starts = {
                name: pool.submit(
                    stack.enter_context, _serve(folder, tmp_path_factory.mktemp(name), name, LitServeModel(**model))
                )
                for name, model in MODELS.items()
            }
        yield {name: start.result() for name, start in starts.items()}


def test_every_call_in_the_document_is_answered_as_it_says(children: dict[str, Child]) -> None:
    assert {name for _, name, _, _ in CALLS} == set(MODELS)
    for route, name, body, answer in CALLS:
        path = "/predict" if route == "/predict/" else TENSOR_PATH
        got = children[name].http.post(path, json=json.loads(shlex.split(body)[0])).text
        assert [json.loads(line) for line in got.splitlines()] == [_of_worker(line) for line in answer.splitlines()]


def _of_worker(line: str) -> Any:
    """An answer in the document as the worker gives it: the error's form is the front door's."""
    answer = json.loads(line)
    return {"detail": answer["error"]["message"]} if "error" in answer else answer


def test_a_body_that_does_not_fit_the_annotation_is_a_422_that_names_the_field(children: dict[str, Child]) -> None:
    answer = children["roots"].predict(numbr=1)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "number"]


def test_the_documents_test_passes(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shout.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "1 passed" in done.stdout, done.stdout


def test_the_entry_point_group_is_the_one_that_is_read() -> None:
    groups = [list(tomllib.loads(block)["project"]["entry-points"]) for block in blocks("toml")]
    assert groups == [[registry.ENTRY_POINT_GROUP], [engines.ENTRY_POINT_GROUP, routes.ENTRY_POINT_GROUP]]


def test_the_table_of_built_ins_names_them_all_and_their_own_arguments() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|(?:.*\|){2}(.*)\|$", DOCUMENT.partition("## Built in")[2], re.M))
    assert rows.keys() == registry.BUILT_IN.keys()
    common = {"model_dir", "max_batch_size", "batch_timeout", "stream"}
    for name, arguments in rows.items():
        own = (
            set(reference.read(reference.parse(registry.BUILT_IN[name])).constructor.names) - common
            if name != "echo"
            else set()
        )
        assert set(re.findall(r"`(\w+)`", arguments)) == own


@contextmanager
def _serve(folder: Path, work: Path, name: str, model: LitServeModel) -> Iterator[Child]:
    options: dict[str, Any] = {"batch_timeout": model.batch_timeout_s, "max_batch_size": model.max_batch_size}
    api = model.api.replace("./", f"{folder}/")
    registry.check(api, model.init, has_source=False)
    with running(work, name=name, api=api, init=model.init, stream=model.stream, **options) as child:
        yield child
