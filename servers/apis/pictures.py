"""Pictures from clients: from base64 text to bytes, and from bytes to an upright RGB image.

The data is untrusted: only common bitmap formats are opened, nothing is fetched, no path is read, and the size of a
picture is checked before it is decoded. Each problem is a ValueError with a text for the client.
"""

import base64
import binascii
import io
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 50_000_000  # 8000 x 6250, more than an ordinary camera has; 150 MB decoded
# The tag of EXIF (CIPA DC-008, section 4.6.4), and what turns a picture of each value upright, as Pillow calls it.
_ORIENTATION = 0x0112
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")


def from_base64(text: str) -> bytes:
    """The bytes of base64 text or of a `data:` URL. Raises ValueError for any other text."""
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
    """An RGB image, turned upright by its EXIF data. Raises ValueError if it is no picture, or too large."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise ValueError("expected a picture, got an empty file")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"expected at most {MAX_PIXELS:,} pixels, got {width} x {height}")
            image.load()  # a TIFF is upright then, and its tag gone
            # ImageOps.exif_transpose also writes the tags anew, and raises for some that are not of their type.
            turn = image.getexif().get(_ORIENTATION)
            upright = image.transpose(Image.Transpose[_TURNS[turn]]) if turn in _TURNS else image
            return upright.convert("RGB")
    except Image.DecompressionBombError as error:  # Pillow's own, higher limit, checked before ours
        raise ValueError(f"expected at most {MAX_PIXELS:,} pixels: {error}") from error
    except UnidentifiedImageError as error:
        expected = ", ".join(_FORMATS)
        raise ValueError(f"expected a picture ({expected}), got {len(data)} bytes that are none") from error
    except (
        OSError,
        SyntaxError,
        EOFError,
        TypeError,
        struct.error,
    ) as error:  # from Pillow's readers, for broken and truncated files
        raise ValueError(f"the picture is broken: {error}") from error
