"""A typographic overlay: which of two embeddings sorts pictures by a letter that is stamped on some of them?

python examples/overlay.py --db overlay-db

1,797 handwritten digits, an "A" printed in a corner of 12% of them, whatever the digit. `hog` describes
which way the edges run; `classifier` is the hidden layer of a network that was trained to name the digit,
stamped or not. The strongest cluster should be the stamp.
"""

import argparse
import io
import tempfile

import lancedb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

import spec_store
from spec_store.demo import histograms_of_oriented_gradients

Matrix = NDArray[np.float32]

SHARE_STAMPED = 0.12
SIDE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description="Find a letter stamped on pictures, from two embeddings.")
    parser.add_argument("--db", help="Database in which the table stays. Default: a temporary one.")
    db = parser.parse_args().db
    if db is None:
        with tempfile.TemporaryDirectory() as temporary:
            find_stamp(temporary)
    else:
        find_stamp(db)


def find_stamp(db: str) -> None:
    lancedb.connect(db).create_table("digits", stamped_digits())
    run = spec_store.compare("digits", ["hog", "classifier"], db=db, write=True, key="id")
    strongest = run.record.clusters[0]
    rows = spec_store.query("digits", strongest.where, select=["label", "stamp"], db=db).read_all()
    n_stamped = spec_store.query("digits", "stamp = 'A'", select=["id"], db=db).read_all().num_rows
    n_found = rows["stamp"].to_pylist().count("A")
    n_labels = len(set(rows["label"].to_pylist()))
    captured = " and in ".join(f"{column} {share:.0%}" for column, share in strongest.capture.items())
    print(f"Strongest cluster: {len(rows)} rows, {n_labels} different digits, grouped by {strongest.side}.")
    print(f"{n_found / len(rows):.0%} are stamped, and they are {n_found / n_stamped:.0%} of all that are.")
    print(f"Of its nearest rows, as many as it has, in {captured} are members.")


def stamped_digits(seed: int = 0) -> pa.Table:
    digits = load_digits()
    stamped = np.random.default_rng(seed).random(len(digits.images)) < SHARE_STAMPED
    pictures = [enlarged(x, stamp) for x, stamp in zip(digits.images, stamped, strict=True)]
    ink = np.stack([np.asarray(picture, np.float32) for picture in pictures]) / 255
    pixels = ink.reshape(len(ink), -1)
    network = MLPClassifier((64,), tol=1e-3, random_state=seed).fit(pixels, digits.target)
    hidden = np.maximum(pixels @ network.coefs_[0] + network.intercepts_[0], 0)
    return pa.table(
        {
            "id": np.arange(len(ink)),
            "label": [str(label) for label in digits.target],
            "stamp": np.where(stamped, "A", "none").tolist(),
            "image": [png(picture) for picture in pictures],
            "hog": vectors(histograms_of_oriented_gradients(ink, cell=4)),
            "classifier": vectors(hidden.astype(np.float32)),
        }
    )


def enlarged(image: Matrix, stamp: bool) -> Image.Image:
    """An image of 8 x 8 pixels in 17 levels, 32 pixels wide, with an "A" in the corner or without."""
    grey = Image.fromarray((image * 255 / 16).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    if stamp:
        ImageDraw.Draw(grey).text((24, 21), "A", fill=255, font=ImageFont.load_default(11))
    return grey


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def vectors(rows: Matrix) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


if __name__ == "__main__":
    main()
