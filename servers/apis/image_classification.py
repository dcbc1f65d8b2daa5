"""Picture classification: the likeliest labels of a picture, uploaded as a file or sent as base64 in JSON.

Pictures are decoded in the worker, so a slow decode delays neither the API server nor other models. A picture is never
fetched from an address.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import litserve
from fastapi import Depends, HTTPException

from servers.apis import classifier, pictures
from servers.apis.classifier import PictureClassifier
from servers.apis.equality import Equality, Variant
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

_FORWARD_SIZE = 32  # pictures that one request brings are computed so many at a time
_MAX_PICTURES = 256
_TOP_K_SCHEMA = {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K, "default": DEFAULT_TOP_K}
# One grey pixel as PNG.
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNoaGgAAAMEAYFL09IQAAAAAElFTkSuQmCC"


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

        def load(variant: Variant) -> PictureClassifier:
            return classifier.from_folder(self._model_dir, device, variant)

        images = _images_of(self.variant.checks)
        answer = partial(classifier.answer_proof, list(images.values()), [])
        self._classifier, self.equality = select(self.variant, "top1", load, answer, self.max_batch_size, list(images))

    def decode_tensors(self, tensors: Mapping[str, Any], parameters: Mapping[str, Any]) -> PictureBatch:
        """The encoded pictures of a request with tensors. Raises HTTPException."""
        images = tensors["image"].tolist()
        if not 1 <= len(images) <= _MAX_PICTURES:
            raise HTTPException(400, f"input 'image': expected 1 to {_MAX_PICTURES} pictures, got {len(images)}")
        return PictureBatch(images, read_top_k(parameters.get("top_k"), status=400))

    def decode_request(
        self, request: Annotated[PictureRequest | PictureBatch, Depends(read_request)]
    ) -> "_Pixels | Rejection":
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
            logits = torch.empty(len(pixels), len(self._classifier.labels))
            # Some processors keep the proportions of a picture.
            for shape in dict.fromkeys(row.shape for row in pixels):
                places = [place for place, row in enumerate(pixels) if row.shape == shape]
                for part in (places[begin : begin + step] for begin in range(0, len(places), step)):
                    batch = torch.stack([pixels[place] for place in part])
                    logits[part] = self._classifier.classify(batch).float().cpu()
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


def _images_of(checks: Sequence[Mapping[str, Any]]) -> "dict[str, Image]":
    """The pictures of the checks by the checks' names; what is no request of this API has none."""
    images = {}
    for check in checks:
        with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
            data = Path(check["file"]).read_bytes() if check["file"] else pictures.from_base64(check["body"]["image"])
            images[check["name"]] = pictures.decode(data)
    return images
