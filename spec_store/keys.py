"""Row keys by hash: samples and splits that do not depend on where a row lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .errors import InputError

__all__ = ["canonical_keys", "hash_keys", "key_family", "repeated_keys", "same_keys", "smallest_hashes"]


def key_family(kind: pa.DataType) -> str:
    """Keys of one family can be equal, whatever their encoding: ``integer``, ``text`` or ``binary``.

    Raises InputError for types that can't be keys.
    """
    if pa.types.is_dictionary(kind):
        return key_family(kind.value_type)
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
        or getattr(kind, "extension_name", None) == "arrow.uuid"
    ):
        return "binary"
    raise InputError(f"Row keys must be integers, text, binary or UUIDs, not {kind}.")


def canonical_keys(keys: pa.Array) -> pa.Array:
    """Equal keys of one family in one encoding: int64, or large_binary (text as UTF-8).

    Unsigned integers from 2^63 on keep their bits, and so become negative. Raises InputError for null keys
    and for types that can't be keys.
    """
    plain = _encoded(keys)
    if plain.null_count:
        raise InputError(f"{plain.null_count} row keys are null: every row needs a key.")
    return plain


def _encoded(keys: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(keys.type):
        return _encoded(keys.dictionary).take(keys.indices)
    if key_family(keys.type) == "integer":
        return keys.cast(pa.int64(), safe=False)
    return (keys.storage if isinstance(keys, pa.ExtensionArray) else keys).cast(pa.large_binary())


def same_keys(one: pa.ChunkedArray, other: pa.ChunkedArray | pa.Array) -> bool:
    """Whether two columns of keys of one family are equal row by row, whatever their encodings."""
    a, b = (k.combine_chunks() if isinstance(k, pa.ChunkedArray) else k for k in (one, other))
    return bool(canonical_keys(a).equals(canonical_keys(b)))


def hash_keys(keys: pa.Array, seed: int = 0) -> NDArray[np.uint64]:
    """A 64-bit hash per row key: the same on every machine, whatever the batch and the encoding.

    Parameters
    ----------
    keys
        Integers, text, binary or UUIDs, without nulls.
    seed
        Any integer; different seeds give independent hashes.

    References
    ----------
    splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    plain = canonical_keys(keys)
    if pa.types.is_integer(plain.type):
        x = plain.to_numpy(zero_copy_only=False).view(np.uint64)
    else:
        x = _digests(plain.to_pylist())
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


def repeated_keys(keys: Iterable[pa.Array]) -> int:
    """How many of these keys have come before; the first of each is not counted.

    Memory: 16 bytes per key.
    """
    parts = [hash_keys(part) for part in keys]
    if not parts:
        return 0
    hashes = np.concatenate(parts)
    hashes.sort()
    return int((hashes[1:] == hashes[:-1]).sum())
