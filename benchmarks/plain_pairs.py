"""Pairs of embeddings that need nothing but scikit-learn and Pillow; built by `pairs.load`.

No builder here uses the folder that it is given.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pairs import Pair

__all__ = ["digits", "docstrings", "patches", "sentences", "text_embedding"]

Matrix = NDArray[np.float32]


def digits(folder: Path) -> Pair:
    """1,797 handwritten digits of 8 x 8 pixels (UCI, in scikit-learn): pixels against stroke directions."""
    from sklearn.datasets import load_digits

    from spec_store.demo import histograms_of_oriented_gradients

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8).astype(np.float32) / 16
    facts = pa.table({"label": [str(label) for label in labels]})
    hog = histograms_of_oriented_gradients(images)
    return Pair("digits", ("pixels", "hog"), images.reshape(len(images), -1), hog, facts)


def docstring_facts(rows: int, seed: int = 0) -> pa.Table:
    """Docstrings of the installed packages, deduplicated and at least 30 characters long: a seeded sample.

    Sources are parsed, never imported. Columns: label (top-level package), module, kind, name, n_characters
    and text, cut at 1,000 characters.
    """
    found: dict[str, tuple[str, ...]] = {}
    for root in sorted({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}):
        for path in sorted(Path(root).rglob("*.py")):
            inside = path.relative_to(root)
            if "site-packages" not in inside.parts and "test" not in path.as_posix():
                for kind, name, text in _docstrings(path):
                    module = ".".join(inside.with_suffix("").parts).removesuffix(".__init__")
                    found.setdefault(text, (inside.with_suffix("").parts[0], module, kind, name))
    texts = sorted(found)
    rng = np.random.default_rng(seed)
    texts = [texts[i] for i in np.sort(rng.choice(len(texts), min(rows, len(texts)), replace=False))]
    facts = {key: [found[t][i] for t in texts] for i, key in enumerate(("label", "module", "kind", "name"))}
    return pa.table({**facts, "n_characters": [len(t) for t in texts], "text": [t[:1000] for t in texts]})


def _docstrings(path: Path) -> Iterator[tuple[str, str, str]]:
    """Kind, name and docstring of a file's functions and classes; none where it can't be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    kinds = {ast.FunctionDef: "function", ast.AsyncFunctionDef: "function", ast.ClassDef: "class"}
    for parent in ast.walk(tree):
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                text = " ".join((ast.get_docstring(node) or "").split())
                if len(text) >= 30:
                    method = isinstance(parent, ast.ClassDef) and kinds[type(node)] == "function"
                    yield "method" if method else kinds[type(node)], node.name, text


def text_embedding(texts: list[str], dimension: int = 128, seed: int = 0, **tokens: Any) -> Matrix:
    """Latent semantic analysis: TF-IDF of the tokens, then a truncated SVD; shape (n, at most dimension)."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    counts = TfidfVectorizer(sublinear_tf=True, dtype=np.float32, **tokens).fit_transform(texts)
    reduced = TruncatedSVD(min(dimension, counts.shape[1] - 1), random_state=seed).fit_transform(counts)
    return np.ascontiguousarray(reduced, np.float32)


def docstrings(folder: Path) -> Pair:
    """12,000 docstrings: which words they use against which runs of three and four letters."""
    facts = docstring_facts(12_000)
    texts = facts["text"].to_pylist()
    words = text_embedding(texts, min_df=3, max_df=0.3, stop_words="english")
    letters = text_embedding(texts, analyzer="char_wb", ngram_range=(3, 4), min_df=5, max_features=40_000)
    return Pair("docstrings", ("words", "letters"), words, letters, facts)


def patches(folder: Path) -> Pair:
    """8,000 overlapping patches of two photographs (in scikit-learn): colours against edge directions."""
    from sklearn.datasets import load_sample_images

    from spec_store.demo import histograms_of_oriented_gradients

    sample = load_sample_images()
    cut, facts = [], []
    for image, file in zip(sample.images, sample.filenames, strict=True):
        height, width = image.shape[:2]
        for y in range(0, height - 15, 8):
            for x in range(0, width - 15, 8):
                vertical = ("top", "middle", "bottom")[3 * y // height]
                horizontal = ("left", "centre", "right")[3 * x // width]
                place = f"{Path(file).stem} {vertical} {horizontal}"
                cut.append(image[y : y + 16, x : x + 16])
                facts.append({"label": place, "picture": Path(file).stem, "x": x, "y": y})
    images = np.stack(cut)
    grey = images.mean(axis=3, dtype=np.float32) / 255
    # A flat patch has no gradient, and a histogram of nothing can't be scaled to length 1.
    kept = np.ptp(grey, axis=(1, 2)) > 0
    edges = histograms_of_oriented_gradients(grey[kept], cell=4)
    colours = _colour_histograms(images[kept])
    table = pa.Table.from_pylist(facts).filter(pa.array(kept))
    return Pair("patches", ("colour", "hog"), colours, edges, table)


def _colour_histograms(images: NDArray[np.uint8]) -> Matrix:
    """Share of each image's pixels in each of 4 x 4 x 4 cells of RGB; shape (n, 64)."""
    red, green, blue = np.moveaxis(images.astype(np.int64) // 64, -1, 0)
    cells = (16 * red + 4 * green + blue).reshape(len(images), -1)
    counts = np.zeros((len(images), 64), np.float32)
    np.add.at(counts, (np.arange(len(images))[:, None], cells), 1 / cells.shape[1])
    return counts


ATTRIBUTES = {
    "mood": ["cheerful", "gloomy", "anxious", "proud", "tired", "curious", "angry", "calm"],
    "job": [
        "baker",
        "doctor",
        "pilot",
        "farmer",
        "teacher",
        "lawyer",
        "sailor",
        "painter",
        "plumber",
        "judge",
        "nurse",
        "tailor",
    ],
    "verb": ["buys", "paints", "repairs", "draws", "sells", "cleans", "admires", "carries"],
    "object": [
        "fence",
        "piano",
        "bicycle",
        "lantern",
        "mirror",
        "ladder",
        "kettle",
        "blanket",
        "compass",
        "drum",
    ],
    "place": ["garden", "harbour", "library", "kitchen", "station", "market", "forest", "museum"],
}


def sentences(folder: Path) -> Pair:
    """8,000 generated sentences: all of their words against the same with every job called `person`.

    The truth is known: `hidden` merges the jobs and keeps everything else. Values of an attribute are drawn
    with shares that fall as 1 / (rank + 3), independently of the other attributes.
    """
    rng = np.random.default_rng(0)
    drawn = {}
    for attribute, values in ATTRIBUTES.items():
        share = 1 / (np.arange(len(values)) + 4)
        drawn[attribute] = [values[i] for i in rng.choice(len(values), 8000, p=share / share.sum())]
    rows = [dict(zip(drawn, row, strict=True)) for row in zip(*drawn.values(), strict=True)]
    form = "the {mood} {job} {verb} a {object} in the {place}".format
    full = text_embedding([form(**row) for row in rows], stop_words=["the", "in"])
    hidden = text_embedding([form(**{**row, "job": "person"}) for row in rows], stop_words=["the", "in"])
    facts = pa.table(
        {
            "label": [f"{row['job']}/{row['mood']}" for row in rows],
            **drawn,
            "text": [form(**row) for row in rows],
        }
    )
    return Pair("sentences", ("words", "hidden"), full, hidden, facts)
