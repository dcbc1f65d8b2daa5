"""Requests to classify pictures: what came as a form, as JSON, or as a tensor of encoded pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile

from servers.apis import pictures

DEFAULT_TOP_K = 5
MAX_TOP_K = 1000


@dataclass(frozen=True)
class PictureRequest:
    """One encoded picture, and the number of labels in the answer."""

    image: bytes
    top_k: int


@dataclass(frozen=True)
class PictureBatch:
    """Several encoded pictures in one request, whose answer is tensors with a row for each."""

    images: Sequence[bytes]
    top_k: int


async def read_request(request: Request) -> PictureRequest:
    """Read a form or a JSON body in the API server. Raises HTTPException 400 or 422 that names the field."""
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        form = await request.form()
        part = form.get("image") or form.get("file")
        if not isinstance(part, UploadFile):
            raise HTTPException(422, "image: expected a file in the form field `image` or `file`")
        return PictureRequest(await part.read(), read_top_k(form.get("top_k")))
    try:
        body = await request.json()
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"expected a multipart form or a JSON body; this is neither: {error}") from error
    if not isinstance(body, dict) or not isinstance(body.get("image"), str):
        raise HTTPException(422, 'image: expected {"image": "<base64 or data URL>"}')
    try:
        image = pictures.from_base64(body["image"])
    except ValueError as error:
        raise HTTPException(422, f"image: {error}") from error
    return PictureRequest(image, read_top_k(body.get("top_k")))


def read_top_k(value: Any, status: int = 422) -> int:
    """The number of labels. Raises HTTPException of this status."""
    if value is None:
        return DEFAULT_TOP_K
    if isinstance(value, str) and value.isdecimal():  # form fields are text
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_TOP_K:
        raise HTTPException(status, f"top_k: expected a whole number from 1 to {MAX_TOP_K}, got {str(value)[:40]!r}")
    return value
