"""How values are shown: what is a picture, a text, a link, and what is none of them."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from reported import URL, picture
from spec_store.reporting.values import Viewer


def shown(value, **options):
    return Viewer().show("column", value, **options)


def pixels(found):
    kind, data = found.image.removeprefix("data:image/").split(";base64,")
    return kind, Image.open(io.BytesIO(base64.b64decode(data)))


def encoded(array, kind="PNG", mode=None):
    out = io.BytesIO()
    Image.fromarray(array, mode).save(out, kind) if mode else Image.fromarray(array).save(out, kind)
    return out.getvalue()


def test_small_pictures_keep_their_pixels():
    found = shown(picture((10, 20, 30)))
    kind, image = pixels(found)
    assert (found.kind, found.pixelated, kind, image.size) == ("image", True, "png", (12, 12))
    assert image.convert("RGB").getpixel((3, 3)) == (10, 20, 30)
    assert found.text == "column, 12 x 12 pixels"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_large_pictures_become_thumbnails(kind):
    found = shown(encoded(np.full((300, 600, 3), 200, np.uint8), kind), size=96)
    assert not found.pixelated
    assert pixels(found)[0] == "webp"
    assert pixels(found)[1].size == (96, 48)


def test_sixteen_bits_of_grey_are_seen_in_their_range():
    steep = np.linspace(1000, 3000, 64 * 64).reshape(64, 64).astype(np.uint16)
    values = np.asarray(pixels(shown(encoded(steep)))[1].convert("L"))
    assert values.min() < 10
    assert values.max() > 245


def test_what_is_beside_the_pixels_is_not_shown():
    out = io.BytesIO()
    photo = Image.new("RGB", (200, 200))
    exif = photo.getexif()
    exif[0x010E] = "where I live"
    photo.save(out, "JPEG", exif=exif, comment=b"<script>")
    found = base64.b64decode(shown(out.getvalue()).image.split(",")[1])
    assert b"where I live" in out.getvalue()
    assert b"where I live" not in found
    assert b"script" not in found


def test_a_vector_graphic_is_no_picture():
    found = shown(b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    assert (found.kind, found.image, found.text) == ("text", None, "71 bytes")


def test_bytes_that_are_no_picture_or_far_too_large_a_one_are_counted():
    assert shown(b"\x00\x01\x02").text == "3 bytes"
    assert shown(picture((1, 2, 3))[:40]).kind == "text"

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    assert shown(bomb).kind == "text"


def test_a_picture_of_a_hugging_face_dataset_is_a_picture():
    assert shown({"bytes": picture((1, 2, 3)), "path": "a.png"}).kind == "image"


def test_paths_of_pictures_on_this_machine_are_read(tmp_path):
    path = tmp_path / "a picture.PNG"
    path.write_bytes(picture((9, 9, 9)))
    assert shown(str(path)).kind == "image"
    assert shown(path.as_uri()).kind == "image"
    assert shown(str(path)).text == "a picture.PNG, 12 x 12 pixels"
    assert shown(str(tmp_path / "absent.png")).kind == "text"
    secret = tmp_path / "secret.txt"
    secret.write_bytes(picture((9, 9, 9)))
    assert shown(str(secret)).kind == "text"


@pytest.mark.parametrize(
    "text", ["javascript:alert(1)", "data:text/html,<script>", "ftp://host/a", "http//x", "[", ""]
)
def test_only_web_addresses_are_links(text):
    assert shown(text).kind == "text"
    assert shown(URL).kind == "link"


def test_other_values_are_a_few_words():
    assert shown(None).kind == "none"
    assert shown(3.14159265).text == "3.142"
    assert shown(True).text == "true"
    assert shown(list(range(9))).text == "0, 1, 2, 3, 4, … 9 in all"
    assert shown("a" * 500, most=10).text == "aaaaaaaaa…"
    assert shown("\x1b[31mred\u202e").text == "\\x1b[31mred\\u202e"


def test_pictures_beyond_the_room_on_the_page_are_counted():
    viewer = Viewer(image_bytes=150)
    kinds = [viewer.show("column", picture((i, 2, 3))).kind for i in range(5)]
    assert kinds[0] == "image"
    assert kinds[-1] == "text"
    assert viewer.n_omitted == kinds.count("text")
