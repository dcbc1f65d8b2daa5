"""The exports for other runtimes, kept whole or not at all; the runtimes themselves where they are installed."""

from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.settings import LitServeModel
from servers.apis import runtimes
from servers.apis.embedding import EmbeddingAPI
from servers.apis.equality import Variant
from servers.apis.image_classification import ImageClassificationAPI
from servers.engines.litserve.kind import LITSERVE

RUNTIMES = [
    pytest.param(name, marks=pytest.mark.skipif(problem is not None, reason=f"NOT TESTED: {problem}"))
    for name in runtimes.PACKAGES
    for problem in [runtimes.problem(name)]
]


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
        assert runtimes.keep(tmp_path / "exports", key, write).read_bytes() == b"graph"
    assert write.count == 2


@pytest.mark.parametrize("damage", ["cut", "gone", "unfinished"])
def test_an_export_that_is_not_whole_is_made_anew(tmp_path: Path, damage: str) -> None:
    write = Writer()
    weights = runtimes.keep(tmp_path, "a", write).with_name("model.onnx.data")
    if damage == "cut":
        weights.write_bytes(b"weig")
    elif damage == "gone":
        weights.unlink()
    else:
        (tmp_path / "a" / "export.json").unlink()
    assert runtimes.keep(tmp_path, "a", write).with_name("model.onnx.data").read_bytes() == b"weights"
    assert write.count == 2


def test_a_failed_export_leaves_nothing_that_looks_like_one(tmp_path: Path) -> None:
    def write(file: Path) -> None:
        file.write_bytes(b"graph")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        runtimes.keep(tmp_path, "a", write)
    assert not (tmp_path / "a").exists()
    assert runtimes.keep(tmp_path, "a", Writer()).is_file()


def test_other_weights_are_another_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "version", lambda name: f"{name}-1")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = runtimes._key(tmp_path)
    assert runtimes._key(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"2")
    second = runtimes._key(tmp_path)
    monkeypatch.setattr(runtimes, "version", lambda name: f"{name}-2")
    assert len({first, second, runtimes._key(tmp_path)}) == 3


def test_a_runtime_that_cannot_run_is_told_by_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "onnx" else object())
    reason = "openvino is not installed; pip install onnx (or `make runtimes`)"
    assert _problems(api="embedding", runtime="openvino") == {"runtime": reason}
    monkeypatch.setattr(runtimes, "find_spec", lambda _: object())
    assert _problems(api="embedding", runtime="openvino", precision="bfloat16") == {}
    assert list(_problems(api="embedding", runtime="onnxruntime", precision="bfloat16")) == ["precision"]
    assert list(_problems(api="pipeline", runtime="onnxruntime")) == ["runtime"]


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # of the exporter
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_model_in_another_runtime_is_proved_and_one_with_other_weights_is_not(
    runtime: str, tiny_classifier: Path, tiny_vit: Path, tmp_path: Path
) -> None:
    for api_class, folder in ((EmbeddingAPI, tiny_classifier), (ImageClassificationAPI, tiny_vit)):
        variant = Variant(runtime=runtime, exports=str(tmp_path))
        api: Any = api_class(str(folder))
        api.variant = variant
        api.setup("cpu")
        assert (api.equality.runtime, api.equality.precision) == (runtime, "float32")
        assert api.equality.cosine > 0.9999
        weights = tmp_path / runtimes._key(folder) / "model.onnx"
        for file in weights.parent.glob("model.onnx*"):  # the same sizes, other numbers
            content = bytearray(file.read_bytes())
            if file.suffix == ".data":
                content[: len(content) // 2] = bytes(len(content) // 2)
                file.write_bytes(content)
        with pytest.raises(UserError, match=f"{runtime} float32 against float32 .* expected"):
            api.setup("cpu")


def _problems(**settings: Any) -> dict[str, str]:
    model = LitServeModel.model_validate({"engine": "litserve", "source": "all-minilm-l6-v2", **settings})
    if settings["api"] == "pipeline":
        model = model.model_copy(update={"init": {"task": "text-classification"}})
    return dict(LITSERVE.check_model(model))
