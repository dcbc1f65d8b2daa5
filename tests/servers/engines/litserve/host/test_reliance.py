"""What the host relies on of LitServe: a new release that lacks one of these names fails here and nowhere else."""

import ast
import inspect
import textwrap
from pathlib import Path

import litserve as ls
import pytest
from litserve import callbacks, connector, loops, utils
from litserve.specs import base, openai, openai_embedding

HOST = Path(__file__).resolve().parents[5] / "servers" / "engines" / "litserve" / "host"

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


def test_the_host_imports_no_private_name() -> None:
    private = [
        f"{file.name}: {node.module}.{alias.name}"
        for file in HOST.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("litserve", "fastapi", "starlette"))
        for alias in node.names
        if alias.name.startswith("_") or "._" in (node.module or "")
    ]
    assert private == []
