"""A small real table to try things on: handwritten digits as images, under two embeddings.

The 1,797 images of 8 x 8 pixels are the test set of the UCI "Optical recognition of handwritten digits"
data, which scikit-learn bundles. Their two embeddings really differ: `pixels` sees where the ink is,
`hog` sees which way the strokes run.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .errors import MissingExtraError
from .stores.locate import Database, Destination, location_of

__all__ = ["create_demo", "histograms_of_oriented_gradients"]


def create_demo(table: str = "images", *, db: Database = None) -> tuple[int, str]:
    """Create a table of id, label, image (PNG bytes), pixels and hog; rows and database.

    Raises
    ------
    MissingExtraError
        scikit-learn or Pillow is not installed.
    InputError
        The table exists.
    """
    try:
        from PIL import Image
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError('The demo needs its extra: pip install "spec-store[demo]"') from error
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8).astype(np.float32) / 16
    batch = pa.record_batch(
        {
            "id": pa.array(np.arange(len(images))),
            "label": pa.array([str(label) for label in labels]),
            "image": pa.array([_png(Image.fromarray((255 * x).astype(np.uint8))) for x in images]),
            "pixels": _vectors(images.reshape(len(images), -1)),
            "hog": _vectors(histograms_of_oriented_gradients(images)),
        }
    )
    place = Destination(location_of(db), table)
    place.create(batch.schema, iter([batch]))
    return len(batch), str(place.location)


def histograms_of_oriented_gradients(
    images: NDArray[np.float32], *, cell: int = 2, n_bins: int = 8
) -> NDArray[np.float32]:
    """HOG: per cell, the gradient's length by its direction modulo 180 degrees, then scaled to length 1.

    Parameters
    ----------
    images
        Shape (n, height, width); both multiples of `cell`.

    Returns
    -------
    Shape (n, height / cell * width / cell * n_bins).

    References
    ----------
    Dalal, Triggs, "Histograms of oriented gradients for human detection", CVPR 2005.
    """
    down, right = np.gradient(images, axis=(1, 2))
    length = np.hypot(down, right)
    angle = np.mod(np.arctan2(down, right), np.pi) / np.pi * n_bins
    low = np.floor(angle).astype(int) % n_bins
    share = angle - np.floor(angle)
    bins = np.zeros((*images.shape, n_bins), np.float32)
    np.put_along_axis(bins, low[..., None], (length * (1 - share))[..., None], axis=-1)
    high = ((low + 1) % n_bins)[..., None]
    upper = np.take_along_axis(bins, high, axis=-1) + (length * share)[..., None]
    np.put_along_axis(bins, high, upper, axis=-1)
    n, h, w = images.shape
    cells = bins.reshape(n, h // cell, cell, w // cell, cell, n_bins).sum(axis=(2, 4)).reshape(n, -1)
    return np.asarray(cells / np.linalg.norm(cells, axis=1, keepdims=True), np.float32)


def _vectors(matrix: NDArray[np.float32]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])


def _png(image: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")  # type: ignore[attr-defined]  # a PIL image
    return buffer.getvalue()
