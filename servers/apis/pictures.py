"""Pictures from outside: from base64 text to bytes, and from bytes to an upright RGB image.

Whatever arrives here was sent by a stranger, so only common bitmap formats are opened, nothing is fetched, no path is
read, and a picture is measured before it is unpacked. Every refusal is a ValueError with a text for the client.
"""

import base64
import binascii
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 50_000_000  # 8000 x 6250: any ordinary camera's picture, 150 MB unpacked
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")


def from_base64(text: str) -> bytes:
    """The bytes of base64 text or of a `data:` URL. Raises ValueError when it is neither."""
    if text.startswith(("http://", "https://")):
        raise ValueError("expected base64 or a data URL, got a web address: this server fetches nothing")
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise ValueError("expected a data URL of the form data:image/png;base64,...")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"expected base64, got {len(text)} characters that are not: {error}") from error


def decode(data: bytes) -> "Image":
    """An RGB image, turned upright by its EXIF note. Raises ValueError when the bytes are no picture, or too large."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise ValueError("expected a picture, got an empty file")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"expected at most {MAX_PIXELS:,} pixels, got {width} x {height}")
            return ImageOps.exif_transpose(image).convert("RGB")
    except Image.DecompressionBombError as error:  # Pillow's own limit, far above ours, is met before ours is read
        raise ValueError(f"expected at most {MAX_PIXELS:,} pixels: {error}") from error
    except UnidentifiedImageError as error:
        expected = ", ".join(_FORMATS)
        raise ValueError(f"expected a picture ({expected}), got {len(data)} bytes that are none") from error
    except (OSError, SyntaxError, EOFError) as error:  # what Pillow's readers raise for broken and truncated files
        raise ValueError(f"the picture is broken: {error}") from error
