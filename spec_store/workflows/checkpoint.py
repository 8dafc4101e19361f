"""Where a run's progress is kept beside its table, so that the same command continues it when it was killed.

While pass 1 runs, its state is kept in the table's workspace at intervals; after it the complete state stays
there until the results are published. What pass 2 has staged is kept by the connector, and found again since
a continued run gets to the same results.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..connector import Claim, Source, Workspace, find_field
from ..errors import InputError, SpecStoreError
from ..options import CompareOptions
from ..runs.records import new_run_id
from ..spectral.covariance import CovarianceAccumulator
from ..spectral.features import FeatureMap
from ..stores.references import ColumnRef
from .kept import load_sample, sample_to_bytes
from .portion import Portion
from .sampling import Sample
from .units import Progressed

__all__ = ["SECONDS_VARIABLE", "Checkpoint", "Prepared", "Resumption", "discard_checkpoints", "resumable"]

SECONDS_VARIABLE = "SPEC_STORE_CHECKPOINT_SECONDS"
"""The environment variable that changes before which second of a run nothing is kept; 0 keeps every unit."""

_FORMAT = 1
_MAGIC = b"spec-store checkpoint"
_FIRST_SECONDS = 3.0
# Of the time since the last one, what a checkpoint may take.
_SHARE = 0.025
# A larger state is not kept: its copies would take more memory than all else.
_LARGEST_STATE = 512 << 20
# Options on which nothing depends but time.
_INDIFFERENT = frozenset({"threads"})
_LARGEST_AGE = 7 * 24 * 3600.0
# Prefixes of a run that its checkpoint's name holds: file names are limited.
_MOST_KEYS = 20
_BASE, _STATE = ".base", ".state"


@dataclass(frozen=True)
class Prepared:
    """What is fixed on the sample before pass 1.

    Attributes
    ----------
    sample
        As it is kept with a run.
    maps
        A feature map per embedding.
    map_errors
        By pair, see `sampling.map_error`.
    messages
        What a person should know of keys and bandwidths.
    by_own_key
        Whether rows go by the store's own key, since the one that was asked for repeats.
    seed
        Of the sample.
    """

    sample: Sample
    maps: Sequence[FeatureMap]
    map_errors: Mapping[tuple[str, str], float]
    messages: tuple[str, ...]
    by_own_key: bool
    seed: int


@dataclass(frozen=True)
class Resumption:
    """By what an interrupted run is known again.

    Attributes
    ----------
    question
        Plain values on which pass 1 and the results depend: options, columns, prefixes.
    columns
        The embeddings.
    prefixes, results
        Of the result columns, and their names.
    moves
        Whether the table is read as it stands, so that an earlier version may be gone on with; else the
        version is part of the question.
    fresh
        Whether to start over, whatever is kept.
    """

    question: Mapping[str, Any]
    columns: Sequence[str]
    prefixes: Sequence[str]
    results: Sequence[str]
    moves: bool
    fresh: bool

    @classmethod
    def of(
        cls,
        asked: Sequence[str],
        columns: Sequence[str],
        options: CompareOptions,
        results: Mapping[str, Sequence[str]],
        *,
        by_name: bool,
        version: int | None,
        fresh: bool,
    ) -> Resumption:
        """Of a comparison.

        Parameters
        ----------
        asked, columns
            The embeddings as they were asked for, and their names.
        results
            By prefix, the result columns.
        by_name, version
            Whether the table was named, and which version of it.
        """
        own = {name: value for name, value in options.to_json().items() if name not in _INDIFFERENT}
        question = {"columns": list(asked), "options": own, "prefixes": list(results)}
        elsewhere = any(ColumnRef.parse(c).location is not None for c in asked) if by_name else True
        return cls(
            question=question,
            columns=tuple(columns),
            prefixes=tuple(results) or (f"spec_{'_'.join(columns)}",),
            results=tuple(name for names in results.values() for name in names),
            moves=version is None and not elsewhere,
            fresh=fresh,
        )

    def stem(self, source: Source) -> str:
        """The name under which the run's progress is kept."""
        place = None if source.location is None else source.location.uri
        pinned = None if self.moves else source.fingerprint
        asked = {"format": _FORMAT, "place": place, "table": source.table, "pinned": pinned, **self.question}
        digest = _short(json.dumps(asked, sort_keys=True, default=str), 16)
        return "-".join(["checkpoint", *_keys(self.prefixes), digest])


class Checkpoint:
    """One run's place to keep its progress, and what was found there.

    Attributes
    ----------
    source
        What is to be read: the version that an interrupted run has read, where that is continued.
    run_id
        The run's; that of the one that is continued.
    notes
        What is continued or started over, and why.
    prepared, start, portion
        What the interrupted run had fixed, and summed of all rows or of a share of them; None where none is
        continued.
    """

    def __init__(self, source: Source, workspace: Workspace | None = None, stem: str = "") -> None:
        self.source = source
        self.run_id = new_run_id()
        self.notes: list[str] = []
        self.prepared: Prepared | None = None
        self.start: Progressed | None = None
        self.portion: Portion | None = None
        self._workspace = workspace
        self._gave_up = workspace is None
        self._stem = stem
        self._claim: Claim | None = None
        self._n_rows: int | None = None  # in the state that is kept
        self._n_units: int | None = None  # 0: all, of a share of the rows
        self._last = time.monotonic()
        self._cost: float | None = None

    @property
    def kept(self) -> str:
        """For a person whose run was interrupted: that it can be continued; empty where it can't."""
        if self._n_rows is None:
            return ""
        return f"The same command continues it after {self._n_rows:,} rows of its first pass."

    def keep(self, prepared: Prepared, done: Progressed | Portion) -> None:
        """Keep the progress, where it is time to: of all rows as they are summed, of a share at the end."""
        states = _states(done)
        n_units = done.n_units if isinstance(done, Progressed) else 0
        n_bytes = 4 * len(states) * states[0].n_columns ** 2
        if self._gave_up or n_units == self._n_units or n_bytes > _LARGEST_STATE:
            return
        assert self._workspace is not None
        if not self._is_due(n_bytes + sum(x.nbytes for x in prepared.sample.rows)):
            return
        began = time.monotonic()
        try:
            if self._claim is None and not self._claimed():
                return
            if self._n_units is None:
                self._workspace.put(f"{self._stem}{_BASE}", self._base(prepared))
            first = self._n_units is None
            self._workspace.put(f"{self._stem}{_STATE}", self._state(states, n_units))
        except (OSError, SpecStoreError) as error:
            self._give_up(f"progress can't be kept to continue from ({error})")
            return
        self._n_units, self._n_rows = n_units, _rows_in(states)
        self._last = time.monotonic()
        self._cost = None if first else self._last - began

    def _is_due(self, n_bytes: int) -> bool:
        """Whether a checkpoint is small beside the time since the last one."""
        least = float(os.environ.get(SECONDS_VARIABLE, _FIRST_SECONDS))
        if least == 0:
            return True
        assert self._workspace is not None
        passed = time.monotonic() - self._last
        if self._cost is not None:
            return passed >= self._cost / _SHARE
        return passed >= max(least, n_bytes / self._workspace.bytes_per_second / _SHARE)

    def _claimed(self) -> bool:
        assert self._workspace is not None
        self._claim = self._workspace.claim(self._stem)
        if self._claim is None:
            self._give_up(
                "another run with the same arguments is under way, so this one's progress is not kept"
            )
        return self._claim is not None

    def _give_up(self, reason: str) -> None:
        """Keep nothing more; a run without checkpoints is better than none."""
        self.notes.append(f"{reason}.")
        self._gave_up = True

    def _base(self, prepared: Prepared) -> bytes:
        header = {
            "run": self.run_id,
            "version": self.source.version,
            "map_errors": [[*pair, error] for pair, error in prepared.map_errors.items()],
            "messages": list(prepared.messages),
            "by_own_key": prepared.by_own_key,
            "seed": prepared.seed,
        }
        return _packed(header, sample_to_bytes(prepared.sample, prepared.seed, compression=None))

    def _state(self, states: Sequence[CovarianceAccumulator], n_units: int) -> bytes:
        parts = [state.to_bytes() for state in states]
        header = {"run": self.run_id, "n_units": n_units, "sizes": [len(part) for part in parts]}
        return _packed(header, b"".join(parts))

    def find(self, latest: Source, asked: Resumption) -> None:
        """Continue what was interrupted, or say why not."""
        assert self._workspace is not None
        try:
            base = self._workspace.get(f"{self._stem}{_BASE}")
            state = self._workspace.get(f"{self._stem}{_STATE}")
            if base is None and state is None:
                return
            if not self._claimed():
                return
            if asked.fresh or base is None or state is None:
                self.discard()
                return
            self._take(base, state, latest, asked)
        except (OSError, SpecStoreError, ValueError, KeyError) as error:
            self.notes.append(
                "started over: the progress of an earlier run with the same arguments can't be used"
                f" ({' '.join(str(error).split())})."
            )
            self.discard()

    def _take(self, base: bytes, state: bytes, latest: Source, asked: Resumption) -> None:
        header, payload = _unpacked(base)
        progress, sums = _unpacked(state)
        if progress["run"] != header["run"]:
            raise ValueError("its parts are of different runs")
        version = header["version"]
        source = latest if version == latest.version else latest.at(version)
        for column in asked.columns:
            find_field(latest, column)
        if written := _written_since(source, latest, asked.results, header["run"]):
            raise ValueError(f"another run has written {', '.join(written)} since")
        states = _loaded(sums, progress["sizes"])
        errors = {(a, b): float(error) for a, b, error in header["map_errors"]}
        self.prepared = Prepared(
            load_sample(payload),
            states[0].maps,
            errors,
            tuple(header["messages"]),
            header["by_own_key"],
            header["seed"],
        )
        self._n_rows, self._n_units = _rows_in(states), progress["n_units"]
        if self._n_units:
            self.start = Progressed(states[0], self._n_units)
        else:
            self.portion = Portion(tuple(states))
        self.source, self.run_id = source, header["run"]
        self._cost = None
        moved = "" if source is latest else f"; the table is at version {latest.version} now"
        self.notes.append(
            f"continues run {self.run_id}, which was interrupted after {self._n_rows:,} rows of its first"
            f" pass, at version {version}{moved}. Use --fresh (fresh=True) to start over."
        )

    def sweep(self, prefixes: Sequence[str]) -> None:
        """Remove what other runs of these prefixes had kept, and what is old, unless they live."""
        assert self._workspace is not None
        keys = set(_keys(prefixes))
        with contextlib.suppress(OSError):  # the next run removes them
            _remove(
                self._workspace,
                lambda stem, age: (
                    stem != self._stem and bool(keys & set(stem.split("-")) or age > _LARGEST_AGE)
                ),
            )

    def discard(self) -> None:
        """Remove what is kept."""
        self._n_rows = self._n_units = self.start = self.portion = self.prepared = None
        if self._claim is not None and self._workspace is not None:
            with contextlib.suppress(OSError):  # the next run of the same prefix removes it
                for end in (_STATE, _BASE):
                    self._workspace.delete(f"{self._stem}{end}")

    def release(self) -> None:
        """Let others continue from what is kept."""
        if self._claim is not None:
            with contextlib.suppress(OSError, SpecStoreError):  # it ends with this process
                self._claim.release()
            self._claim = None


@contextlib.contextmanager
def resumable(source: Source, asked: Resumption | None) -> Iterator[Checkpoint]:
    """A block that is one run from its first row to its publication.

    Ended well, or by bad input, nothing is kept; ended by anything else, the next one continues.

    Parameters
    ----------
    source
        As it stands now.
    asked
        None for a run of which nothing is kept.
    """
    workspace = None if asked is None else source.workspace
    if asked is None or workspace is None:
        yield Checkpoint(source)
        return
    checkpoint = Checkpoint(source, workspace, asked.stem(source))
    checkpoint.sweep(asked.prefixes)
    checkpoint.find(source, asked)
    try:
        yield checkpoint
    except InputError:
        checkpoint.discard()
        raise
    except KeyboardInterrupt as error:
        if checkpoint.kept:
            error.args = (checkpoint.kept,)
        raise
    else:
        checkpoint.discard()
    finally:
        checkpoint.release()


def discard_checkpoints(source: Source, prefix: str) -> None:
    """Remove what interrupted runs of a prefix had kept to be continued from; living ones are let alone."""
    workspace = source.workspace
    if workspace is not None:
        (key,) = _keys([prefix])
        _remove(workspace, lambda stem, age: key in stem.split("-"))


def _remove(workspace: Workspace, wanted: Any) -> None:
    ages: dict[str, float] = {}
    names: dict[str, list[str]] = {}
    for name, age in workspace.ages().items():
        stem = name.partition(".")[0]
        ages[stem] = min(age, ages.get(stem, age))
        names.setdefault(stem, []).append(name)
    for stem, age in ages.items():
        if stem.startswith("checkpoint-") and wanted(stem, age) and (claim := workspace.claim(stem)):
            try:
                for name in names[stem]:
                    workspace.delete(name)
            finally:
                claim.release()


def _states(done: Progressed | Portion) -> Sequence[CovarianceAccumulator]:
    return (done.state,) if isinstance(done, Progressed) else done.groups


def _rows_in(states: Sequence[CovarianceAccumulator]) -> int:
    """Rows read, those that were skipped among them."""
    return sum(state.n_rows + state.invalid.n_rows for state in states)


def _loaded(data: bytes, sizes: Sequence[int]) -> list[CovarianceAccumulator]:
    """States that lie one behind the other."""
    file = io.BytesIO(data)
    return [CovarianceAccumulator.load(io.BytesIO(file.read(size))) for size in sizes]


def _written_since(old: Source, new: Source, results: Sequence[str], own: str) -> list[str]:
    """Result columns that another run has written between two versions."""
    return [n for n in results if _run_of(new, n) not in (None, own, _run_of(old, n))]


def _run_of(source: Source, column: str) -> str | None:
    if column not in source.schema.names:
        return None
    mark = (source.schema.field(column).metadata or {}).get(b"spec_store.run")
    return None if mark is None else mark.decode()


def _keys(prefixes: Sequence[str]) -> list[str]:
    return [_short(prefix, 8) for prefix in prefixes[:_MOST_KEYS]]


def _short(text: str, n: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=n // 2).hexdigest()


def _packed(header: Mapping[str, Any], payload: bytes) -> bytes:
    """A line of magic, one of JSON, and the payload, whose length and checksum the JSON holds."""
    whole = {"format": _FORMAT, "size": len(payload), "crc": zlib.crc32(payload), **header}
    return b"%s\n%s\n%s" % (_MAGIC, json.dumps(whole).encode(), payload)


def _unpacked(data: bytes) -> tuple[dict[str, Any], bytes]:
    """What `_packed` was given. Raises ValueError for what is incomplete, or of another format."""
    magic, _, rest = data.partition(b"\n")
    line, _, payload = rest.partition(b"\n")
    if magic != _MAGIC:
        raise ValueError("it is incomplete")
    header: dict[str, Any] = json.loads(line)
    if header["format"] != _FORMAT:
        raise ValueError(f"it has format {header['format']}, not {_FORMAT}")
    if (len(payload), zlib.crc32(payload)) != (header["size"], header["crc"]):
        raise ValueError("it is incomplete")
    return header, payload
