"""Where a run's progress is kept beside its table, so that the same command continues it when it was killed.

What a pass has summed, or a fit found, is kept in the table's workspace, for as long as the run that it
belongs to has not published its results. What pass 2 has staged is kept by the connector, and found again
since a continued run gets to the same results.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from ..connector import Claim, Source, Workspace, find_field, run_of
from ..errors import InputError, NotBetterError, SpecStoreError
from ..runs.records import new_run_id
from ..stores.references import ColumnRef

__all__ = ["SECONDS_VARIABLE", "Checkpoint", "Content", "Resumption", "discard_checkpoints", "resumable"]

SECONDS_VARIABLE = "SPEC_STORE_CHECKPOINT_SECONDS"
"""The environment variable that changes before which second of a run nothing is kept; 0 keeps every unit."""

_FORMAT = 1
_MAGIC = b"spec-store checkpoint"
_FIRST_SECONDS = 3.0
_SECONDS_BETWEEN = 1.0
# Of the time of a run, what checkpoints may take.
_SHARE = 0.025
# Of the work, less than which tells nothing of the time that all of it takes.
_LEAST_SHARE = 0.05
_PASSES = 2  # of the second nothing is kept here
# Options on which nothing depends but time.
_INDIFFERENT = frozenset({"threads"})
_LARGEST_AGE = 7 * 24 * 3600.0
# Prefixes of a run that its checkpoint's name holds: file names are limited.
_MOST_KEYS = 20

Content = tuple[dict[str, Any], bytes]
"""A header of plain values, and what it goes with."""


@dataclass(frozen=True)
class Resumption:
    """By what an interrupted run is known again.

    Attributes
    ----------
    question
        Plain values on which the results depend: options, columns, prefixes.
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
        options: Mapping[str, Any],
        results: Mapping[str, Sequence[str]],
        *,
        by_name: bool,
        version: int | None,
        fresh: bool,
    ) -> Resumption:
        """Of a comparison, or an alignment.

        Parameters
        ----------
        asked, columns
            The embeddings as they were asked for, and their names.
        options
            Plain values.
        results
            By prefix, the result columns.
        by_name, version
            Whether the table was named, and which version of it.
        """
        own = {name: value for name, value in options.items() if name not in _INDIFFERENT}
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


class Checkpoint(ABC):
    """One run's place to keep its progress, and what was found there.

    Attributes
    ----------
    source
        What is to be read: the version that an interrupted run has read, where that is continued.
    run_id
        The run's; that of the one that is continued.
    notes
        What is continued or started over, and why.
    """

    parts: ClassVar[tuple[str, ...]]
    """Names of what is kept, each a `Content`; the first holds the version that is read."""

    def __init__(self, source: Source, workspace: Workspace | None = None, stem: str = "") -> None:
        self.source = source
        self.run_id = new_run_id()
        self.notes: list[str] = []
        self._workspace = workspace
        self._gave_up = workspace is None
        self._stem = stem
        self._claim: Claim | None = None
        self._began = self._last = time.monotonic()
        self._spent = 0.0
        self._cost: float | None = None

    @property
    @abstractmethod
    def progress(self) -> str:
        """How far the run that is kept has come: "after 5 rows of its first pass"; empty where none is."""

    @abstractmethod
    def _take(self, found: Mapping[str, Content]) -> None:
        """Take over what is kept. Raises ValueError or KeyError where it can't be used."""

    @abstractmethod
    def _forget(self) -> None:
        """Nothing is kept any more, and nothing continued."""

    @property
    def kept(self) -> str:
        """For a person whose run was interrupted: that it can be continued; empty where it can't."""
        return f"The same command continues it {self.progress}." if self.progress else ""

    def _is_due(self, n_bytes: int, done: float, *, final: bool = False) -> bool:
        """Whether to keep so much now: all checkpoints together take a small share of the run's time.

        Parameters
        ----------
        done
            Share of the run's work.
        final
            Nothing more is to be kept after it; else some time passes between two.
        """
        if self._workspace is None or self._gave_up:
            return False
        least = float(os.environ.get(SECONDS_VARIABLE, _FIRST_SECONDS))
        if least == 0:
            return True
        now = time.monotonic()
        expected = n_bytes / self._workspace.bytes_per_second if self._cost is None else self._cost
        passed, in_all = now - self._began, (now - self._began) / max(done, _LEAST_SHARE)
        if passed < least or self._spent + expected > _SHARE * in_all:
            return False
        return final or now - self._last >= max(_SECONDS_BETWEEN, expected / (_PASSES * _SHARE))

    def _put(self, contents: Mapping[str, Callable[[], Content]], *, first: bool) -> bool:
        """Keep parts; whether they are. What fails is told, and no reason to stop a run."""
        assert self._workspace is not None
        began = time.monotonic()
        try:
            if self._claim is None and not self._claimed():
                return False
            for part, made in contents.items():
                header, payload = made()
                own = {"run": self.run_id, "version": self.source.version, **header}
                self._workspace.put(f"{self._stem}.{part}", _packed(own, payload))
        except (OSError, SpecStoreError) as error:
            self._give_up(f"progress can't be kept to continue from ({error})")
            return False
        self._last = time.monotonic()
        self._spent += self._last - began
        self._cost = None if first else self._last - began
        return True

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

    def find(self, latest: Source, asked: Resumption) -> None:
        """Continue what was interrupted, or say why not."""
        assert self._workspace is not None
        try:
            found = {part: self._workspace.get(f"{self._stem}.{part}") for part in self.parts}
            if not any(found.values()) or not self._claimed():
                return
            whole = {part: data for part, data in found.items() if data is not None}
            if asked.fresh or len(whole) < len(self.parts):
                self.discard()
                return
            self._continue({part: _unpacked(data) for part, data in whole.items()}, latest, asked)
        except (OSError, SpecStoreError, ValueError, KeyError) as error:
            self.notes.append(
                "started over: the progress of an earlier run with the same arguments can't be used"
                f" ({' '.join(str(error).split())})."
            )
            self.discard()

    def _continue(self, found: Mapping[str, Content], latest: Source, asked: Resumption) -> None:
        runs = {header["run"] for header, _ in found.values()}
        if len(runs) > 1:
            raise ValueError("its parts are of different runs")
        (run,) = runs
        version = found[self.parts[0]][0]["version"]
        source = latest if version == latest.version else latest.at(version)
        for column in asked.columns:
            find_field(latest, column)
        if written := _written_since(source, latest, asked.results, run):
            raise ValueError(f"another run has written {', '.join(written)} since")
        self._take(found)
        self.source, self.run_id = source, run
        moved = "" if source is latest else f"; the table is at version {latest.version} now"
        self.notes.append(
            f"continues run {run}, which was interrupted {self.progress}, at version {version}{moved}. Use"
            " --fresh (fresh=True) to start over."
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
        self._forget()
        if self._claim is not None and self._workspace is not None:
            with contextlib.suppress(OSError):  # the next run of the same prefix removes it
                for part in reversed(self.parts):
                    self._workspace.delete(f"{self._stem}.{part}")

    def release(self) -> None:
        """Let others continue from what is kept."""
        if self._claim is not None:
            with contextlib.suppress(OSError, SpecStoreError):  # it ends with this process
                self._claim.release()
            self._claim = None


Kind = TypeVar("Kind", bound=Checkpoint)


@contextlib.contextmanager
def resumable(kind: type[Kind], source: Source, asked: Resumption | None) -> Iterator[Kind]:
    """A block that is one run from its first row to its publication.

    Ended well, or by what another try would meet again, nothing is kept; ended by anything else, the next
    one continues.

    Parameters
    ----------
    source
        As it stands now.
    asked
        None for a run of which nothing is kept.
    """
    workspace = None if asked is None else source.workspace
    if asked is None or workspace is None:
        yield kind(source)
        return
    checkpoint = kind(source, workspace, asked.stem(source))
    checkpoint.sweep(asked.prefixes)
    checkpoint.find(source, asked)
    try:
        yield checkpoint
    except (InputError, NotBetterError):
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


def _written_since(old: Source, new: Source, results: Sequence[str], own: str) -> list[str]:
    """Result columns that another run has written between two versions."""
    before, now = ({f.name: run_of(f) for f in source.schema} for source in (old, new))
    return [n for n in results if now.get(n) not in (None, own, before.get(n))]


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
