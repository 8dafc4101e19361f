"""What changed between two versions of a table, as far as given columns and a filter go.

A fragment whose data files of these columns are the same in both versions holds the same rows, but for those
that were deleted or restored: their places tell. Rows of other fragments came, went, changed, or were only
moved by a compaction. With stable row ids the version at which a row was last updated tells which: equal row
ids with equal versions are equal rows. A transaction that adds a file to fragments, as this package's own do,
makes it the last update of all their rows; so versions are compared up to it, and again from it on. Without
stable row ids, all rows of such fragments count as removed and added: right for sums, though it takes longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import lance
import numpy as np
from numpy.typing import NDArray

from spec_store.connector import Freshness
from spec_store.stores.filters import parenthesized, quoted

from .dataset import scan
from .staging import Inputs, input_files, is_settled, result_files

__all__ = ["Changes", "Selection", "freshness", "unsettled_fragments"]

_UPDATED = "_row_last_updated_at_version"
# Transactions that leave the data files of the fragments that they keep as they are.
_KEEP_FILES = frozenset(
    {"Append", "Delete", "CreateIndex", "Rewrite", "Project", "UpdateConfig", "UpdateMap"}
)
# And those that make themselves the last update of all rows to which they add a file.
_MARK_ROWS = frozenset({"DataReplacement", "Merge"})
_MOST_VERSIONS = 1000


@dataclass(frozen=True)
class Selection:
    """Some rows of one version, by fragment: their row ids, or None for all that match the filter."""

    rows: Mapping[int, NDArray[np.uint64] | None]


class Changes:
    """The rows of two versions of a table, compared.

    Parameters
    ----------
    old, new
        The versions.
    inputs
        The columns that count.
    """

    def __init__(self, old: lance.LanceDataset, new: lance.LanceDataset, inputs: Inputs) -> None:
        self.old, self.new = old, new
        self._inputs = inputs
        self._before = {f.fragment_id: f for f in old.get_fragments()}
        self._now = {f.fragment_id: f for f in new.get_fragments()}
        self._same = [
            i
            for i in self._now.keys() & self._before.keys()
            if input_files(old, self._before[i], inputs) == input_files(new, self._now[i], inputs)
        ]

    @property
    def selections(self) -> tuple[Selection, Selection]:
        """Rows of the old version that the new one has not, and rows of the new one that the old one had not.

        A changed row is one of each. Cost: reads row ids of fragments that differ, and no values.
        """
        removed: dict[int, NDArray[np.uint64] | None] = {}
        added: dict[int, NDArray[np.uint64] | None] = {}
        for i in sorted(self._same):
            if self._deletions(self._before[i]) != self._deletions(self._now[i]):
                was = self._read(self.old, [self._before[i]]).ids
                now = self._read(self.new, [self._now[i]]).ids
                removed[i] = np.setdiff1d(was, now, assume_unique=True)
                added[i] = np.setdiff1d(now, was, assume_unique=True)
        left = {i: f for i, f in self._before.items() if i not in self._same}
        right = {i: f for i, f in self._now.items() if i not in self._same}
        if left and right and (unchanged := self.unchanged(left.values(), right.values())) is not None:
            before, after = self._read(self.old, left.values()), self._read(self.new, right.values())
            removed |= dict(before.by_fragment(~np.isin(before.ids, unchanged)))
            added |= dict(after.by_fragment(~np.isin(after.ids, unchanged)))
        else:
            removed |= dict.fromkeys(sorted(left))
            added |= dict.fromkeys(sorted(right))
        return _nonempty(removed), _nonempty(added)

    def unchanged(
        self, before: Iterable[lance.LanceFragment], after: Iterable[lance.LanceFragment]
    ) -> NDArray[np.uint64] | None:
        """Ids of rows of some fragments of both versions whose values stayed; None where nothing tells.

        Only with stable row ids, and where every version in between is held: a transaction that replaces a
        data file in place changes values, and the row's version says no more than that.
        """
        marking = self._marking_versions
        if marking is None:
            return None
        starts = [self.old, *(self.new.checkout_version(v) for v in marking)]
        ends = [*(self.new.checkout_version(v - 1) for v in marking), self.new]
        ids: NDArray[np.uint64] | None = None
        for start, end in zip(starts, ends, strict=True):
            was = _Rows.read(start, before if start is self.old else start.get_fragments(), None)
            now = _Rows.read(end, after if end is self.new else end.get_fragments(), None)
            stayed = now.ids[now.among(was)]
            ids = stayed if ids is None else np.intersect1d(ids, stayed)
        return ids

    @cached_property
    def _marking_versions(self) -> list[int] | None:
        """Versions that count as the last update of rows whose values they left; None where nothing tells."""
        if not (self.old.has_stable_row_ids and self.new.has_stable_row_ids):
            return None
        later = range(self.old.version + 1, self.new.version + 1)
        if len(later) > _MOST_VERSIONS:
            return None
        found = []
        try:
            for version in later:
                kind = type(self.new.read_transaction(version).operation).__name__
                if kind not in _KEEP_FILES and not self._keeps_files(version):
                    return None
                if kind in _MARK_ROWS:
                    found.append(version)
        except (OSError, ValueError):  # a version that was cleaned up
            return None
        return found

    def _keeps_files(self, version: int) -> bool:
        """Whether fragments of the version before kept their data files of the columns that count."""
        before, after = self.new.checkout_version(version - 1), self.new.checkout_version(version)
        known = {f.fragment_id: f for f in before.get_fragments()}
        return all(
            input_files(before, known[f.fragment_id], self._inputs) == input_files(after, f, self._inputs)
            for f in after.get_fragments()
            if f.fragment_id in known
        )

    @staticmethod
    def _deletions(fragment: lance.LanceFragment) -> tuple[int, str]:
        return fragment.num_deletions, str(fragment.metadata.deletion_file)

    def _read(self, dataset: lance.LanceDataset, fragments: Iterable[lance.LanceFragment]) -> _Rows:
        return _Rows.read(dataset, fragments, self._inputs.where)


def _nonempty(rows: Mapping[int, NDArray[np.uint64] | None]) -> Selection:
    return Selection({i: ids for i, ids in rows.items() if ids is None or len(ids)})


@dataclass(frozen=True)
class _Rows:
    """Rows, by row id; the fragments that hold them, and the versions at which they were last updated."""

    ids: NDArray[np.uint64]
    fragments: NDArray[np.int64]
    updated: NDArray[np.uint64]

    @classmethod
    def read(
        cls, dataset: lance.LanceDataset, fragments: Iterable[lance.LanceFragment], where: str | None
    ) -> _Rows:
        fragments = list(fragments)
        if not fragments:
            return cls(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.uint64))
        columns = [_UPDATED] if dataset.has_stable_row_ids else []
        scanner = scan(dataset, columns, where, 1 << 16, fragments, with_row_address=True)
        table = scanner.to_table()
        ids, addresses = (table[name].to_numpy() for name in ("_rowid", "_rowaddr"))
        updated = table[_UPDATED].to_numpy() if columns else np.zeros(len(ids), np.uint64)
        return cls(ids, (addresses >> np.uint64(32)).astype(np.int64), updated)

    def among(self, others: _Rows) -> NDArray[np.bool_]:
        """Which rows the others hold with the same values, shape (n,)."""
        order = np.argsort(others.ids)
        ids, updated = others.ids[order], others.updated[order]
        if not len(ids):
            return np.zeros(len(self.ids), bool)
        at = np.minimum(np.searchsorted(ids, self.ids), len(ids) - 1)
        return np.asarray((ids[at] == self.ids) & (updated[at] == self.updated))

    def by_fragment(self, which: NDArray[np.bool_]) -> Iterator[tuple[int, NDArray[np.uint64]]]:
        """The ids of the chosen rows, fragment by fragment."""
        for fragment in np.unique(self.fragments[which]):
            yield int(fragment), self.ids[which & (self.fragments == fragment)]


def unsettled_fragments(
    old: lance.LanceDataset | None, new: lance.LanceDataset, inputs: Inputs, token: str
) -> set[int]:
    """Fragments that have rows whose results are not those of their present values, or may not be.

    Parameters
    ----------
    old
        A version at which every row had its results; None where none is held any more.
    token
        Of the annotation whose results are wanted.
    """
    sorted_out = _Fragments.of(new, inputs, token)
    wanted = {f.fragment_id for f in (*sorted_out.empty, *sorted_out.rewritten)}
    trace = sorted_out.trace(old)
    if trace is not None:
        now, current = trace
        wanted -= {f.fragment_id for f in sorted_out.rewritten}
        wanted |= set(np.unique(now.fragments[~current]).tolist())
    return wanted


def freshness(
    old: lance.LanceDataset | None, new: lance.LanceDataset, inputs: Inputs, token: str | None
) -> Freshness:
    """How many rows' results are those of their present values; see `Source.freshness`."""
    sorted_out = _Fragments.of(new, inputs, token)
    found = Freshness(
        current=sum(_count(f, inputs.where) for f in sorted_out.settled),
        missing=sum(_count(f, inputs.where) for f in sorted_out.empty),
    )
    rest = sorted_out.rewritten
    if not rest:
        return found
    null = " AND ".join(f"{quoted(name)} IS NULL" for name in inputs.results)
    empty, wanted = (_Rows.read(new, rest, where) for where in (null, inputs.where))
    trace = sorted_out.trace(old)
    if trace is None:
        n_all = sum(f.count_rows() for f in rest)
        return found.plus(missing=len(np.intersect1d(empty.ids, wanted.ids)), unknown=n_all - len(empty.ids))
    now, current = trace
    is_empty, is_wanted = (np.isin(now.ids, rows.ids) for rows in (empty, wanted))
    return found.plus(
        current=int((current & is_wanted).sum()),
        missing=int((~current & is_wanted & is_empty).sum()),
        stale=int((~current & ~is_empty).sum()),
    )


@dataclass(frozen=True)
class _Fragments:
    """The fragments of a version, by what their data files tell of their results.

    Attributes
    ----------
    settled
        All results are those of the present values.
    empty
        There is no file of results.
    rewritten
        Somebody else wrote the results, or what they were computed from, since: an update, a compaction.
    """

    dataset: lance.LanceDataset
    inputs: Inputs
    settled: list[lance.LanceFragment]
    empty: list[lance.LanceFragment]
    rewritten: list[lance.LanceFragment]

    @classmethod
    def of(cls, dataset: lance.LanceDataset, inputs: Inputs, token: str | None) -> _Fragments:
        found = cls(dataset, inputs, [], [], [])
        for f in dataset.get_fragments():
            if is_settled(dataset, f, inputs, token):
                found.settled.append(f)
            else:
                (found.rewritten if result_files(dataset, f, inputs) else found.empty).append(f)
        return found

    def trace(self, old: lance.LanceDataset | None) -> tuple[_Rows, NDArray[np.bool_]] | None:
        """The rows of rewritten fragments, and which of them are as they were; None where nothing tells."""
        if old is None or not self.rewritten:
            return None
        settled = {f.fragment_id for f in self.settled}
        before = [f for f in old.get_fragments() if f.fragment_id not in settled]
        unchanged = Changes(old, self.dataset, self.inputs).unchanged(before, self.rewritten)
        if unchanged is None:
            return None
        now = _Rows.read(self.dataset, self.rewritten, None)
        return now, np.isin(now.ids, unchanged)


def _count(fragment: lance.LanceFragment, where: str | None) -> int:
    return int(fragment.count_rows(None if where is None else parenthesized(where)))
