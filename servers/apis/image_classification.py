"""Picture classification: the likeliest labels of a picture, uploaded as a file or sent as base64 in JSON.

It takes an EfficientNet-Lite0 folder or any folder that transformers can load for image classification. Pictures are
decoded in the worker, so a slow decode delays neither the API server nor other models. A picture is never fetched from
an address.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import litserve
from fastapi import Depends, HTTPException

from servers.apis import equality, pictures, pretrained, runtimes
from servers.apis.equality import EAGER, Equality, Variant
from servers.apis.picture_request import (
    DEFAULT_TOP_K,
    MAX_TOP_K,
    PictureBatch,
    PictureRequest,
    read_request,
    read_top_k,
)
from servers.apis.rejection import Rejection
from servers.apis.selection import select

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_PROOF_BATCH = 4  # the memory that a larger one takes would stay with the process
_FORWARD_SIZE = 32  # pictures that one request brings are computed so many at a time
_MAX_PICTURES = 256
_TOP_K_SCHEMA = {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K, "default": DEFAULT_TOP_K}
# One grey pixel as PNG.
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNoaGgAAAMEAYFL09IQAAAAAElFTkSuQmCC"
_LITE0_ARCHITECTURES = ("efficientnet_lite0", "tf_efficientnet_lite0")  # the wheel's name and timm's


class ImageClassificationAPI(litserve.LitAPI):  # type: ignore[misc] # litserve ships no complete types
    """Labels a picture: the top k classes with their scores."""

    input_description = 'a form with a file `image` (and `top_k`), or {"image": base64 or data URL, "top_k": 5}'
    output_description = '{"predictions": [{"label": text, "score": 0..1}, ...]}, the likeliest first'
    request_schemas = {  # noqa: RUF012 # a constant
        "application/json": {
            "type": "object",
            "required": ["image"],
            "properties": {
                "image": {"type": "string", "description": "base64, or a data URL", "examples": [_PIXEL]},
                "top_k": _TOP_K_SCHEMA,
            },
        },
        "multipart/form-data": {
            "type": "object",
            "required": ["image"],
            "properties": {"image": {"type": "string", "format": "binary"}, "top_k": _TOP_K_SCHEMA},
        },
    }
    response_schema = {  # noqa: RUF012 # a constant
        "type": "object",
        "required": ["predictions"],
        "properties": {
            "predictions": {
                "type": "array",
                "description": "the likeliest first",
                "items": {
                    "type": "object",
                    "required": ["label", "score"],
                    "properties": {
                        "label": {"type": "string"},
                        "score": {"type": "number", "minimum": 0, "maximum": 1},
                    },
                },
            }
        },
    }
    tensors = {  # noqa: RUF012 # a constant
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "labels", "datatype": "BYTES", "shape": [-1, -1]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, -1]},
        ],
        "parameters": ["top_k"],
    }
    uses_torch = True
    variant = Variant()
    equality: Equality | None = None
    example_request = {"image": _PIXEL, "top_k": 1}  # noqa: RUF012 # a constant

    def __init__(self, model_dir: str, *, max_batch_size: int = 1, batch_timeout: float = 0.005) -> None:
        super().__init__(max_batch_size=max_batch_size, batch_timeout=batch_timeout)
        self._model_dir = Path(model_dir)

    def setup(self, device: str) -> None:
        """Load the classifier onto `device`, a variant of it only with the proof.

        Raises ValueError when the folder holds none, UserError when the proof fails.
        """

        def load(variant: Variant) -> _Classifier:
            return _load(self._model_dir, device, variant)

        self._classifier, self.equality = select(
            self.variant, "top1", load, partial(_answer_proof, []), self.max_batch_size
        )

    def decode_tensors(self, tensors: Mapping[str, Any], parameters: Mapping[str, Any]) -> PictureBatch:
        """The encoded pictures of a request with tensors. Raises HTTPException."""
        images = tensors["image"].tolist()
        if not 1 <= len(images) <= _MAX_PICTURES:
            raise HTTPException(400, f"input 'image': expected 1 to {_MAX_PICTURES} pictures, got {len(images)}")
        return PictureBatch(images, read_top_k(parameters.get("top_k"), status=400))

    def decode_request(self, request: Annotated[PictureRequest, Depends(read_request)]) -> "_Pixels | Rejection":
        """The pixels of its pictures, or a Rejection."""
        is_batch = isinstance(request, PictureBatch)
        rows = []
        for index, image in enumerate(request.images if isinstance(request, PictureBatch) else [request.image]):
            try:
                rows.append(self._classifier.prepare(pictures.decode(image)))
            except ValueError as error:
                place = f"input 'image': element {index}" if is_batch else "image"
                return Rejection(f"{place}: {error}", status=400 if is_batch else 422)
        return _Pixels(rows, request.top_k, is_batch)

    def predict(self, x: Any) -> Any:
        """One forward for all pictures; a Rejection stays in its place."""
        requests = x if self.max_batch_size > 1 else [x]
        valid = [request for request in requests if not isinstance(request, Rejection)]
        answers = self._classify(valid)
        results = [request if isinstance(request, Rejection) else next(answers) for request in requests]
        return results if self.max_batch_size > 1 else results[0]

    def encode_response(self, output: Any) -> Any:
        """The predictions as JSON, or the rejection as its 4xx."""
        return output.response() if isinstance(output, Rejection) else output

    def _classify(self, requests: Sequence["_Pixels"]) -> Iterator[dict[str, Any]]:
        """The answer to each request."""
        import torch

        pixels = [row for request in requests for row in request.rows]
        if not pixels:
            return
        step = max(self.max_batch_size, _FORWARD_SIZE)
        with torch.inference_mode():
            batches = [torch.stack(pixels[begin : begin + step]) for begin in range(0, len(pixels), step)]
            logits = torch.cat([self._classifier.classify(batch).float() for batch in batches])
        scores, classes = logits.softmax(dim=-1).sort(dim=-1, descending=True)
        begin = 0
        for request in requests:
            rows, begin = slice(begin, begin + len(request.rows)), begin + len(request.rows)
            best = scores[rows, : request.top_k]
            labels = [
                [self._classifier.labels[index] for index in row] for row in classes[rows, : request.top_k].tolist()
            ]
            if request.is_batch:
                yield {"labels": labels, "scores": best}
            else:
                pairs = zip(labels[0], best[0].tolist(), strict=True)
                yield {"predictions": [{"label": label, "score": score} for label, score in pairs]}


@dataclass(frozen=True)
class _Pixels:
    """The prepared pictures of a request, each (3, height, width); `is_batch` asks for tensors."""

    rows: "Sequence[Tensor]"
    top_k: int
    is_batch: bool


@dataclass(frozen=True)
class _Classifier:
    labels: Sequence[str]
    prepare: "Callable[[Image], Tensor]"  # to (3, height, width), float32, on the CPU
    classify: "Callable[[Tensor], Tensor]"  # (rows, 3, height, width) to logits (rows, classes)


def _load(model_dir: Path, device: str, variant: Variant) -> _Classifier:
    config_file = model_dir / "config.json"
    if not config_file.is_file():
        raise ValueError(f"expected a model folder with a config.json, got {model_dir}")
    config = json.loads(config_file.read_text())
    if config.get("architecture") in _LITE0_ARCHITECTURES:
        return _lite0(model_dir, config, device, variant)
    if "architecture" in config:
        names = " or ".join(_LITE0_ARCHITECTURES)
        raise ValueError(f"expected the architecture {names}, or a transformers folder; got {config['architecture']}")
    return _transformers(model_dir, device, variant)


def _lite0(model_dir: Path, config: dict[str, Any], device: str, variant: Variant) -> _Classifier:
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
    return _Classifier(labels, prepare, _forward(model, prepare, device, variant, None))


def _transformers(model_dir: Path, device: str, variant: Variant) -> _Classifier:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained(model_dir, trust_remote_code=False)
    dtype = variant.precision if variant.runtime == "eager" else EAGER
    model = pretrained.load(AutoModelForImageClassification, model_dir, dtype=dtype)
    model = model.to(device).eval()
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]

    def prepare(image: "Image") -> "Tensor":
        pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    return _Classifier(labels, prepare, _forward(model, prepare, device, variant, "logits"))


def _forward(
    model: Any,
    prepare: "Callable[[Image], Tensor]",
    device: str,
    variant: Variant,
    output: str | None,
) -> "Callable[[Tensor], Tensor]":
    """From pixels to logits, the attribute `output` of the model's answer or the answer itself.

    In bfloat16 the pixels lie channels last, as convolutions on a CPU want them.
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


def _answer_proof(rows: "list[Tensor]", classifier: _Classifier, size: int | None) -> "Tensor":
    """The logits of the pictures of the proof, or of so many of them at once. `rows` keeps what is prepared."""
    import torch

    rows += [classifier.prepare(picture) for picture in equality.make_pictures()] if not rows else []
    with torch.inference_mode():
        if size is not None:
            return classifier.classify(torch.stack((rows * math.ceil(size / len(rows)))[:size]))
        pixels = torch.stack(rows)
        batches = [pixels[:1], *pixels[1:].chunk(len(rows) // _PROOF_BATCH)]
        return torch.cat([classifier.classify(batch).float().cpu() for batch in batches])
