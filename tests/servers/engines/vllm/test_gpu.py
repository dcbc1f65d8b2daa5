"""How vLLM's models share a GPU, by the facts of a card as its driver tells them; no GPU was run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from configs.settings import LitportSettings, VllmModel
from servers.engines.kind import Site
from servers.engines.vllm import engine as vllm
from servers.engines.vllm import gpu
from servers.engines.vllm.engine import VLLM, VllmEngine
from servers.telemetry import machine

GIB = 1024**3
H100 = "NVIDIA H100 80GB HBM3, 81559, 580.95.05"  # as nvidia-smi writes it
# 2 (keys and values) x 32 layers x 8 heads x 128 numbers x 2 bytes
KV_BYTES = 2 * 32 * 8 * 128 * 2


@pytest.fixture(autouse=True)
def one_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with one card, and vLLM's build for it."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{H100}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(vllm, "on_cpu", lambda: False)
    gpu.gpus.cache_clear()


def test_a_model_that_has_the_gpu_to_itself_gets_vllms_default(tmp_path: Path) -> None:
    assert _shares(tmp_path, chat=_model(tmp_path, 16)) == {("chat", 0): None}
    engine = _engine(tmp_path, "chat", chat=_model(tmp_path, 16))
    assert "gpu-memory-utilization" not in " ".join(_argv(engine))
    assert engine.needs(None).gpu_shares == {"0": 0.92}


def test_several_hold_the_same_number_of_sequences_within_what_vllm_would_take_alone(tmp_path: Path) -> None:
    models = {"large": _model(tmp_path, 16, 8192), "small": _model(tmp_path, 2, 2048)}
    shares = _shares(tmp_path, **models)
    total_bytes = gpu.gpus()[0].memory_mib * 1024**2
    sequences = [
        (share * total_bytes - (weights + 3) * GIB) / (length * KV_BYTES)
        for share, weights, length in zip(_values(shares), (16, 2), (8192, 2048), strict=True)
    ]
    assert sequences[0] == pytest.approx(sequences[1], rel=0.02)
    assert sequences[0] > 30
    assert 0.915 < sum(_values(shares)) <= 0.92
    words = _argv(_engine(tmp_path, "small", **models))
    assert f"--gpu-memory-utilization={shares['small', 0]}" in words


def test_replicas_without_devices_share_and_those_with_devices_do_not(tmp_path: Path) -> None:
    model = {"engine": "vllm", **_model(tmp_path, 16), "replicas": 2}
    assert _shares(tmp_path, chat=model) == {("chat", 0): 0.46, ("chat", 1): 0.46}
    apart = {**model, "devices": [[0], [1]]}
    assert _shares(tmp_path, chat=apart) == {("chat", 0): None, ("chat", 1): None}
    assert gpu.visible(VllmModel(**{**model, "args": {"tensor-parallel-size": 2}}), 0) == ("0", "1")
    assert gpu.visible(VllmModel(**{**model, "env": {"CUDA_VISIBLE_DEVICES": "3, 4"}}), 0) == ("3",)


def test_what_is_set_stays_and_the_others_share_what_it_leaves(tmp_path: Path) -> None:
    fixed = _model(tmp_path, 16, args={"gpu-memory-utilization": 0.5})
    other = _model(tmp_path, 2)
    assert _shares(tmp_path, fixed=fixed, other=other) == {("fixed", 0): 0.5, ("other", 0): 0.42}
    in_bytes = {"args": {"kv-cache-memory-bytes": GIB}}
    assert _shares(tmp_path, a={**other, **in_bytes}, b={**other, **in_bytes}) == {("a", 0): 0.0, ("b", 0): 0.0}


def test_models_that_are_not_here_yet_get_equal_parts(tmp_path: Path) -> None:
    models = {name: {"source": f"org/{name}"} for name in ("a", "b", "c")}
    assert _values(_shares(tmp_path, **models)) == [0.306] * 3


def test_of_those_on_demand_the_largest_has_room_beside_those_that_stay(tmp_path: Path) -> None:
    passing = {f"p{number}": {**_model(tmp_path, 20), "load": "on_demand"} for number in range(9)}
    shares = _shares(tmp_path, stays=_model(tmp_path, 20), **passing)
    assert len({*_values(shares)}) == 1
    assert shares["stays", 0] == pytest.approx(0.46, abs=0.001)


def test_what_cannot_fit_is_refused_before_the_start_with_the_sum(tmp_path: Path) -> None:
    models = {name: _model(tmp_path, 40) for name in ("a", "b")}
    (line,) = _problems(tmp_path, **models)
    assert line.startswith("models.b.args.gpu-memory-utilization: GPU 0 has 79.6 GiB, of which 0.92 is 73.3 GiB; ")
    assert "a 43.0 GiB + 1.0 GiB for a sequence of full length; b 43.0 GiB + 1.0 GiB" in line
    (line,) = _problems(tmp_path, alone=_model(tmp_path, 90))
    assert "; these need more: alone 93.0 GiB + 1.0 GiB" in line
    assert _problems(tmp_path, alone={**_model(tmp_path, 90), "args": {"quantization": "fp8"}}) == []
    apart = {name: {**model, "devices": [[number]]} for number, (name, model) in enumerate(models.items())}
    assert _problems(tmp_path, **apart) == []
    both = {name: {**model, "args": {"gpu-memory-utilization": 0.6}} for name, model in models.items()}
    (line,) = _problems(tmp_path, **both)
    assert line.endswith("on GPU 0 the parts that are set are a 0.6 + b 0.6 = 1.2, more than 1")


def _model(folder: Path, weights_gib: int, length: int = 8192, **settings: Any) -> dict[str, Any]:
    source = folder / f"{weights_gib}-{length}"
    source.mkdir(exist_ok=True)
    config = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    text = json.dumps({**config, "max_position_embeddings": length, "dtype": "bfloat16"})
    (source / "config.json").write_text(text)
    size = weights_gib * GIB
    head = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with (source / "model.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + size)  # a hole
    return {"source": str(source), **settings}


def _settings(folder: Path, models: Mapping[str, Any]) -> LitportSettings:
    tree = {name: {"engine": "vllm", **model} for name, model in models.items()}
    return LitportSettings.from_layers([{"models": tree, "server": {"cache_dir": str(folder)}}])


def _models(folder: Path, models: Mapping[str, Any]) -> dict[str, VllmModel]:
    return {name: model for name, model in _settings(folder, models).models.items() if isinstance(model, VllmModel)}


def _shares(folder: Path, **models: Any) -> Mapping[gpu.Key, float | None]:
    return gpu.divide(_models(folder, models), folder, gpu.gpus()).shares


def _values(shares: Mapping[gpu.Key, float | None]) -> list[float]:
    return [share for share in shares.values() if share is not None]


def _problems(folder: Path, **models: Any) -> list[str]:
    return list(gpu.problems(_models(folder, models), folder, {}))


def _engine(folder: Path, name: str, **models: Any) -> VllmEngine:
    settings = _settings(folder, models)
    engine = VLLM.make(name, settings.models[name], Site(settings, Path("socket"), frozenset()))
    assert isinstance(engine, VllmEngine)
    return engine


def _argv(engine: VllmEngine) -> list[str]:
    return engine.command(Path("/models/x"), Path("/run/0.sock")).argv


def test_the_card_is_the_one_that_its_driver_names() -> None:
    assert gpu.gpus() == (machine.Gpu("NVIDIA H100 80GB HBM3", 81559, "580.95.05"),)


def test_copies_of_a_model_take_gpus_of_their_own_with_all_of_the_weights(tmp_path: Path) -> None:
    copies = _model(tmp_path, 16, args={"data-parallel-size": 2})
    alone = {**_model(tmp_path, 8), "devices": [[1]]}
    shares = _shares(tmp_path, chat=copies, other=alone)
    assert len(_values(shares)) == 2, "they share the second GPU"
    assert sum(_values(shares)) <= 0.92
    assert _engine(tmp_path, "chat", chat=copies).needs(None).gpu_shares == {"0": 0.92, "1": 0.92}
