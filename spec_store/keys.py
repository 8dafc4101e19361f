"""Row keys by hash: samples, halves and splits that do not depend on where a row lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .errors import InputError

__all__ = ["hash_keys", "smallest_hashes"]


def hash_keys(keys: pa.Array, seed: int = 0) -> NDArray[np.uint64]:
    """A 64-bit hash per row key: the same on every machine, whatever the batch.

    Parameters
    ----------
    keys
        Integers, strings or binary, without nulls.
    seed
        Any integer; different seeds give independent hashes.

    References
    ----------
    splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    if keys.null_count:
        raise InputError(f"{keys.null_count} row keys are null: every row needs a key.")
    if pa.types.is_integer(keys.type):
        x = keys.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False).view(np.uint64)
    elif pa.types.is_string(keys.type) or pa.types.is_large_string(keys.type):
        x = _digests([str(key).encode() for key in keys.to_pylist()])
    elif pa.types.is_binary(keys.type) or pa.types.is_large_binary(keys.type):
        x = _digests(keys.to_pylist())
    else:
        raise InputError(f"Row keys must be integers, strings or binary, not {keys.type}.")
    offset = np.uint64((0x9E3779B97F4A7C15 * (2 * seed + 1)) & 0xFFFFFFFFFFFFFFFF)
    with np.errstate(over="ignore"):
        z = x + offset
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))  # type: ignore[no-any-return]  # numpy's uint64 arithmetic


def _digests(keys: Sequence[bytes]) -> NDArray[np.uint64]:
    joined = b"".join(hashlib.blake2b(key, digest_size=8).digest() for key in keys)
    return np.frombuffer(joined, dtype="<u8")


def smallest_hashes(
    keys: Iterable[tuple[pa.Array, pa.Array]], n: int, seed: int
) -> tuple[pa.Array, NDArray[np.int64]]:
    """The rows whose identities have the `n` smallest hashes, in the order of the hashes.

    Parameters
    ----------
    keys
        Batches of row keys, and of the identities to be hashed.

    Returns
    -------
    Row keys, and positions in the stream, both shape (≤ n,).
    """
    best_hash = np.empty(0, np.uint64)
    best_position = np.empty(0, np.int64)
    best_keys: pa.Array | None = None
    seen = 0
    for rows, identities in keys:
        hashes = np.concatenate([best_hash, hash_keys(identities, seed)])
        positions = np.concatenate([best_position, np.arange(seen, seen + len(rows))])
        merged = rows if best_keys is None else pa.concat_arrays([best_keys, rows])
        seen += len(rows)
        keep = np.argpartition(hashes, n)[:n] if len(hashes) > n else np.arange(len(hashes))
        keep = keep[np.argsort(hashes[keep], kind="stable")]
        best_hash, best_position, best_keys = hashes[keep], positions[keep], merged.take(pa.array(keep))
    return (pa.nulls(0) if best_keys is None else best_keys), best_position
