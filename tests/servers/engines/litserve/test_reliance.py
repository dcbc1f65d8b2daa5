"""What is relied on of LitServe: a new release that lacks one of these names fails here and nowhere else."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import litserve as ls
import litserve.server
import pytest
from litserve import callbacks, connector, loops, utils
from litserve.loops.loops import inference_worker
from litserve.specs import base, openai, openai_embedding

from tests.servers.engines.litserve.child import REPOSITORY

LITSERVE = Path(str(ls.__file__)).parent
FALLBACK = "servers/engines/litserve/fallback.py"

_OF_API = (
    "api_path batch batch_timeout decode_request device enable_async encode_response format_encoded_response loop "
    "health max_batch_size pre_setup predict request_timeout set_logger_queue setup spec stream unbatch"
)
_OF_SPEC = "as_async endpoints pre_setup setup"


def test_litserve_has_every_name_that_the_host_uses() -> None:
    assert not [name for name in _OF_API.split() if not hasattr(ls.LitAPI, name) and name not in _instance_names()]
    assert not [name for name in _OF_SPEC.split() if not hasattr(base.LitSpec, name)]
    assert list(inspect.signature(callbacks.CallbackRunner.trigger_event).parameters)[1] == "event_name"
    assert callable(connector.check_cuda_with_nvidia_smi)
    assert {"OK", "ERROR", "FINISH_STREAMING"} <= set(vars(utils.LitAPIStatus))
    assert {"SingleLoop", "BatchedLoop", "StreamingLoop", "BatchedStreamingLoop"} <= set(vars(loops))


def _instance_names() -> set[str]:
    return set(vars(ls.LitAPI()))


@pytest.mark.parametrize("spec", [openai.OpenAISpec, openai_embedding.OpenAIEmbeddingSpec])
def test_a_spec_asks_its_server_for_nothing_else(spec: type) -> None:
    source = inspect.getsource(spec) + textwrap.dedent(inspect.getsource(base.LitSpec.setup))
    asked = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("server", "self._server")
    }
    assert asked <= {"response_buffer", "_get_request_queue", "data_streamer", "_callback_runner", "active_requests"}


def test_outside_the_fallback_only_specs_are_reached_by_private_names() -> None:
    files = [file for folder in ("servers", "benchmarks") for file in sorted((REPOSITORY / folder).rglob("*.py"))]
    names = {
        f"{file.relative_to(REPOSITORY)}: {name}"
        for file in files
        for name in _private_names(ast.parse(file.read_text()))
    }
    assert {name for name in names if not name.startswith(FALLBACK)} == {
        "servers/apis/embedding.py: _validate_response",
        "servers/engines/litserve/host/specs.py: _server",
    }
    assert {name for name in names if name.startswith(FALLBACK)} == {f"{FALLBACK}: _MCP_AVAILABLE"}


def _private_names(tree: ast.Module) -> Iterator[str]:
    """Private names of LitServe, FastAPI and Starlette that are imported, and those of LitServe on other objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("litserve", "fastapi", "starlette")):
            path = f".{node.module}"
            yield from (alias.name for alias in node.names if alias.name.startswith("_") or "._" in path)
        elif isinstance(node, ast.Attribute) and node.attr in _OF_LITSERVE and ast.unparse(node.value) != "self":
            yield node.attr


_OF_LITSERVE = {
    name
    for file in LITSERVE.rglob("*.py")
    for name in re.findall(r"(?:def |self\.|^)(_[A-Za-z]\w*)", file.read_text(encoding="utf-8"), re.M)
}


def test_litserve_has_what_the_fallback_relies_on() -> None:
    assert isinstance(litserve.server._MCP_AVAILABLE, bool)
    for method in (ls.LitServer._start_server, ls.LitServer.lifespan):
        assert "if _MCP_AVAILABLE:" in inspect.getsource(method)
    source = inspect.getsource(ls.LitServer._start_server)
    assert 'mp.get_context("fork")' in source
    assert source.count('name=f"LitServer-{response_queue_id}"') == 2
    assert inspect.signature(ls.LitServer.run).parameters["kwargs"].kind is inspect.Parameter.VAR_KEYWORD
    worker = inspect.getsource(inference_worker)
    assert worker.index("BEFORE_SETUP") < worker.index("lit_api.setup(device)")
