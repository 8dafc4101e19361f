"""How a value is shown: pictures as thumbnails, text as text, whatever else in a few words."""

from __future__ import annotations

import base64
import io
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

from .text import visible_lines

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Shown", "Viewer"]

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_SUFFIX = re.compile(r"\.(png|jpe?g|webp|gif|bmp|tiff?)$", re.IGNORECASE)
_LARGEST_FILE = 64 << 20
_MOST_PIXELS = 100_000_000
# A picture of so few pixels is shown by its pixels, not blurred.
_FEW_PIXELS = 48
_MOST_ITEMS = 5


@dataclass(frozen=True)
class Shown:
    """One value of one row.

    Attributes
    ----------
    kind
        "image", "link" (of http or https, which nothing follows by itself), "text", or "none" for null.
    text
        What is written there; of an image what it shows, in words.
    image
        A data URI; None for other kinds.
    pixelated
        Whether the image is so small that its pixels are to be seen.
    """

    kind: Literal["image", "link", "text", "none"]
    text: str
    image: str | None = None
    pixelated: bool = False


class Viewer:
    """Shows values, as long as pictures have room on the page.

    Parameters
    ----------
    image_bytes
        Of all pictures together; those beyond are counted in `n_omitted`.

    Notes
    -----
    Pictures are decoded and encoded again, so that nothing but pixels of them reaches the page. A file is
    read where a text is the path of a picture on this machine; no network is used.
    """

    def __init__(self, *, image_bytes: int = 5 << 20) -> None:
        self._left = image_bytes
        self.n_omitted = 0

    def show(self, column: str, value: Any, *, size: int = 96, most: int = 400) -> Shown:
        """One value.

        Parameters
        ----------
        size
            The longer side of a thumbnail, in pixels.
        most
            Characters of a text.
        """
        if value is None:
            return Shown("none", "null")
        if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):
            value = value["bytes"]  # a picture of a Hugging Face dataset
        if isinstance(value, (bytes, bytearray)):
            return self._picture(column, bytes(value), size) or Shown("text", f"{len(value):,} bytes")
        if isinstance(value, str):
            return self._from_text(column, value, size, most)
        return Shown("text", _shortened(visible_lines(_plain(value)), most))

    def _from_text(self, column: str, text: str, size: int, most: int) -> Shown:
        shown = _shortened(visible_lines(text), most)
        parts = _split(text)
        if parts in ("http", "https"):
            return Shown("link", visible_lines(text)) if len(text) < 2048 else Shown("text", shown)
        if _SUFFIX.search(text) and (content := _local_file(text)) is not None:
            return self._picture(Path(text).name, content, size) or Shown("text", shown)
        return Shown("text", shown)

    def _picture(self, name: str, content: bytes, size: int) -> Shown | None:
        from PIL import Image

        if self._left <= 0:
            self.n_omitted += 1
            return Shown("text", "(no room for this picture)")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd metadata, which is left out anyway
                with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
                    width, height = picture.size
                    if width * height > _MOST_PIXELS:
                        return None
                    picture.draft("RGB", (2 * size, 2 * size))
                    small = max(width, height) <= _FEW_PIXELS
                    data, kind = _encoded(picture, size, small)
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
            return None  # bytes that are no picture are shown as what they are
        self._left -= len(data)
        text = f"{visible_lines(name)}, {width} x {height} pixels"
        return Shown("image", text, f"data:image/{kind};base64,{base64.b64encode(data).decode()}", small)


def _encoded(picture: Image.Image, size: int, small: bool) -> tuple[bytes, str]:
    """A thumbnail: without loss where that is small, else in WebP."""
    if picture.mode.startswith(("I", "F")):  # 16 bits and more: the range that it has, as eight
        low, high = picture.getextrema()
        scale = 255 / ((high - low) or 1)
        picture = picture.convert("F").point(lambda v: v * scale - low * scale)
    clear = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
    thumbnail = picture.convert("RGBA" if clear else "L" if picture.mode in ("1", "L", "F") else "RGB")
    out = io.BytesIO()
    if small:
        thumbnail.save(out, "PNG", optimize=True)
        return out.getvalue(), "png"
    thumbnail.thumbnail((size, size))
    thumbnail.save(out, "WEBP", quality=72)
    return out.getvalue(), "webp"


def _split(text: str) -> str:
    try:
        return urlsplit(text).scheme.lower()
    except ValueError:
        return ""


def _local_file(text: str) -> bytes | None:
    """What a path or a file:// URL on this machine holds; None where it is no plain file of a usual size."""
    path = unquote(urlsplit(text).path) if text.startswith("file://") else text
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > _LARGEST_FILE:
            return None
        return Path(path).read_bytes()
    except (OSError, ValueError):
        return None  # what can't be read is shown as the path that it is


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        more = f", … {len(value):,} in all" if len(value) > _MOST_ITEMS else ""
        return ", ".join(map(_plain, value[:_MOST_ITEMS])) + more
    return str(value)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
