"""What is said of a LitAPI before its setup, in one line that names the setting."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.settings import LitServeModel
from servers.apis import registry
from servers.engines.litserve.api import ApiSpec, construct_api
from servers.engines.litserve.host import devices
from servers.engines.litserve.kind import LITSERVE
from tests.servers.engines.litserve.child import STRANGERS


def _spec(api: str) -> ApiSpec:
    return ApiSpec(name="m", api=api, uds="/nowhere", card="/nowhere")


def test_a_generator_that_is_not_streamed_names_the_setting() -> None:
    with pytest.raises(UserError, match=r"its predict yields, so it needs `stream: true` \(models\.m\.stream\)"):
        construct_api(_spec(f"{STRANGERS}/streams.py:CountdownAPI"))


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("def authorize(self): ...", "authorize() is not supported"),
        ("def decode_request(self, body): ...", "decode_request(self, request)"),
        ("def loop(self, text): ...", "its method loop() hides"),
    ],
)
def test_a_method_that_would_not_work_is_named_by_config_check_and_at_the_start(
    tmp_path: Path, method: str, words: str
) -> None:
    name = f"refused_{method[4:8]}"
    (tmp_path / f"{name}.py").write_text(f"import litserve as ls\nclass API(ls.LitAPI):\n    {method}\n")
    api = f"{tmp_path}/{name}.py:API"
    with pytest.raises(UserError) as checked:
        registry.check(api, {}, has_source=False)
    with pytest.raises(UserError) as constructed:
        construct_api(_spec(api))
    assert words in str(checked.value)
    assert words in str(constructed.value)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({}, "stream"),
        ({"stream": True}, None),
        ({"init": {"stream": True}}, None),
    ],
)
def test_config_check_names_what_the_start_would_refuse(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], field: str | None
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # no nvidia-smi
    model = LitServeModel(engine="litserve", api=f"{STRANGERS}/streams.py:CountdownAPI", **settings)
    assert [name for name, _ in LITSERVE.check_model(model)] == ([field] if field else [])


def test_config_check_says_which_devices_have_no_effect_and_where_a_gpu_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"devices": 2}, "; devices=2 has no effect on a CPU"),
        ({"devices": 1}, ""),
        ({"devices": "auto"}, ""),
        ({"accelerator": "cuda"}, "; accelerator=cuda needs a GPU, and nvidia-smi names none on this machine"),
    ]
    for settings, note in cases:
        model = LitServeModel(engine="litserve", api="echo", **settings)
        assert LITSERVE.describe_model(model) == f"the worker host, as far as its source shows{note}"


@pytest.mark.parametrize(
    ("text", "needs_stream"),
    [
        ("def predict(self, x):\n        yield x", True),
        ("async def predict(self, x):\n        for y in x:\n            yield y", True),
        ("def predict(self, x):\n        def inner():\n            yield x\n        return list(inner())", False),
        (
            "def __init__(self):\n        super().__init__(stream=True)\n    def predict(self, x):\n        yield x",
            False,
        ),
        ("def setup(self, device):\n        self.stream = True\n    def predict(self, x):\n        yield x", False),
    ],
)
def test_a_generator_that_says_nothing_of_streams_is_seen_in_its_source(
    tmp_path: Path, text: str, needs_stream: bool
) -> None:
    (tmp_path / "written.py").write_text(f"import litserve as ls\nclass API(ls.LitAPI):\n    {text}\n")
    assert ("stream" in registry.missing_settings(f"{tmp_path}/written.py:API")) == needs_stream


def test_async_methods_that_nobody_would_await_are_named_by_config_check_and_at_the_start(tmp_path: Path) -> None:
    text = "import litserve as ls\nclass API(ls.LitAPI):\n    async def decode_request(self, request): ...\n"
    (tmp_path / "unawaited.py").write_text(f"{text}    def predict(self, x): ...\n")
    api = f"{tmp_path}/unawaited.py:API"
    [(field, text)] = LITSERVE.check_model(LitServeModel(engine="litserve", api=api))
    assert (field, "enable_async=True" in text) == ("api", True)
    assert list(LITSERVE.check_model(LitServeModel(engine="litserve", api=api, init={"enable_async": True}))) == []
    with pytest.raises(UserError, match="enable_async=True"):
        construct_api(_spec(api))


def test_an_mcp_tool_is_told_by_config_check_where_litserve_could_not_make_it(tmp_path: Path) -> None:
    text = "    def __init__(self):\n        super().__init__(mcp=MCP(name='shout'))\n    def predict(self, x): ...\n"
    (tmp_path / "tool.py").write_text(f"import litserve as ls\nclass API(ls.LitAPI):\n{text}")
    assert importlib.util.find_spec("fastmcp") is None, "without it LitServe advises to install it, which cures nothing"
    [(field, text)] = LITSERVE.check_model(LitServeModel(engine="litserve", api=f"{tmp_path}/tool.py:API"))
    assert (field, text.endswith("Litport offers no tools: leave `mcp` out")) == ("api", True)


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "check_cuda_with_nvidia_smi", lambda: 0)
    for count in (None, 1, [0]):
        with pytest.raises(UserError, match="accelerator 'cuda': nvidia-smi names no GPU"):
            devices.device_names("cuda", count, uses_torch=True)
    assert devices.device_names("auto", 2, uses_torch=True) == ["cpu"]
    monkeypatch.setattr(devices, "check_cuda_with_nvidia_smi", lambda: 2)
    assert devices.device_names("cuda", None, uses_torch=False) == ["cuda:0", "cuda:1"]
