"""The fitted map: vectors in, aligned vectors out; a small file that needs no store."""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..stores.vectors import Vectors

__all__ = ["AlignmentMap", "load_map"]

# Maps without landmarks are written as format 1, which earlier versions read.
_FORMAT, _LANDMARKS_FORMAT = 1, 2
_CHUNK_ROWS = 1024
_PARTS = ("header", "weights", "bias", "frequencies")
# What the parsers of zip, npy and JSON raise for bytes that are something else.
_UNREADABLE = (
    *(KeyError, TypeError, ValueError, EOFError, RecursionError, NotImplementedError),
    *(struct.error, zipfile.BadZipFile),
)


@dataclass(frozen=True, eq=False)
class AlignmentMap:
    """f(x) = [u, φ(u)] W + c for u = x / |x|, then scaled to unit length.

    Attributes
    ----------
    weights
        W, shape (d + 2m + L, d_out), float32.
    bias
        c, shape (d_out,), float32.
    frequencies
        Shape (d, m), float32. φ, the part that is not linear, begins with [cos(u·ω), sin(u·ω)] / √m; m = 0
        for none.
    landmarks, bandwidth
        Shape (d, L), float32, and σ: φ ends with exp(-|u - z|²/2σ²); L = 0 for none.
    unit
        Whether outputs are scaled to unit length, as the objective sees them.
    about
        Provenance: columns, options, the split of the rows. JSON values only.

    Raises
    ------
    InputError
        Arrays of other shapes or types, or with values that are not finite.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    frequencies: NDArray[np.float32]
    landmarks: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    bandwidth: float = 1.0
    unit: bool = True
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.landmarks.size:
            object.__setattr__(self, "landmarks", np.zeros((len(self.frequencies), 0), np.float32))
        for name, n_axes in (("weights", 2), ("bias", 1), ("frequencies", 2), ("landmarks", 2)):
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim != n_axes:
                found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array)
                raise InputError(f"{name} of a map is {found}; expected a float32 array of {n_axes} axes.")
            if not np.isfinite(array).all():
                n = int((~np.isfinite(array)).sum())
                raise InputError(f"{n:,} of {array.size:,} {name} of a map are not finite: fit it again.")
        n_inputs = self.width + 2 * self.frequencies.shape[1] + self.landmarks.shape[1]
        expected = (n_inputs, len(self.bias))
        if self.weights.shape != expected or 0 in (self.width, *expected):
            raise InputError(
                f"Weights of a map have shape {self.weights.shape}; frequencies {self.frequencies.shape},"
                f" landmarks {self.landmarks.shape} and bias {self.bias.shape} want {expected}, and at least"
                " one dimension in and out."
            )
        if len(self.landmarks) != self.width or not (math.isfinite(self.bandwidth) and self.bandwidth > 0):
            raise InputError(
                f"Landmarks of a map have shape {self.landmarks.shape} and bandwidth {self.bandwidth};"
                f" expected {self.width} dimensions and a positive number."
            )

    @cached_property
    def _exponents(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """z/σ² and (|z|² + 1)/2σ² of each landmark: of unit rows -|u - z|²/2σ² is u·z/σ² less the latter."""
        scale = np.float32(self.bandwidth**-2)
        half_sq = 0.5 + 0.5 * np.einsum("ij,ij->j", self.landmarks, self.landmarks)
        return self.landmarks * scale, (half_sq * scale).astype(np.float32)

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
        vectors = Vectors.from_matrix(x, directions=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            np.matmul(self.features(vectors.normalized(None, "float32")), self.weights, out=y)
            y += self.bias
            if self.unit:
                y /= np.sqrt(np.einsum("ij,ij->i", y, y))[:, None]
        y[~vectors.usable] = np.nan

    def features(self, unit_rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """[u, φ(u)] of unit rows (n, d), shape (n, d + 2m + L)."""
        d, m = self.frequencies.shape
        n_landmarks = self.landmarks.shape[1]
        if not m and not n_landmarks:
            return unit_rows
        out = np.empty((len(unit_rows), d + 2 * m + n_landmarks), np.float32)
        out[:, : d + 2 * m] = features(unit_rows, self.frequencies)
        kernel = out[:, d + 2 * m :]
        directions, offsets = self._exponents
        np.matmul(unit_rows, directions, out=kernel)
        kernel -= offsets
        np.exp(kernel, out=kernel)
        return out

    def save(self, file: str | Path | BinaryIO) -> None:
        """Write the map as one .npz: JSON and arrays, no pickle."""
        header: dict[str, Any] = {"format": _FORMAT, "unit": self.unit, "about": self.about}
        arrays = {"weights": self.weights, "bias": self.bias, "frequencies": self.frequencies}
        if self.landmarks.size:
            header |= {"format": _LANDMARKS_FORMAT, "bandwidth": self.bandwidth}
            arrays["landmarks"] = self.landmarks
        np.savez(file, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)  # type: ignore[arg-type]  # the stub's allow_pickle

    def to_bytes(self) -> bytes:
        """What `save` writes, in memory."""
        buffer = io.BytesIO()
        self.save(buffer)
        return buffer.getvalue()


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

    Raises InputError for a file that is none, or of a newer format. A file takes no more memory than it is
    long, whatever it says of itself.

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
        parts = _members(stream)
        header = json.loads(parts.pop("header").tobytes())
        if header["format"] not in (_FORMAT, _LANDMARKS_FORMAT):
            raise InputError(
                f"{name}: map format {header['format']} is not known; expected {_FORMAT} or"
                f" {_LANDMARKS_FORMAT}. A newer spec-store may have written it."
            )
        unit, about, bandwidth = header["unit"], header["about"], header.get("bandwidth", 1.0)
        if not isinstance(unit, bool) or not isinstance(about, dict) or type(bandwidth) is not float:
            raise ValueError("unit is to be true or false, about an object, and bandwidth a number")
        return AlignmentMap(**parts, bandwidth=bandwidth, unit=unit, about=_checked(about))
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(f"{name} is not a map that spec-store exported: {error}") from error


def _members(stream: BinaryIO) -> dict[str, NDArray[Any]]:
    """The arrays of an archive as `AlignmentMap.save` writes it; no more memory than the file is long.

    Raises ValueError for anything else: arrays that are compressed or encrypted, or larger or smaller than
    their headers say.
    """
    length = stream.seek(0, io.SEEK_END)
    arrays = {}
    with zipfile.ZipFile(stream) as archive:
        stored = {info.filename: info for info in archive.infolist()}
        optional = [name for name in ("landmarks",) if f"{name}.npy" in stored]
        for name in (*_PARTS, *optional):
            info = stored[f"{name}.npy"]
            plain = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
            if not plain or info.file_size != info.compress_size or info.file_size > length:
                raise ValueError(f"{info.filename} is compressed, or larger than the file")
            arrays[name] = _array(io.BytesIO(archive.read(info)), info.filename)
    return arrays


def _array(member: io.BytesIO, name: str) -> NDArray[Any]:
    if np.lib.format.read_magic(member) != (1, 0):
        raise ValueError(f"{name} has an unknown array format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
    content = member.getbuffer()[member.tell() :]
    if dtype.hasobject or any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{name} holds {len(content):,} bytes, and its header says {dtype} {shape}")
    flat = np.frombuffer(content, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _checked(about: dict[str, Any]) -> dict[str, Any]:
    """The provenance, what later steps read of it being of the right type."""
    kinds: dict[str, tuple[type, ...]] = {
        "held_out": (float, int),
        "seed": (int,),
        "in_place": (bool,),
        "key": (str, type(None)),
    }
    for name, allowed in kinds.items():
        if name in about and type(about[name]) not in allowed:
            raise ValueError(f"{name} is {about[name]!r}")
    if not 0 < about.get("held_out", 1) <= 1:
        raise ValueError(f"held_out is {about['held_out']}, not a share of the rows")
    return about
