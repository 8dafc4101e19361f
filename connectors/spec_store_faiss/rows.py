"""What an index holds: its stored vectors by position, and the id of each, whatever wraps them.

Only calls that can't abort the process are made: kinds are recognised by their exact class, and positions are
checked before FAISS sees them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from spec_store.errors import InputError, UnsupportedError

__all__ = ["Rows", "rows_of"]

# Stored exactly, in the order of their positions.
_EXACT = {"IndexFlat", "IndexFlatL2", "IndexFlatIP", "IndexFlat1D"}
# Stored as codes, in the order of their positions.
_CODED = {
    "IndexScalarQuantizer": "scalar quantizer",
    "IndexPQ": "product quantizer",
    "IndexPQFastScan": "product quantizer",
    "IndexLSH": "binary hashes",
    "IndexRaBitQ": "RaBitQ codes",
    "IndexResidualQuantizer": "residual quantizer",
    "IndexLocalSearchQuantizer": "local search quantizer",
    "IndexProductResidualQuantizer": "product residual quantizer",
    "IndexProductLocalSearchQuantizer": "product local search quantizer",
}
_LISTS_CODED = {
    "IndexIVFScalarQuantizer": "scalar quantizer",
    "IndexIVFPQ": "product quantizer",
    "IndexIVFResidualQuantizer": "residual quantizer",
    "IndexIVFLocalSearchQuantizer": "local search quantizer",
}
_LISTS_PACKED = {"IndexIVFPQFastScan": "product quantizer"}
_GRAPHS = {
    "IndexHNSW",
    "IndexHNSWFlat",
    "IndexHNSWSQ",
    "IndexHNSWPQ",
    "IndexNSG",
    "IndexNSGFlat",
    "IndexNSGSQ",
    "IndexNSGPQ",
    "IndexNNDescent",
    "IndexNNDescentFlat",
}
_WHY_NOT = {
    "IndexShards": "its parts are separate indices: compare them one by one, or merge them",
    "IndexReplicas": "it holds copies of another index: give one of the copies",
}


class Rows(ABC):
    """Vectors by position.

    Attributes
    ----------
    n, d
        Number of vectors, and of dimensions.
    losses
        What was lost when they were stored, in words; empty for vectors that are kept exactly.
    """

    n: int
    d: int
    losses: tuple[str, ...] = ()

    @abstractmethod
    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Vectors at positions `start` to `stop`, shape (stop - start, d)."""

    @abstractmethod
    def gather(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors at the positions, shape (len(positions), d)."""

    def ids(self) -> NDArray[np.int64] | None:
        """The id of each position, shape (n,); None where ids are the positions."""
        return None


def rows_of(index: Any) -> Rows:
    """The vectors of an index.

    Raises
    ------
    UnsupportedError
        A kind whose vectors can't be read back; named.
    """
    index = faiss.downcast_index(index)
    kind = type(index).__name__
    if kind in _EXACT:
        return _Stored(index)
    if kind in _CODED:
        return _Stored(index, (f"{_CODED[kind]} ({kind})",))
    if kind in _GRAPHS:
        return rows_of(index.storage)
    if kind in ("IndexRefine", "IndexRefineFlat"):
        return rows_of(index.refine_index)
    if kind in ("IndexIDMap", "IndexIDMap2"):
        return _Mapped(rows_of(index.index), index)
    if kind == "IndexPreTransform":
        return _Transformed(rows_of(index.index), index)
    if kind == "IndexIVFFlat":
        return _Lists(index)
    if kind in _LISTS_CODED:
        return _CodedLists(index, (f"{_LISTS_CODED[kind]} ({kind})",))
    if kind in _LISTS_PACKED:
        return _PackedLists(index, (f"{_LISTS_PACKED[kind]} ({kind})",))
    reason = _WHY_NOT.get(kind, "this kind is not known to give its vectors back")
    raise UnsupportedError(f"A FAISS {kind} can't be streamed: {reason}.")


class _Stored(Rows):
    """An index that keeps vectors, or codes of them, in the order of their positions."""

    def __init__(self, index: Any, losses: tuple[str, ...] = ()) -> None:
        self._index = index
        self.n, self.d, self.losses = index.ntotal, index.d, losses

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        _check_range(start, stop, self.n)
        if start == stop:
            return np.empty((0, self.d), np.float32)
        vectors: NDArray[np.float32] = self._index.reconstruct_n(start, stop - start)
        return vectors

    def gather(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        _check_positions(positions, self.n)
        if not len(positions):
            return np.empty((0, self.d), np.float32)
        vectors: NDArray[np.float32] = self._index.reconstruct_batch(positions)
        return vectors


class _Mapped(Rows):
    """IDMap, IDMap2: an index under ids of its own."""

    def __init__(self, rows: Rows, index: Any) -> None:
        self._rows = rows
        self._index = index
        self.n, self.d, self.losses = rows.n, rows.d, rows.losses

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        return self._rows.read(start, stop)

    def gather(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._rows.gather(positions)

    def ids(self) -> NDArray[np.int64]:
        mapped: NDArray[np.int64] = faiss.vector_to_array(self._index.id_map)
        inner = self._rows.ids()
        if inner is None:
            inner = np.arange(self.n)
        if self.n and (len(mapped) <= inner.max() or inner.min() < 0):
            raise InputError(
                f"The index is inconsistent: it maps {len(mapped):,} ids, but numbers its vectors up to"
                f" {inner.max():,}. Build it again."
            )
        return mapped[inner]


class _Transformed(Rows):
    """PreTransform: vectors are stored transformed, and transformed back when read."""

    def __init__(self, rows: Rows, index: Any) -> None:
        self._rows = rows
        self._index = index
        self.n, self.d = rows.n, index.d
        steps = [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]
        self.losses = (*rows.losses, *(loss for step in steps for loss in _losses(step)))
        self._inverses = [_inverse(step) for step in reversed(steps)]

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        return self._back(self._rows.read(start, stop))

    def gather(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._back(self._rows.gather(positions))

    def ids(self) -> NDArray[np.int64] | None:
        return self._rows.ids()

    def _back(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        for inverse in self._inverses:
            vectors = inverse(np.ascontiguousarray(vectors))
        return vectors


def _losses(step: Any) -> list[str]:
    """What a transform does that its inverse can't make good."""
    kind = type(step).__name__
    if step.d_out < step.d_in:
        return [f"{kind} from {step.d_in} to {step.d_out} dimensions"]
    return [f"{kind}: the vectors' lengths"] if kind == "NormalizationTransform" else []


def _inverse(step: Any) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """What undoes a transform, as far as it can be. Raises UnsupportedError where it can't at all."""
    if isinstance(step, faiss.LinearTransform):
        return _linear_inverse(step)
    if isinstance(step, faiss.RemapDimensionsTransform):
        origins = faiss.vector_to_array(step.map)
        if len(origins) != step.d_out or not ((origins >= -1) & (origins < step.d_in)).all():
            raise InputError(
                "The index is inconsistent: it maps dimensions that there are not. Build it again."
            )
    try:
        step.reverse_transform(np.zeros((1, step.d_out), np.float32))
    except RuntimeError as error:
        raise UnsupportedError(
            f"A FAISS IndexPreTransform with {type(step).__name__} can't be streamed: this transform has no"
            " inverse, so the vectors can't be recovered from what is stored."
        ) from error
    reverse: Callable[[NDArray[np.float32]], NDArray[np.float32]] = step.reverse_transform
    return reverse


def _linear_inverse(step: Any) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """x from y = Ax + b, or the x nearest to the mean that gives y.

    FAISS's own `reverse_transform` applies A's transpose, which is not its inverse after whitening.
    """
    a = faiss.vector_to_array(step.A).reshape(step.d_out, step.d_in).astype(np.float64)
    b = faiss.vector_to_array(step.b) if step.have_bias else np.zeros(step.d_out)
    mean = faiss.vector_to_array(step.mean) if hasattr(step, "mean") else np.zeros(0)
    mean = mean if len(mean) == step.d_in else np.zeros(step.d_in)
    if not all(np.isfinite(part).all() for part in (a, b, mean)):
        raise InputError(
            f"The index is inconsistent: its {type(step).__name__} holds values that are not finite. Build it"
            " again."
        )
    back = np.linalg.pinv(a)
    offset = (mean - back @ (b + a @ mean)).astype(np.float32)
    weights = back.T.astype(np.float32)
    return lambda y: y @ weights + offset


class _Lists(Rows):
    """An inverted file: positions run through its lists, one after the other."""

    def __init__(self, index: Any, losses: tuple[str, ...] = ()) -> None:
        self._index = index
        self._lists = index.invlists
        self.n, self.d, self.losses = index.ntotal, index.d, losses
        sizes = [self._lists.list_size(i) for i in range(index.nlist)]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        if self._starts[-1] != self.n:
            raise InputError(
                f"The index is inconsistent: it counts {self.n:,} vectors, its lists hold"
                f" {self._starts[-1]:,}. Build it again."
            )

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        _check_range(start, stop, self.n)
        out = np.empty((stop - start, self.d), np.float32)
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            lo, hi = int(self._starts[first]), min(int(self._starts[first + 1]), stop)
            if hi > start:
                out[len(out) - (stop - start) :][: hi - start] = self._vectors(
                    first, slice(start - lo, hi - lo)
                )
                start = hi
            first += 1
        return out

    def gather(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        _check_positions(positions, self.n)
        out = np.empty((len(positions), self.d), np.float32)
        order = np.argsort(positions, kind="stable")
        lists = np.searchsorted(self._starts, positions[order], side="right") - 1
        for number, first, last in _runs(lists):
            rows = order[first:last]
            out[rows] = self._vectors(number, positions[rows] - self._starts[number])
        return out

    def ids(self) -> NDArray[np.int64]:
        out = np.empty(self.n, np.int64)
        for i in range(self._index.nlist):
            if size := self._size(i):
                pointer = self._lists.get_ids(i)
                out[self._starts[i] : self._starts[i + 1]] = faiss.rev_swig_ptr(pointer, size)
                self._lists.release_ids(i, pointer)
        return out

    def _size(self, number: int) -> int:
        return int(self._starts[number + 1] - self._starts[number])

    def _codes(self, number: int, rows: slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        """A copy of the codes of some rows of a list, shape (rows, code_size)."""
        pointer = self._lists.get_codes(number)
        width = self._index.code_size
        codes = faiss.rev_swig_ptr(pointer, self._size(number) * width).reshape(-1, width)[rows].copy()
        self._lists.release_codes(number, pointer)
        return codes

    def _vectors(self, number: int, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        vectors = self._decoded(number, rows)
        if vectors.shape[1] != self.d:
            raise InputError(
                f"The index is inconsistent: it says {self.d} dimensions, its codes hold {vectors.shape[1]}."
                " Build it again."
            )
        return vectors

    def _decoded(self, number: int, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        return self._codes(number, rows).view(np.float32)


class _CodedLists(_Lists):
    """An inverted file of codes, which FAISS decodes with the number of their list before them."""

    def _decoded(self, number: int, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        codes = self._codes(number, rows)
        prefix = int(self._index.coarse_code_size())
        prefixed = np.empty((len(codes), prefix + codes.shape[1]), np.uint8)
        prefixed[:, :prefix] = np.frombuffer(number.to_bytes(prefix, "little"), np.uint8)
        prefixed[:, prefix:] = codes
        vectors: NDArray[np.float32] = self._index.sa_decode(prefixed)
        return vectors


class _PackedLists(_Lists):
    """An inverted file for fast scanning: the codes of a block of vectors lie interleaved.

    FAISS's own way to one vector, `reconstruct_batch` by id, crashes on these, so blocks are unpacked.
    """

    def _codes(self, number: int, rows: slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        lists: Any = faiss.downcast_InvertedLists(self._lists)
        packer = lists.packer
        wanted = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        blocks, which = np.unique(wanted // packer.nvec, return_inverse=True)
        pointer = lists.get_codes(number)
        n_blocks = -(-self._size(number) // packer.nvec)
        packed = faiss.rev_swig_ptr(pointer, n_blocks * lists.block_size).reshape(n_blocks, -1)
        codes = np.empty((len(blocks), packer.nvec, packer.code_size), np.uint8)
        for unpacked, block in zip(codes, blocks, strict=True):
            packer.unpack_all(faiss.swig_ptr(packed[block]), faiss.swig_ptr(unpacked))
        lists.release_codes(number, pointer)
        picked: NDArray[np.uint8] = codes[which, wanted % packer.nvec]
        return picked

    def _decoded(self, number: int, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = self._index.pq.decode(self._codes(number, rows))
        return vectors + self._index.quantizer.reconstruct(number) if self._index.by_residual else vectors


def _runs(values: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Each run of equal values: the value, and where it begins and ends."""
    if not len(values):
        return []
    edges = np.flatnonzero(np.diff(values)) + 1
    begins, ends = [0, *edges.tolist()], [*edges.tolist(), len(values)]
    return [(int(values[b]), b, e) for b, e in zip(begins, ends, strict=True)]


def _check_range(start: int, stop: int, n: int) -> None:
    if not 0 <= start <= stop <= n:
        raise IndexError(f"Rows {start} to {stop} of an index with {n} vectors.")


def _check_positions(positions: NDArray[np.int64], n: int) -> None:
    if len(positions) and not (positions.min() >= 0 and positions.max() < n):
        raise IndexError(f"Rows {positions.min()} to {positions.max()} of an index with {n} vectors.")
