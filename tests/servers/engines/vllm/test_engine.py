"""What vLLM is started with, and what it may offer."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from configs.errors import SettingsError
from configs.settings import LitportSettings, VllmModel
from servers.engines import registry
from servers.engines.connection import Reply
from servers.engines.kind import Site
from servers.engines.litserve.engine import LitServeEngine
from servers.engines.vllm import cpu
from servers.engines.vllm import engine as vllm
from servers.engines.vllm.engine import VllmEngine
from servers.platform import targets
from servers.telemetry.memory import Memory

GIB = 1024**3


def _argv(monkeypatch: pytest.MonkeyPatch, *, on_cpu: bool, siblings: int = 1, **settings: object) -> list[str]:
    monkeypatch.setattr(vllm, "on_cpu", lambda: on_cpu)
    model = VllmModel.model_validate({"engine": "vllm", "source": "org/name", **settings})
    return VllmEngine("chat", model, siblings).command(Path("/models/x"), Path("/run/0.sock")).argv


def test_the_model_its_name_and_its_socket_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    words = " ".join(_argv(monkeypatch, on_cpu=False))
    assert "--model /models/x --uds /run/0.sock --served-model-name chat" in words
    words = " ".join(_argv(monkeypatch, on_cpu=False, aliases=["gpt-4o-mini"]))
    assert "--served-model-name chat --disable" in words, "an alias may come and go while it runs"


def test_on_a_gpu_nothing_is_chosen_for_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    words = " ".join(_argv(monkeypatch, on_cpu=False))
    assert "--enforce-eager" not in words
    assert "--kv-cache" not in words


@pytest.mark.parametrize(
    ("flags", "dtype", "is_told"),
    [("avx2", None, True), ("avx2", "bfloat16", True), ("avx2", "float32", False), ("avx512_bf16", None, False)],
)
def test_numbers_that_the_processor_computes_in_software_are_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    flags: str,
    dtype: str | None,
    *,
    is_told: bool,
) -> None:
    sizes = {"num_attention_heads": 2, "num_hidden_layers": 2, "head_dim": 8, "torch_dtype": "bfloat16"}
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    monkeypatch.setattr(cpu, "read_text", lambda _: f"flags : fpu {flags} sse")
    monkeypatch.setattr(vllm, "on_cpu", lambda: True)
    args = {"dtype": dtype} if dtype else {}
    model = VllmModel.model_validate({"engine": "vllm", "source": str(tmp_path), "args": args})
    VllmEngine("chat", model).command(tmp_path, Path("/run/0.sock"))
    told = "chat: this processor has no instructions to compute in 16 bits"
    assert any(message.startswith(told) for message in caplog.messages) == is_told
    assert bool(registry.kind_of(model).describe_model(model)) == is_told


def test_each_replica_gets_the_gpus_that_the_settings_give_it() -> None:
    models = {
        "chat": {"engine": "vllm", "source": "org/name", "replicas": 2, "devices": [[0], [2, 3]]},
        "api": {"engine": "litserve", "api": "echo", "replicas": 2, "devices": [[1], [2, 3]]},
    }
    settings = LitportSettings.from_layers([{"models": models}])
    sites = [Site(settings, Path("socket"), frozenset(), number=number) for number in range(2)]
    engines = [registry.kind_of(model).make(name, model, sites[1]) for name, model in settings.models.items()]
    command = engines[0].command(Path("/models/x"), Path("socket"))
    assert command is not None
    assert command.environ["CUDA_VISIBLE_DEVICES"] == "2,3"
    engine = engines[1]
    assert isinstance(engine, LitServeEngine)
    assert engine.settings.devices == [2, 3]
    with pytest.raises(ValidationError, match="expected a list of devices for each replica, that is 2, got 1"):
        VllmModel(engine="vllm", source="org/name", replicas=2, devices=[[0]])


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


def test_to_refuse_what_overflows_vllm_gets_the_route_that_counts_a_response() -> None:
    for on_overflow, count in (("cut", 0), ("refuse", 1)):
        model = VllmModel.model_validate({"engine": "vllm", "source": "org/name", "on_overflow": on_overflow})
        assert VllmEngine("chat", model).command(None, Path("/run/0.sock")).argv.count("--enable-scale-out") == count


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


def _model_dir(folder: Path) -> Path:
    config = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576}
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 8192, "dtype": "bfloat16"}))
    return folder


@pytest.mark.parametrize(
    ("args", "cache_bytes"),
    [
        # 2 (keys and values) x 30 layers x 3 heads x 64 numbers x 4 bytes x 4 sequences of 4096 tokens
        ({"max-model-len": 4096, "dtype": "float32"}, 2 * 30 * 3 * 64 * 4 * 4 * 4096),
        ({}, 2 * 30 * 3 * 64 * 2 * 4 * 8192),
        ({"max-model-len": 64}, GIB // 2),
        ({"max-model-len": 10**6}, 4 * GIB),
        ({"max-model-len": "4k"}, 4 * GIB),
    ],
)
def test_the_cache_of_a_cpu_holds_four_sequences_of_full_length(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, args: dict[str, object], cache_bytes: int
) -> None:
    monkeypatch.setattr(cpu, "memory", lambda: Memory(24 * GIB, 20 * GIB))
    model = VllmModel.model_validate({"engine": "vllm", "source": "org/name", "args": args})
    assert cpu.kv_cache_bytes(model, _model_dir(tmp_path), 1) == cache_bytes
    assert cpu.kv_cache_bytes(model, None, 1) == 4 * GIB
    assert cpu.kv_cache_bytes(model, None, 16) == GIB // 2


@pytest.mark.parametrize(
    ("cores", "args", "is_set"),
    [({0, 1}, {}, True), ({5}, {}, True), (set(range(16)), {}, False), ({0, 1}, {"tensor-parallel-size": 2}, False)],
)
def test_on_few_cores_the_worker_is_no_process_of_its_own_and_gets_all_of_them(
    monkeypatch: pytest.MonkeyPatch, cores: set[int], args: dict[str, object], is_set: bool
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: cores)
    for name in ("VLLM_CPU_OMP_THREADS_BIND", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    model = VllmModel.model_validate({"engine": "vllm", "source": "org/name", "args": args})
    environ = cpu.environ(model)
    assert environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == ("0" if is_set else None)
    assert environ.get("OMP_NUM_THREADS") == (str(len(cores)) if is_set else None)
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in cpu.environ(model), "only workers of their own are bound by it"


@pytest.mark.parametrize(("args", "is_disabled"), [({}, True), ({"enforce-eager": False}, False)])
def test_nothing_is_compiled_within_a_request_unless_compiling_is_wanted(
    args: dict[str, object], is_disabled: bool
) -> None:
    environ = cpu.environ(VllmModel.model_validate({"engine": "vllm", "source": "org/name", "args": args}))
    assert ("TORCHDYNAMO_DISABLE" in environ) == is_disabled


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


def test_the_check_says_where_an_argument_came_from(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("models:\n  a: { engine: vllm, source: org/name, env: { VLLM_API_KEY: x } }\n")
    with pytest.raises(SettingsError, match=rf"models.a.env.VLLM_API_KEY: .* \(from {recipe}:2\)"):
        targets.check(targets.load([str(recipe)], []))


class StandInForVllm:
    """A connection to a vLLM that has more paths than clients may reach."""

    restarts = 0
    is_complete = True

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
