"""A picture classifier from a folder: the model, its preparation of pictures, and its labels.

It takes an EfficientNet-Lite0 folder, any folder that transformers can load for image classification, and those of timm
where timm is installed, which transformers loads, too.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from servers.apis import equality, pretrained, runtimes
from servers.apis.equality import EAGER, Variant

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_PROOF_BATCH = 4  # the memory that a larger one takes would stay with the process
_LITE0_ARCHITECTURES = ("efficientnet_lite0", "tf_efficientnet_lite0")  # the wheel's name and timm's
_TIMM = ("timm", "torchvision")  # what transformers needs for a folder of timm's; packages of these names


@dataclass(frozen=True)
class PictureClassifier:
    """A model on its device."""

    labels: Sequence[str]
    prepare: "Callable[[Image], Tensor]"  # to (3, height, width), float32, on the CPU
    classify: "Callable[[Tensor], Tensor]"  # (rows, 3, height, width) to logits (rows, classes)


def from_folder(model_dir: Path, device: str, variant: Variant) -> PictureClassifier:
    """The classifier in `model_dir`, on `device`, in the precision and runtime of the variant.

    Raises ValueError if the folder holds none, UserError where a package is missing or the runtime cannot run it.
    """
    runtimes.refuse_precision(variant, device)
    config_file = model_dir / "config.json"
    if not config_file.is_file():
        raise ValueError(f"expected a model folder with a config.json, got {model_dir}")
    config = json.loads(config_file.read_text())
    if config.get("architecture") in _LITE0_ARCHITECTURES:
        return _lite0(model_dir, config, device, variant)
    missing = [name for name in _TIMM if find_spec(name) is None]
    if "architecture" in config and missing:
        raise UserError(
            f"{model_dir}: {config['architecture']} is a model of timm's; pip install {' '.join(missing)} "
            f"(torchvision in the build of torch {version('torch')})"
        )
    return _transformers(model_dir, device, variant)


def answer_proof(
    images: "Sequence[Image]", rows: "list[Tensor]", classifier: PictureClassifier, size: int | None
) -> "Tensor":
    """The logits of the pictures of the proof and then of the `images` of checks, each of these alone.

    With a `size`, of so many pictures of the proof at once. `rows` keeps what is prepared.
    """
    import torch

    rows += [classifier.prepare(picture) for picture in (*equality.make_pictures(), *images)] if not rows else []
    fixed_rows = rows[: len(rows) - len(images)]
    with torch.inference_mode():
        if size is not None:
            return classifier.classify(torch.stack((fixed_rows * math.ceil(size / len(fixed_rows)))[:size]))
        pixels = torch.stack(fixed_rows)
        batches = [pixels[:1], *pixels[1:].chunk(len(fixed_rows) // _PROOF_BATCH)]
        batches += [row[None] for row in rows[len(fixed_rows) :]]
        return torch.cat([classifier.classify(batch).float().cpu() for batch in batches])


def _lite0(model_dir: Path, config: dict[str, Any], device: str, variant: Variant) -> PictureClassifier:
    from safetensors.torch import load_file

    from servers.apis import efficientnet_lite

    model = efficientnet_lite.from_state(load_file(model_dir / "model.safetensors"))
    if variant.name != EAGER:
        model.fuse()  # rounding after each norm as well changed the class of three times as many pictures
    model = model.to(device)
    labels = config.get("label_names") or Path(__file__).with_name("imagenet_labels.txt").read_text().splitlines()
    if len(labels) != model.classifier.out_features:
        raise ValueError(f"the model has {model.classifier.out_features} classes, but there are {len(labels)} labels")
    prepare = efficientnet_lite.prepare
    return PictureClassifier(labels, prepare, _forward(model, prepare, device, variant, None))


def _transformers(model_dir: Path, device: str, variant: Variant) -> PictureClassifier:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained(model_dir, trust_remote_code=False)
    dtype = variant.precision if variant.runtime == "eager" else EAGER
    model = pretrained.load(AutoModelForImageClassification, model_dir, dtype=dtype)
    model = model.to(device).eval()
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]

    def prepare(image: "Image") -> "Tensor":
        pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    return PictureClassifier(labels, prepare, _forward(model, prepare, device, variant, "logits"))


def _forward(
    model: Any,
    prepare: "Callable[[Image], Tensor]",
    device: str,
    variant: Variant,
    output: str | None,
) -> "Callable[[Tensor], Tensor]":
    """From pixels to logits, the attribute `output` of the model's answer or the answer itself.

    In a shorter type than float32 the pixels lie channels last, as convolutions on a CPU want them.
    """
    import torch

    def logits(pixels: "Tensor") -> "Tensor":
        answer = model(pixels)
        tensor: Tensor = answer if output is None else getattr(answer, output)
        return tensor

    if variant.runtime != "eager":
        rows = torch.stack([prepare(picture) for picture in equality.make_pictures()[:2]])
        replacement = runtimes.prepare(variant, model, {"pixels" if output is None else "pixel_values": rows}, device)
        replacement.enable()
        replacement.release()
    if variant.runtime != "eager" or variant.precision == EAGER:
        return lambda pixels: logits(pixels.to(device))
    dtype: torch.dtype = getattr(torch, variant.precision)
    model.to(dtype=dtype, memory_format=torch.channels_last)
    return lambda pixels: logits(pixels.to(device, dtype, memory_format=torch.channels_last))
