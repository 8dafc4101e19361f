"""The fitted map: vectors in, aligned vectors out; a small file that needs no store."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = ["AlignmentMap", "load_map"]

_FORMAT = 1
_CHUNK_ROWS = 4096


@dataclass(frozen=True, eq=False)
class AlignmentMap:
    """f(x) = [u, φ(u)] W + c for u = x / |x|, then scaled to unit length.

    Attributes
    ----------
    weights
        W, shape (d + 2m, d_out), float32.
    bias
        c, shape (d_out,), float32.
    frequencies
        Shape (d, m), float32: φ(u) = [cos(u·ω), sin(u·ω)] / √m, the part that is not linear; m = 0 for
        none.
    unit
        Whether outputs are scaled to unit length, as the objective sees them.
    about
        Provenance: columns, options, what was held out. JSON values only.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    frequencies: NDArray[np.float32]
    unit: bool = True
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Dimensions of the vectors that go in."""
        return int(self.frequencies.shape[0])

    @property
    def out_width(self) -> int:
        """Dimensions of the vectors that come out."""
        return int(self.weights.shape[1])

    def transform(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Aligned vectors.

        Parameters
        ----------
        vectors
            Shape (n, d), or (d,) for one vector; any float type.

        Returns
        -------
        Shape (n, d_out), or (d_out,), float32. The vector of zeros has no direction: its row is NaN.

        Raises
        ------
        InputError
            Vectors of another width.
        """
        x = np.asarray(vectors)
        if x.ndim == 1:
            row: NDArray[np.float32] = self.transform(x[None])[0]
            return row
        if x.ndim != 2 or x.shape[1] != self.width:
            raise InputError(f"Vectors of shape {x.shape} were given; this map takes (n, {self.width}).")
        out = np.empty((len(x), self.out_width), np.float32)
        for start in range(0, len(x), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            out[rows] = self._mapped(x[rows])
        return out

    def _mapped(self, x: NDArray[Any]) -> NDArray[np.float32]:
        with np.errstate(invalid="ignore", divide="ignore"):
            wide = x.astype(np.float64) if x.dtype == np.float64 else x.astype(np.float32)
            u = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
            y = features(u, self.frequencies) @ self.weights + self.bias
            if self.unit:
                y /= np.linalg.norm(y, axis=1, keepdims=True)
        return np.asarray(y, np.float32)

    def save(self, file: str | Path | BinaryIO) -> None:
        """Write the map as one .npz: JSON and arrays, no pickle."""
        header = json.dumps({"format": _FORMAT, "unit": self.unit, "about": self.about})
        np.savez(
            file,
            header=np.frombuffer(header.encode(), np.uint8),
            weights=self.weights,
            bias=self.bias,
            frequencies=self.frequencies,
        )

    def to_bytes(self) -> bytes:
        """What `save` writes, in memory."""
        buffer = io.BytesIO()
        self.save(buffer)
        return buffer.getvalue()


def features(unit_rows: NDArray[np.float32], frequencies: NDArray[np.float32]) -> NDArray[np.float32]:
    """[u, φ(u)], shape (n, d + 2m)."""
    m = frequencies.shape[1]
    if not m:
        return unit_rows
    angles = unit_rows @ frequencies
    scale = np.float32(m**-0.5)
    return np.concatenate([unit_rows, scale * np.cos(angles), scale * np.sin(angles)], axis=1)


def load_map(file: str | Path | BinaryIO) -> AlignmentMap:
    """Read a map that `AlignmentMap.save` (or ``spec-store align --export``) wrote.

    Raises InputError for a file that is none, or of a newer format.

    Examples
    --------
    >>> spec_store.load_map("map.npz").transform(queries)  # doctest: +SKIP
    """
    if isinstance(file, (str, Path)):
        try:
            with open(file, "rb") as stream:
                return _read(stream, str(file))
        except FileNotFoundError as error:
            raise InputError(f"No map file {file}.") from error
        except OSError as error:
            raise InputError(f"{file} can't be read: {error.strerror or error}.") from error
    return _read(file, "The stored map")


def _read(stream: BinaryIO, name: str) -> AlignmentMap:
    try:
        with np.load(stream, allow_pickle=False) as stored:
            header = json.loads(stored["header"].tobytes())
            if header["format"] == _FORMAT:
                arrays = {part: stored[part] for part in ("weights", "bias", "frequencies")}
                return AlignmentMap(**arrays, unit=header["unit"], about=header["about"])
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{name} is not a map that spec-store exported: {error}") from error
    raise InputError(f"{name}: map format {header['format']} is not known; expected {_FORMAT}.")
