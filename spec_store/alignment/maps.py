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
from ..stores.vectors import Vectors

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
        Shape (n, d_out), or (d_out,), float32. NaN for a vector of zeros, which has no direction, and for one
        that is not finite.

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
            self._map(x[rows], out[rows])
        return out

    def _map(self, x: NDArray[Any], y: NDArray[np.float32]) -> None:
        """Into `y`: a copy of it would cost half as much again."""
        with np.errstate(invalid="ignore", divide="ignore"):
            np.matmul(features(_unit_rows(x), self.frequencies), self.weights, out=y)
            y += self.bias
            if self.unit:
                y /= np.sqrt(np.einsum("ij,ij->i", y, y))[:, None]

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


def _unit_rows(x: NDArray[Any]) -> NDArray[np.float32]:
    """Rows at unit length; NaN where there is no direction."""
    vectors = Vectors.from_matrix(x, directions=True)
    inverse = np.full((len(x), 1), np.nan)
    inverse[vectors.usable, 0] = 1 / np.sqrt(vectors.sq_norms[vectors.usable])
    precise = np.float64 if x.dtype == np.float64 else np.float32
    with np.errstate(invalid="ignore"):
        return np.asarray(x * inverse.astype(precise), np.float32)


def features(unit_rows: NDArray[Any], frequencies: NDArray[Any]) -> NDArray[Any]:
    """[u, φ(u)], shape (n, d + 2m), of the rows' float type."""
    d, m = frequencies.shape
    if not m:
        return unit_rows
    out = np.empty((len(unit_rows), d + 2 * m), unit_rows.dtype)
    linear, cosines, sines = out[:, :d], out[:, d : d + m], out[:, d + m :]
    linear[:] = unit_rows
    np.matmul(linear, frequencies, out=cosines)
    np.sin(cosines, out=sines)
    np.cos(cosines, out=cosines)
    out[:, d:] *= out.dtype.type(m**-0.5)
    return out


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
