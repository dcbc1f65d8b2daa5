"""Which files are taken: one set of safe weights, what belongs to it, and never code."""

import pytest

from servers.store.errors import SourceError
from servers.store.weights import from_repository, from_wheel


def test_a_repository_gives_its_safetensors_once() -> None:
    choice = from_repository(
        [
            "LICENSE",
            "README.md",
            "config.json",
            "consolidated.safetensors",
            "flax_model.msgpack",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "modeling_custom.py",
            "onnx/config.json",
            "onnx/model.onnx",
            "original/params.json",
            "pytorch_model.bin",
            "1_Pooling/config.json",
            "tokenizer.json",
            "weights.Q4_K_M.gguf",
        ]
    )
    assert choice.weights == ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    assert set(choice.side_files) == {
        "1_Pooling/config.json",
        "LICENSE",
        "config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
    }


def test_a_repository_of_one_gguf_file_gives_it() -> None:
    assert from_repository(["README.md", "model.Q4_1.gguf"]).kind == "gguf"


def test_a_repository_of_several_gguf_files_is_ambiguous() -> None:
    with pytest.raises(SourceError, match="2 GGUF files"):
        from_repository(["a.gguf", "b.gguf"])


def test_a_repository_of_pickles_is_refused() -> None:
    with pytest.raises(SourceError, match="can run code") as error:
        from_repository(["config.json", "pytorch_model.bin"])
    assert "pytorch_model.bin" in error.value.cause


def test_a_repository_without_weights_is_refused() -> None:
    with pytest.raises(SourceError, match="holds no weights"):
        from_repository(["README.md"])


def test_a_wheels_model_is_its_folder_with_config_and_safetensors() -> None:
    choice = from_wheel(
        [
            "pkg/__init__.py",
            "pkg/model/1_Pooling/config.json",
            "pkg/model/config.json",
            "pkg/model/model.safetensors",
            "pkg/other.json",
            "pkg-1.dist-info/licenses/LICENSE",
        ]
    )
    assert choice.kind == "safetensors"
    assert choice.files == (
        "pkg/model/model.safetensors",
        "pkg/model/1_Pooling/config.json",
        "pkg/model/config.json",
        "pkg-1.dist-info/licenses/LICENSE",
    )


def test_two_models_in_a_wheel_are_ambiguous() -> None:
    names = ["a/config.json", "a/model.safetensors", "b/config.json", "b/model.safetensors"]
    with pytest.raises(SourceError, match="2 models"):
        from_wheel(names)


@pytest.mark.parametrize("name", ["../evil.json", "/etc/evil.json", "a/../../evil.json", "a\\..\\evil.json"])
def test_a_name_outside_the_folder_is_refused(name: str) -> None:
    with pytest.raises(SourceError, match="outside its folder"):
        from_wheel(["m/config.json", "m/model.safetensors", name])
    with pytest.raises(SourceError, match="outside its folder"):
        from_repository(["config.json", "model.safetensors", name])
