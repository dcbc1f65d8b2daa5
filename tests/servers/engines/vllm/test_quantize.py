"""`--precision int8` of a language model: 8-bit weights with their scales, and what was measured of them."""

import json
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.settings import LitportSettings, Server, VllmModel
from servers.engines.registry import optimize
from tests.servers.apis import tiny


@pytest.mark.long
def test_a_model_in_8_bits_is_compared_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file

    model = VllmModel(engine="vllm", source=str(tiny.language_model(tmp_path / "model")))
    settings = LitportSettings(models={"tiny": model}, server=Server(cache_dir=tmp_path / "cache"))
    folder = tmp_path / "cache" / "exports" / "tiny" / "int8"
    for _ in range(2):  # the second time it takes the place of the first
        optimize(settings, "tiny", None, "int8")
        assert f"kept in {folder}\nto serve it: models.tiny.source: {folder}\n" in capsys.readouterr().out
    weights = load_file(folder / "model.safetensors")
    kinds = {name.rpartition(".")[2]: str(tensor.dtype) for name, tensor in weights.items() if "mlp.up" in name}
    assert kinds == {"weight": "torch.int8", "weight_scale": "torch.float32"}
    assert {"int8.json", "config.json", "tokenizer_config.json"} <= {file.name for file in folder.iterdir()}
    assert list(folder.parent.iterdir()) == [folder]
    quantization = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert (quantization["quant_method"], quantization["format"]) == ("compressed-tensors", "int-quantized")


def test_only_int8_is_made_of_a_language_model(tmp_path: Path) -> None:
    settings = LitportSettings(models={"m": VllmModel(engine="vllm", source=str(tmp_path))})
    for runtime, precision in (("openvino", "int8"), (None, "bfloat16"), (None, None)):
        with pytest.raises(UserError, match=r"models\.m: engine vllm takes --precision int8 and no --runtime"):
            optimize(settings, "m", runtime, precision)


@pytest.mark.long
def test_a_model_without_linear_layers_is_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    source = tiny.language_model(tmp_path / "model")
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 256}
    GPT2LMHeadModel(GPT2Config(vocab_size=257, **sizes)).save_pretrained(source)
    model = VllmModel(engine="vllm", source=str(source))
    settings = LitportSettings(models={"tiny": model}, server=Server(cache_dir=tmp_path / "cache"))
    with pytest.raises(UserError, match=r"8 bits are for linear layers, of which this model \(gpt2\) has none"):
        optimize(settings, "tiny", None, "int8")
