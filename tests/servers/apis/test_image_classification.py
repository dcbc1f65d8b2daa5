import base64
import io
import json
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from servers.apis import classifier, efficientnet_lite, equality, pictures
from servers.apis.equality import Variant
from servers.apis.image_classification import ImageClassificationAPI
from servers.apis.picture_request import PictureBatch, PictureRequest
from servers.apis.rejection import Rejection
from tests.servers.conftest import Serve
from tests.servers.engines.litserve.child import Child

CATS = {"tiger cat", "Egyptian cat", "tabby", "Persian cat", "Siamese cat"}


@pytest.fixture(scope="module")
def cat() -> bytes:
    import skimage

    return (Path(skimage.__file__).parent / "data" / "chelsea.png").read_bytes()


@pytest.fixture(scope="module")
def child(serve: Serve, model_folder: Callable[[str], Path]) -> Child:
    folder = model_folder("efficientnet-lite0")
    return serve(api="image_classification", model_dir=str(folder), max_batch_size=4, batch_timeout=0.02)


def test_a_cat_is_a_cat_by_upload_and_by_base64(child: Child, cat: bytes) -> None:
    text = base64.b64encode(cat).decode()
    answers = [
        child.http.post("/predict", files={"image": cat}),
        child.http.post("/predict", files={"file": ("cat.png", cat, "image/png")}, data={"top_k": "5"}),
        child.predict(image=text),
        child.predict(image=f"data:image/png;base64,{text}", top_k=5),
    ]
    predictions = [answer.json()["predictions"] for answer in answers]
    assert len(predictions[0]) == 5
    assert predictions[0][0]["label"] in CATS
    assert {each["label"] for each in predictions[0]} & CATS >= {"tiger cat", "tabby"}
    assert all(other[0] == predictions[0][0] for other in predictions)


def test_top_k_is_how_many_labels_come_and_all_scores_add_up_to_one(child: Child, cat: bytes) -> None:
    text = base64.b64encode(cat).decode()
    assert len(child.predict(image=text, top_k=2).json()["predictions"]) == 2
    everything = child.predict(image=text, top_k=1000).json()["predictions"]
    assert sum(each["score"] for each in everything) == pytest.approx(1, abs=1e-3)
    assert everything == sorted(everything, key=lambda each: -each["score"])


def test_the_canary_is_answered(child: Child) -> None:
    assert child.predict(**child.card["example"]).status_code == 200


@pytest.mark.parametrize(
    ("request_body", "status", "says"),
    [
        ({"json": {}}, 422, "image: expected"),
        ({"json": []}, 422, "image: expected"),
        ({"json": {"image": 5}}, 422, "image: expected"),
        ({"json": {"image": "@@@"}}, 422, "image: expected base64"),
        ({"json": {"image": "data:image/png,x"}}, 422, "image: expected a data URL"),
        ({"json": {"image": "http://localhost/cat.png"}}, 422, "fetches nothing"),
        ({"json": {"image": "aGVsbG8="}}, 422, "image: expected a picture (BMP"),
        ({"json": {"image": "CAT"}}, 422, "image: expected base64"),
        ({"json": {"image": "aGVsbG8=", "top_k": 0}}, 422, "top_k: expected a whole number from 1 to 1000, got '0'"),
        ({"json": {"image": "aGVsbG8=", "top_k": True}}, 422, "top_k"),
        ({"files": {"image": b"x"}, "data": {"top_k": "two"}}, 422, "top_k"),
        ({"files": {"picture": b"x"}}, 422, "image: expected a file in the form field"),
        ({"files": {"image": b""}}, 422, "image"),
        ({"content": b"{"}, 400, "this is neither"),
        ({"content": b"\xff"}, 400, "this is neither"),
    ],
)
def test_what_is_no_picture_is_the_clients_error(
    child: Child, request_body: dict[str, Any], status: int, says: str
) -> None:
    answer = child.http.post("/predict", **request_body)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"]


def test_a_broken_picture_does_not_fail_its_neighbours_in_the_batch(child: Child, cat: bytes) -> None:
    texts = [base64.b64encode(data).decode() for data in (cat, cat[: len(cat) // 2])]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda index: child.predict(image=texts[index % 2]).status_code, range(8))
    assert list(answers) == [200, 422] * 4


@pytest.mark.parametrize("side_px", [8_000, 20_000])  # above our limit, and above Pillow's
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_unpacked(side_px: int) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("1", (side_px, side_px)).save(buffer, format="PNG")
    assert len(buffer.getvalue()) < 100_000
    with pytest.raises(ValueError, match="expected at most 50,000,000 pixels"):
        pictures.decode(buffer.getvalue())


def test_a_picture_on_its_side_is_turned_upright() -> None:
    from PIL import Image

    image = Image.new("RGB", (30, 10))
    exif = image.getexif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", exif=exif)
    assert pictures.decode(buffer.getvalue()).size == (10, 30)


def test_a_tag_of_exif_that_is_not_of_its_type_does_not_matter() -> None:
    from PIL import Image

    entries = [(0x0112, 3, 1, b"\0\6\0\0"), (0x011A, 2, 4, b"abc\0")]  # orientation; XResolution, which is no text
    tags = b"".join(struct.pack(">HHL4s", *entry) for entry in entries)
    exif = b"Exif\0\0MM\0*" + struct.pack(">LH", 8, len(entries)) + tags + bytes(4)
    buffer = io.BytesIO()
    Image.new("RGB", (30, 10)).save(buffer, format="JPEG", exif=exif)
    assert pictures.decode(buffer.getvalue()).size == (10, 30)


def test_any_transformers_classifier_is_served_with_its_own_labels(tiny_vit: Path, cat: bytes) -> None:
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    api = ImageClassificationAPI(str(tiny_vit), max_batch_size=2)
    api.setup("cpu")
    inputs = [api.decode_request(PictureRequest(data, 3)) for data in (cat, b"none")]
    good, bad = [api.encode_response(output) for output in api.predict(inputs)]
    pixels = AutoImageProcessor.from_pretrained(tiny_vit)(Image.open(io.BytesIO(cat)), return_tensors="pt")
    with torch.inference_mode():
        scores = AutoModelForImageClassification.from_pretrained(tiny_vit)(**pixels).logits[0].softmax(-1)
    best = scores.topk(3)
    assert [each["label"] for each in good["predictions"]] == [f"LABEL_{index}" for index in best.indices.tolist()]
    assert [each["score"] for each in good["predictions"]] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert isinstance(inputs[1], Rejection)
    assert bad.status_code == 422


@pytest.fixture(scope="module")
def proportional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier whose processor keeps the proportions of a picture."""
    from transformers import BitImageProcessor, ResNetConfig, ResNetForImageClassification

    folder = tmp_path_factory.mktemp("proportional")
    sizes = {"embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic"}
    ResNetForImageClassification(ResNetConfig(**sizes)).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 32}, do_center_crop=False).save_pretrained(folder)
    return folder


def test_pictures_whose_proportions_the_processor_keeps_are_classified_together(proportional: Path) -> None:
    import numpy as np
    from PIL import Image

    api = ImageClassificationAPI(str(proportional), max_batch_size=2)
    api.setup("cpu")
    images: list[bytes] = []
    for width in (64, 96, 64):
        buffer = io.BytesIO()
        noise = np.random.default_rng(len(images)).integers(0, 256, (64, width, 3), np.uint8)
        Image.fromarray(noise).save(buffer, format="PNG")
        images.append(buffer.getvalue())
    requests = [PictureBatch(images, 2), *(PictureBatch([image], 2) for image in images)]
    together, *alone = api.predict([api.decode_request(request) for request in requests])
    for place, answer in enumerate(alone):
        assert together["labels"][place] == answer["labels"][0]
        assert together["scores"][place].tolist() == pytest.approx(answer["scores"][0].tolist(), abs=1e-5)


def test_a_picture_of_a_check_may_have_other_proportions_than_those_of_the_proof(proportional: Path) -> None:
    from PIL import Image

    model = classifier.from_folder(proportional, "cpu", Variant())
    logits = classifier.answer_proof([Image.new("RGB", (90, 30))], [], model, None)
    assert len(logits) == len(equality.make_pictures()) + 1


def test_weights_under_timms_names_give_the_same_logits() -> None:
    import torch

    torch.manual_seed(0)
    model = efficientnet_lite.EfficientNetLite0(classes=10).eval()
    ours = model.state_dict()
    timms = {_timm_name(name): value for name, value in ours.items()}
    assert "blocks.0.0.conv_pw.weight" in timms  # the first stage projects with what the others expand with
    assert "blocks.6.0.bn3.running_var" in timms
    assert len(timms) == len(ours)
    again = efficientnet_lite.from_state(timms)
    pixels = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(model(pixels), again(pixels))


def test_weights_of_another_model_are_refused() -> None:
    import torch

    with pytest.raises(ValueError, match="hold no classifier"):
        efficientnet_lite.from_state({"layer.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="names missing"):
        efficientnet_lite.from_state({"classifier.bias": torch.zeros(5), "classifier.weight": torch.zeros(5, 1280)})


def test_a_model_of_timm_names_the_packages_that_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet50"}))
    monkeypatch.setattr(classifier, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"resnet50 is a model of timm's; pip install timm torchvision \(torch"):
        ImageClassificationAPI(str(tmp_path)).setup("cpu")
    with pytest.raises(ValueError, match=r"expected a model folder with a config\.json"):
        ImageClassificationAPI(str(tmp_path / "none")).setup("cpu")


def _timm_name(name: str) -> str:
    parts = name.split(".")
    if parts[0] in ("stem", "head"):
        return ".".join([{"stem.conv": "conv_stem", "stem.norm": "bn1", "head.conv": "conv_head", "head.norm": "bn2"}[
            ".".join(parts[:2])], *parts[2:]])  # fmt: skip
    if parts[0] != "blocks":
        return name
    starts = [0, 1, 3, 5, 8, 11, 15]  # 1, 2, 2, 3, 3, 4, 1 blocks a stage
    block = int(parts[1])
    stage = max(index for index, start in enumerate(starts) if start <= block)
    order = ["depthwise", "project"] if stage == 0 else ["expand", "depthwise", "project"]
    place = order.index(parts[2])
    convolutions = ["conv_dw", "conv_pw"] if stage == 0 else ["conv_pw", "conv_dw", "conv_pwl"]
    part = convolutions[place] if parts[3] == "conv" else f"bn{place + 1}"
    return ".".join(["blocks", str(stage), str(block - starts[stage]), part, *parts[4:]])
