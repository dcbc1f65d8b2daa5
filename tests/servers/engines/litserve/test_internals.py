"""Each internal of LitServe that the child relies on, by the name that the docstring of `worker_state` gives it."""

import asyncio
import inspect
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import litserve
import litserve.server
import pytest
from litserve import connector, utils
from litserve.loops import BatchedLoop, BatchedStreamingLoop, SingleLoop, StreamingLoop, base
from litserve.loops.loops import inference_worker

from servers.engines.litserve.child import worker_state
from servers.engines.litserve.child.work import LoopKind
from tests.servers.engines.litserve.loops import Api, AsyncApi, AsyncStreamApi, BatchApi, FourCalls, StreamApi, work

pytestmark = pytest.mark.filterwarnings("ignore:.*LitServe will asyncify the method")
INTERNALS = re.findall(r"^- `(\w+-?)`: ", str(worker_state.__doc__), re.M)
CHECKS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {}
LITSERVE = Path(str(litserve.__file__)).parent


@pytest.mark.parametrize("internal", INTERNALS)
def test_litserve_still_has(internal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    CHECKS[internal](monkeypatch)


def test_each_internal_that_the_child_relies_on_is_listed_once() -> None:
    assert sorted(INTERNALS) == sorted(CHECKS)


def check(function: Callable[[pytest.MonkeyPatch], None]) -> None:
    """A check of the internal that the function's name has after `has_`."""
    name = function.__name__.removeprefix("has_")
    CHECKS["LitServer-" if name == "LitServer" else name] = function


def server_of(**options: Any) -> litserve.LitServer:
    return litserve.LitServer(Api(), accelerator="cpu", **options)


def calls_of(pattern: str, *folders: str) -> set[str]:
    """What LitServe's source calls: the first group of this pattern."""
    files = [file for folder in folders for file in sorted(LITSERVE.glob(folder))]
    return {name for file in files for name in re.findall(pattern, file.read_text(encoding="utf-8"))}


@check
def has__DEFAULT_LOG_FORMAT(_: pytest.MonkeyPatch) -> None:  # noqa: N802
    handlers = logging.getLogger("litserve").handlers
    assert utils._DEFAULT_LOG_FORMAT in {handler.formatter._fmt for handler in handlers if handler.formatter}


@check
def has__MCP_AVAILABLE(_: pytest.MonkeyPatch) -> None:  # noqa: N802
    assert isinstance(litserve.server._MCP_AVAILABLE, bool)
    for method in (litserve.LitServer._start_server, litserve.LitServer.lifespan):
        assert "if _MCP_AVAILABLE:" in inspect.getsource(method)


@check
def has__SENTINEL_VALUE(_: pytest.MonkeyPatch) -> None:  # noqa: N802
    assert base._SENTINEL_VALUE == (None, None, None, None)


@check
def has__inject_context(monkeypatch: pytest.MonkeyPatch) -> None:
    for api, count in ((Api(), 3), (BatchApi(max_batch_size=2, batch_timeout=0.01), 5)):
        work(api, monkeypatch, 1)
        assert api.callers == [base._inject_context.__code__] * count


@check
def has__init_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(inspect.signature(litserve.LitServer._init_manager).parameters) == ["self", "num_api_servers"]
    source = inspect.getsource(litserve.LitServer.run)
    calls = ["_init_manager(", "launch_inference_worker(", "_start_server(", "_start_worker_monitoring("]
    assert sorted(calls, key=source.index) == calls
    server = server_of()
    manager = server._init_manager(1)
    try:
        assert list(server.litapi_request_queues) == ["/predict"]
        assert server._transport is not None
    finally:
        manager.shutdown()


@check
def has__inference_workers_config_for_api(_: pytest.MonkeyPatch) -> None:
    assert len(server_of(workers_per_device=3)._inference_workers_config_for_api("/predict")) == 3


@check
def has__start_worker_monitoring(_: pytest.MonkeyPatch) -> None:
    method = litserve.LitServer._start_worker_monitoring
    assert list(inspect.signature(method).parameters) == ["self", "manager", "uvicorn_workers"]
    source = inspect.getsource(litserve.LitServer.run)
    assert source.index("self.inference_workers.extend(") < source.index("_start_worker_monitoring(")


@check
def has_check_cuda_with_nvidia_smi(_: pytest.MonkeyPatch) -> None:
    assert isinstance(connector.check_cuda_with_nvidia_smi(), int)
    assert "import torch" not in inspect.getsource(connector.check_cuda_with_nvidia_smi)


@check
def has_format_encoded_response(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({}, {"max_batch_size": 2, "batch_timeout": 0.01}):
        api = StreamApi(stream=True, **options)
        work(api, monkeypatch, {"part": 1})
        assert api.parts == [{"part": 1}]


@check
def has_litapi_request_queues(_: pytest.MonkeyPatch) -> None:
    server = server_of()
    server.litapi_request_queues["/predict"] = requests = object()
    assert server._get_request_queue("/predict") is requests
    for method in (litserve.server.BaseRequestHandler._submit_request, litserve.specs.base.LitSpec.setup):
        assert "_get_request_queue(self." in inspect.getsource(method)


@check
def has_register_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    original, servers = litserve.LitServer.register_endpoints, []

    def register(self: litserve.LitServer) -> None:
        original(self)
        servers.append(self)

    monkeypatch.setattr(litserve.LitServer, "register_endpoints", register)
    server = server_of()
    assert servers == [server]
    assert "/predict" in {getattr(route, "path", None) for route in server.app.routes}


@check
def has_LITSERVE_WORKER_ID(monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: N802
    events = work(Api(), monkeypatch, 1)
    assert set(events.worker_ids) == {"3"}
    assert events.names[0] == "before_setup"
    source = inspect.getsource(inference_worker)
    assert source.index("BEFORE_SETUP") < source.index("lit_api.setup(device)") < source.index("AFTER_SETUP")


@check
def has_LitServer(_: pytest.MonkeyPatch) -> None:  # noqa: N802
    source = inspect.getsource(litserve.LitServer._start_server)
    assert 'mp.get_context("fork")' in source
    assert source.count('name=f"LitServer-{response_queue_id}"') == 2
    assert "**kwargs,\n            )\n" in source
    assert inspect.signature(litserve.LitServer.run).parameters["kwargs"].kind is inspect.Parameter.VAR_KEYWORD


@check
def has_answer_tuple(monkeypatch: pytest.MonkeyPatch) -> None:
    events = work(Api(), monkeypatch, "x")
    regular, streaming = utils.LoopResponseType.REGULAR, utils.LoopResponseType.STREAMING
    assert (events.answers, events.consumers) == ([("u0", ("x", utils.LitAPIStatus.OK, regular, 3))], {7})
    (_, part), (uid, end) = work(StreamApi(stream=True), monkeypatch, "x").answers
    assert part == ("x", utils.LitAPIStatus.OK, streaming, 3)
    assert (uid, end[1:]) == ("u0", (utils.LitAPIStatus.FINISH_STREAMING, streaming, 3))


BEGIN = ["before_setup", "after_setup"]
DECODE = ["before_decode_request", "after_decode_request"]
PREDICT = ["before_predict", "after_predict", "before_encode_response"]
ENCODED = "after_encode_response"


@check
def has_call_order(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = {"max_batch_size": 2, "batch_timeout": 1}
    for api, bodies, names in (
        (Api(), 1, [*DECODE, *PREDICT, ENCODED, "OK"]),
        (AsyncApi(enable_async=True), 1, [*DECODE, *PREDICT, ENCODED, "OK"]),
        (Api(**batches), 2, [*DECODE, *PREDICT, ENCODED, "OK", "OK"]),
        (StreamApi(stream=True), 1, [*PREDICT, "OK", "FINISH_STREAMING", "after_predict", ENCODED]),
        (AsyncStreamApi(stream=True, enable_async=True), 1, [*DECODE, *PREDICT, "OK", "FINISH_STREAMING", ENCODED]),
        (StreamApi(stream=True, **batches), 2, [*DECODE, *PREDICT, ENCODED, *["OK"] * 2, *["FINISH_STREAMING"] * 2]),
    ):
        with monkeypatch.context() as patch:
            assert work(api, patch, *range(bodies)).names == [*BEGIN, *names], type(api.loop)


@check
def has_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    records: list[logging.LogRecord] = []
    monkeypatch.setattr(logging.getLogger("litserve.loops"), "handle", records.append)
    ((_, (answer, status, *_)),) = work(Api(), monkeypatch, "teapot").answers
    assert isinstance(answer, utils.PickleableHTTPException)
    assert (answer.status_code, status, records) == (418, utils.LitAPIStatus.ERROR, [])


@check
def has_loops(_: pytest.MonkeyPatch) -> None:
    for kind, api, loop in (
        (LoopKind.ONE_BY_ONE, Api(), SingleLoop),
        (LoopKind.ONE_BY_ONE, StreamApi(stream=True), StreamingLoop),
        (LoopKind.ASYNC, AsyncApi(enable_async=True), SingleLoop),
        (LoopKind.ASYNC, AsyncStreamApi(stream=True, enable_async=True), StreamingLoop),
        (LoopKind.BATCHED, Api(max_batch_size=2), BatchedLoop),
        (LoopKind.BATCHED, StreamApi(stream=True, max_batch_size=2), BatchedStreamingLoop),
    ):
        litserve.LitServer(api, accelerator="cpu")
        assert (type(api.loop), LoopKind.of(api)) == (loop, kind)


@check
def has_one_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    processes: list[dict[str, Any]] = []

    def process(**options: Any) -> Any:
        processes.append(options)
        return SimpleNamespace(start=lambda: None)

    server = server_of()
    server.workers_setup_status, server._transport = {}, object()
    server.litapi_request_queues["/predict"] = requests = object()
    monkeypatch.setattr(litserve.server.mp, "get_context", lambda _: SimpleNamespace(Process=process))
    server.launch_inference_worker(server.lit_api)
    (options,) = processes
    for part in (server.lit_api, requests, server._transport, server._callback_runner):
        assert any(argument is part for argument in options["args"])


@check
def has_queue_calls(_: pytest.MonkeyPatch) -> None:
    calls = calls_of(r"request_queue\.(\w+)\b", "*.py", "loops/*.py", "specs/*.py")
    assert calls == {"get", "get_nowait", "put", "put_nowait"}


@check
def has_queue_tuple(_: pytest.MonkeyPatch) -> None:
    server = server_of()
    server.litapi_request_queues["/predict"] = requests = FourCalls()
    server.app.response_queue_id = 5
    handler = litserve.server.RegularRequestHandler(server.lit_api, server)
    begin_s = time.monotonic()
    uid, _ = asyncio.run(handler._submit_request({"x": 1}))
    consumer, queued_as, queued_s, body = requests.get_nowait()
    assert (consumer, queued_as, body) == (5, uid, {"x": 1})
    assert begin_s <= queued_s <= time.monotonic()
    tuples = calls_of(r"request_queue\.put(?:_nowait)?\(\((.*?), (?:payload|request\S*)\)\)", "*.py", "specs/*.py")
    assert tuples == {"response_queue_id, uid, time.monotonic()"}


@check
def has_stream_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({}, {"max_batch_size": 2, "batch_timeout": 0.01}):
        api = StreamApi(stream=True, **options)
        work(api, monkeypatch, 1)
        loop = BatchedStreamingLoop.run_batched_streaming_loop if options else StreamingLoop.run_streaming_loop
        assert api.callers[-1] is loop.__code__


@check
def has_task_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for api in (AsyncApi(enable_async=True), AsyncStreamApi(stream=True, enable_async=True)):
        with monkeypatch.context() as patch:
            assert {name.rpartition("_")[2] for name in work(api, patch, 1).tasks} == {"u0"}


@check
def has_transport(_: pytest.MonkeyPatch) -> None:
    assert calls_of(r"transport\.(\w+)\(", "server.py", "loops/*.py", "specs/*.py") == {"send", "areceive", "close"}
