"""The exports for other runtimes, kept whole or not at all."""

from pathlib import Path

import pytest

from servers.apis import exports


class Writer:
    """Writes an export of two files, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, file: Path) -> None:
        self.count += 1
        file.write_bytes(b"graph")
        file.with_name("model.onnx.data").write_bytes(b"weights")


def test_an_export_is_made_once_for_each_key(tmp_path: Path) -> None:
    write = Writer()
    for key in ("a", "a", "b"):
        assert exports.keep(tmp_path / "exports", key, write).read_bytes() == b"graph"
    assert write.count == 2


@pytest.mark.parametrize("damage", ["cut", "gone", "unfinished"])
def test_an_export_that_is_not_whole_is_made_anew(tmp_path: Path, damage: str) -> None:
    write = Writer()
    weights = exports.keep(tmp_path, "a", write).with_name("model.onnx.data")
    if damage == "cut":
        weights.write_bytes(b"weig")
    elif damage == "gone":
        weights.unlink()
    else:
        (tmp_path / "a" / "export.json").unlink()
    assert exports.keep(tmp_path, "a", write).with_name("model.onnx.data").read_bytes() == b"weights"
    assert write.count == 2


def test_a_failed_export_leaves_nothing_that_looks_like_one(tmp_path: Path) -> None:
    def write(file: Path) -> None:
        file.write_bytes(b"graph")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        exports.keep(tmp_path, "a", write)
    assert not (tmp_path / "a").exists()
    assert exports.keep(tmp_path, "a", Writer()).is_file()


def test_a_new_export_takes_the_place_of_older_ones_of_the_same_module(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for key in ("0-old", "0-older", "1-other", "0-new"):
        exports.keep(tmp_path, key, Writer())
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["0-new", "1-other"]
    assert "removed 1 older exports of this model" in caplog.text


def test_other_weights_code_inputs_or_versions_are_another_export(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(exports, "version", lambda name: f"{name}-1")
    module, inputs = torch.nn.Linear(3, 2), {"input": torch.zeros(2, 3)}
    digests = [exports.digest(module, inputs), exports.digest(module, inputs)]
    assert len({*digests}) == 1
    digests.append(exports.digest(module, {"input": torch.zeros(2, 4)}))
    digests.append(exports.digest(torch.nn.Sequential(module), inputs))
    module.weight.data[0, 0] += 1
    digests.append(exports.digest(module, inputs))
    monkeypatch.setattr(exports, "version", lambda name: f"{name}-2")
    digests.append(exports.digest(module, inputs))
    assert len({*digests}) == 5


def test_only_tensors_of_an_answer_are_exported() -> None:
    import torch

    one = torch.zeros(1)
    assert exports.flatten(one) == ([], [one])
    assert exports.flatten({"logits": one, "states": None}) == (["logits"], [one])
    assert exports.flatten((one, None)) == (["0"], [one])
    with pytest.raises(TypeError, match="expected the module to return tensors"):
        exports.flatten("text")


def test_a_number_that_a_module_computes_with_is_another_export(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(exports, "version", lambda name: f"{name}-1")

    class Scaled(torch.nn.Module):
        """Divides by a number of its own."""

        def __init__(self, temperature: float) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)
            self.temperature = temperature
            self.options = {"steps": [1, 2]}

    inputs = {"input": torch.zeros(2, 2)}
    modules = [Scaled(1.0), Scaled(1.08), Scaled(1.0)]
    for module in modules:
        module.linear.load_state_dict(modules[0].linear.state_dict())
    modules[2].options = {"steps": [1, 3]}
    assert len({exports.digest(module, inputs) for module in modules}) == 3
    modules[2].options = {"steps": [1, 2]}
    assert exports.digest(modules[0], inputs) == exports.digest(modules[2], inputs)
