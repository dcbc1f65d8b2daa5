"""The runtimes themselves, where they are installed, and what the check of the settings says of them."""

import base64
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.settings import LitServeModel
from servers.apis import export_hook, runtimes
from servers.apis.embedding import EmbeddingAPI
from servers.apis.equality import Variant, make_pictures
from servers.apis.image_classification import ImageClassificationAPI
from servers.apis.picture_request import PictureRequest
from servers.apis.pipeline import PipelineAPI, _Call
from servers.engines.litserve.kind import LITSERVE
from tests.servers.apis import tiny

PICTURE = base64.b64decode(str(ImageClassificationAPI.example_request["image"]))
RUNTIMES = [
    pytest.param(name, marks=pytest.mark.skipif(problem is not None, reason=f"NOT TESTED: {problem}"))
    for name in runtimes.PACKAGES
    for problem in [runtimes.problem(name)]
]


def test_a_runtime_that_cannot_run_is_told_by_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "onnx" else object())
    reason = "openvino is not installed; pip install onnx (or `make runtimes`)"
    assert _problems(api="embedding", runtime="openvino") == {"runtime": reason}
    monkeypatch.setattr(runtimes, "find_spec", lambda _: object())
    assert _problems(api="embedding", runtime="openvino", precision="bfloat16") == {}
    assert list(_problems(api="embedding", runtime="onnxruntime", precision="bfloat16")) == ["precision"]
    assert list(_problems(api="causal_lm", runtime="onnxruntime")) == ["runtime"]
    assert _problems(api="pipeline", runtime="auto") == {}
    assert list(_problems(api="pipeline", runtime="auto", precision="bfloat16")) == ["precision"]
    assert list(_problems(api="pipeline", precision="bfloat16")) == ["precision"]
    assert _problems(api="embedding", precision="float16") == {}
    assert list(_problems(api="embedding", precision="float16", accelerator="cpu")) == ["precision"]
    assert list(_problems(api="embedding", precision="float16", runtime="onnxruntime")) == ["precision"]


@pytest.mark.long  # those have the runtimes
def test_an_answer_of_openvino_that_was_not_computed_is_an_error_and_not_the_one_before(tmp_path: Path) -> None:
    """Without rows nothing is computed, as where a node fails."""
    pytest.importorskip("openvino", reason="NOT TESTED: openvino is not installed")
    import numpy as np
    from onnx import TensorProto, helper, save

    x, y = (helper.make_tensor_value_info(letter, TensorProto.FLOAT, ["rows", 2]) for letter in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "negative", [x], [y])
    file = tmp_path / "model.onnx"
    save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), file)
    session = runtimes._openvino(file, Variant(runtime="openvino"))
    rows = np.ones((3, 2), np.float32)
    for _ in range(2):
        (answer,) = session({"x": rows})
        assert (answer == -rows).all()
        with pytest.raises(RuntimeError, match="openvino computed no answer"):
            session({"x": rows[:0]})


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # of the exporter
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_model_in_another_runtime_is_proved_and_one_with_other_weights_is_not(
    runtime: str, tiny_classifier: Path, tiny_vit: Path, tmp_path: Path
) -> None:
    for api_class, folder in ((EmbeddingAPI, tiny_classifier), (ImageClassificationAPI, tiny_vit)):
        root = tmp_path / folder.name
        api: Any = api_class(str(folder))
        export_hook.attach(api, Variant(runtime=runtime, exports=str(root)))
        api.setup("cpu")
        assert (api.equality.runtime, api.equality.precision) == (runtime, "float32")
        assert api.equality.cosine > 0.9999
        spoil(root)
        with pytest.raises(UserError, match=f"{runtime} float32 against float32 .* expected"):
            api.setup("cpu")


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # of the exporter
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_pipeline_of_an_encoder_and_a_plugin_hand_their_modules_over(
    runtime: str, tiny_classifier: Path, tiny_vit: Path, tmp_path: Path
) -> None:
    for task, folder, inputs in (
        ("text-classification", tiny_classifier, ["one", "a longer text"]),
        ("image-classification", tiny_vit, [make_pictures()[0], make_pictures()[1]]),
    ):
        eager = PipelineAPI(task, str(folder), max_batch_size=2)
        eager.setup("cpu")
        api = PipelineAPI(task, str(folder), max_batch_size=2)
        export_hook.attach(api, Variant(runtime=runtime, exports=str(tmp_path / task)))
        api.setup("cpu")
        assert api.equality.cosine > 0.9999
        calls = [_Call([item], False, {}) for item in inputs]
        for answer, expected in zip(api.predict(calls), eager.predict(calls), strict=True):
            assert [entry["label"] for entry in to_list(answer)] == [entry["label"] for entry in to_list(expected)]
            scores = [entry["score"] for entry in to_list(expected)]
            assert [entry["score"] for entry in to_list(answer)] == pytest.approx(scores, abs=1e-4)
        spoil(tmp_path / task)
        with pytest.raises(UserError, match=r"expected cosine|failed"):
            api.setup("cpu")


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # of the exporter
@pytest.mark.parametrize("kind", tiny.PICTURE_MODELS)
def test_a_random_picture_classifier_of_any_family_is_served_and_exported(kind: str, tmp_path: Path) -> None:
    folder = tiny.picture_model(kind, tmp_path / kind)
    variants = [Variant("bfloat16", top1=0.5)]
    variants += [Variant(runtime=name, exports=str(tmp_path / "exports")) for name in runtimes.usable("float32")]
    for variant in variants:
        api = ImageClassificationAPI(str(folder), max_batch_size=2)
        export_hook.attach(api, variant)
        api.setup("cpu")
        assert api.equality is not None
        assert (api.equality.runtime, api.equality.precision) == (variant.runtime, variant.precision)
        [answer] = api.predict([api.decode_request(PictureRequest(PICTURE, 7))])
        assert sum(each["score"] for each in answer["predictions"]) == pytest.approx(1, abs=1e-3)


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # of the exporter
@pytest.mark.skipif(find_spec("timm") is None, reason="NOT TESTED: timm is not installed")
def test_a_folder_of_timm_is_served_and_exported(tmp_path: Path) -> None:
    folder = tiny.timm_model(tmp_path / "timm")
    eager = ImageClassificationAPI(str(folder))
    eager.setup("cpu")
    answer = eager.predict(eager.decode_request(PictureRequest(PICTURE, 7)))
    assert sorted(each["label"] for each in answer["predictions"]) == [f"class {index}" for index in range(7)]
    for name in runtimes.usable("float32"):
        api: Any = ImageClassificationAPI(str(folder))
        export_hook.attach(api, Variant(runtime=name, exports=str(tmp_path / "exports")))
        api.setup("cpu")
        assert (api.equality.runtime, api.equality.top1) == (name, 1)
        predictions = api.predict(api.decode_request(PictureRequest(PICTURE, 7)))["predictions"]
        assert [each["label"] for each in predictions] == [each["label"] for each in answer["predictions"]]


def spoil(root: Path) -> None:
    """Half of the weights become zeros; the files keep their sizes."""
    for file in root.glob("*/model.onnx.data"):
        content = bytearray(file.read_bytes())
        content[: len(content) // 2] = bytes(len(content) // 2)
        file.write_bytes(content)


def to_list(answer: Any) -> list[dict[str, Any]]:
    return answer if isinstance(answer, list) else [answer]


def _problems(**settings: Any) -> dict[str, str]:
    model = LitServeModel.model_validate({"engine": "litserve", "source": "all-minilm-l6-v2", **settings})
    if settings["api"] == "pipeline":
        model = model.model_copy(update={"init": {"task": "text-classification"}})
    return dict(LITSERVE.check_model(model))
