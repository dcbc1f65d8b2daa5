"""What conversion gives: weights that load and say the right thing, files that others may read."""

import json
import re
from pathlib import Path

import gguf
import numpy
import pytest

from configs.errors import UserError
from servers.store import Store
from tests.services.terminal import terminal


def test_converted_smollm2_answers_greedily_with_paris(model_cache: Path) -> None:
    path = Store(model_cache).pull("smollm2-135m-instruct")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, do_sample=False, max_new_tokens=16)
    text = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text == "The capital of France is Paris."


def test_converted_efficientnet_keeps_the_tensors_and_their_names(model_cache: Path) -> None:
    path = Store(model_cache).pull("efficientnet-lite0")
    from safetensors import safe_open

    with safe_open(path / "model.safetensors", framework="np") as tensors:
        names = set(tensors.keys())
        assert tensors.get_slice("_fc.weight").get_shape() == [1000, 1280]
    assert "_conv_stem.weight" in names


@pytest.mark.parametrize("source", ["smollm2-135m-instruct", "efficientnet-lite0"])
def test_converted_files_can_be_read_by_others(source: str, model_cache: Path) -> None:
    path = Store(model_cache).pull(source)
    assert {file.name: oct(file.stat().st_mode & 0o444) for file in path.iterdir()} == {
        file.name: "0o444" for file in path.iterdir()
    }


@pytest.mark.long
def test_a_broken_gguf_file_names_itself(store: Store, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(UserError, match=r"broken\.gguf could not be converted to safetensors: "):
        store.pull(str(broken))
    assert store.list() == []


@pytest.mark.long
def test_a_bar_moves_while_a_file_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITPORT_SERVER__CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    with terminal("models", "pull", str(tmp_path / "broken.gguf"), columns=100) as screen:
        screen.wait("broken.gguf could not be converted to safetensors: ", 60)
    # A bar without an end moves by its colours.
    frames = set(re.findall(r"converting [^\r\n]*\u2501[^\r\n]*", screen.output))
    assert len(frames) > 3, screen.output


@pytest.mark.long
def test_code_beside_a_gguf_file_is_not_run(store: Store, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_vocab_size(8)
    writer.add_tensor("output_norm.weight", numpy.zeros(32, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (tmp_path / "evil.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()")
    code = {"AutoConfig": "evil.X", "AutoModelForCausalLM": "evil.X", "AutoTokenizer": ["evil.X", "evil.X"]}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": code}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Evil", "auto_map": code}))
    with pytest.raises(
        UserError, match=r"tiny\.gguf could not be .*ask for code of their own \(auto_map\), which is never"
    ):
        store.pull(str(tmp_path / "tiny.gguf"))
    assert not (tmp_path / "ran").exists()
    assert store.list() == []
