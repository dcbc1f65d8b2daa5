"""What vLLM is started with, and what it may offer."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from configs.settings import LitportSettings, VllmModel
from servers.engines import registry
from servers.engines.connection import Reply
from servers.engines.kind import Site
from servers.engines.vllm import engine as vllm
from servers.engines.vllm.engine import VllmEngine

GIB = 1024**3


def _argv(monkeypatch: pytest.MonkeyPatch, *, on_cpu: bool, siblings: int = 1, **settings: object) -> list[str]:
    monkeypatch.setattr(vllm, "on_cpu", lambda: on_cpu)
    model = VllmModel.model_validate({"engine": "vllm", "source": "org/name", **settings})
    return VllmEngine("chat", model, siblings).command(Path("/models/x"), Path("/run/0.sock")).argv


def test_the_model_its_name_and_its_socket_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    words = " ".join(_argv(monkeypatch, on_cpu=False))
    assert "--model /models/x --uds /run/0.sock --served-model-name chat" in words


def test_on_a_gpu_nothing_is_chosen_for_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    words = " ".join(_argv(monkeypatch, on_cpu=False))
    assert "--enforce-eager" not in words
    assert "--kv-cache" not in words


def test_no_media_are_fetched_unless_domains_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = _argv(monkeypatch, on_cpu=False)
    assert argv[argv.index("--allowed-media-domains") + 1] == "media-urls-are-off.invalid"
    argv = _argv(monkeypatch, on_cpu=False, args={"allowed_media_domains": ["upload.wikimedia.org"]})
    assert argv[argv.index("--allowed-media-domains") + 1] == "upload.wikimedia.org"


def test_on_a_cpu_it_is_eager_with_a_cache_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = _argv(monkeypatch, on_cpu=True, siblings=2)
    assert "--enforce-eager" in argv
    (cache,) = (int(word.partition("=")[2]) for word in argv if word.startswith("--kv-cache-memory-bytes="))
    assert GIB // 2 <= cache <= max(GIB // 2, psutil.virtual_memory().total // 8)


def test_what_the_settings_say_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = _argv(monkeypatch, on_cpu=True, args={"enforce_eager": False, "gpu_memory_utilization": 0.3})
    assert "--no-enforce-eager" in argv
    assert "--enforce-eager" not in argv
    assert "--gpu-memory-utilization=0.3" in argv
    assert not any(word.startswith("--kv-cache") for word in argv)
    argv = _argv(monkeypatch, on_cpu=True, env={"VLLM_CPU_KVCACHE_SPACE": "1"})
    assert not any(word.startswith("--kv-cache") for word in argv)


def test_on_a_cpu_the_libraries_that_are_there_are_preloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libiomp5.so").touch()
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setattr(vllm, "on_cpu", lambda: True)
    model = VllmModel(engine="vllm", source="org/name")
    environ = VllmEngine("chat", model).command(None, Path("/run/0.sock")).environ
    assert str(tmp_path / "lib" / "libiomp5.so") in environ["LD_PRELOAD"].split(":")
    monkeypatch.setenv("LD_PRELOAD", "mine.so")
    assert VllmEngine("chat", model).command(None, Path("/run/0.sock")).environ["LD_PRELOAD"] == "mine.so"


def test_variables_that_would_shut_the_front_door_out_do_not_reach_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_API_KEY", "VLLM_HOST_IP"):
        monkeypatch.setenv(name, "left-over")
    model = VllmModel(engine="vllm", source="org/name", env={"VLLM_HOST_IP": "192.0.2.1"})
    environ = VllmEngine("chat", model).command(None, Path("/run/0.sock")).environ
    assert (environ["VLLM_API_KEY"], environ["VLLM_HOST_IP"]) == ("", "192.0.2.1"), "what the settings say, counts"


@pytest.mark.parametrize(
    ("settings", "on_cpu", "field"),
    [
        ({"args": {"enable-lora": True}}, True, "args.enable-lora"),
        ({"args": {"lora-modules": ["a=/b"]}}, True, "args.enable-lora"),
        ({"args": {"enable-lora": True}}, False, None),
        ({"args": {"enable-lora": False}}, True, None),
        ({"env": {"VLLM_API_KEY": "x"}}, True, "env.VLLM_API_KEY"),
    ],
)
def test_what_vllm_would_do_wrong_is_refused_by_the_check(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], on_cpu: bool, field: str | None
) -> None:
    monkeypatch.setattr(vllm, "on_cpu", lambda: on_cpu)
    model = VllmModel.model_validate({"engine": "vllm", "source": "org/name", **settings})
    problems = dict(registry.kind_of(model).check_model(model))
    assert list(problems) == ([field] if field else [])


class StandInForVllm:
    """A connection to a vLLM that has more paths than clients may reach."""

    restarts = 0

    async def send(self, method: str, path: str, *_: object) -> Reply:
        answers = {
            "/openapi.json": {"paths": {path: {} for path in ("/v1/embeddings", "/sleep", "/v1/load_lora_adapter")}},
            "/v1/models": {"data": []},
            "/v1/embeddings": {"data": [{"embedding": [1.0]}]},
        }

        async def chunks() -> AsyncIterator[bytes]:
            yield json.dumps(answers[path]).encode()

        return Reply(200, (), chunks(), lambda: None)

    async def close(self) -> None:
        pass


def test_a_model_offers_only_those_of_vllms_paths_that_the_front_door_serves() -> None:
    model = VllmModel(engine="vllm", source="org/name")
    settings = LitportSettings(models={"chat": model})
    site = Site(settings, Path("/run/0.sock"), frozenset({"/v1/embeddings", "/v1/completions"}))
    engine = registry.kind_of(model).make("chat", model, site)
    card = asyncio.run(engine.warm(StandInForVllm()))
    assert card.routes == {"/v1/embeddings"}
