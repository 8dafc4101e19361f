"""Queries searched for in the whole table: streamed once, exact, before and after a switch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..alignment.topk import RunningTopK, hits, ndcg
from ..keys import hash_keys
from ..stores.filters import negated
from ..stores.streaming import ordered_map
from .real_queries import Queries
from .switch import Switch, SwitchRows
from .verdicts import ALL_ROWS, Share

__all__ = ["QueryFigures", "SearchFigures", "search_table"]

_BATCH_ROWS = 4096
_QUERIES = 1024


@dataclass(frozen=True)
class SearchFigures:
    """One way to search, over all queries.

    Attributes
    ----------
    search_overlap
        Of the k rows that full re-embedding gives, the share found.
    ndcg
        nDCG@k against the relevant rows, or, where none are given, against the answer of full re-embedding.
    recall
        Of the relevant rows, the share among the k found; None where none are given.
    """

    search_overlap: Share
    ndcg: Share
    recall: Share | None


@dataclass(frozen=True)
class QueryFigures:
    """Searches over the whole table.

    Attributes
    ----------
    real
        Whether the queries were given; else test rows stand in for them.
    n_queries, n_rows
        Queries, and rows searched.
    do_nothing
        The source's queries in the source's rows; None where the queries lack the source's vectors.
    mapped
        The index after the switch, as it is; None for a switch without a map.
    mixed
        The same with rows re-embedded: those of the plan where there is a budget, else those that fail; None
        where these are none, or all.
    through_index
        The index after the switch, through the aligned column's vector index: an approximate search; None
        where the column has none.
    re_embedded
        The target's queries in the target's rows.
    n_relevant
        Relevant rows in all lists together; None where none are given.
    n_unknown
        Of these, rows that the table does not have; no search can find them.
    n_without
        Queries without a relevant row: nDCG and recall are over the others.
    """

    real: bool
    n_queries: int
    n_rows: int
    do_nothing: SearchFigures | None
    mapped: SearchFigures | None
    mixed: SearchFigures | None
    through_index: SearchFigures | None
    re_embedded: SearchFigures
    n_relevant: int | None = None
    n_unknown: int | None = None
    n_without: int | None = None


def search_table(
    switch: Switch,
    queries: Queries,
    k: int,
    *,
    re_embed: str | None,
    progress: Callable[[int], None],
) -> QueryFigures:
    """Search the whole table for each query, before the switch, after it and after full re-embedding.

    Parameters
    ----------
    re_embed
        SQL filter of the rows whose re-embedding is evaluated too; None for none.

    Notes
    -----
    Exact. Cost: O(n q (d_a + 2 d_b)), one pass over the vectors. Memory: q (d_a + d_b + 4 k) numbers, and
    blocks of 1,024 queries by 4,096 rows; it does not grow with the table.
    """
    search = _Searches(switch, queries, k, splits=re_embed not in (None, ALL_ROWS))
    parts = [(None, False)] if not search.splits else [(re_embed, True), (negated(str(re_embed)), False)]
    for where, embedded in parts:
        for n in search.added(where, embedded):
            progress(n)
    return search.figures()


class _Searches:
    """The running results of each way to search."""

    def __init__(self, switch: Switch, queries: Queries, k: int, *, splits: bool) -> None:
        self.switch, self.queries, self.k = switch, queries, k
        self.splits = splits and switch.map is not None
        asked = queries.source if switch.in_place else queries.target
        assert asked is not None
        self._asked = asked
        n = len(queries)
        self._reference = RunningTopK(n, k)
        self._index = None if switch.map is None else RunningTopK(n, k)
        self._mixed = RunningTopK(n, k) if self.splits else None
        self._today = None if queries.source is None or switch.in_place else RunningTopK(n, k)
        self._known = np.unique(np.concatenate(queries.relevant)) if queries.relevant else None
        self._seen = None if self._known is None else np.zeros(len(self._known), bool)
        # Relevant rows go by the key that people know, all others by the store's own, which is unique.
        self._name = None if self._known is None else switch.identity
        self._n_rows = 0

    def added(self, where: str | None, embedded: bool) -> Iterator[int]:
        """Search the rows of a filter, in the mixed index re-embedded or not; yields each batch's rows."""
        switch = self.switch
        names = [] if self._name is None else [self._name]
        columns = list(dict.fromkeys([*switch.read, *names]))

        def decoded(batch: pa.RecordBatch) -> tuple[NDArray[np.int64], SwitchRows]:
            keys = batch.column(names[0]) if names else batch.column(0)
            return hash_keys(keys).view(np.int64), switch.rows(batch)

        where = switch.evaluated(where)
        batches = switch.source.batches(columns, where=where, batch_rows=_BATCH_ROWS)
        for ids, rows in ordered_map(decoded, batches, workers=1):
            self._update(ids, rows, embedded)
            yield len(ids)

    def _update(self, ids: NDArray[np.int64], rows: SwitchRows, embedded: bool) -> None:
        reference = self.switch.reference(rows)
        usable = ~np.isnan(reference[:, 0])
        self._n_rows += int(usable.sum())
        if self._known is not None and self._seen is not None:
            at = np.minimum(np.searchsorted(self._known, ids.view(np.uint64)), len(self._known) - 1)
            self._seen[at[self._known[at] == ids.view(np.uint64)]] = True
        query, row = self._own_pairs(ids)
        for start in range(0, len(self._asked), _QUERIES):
            block = slice(start, start + _QUERIES)
            here = (query >= start) & (query < start + _QUERIES)
            own = query[here] - start, row[here]
            wanted = _similarity(self._asked[block], reference, own)
            self._reference.update(start, wanted, ids)
            if self._index is not None:
                found = _similarity(self._asked[block], rows.indexed, own)
                found[:, ~usable] = -np.inf
                self._index.update(start, found, ids)
                if self._mixed is not None:
                    self._mixed.update(start, wanted if embedded else found, ids)
            if self._today is not None and self.queries.source is not None:
                today = _similarity(self.queries.source[block], rows.source, own)
                today[:, ~usable] = -np.inf
                self._today.update(start, today, ids)

    def _own_pairs(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Which queries are which rows of a batch."""
        if self.queries.own is None:
            return np.empty(0, np.intp), np.empty(0, np.intp)
        _, query, row = np.intersect1d(self.queries.own, ids.view(np.uint64), return_indices=True)
        return query, row

    def figures(self) -> QueryFigures:
        relevant, counts = self.queries.relevant, {}
        if relevant is not None and self._known is not None and self._seen is not None:
            unknown = self._known[~self._seen]
            counts = {
                "n_relevant": sum(len(ids) for ids in relevant),
                "n_unknown": sum(int(np.isin(ids, unknown).sum()) for ids in relevant),
                "n_without": sum(not len(ids) for ids in relevant),
            }
        return QueryFigures(
            real=self.queries.own is None,
            n_queries=len(self.queries),
            n_rows=self._n_rows,
            do_nothing=self._measured(self._today),
            mapped=self._measured(self._index),
            mixed=self._measured(self._mixed),
            through_index=self._measured(self._through_index()),
            re_embedded=self._figures(self._reference),
            **counts,
        )

    def _through_index(self) -> RunningTopK | None:
        """What the vector index finds, in the form of an exact search."""
        column = self.switch.index_column
        if column is None:
            return None
        own = self.queries.own
        more = self.k + (own is not None)
        answers = self.switch.source.search_index(column, self._asked, k=more)
        if answers is None:
            return None
        found = RunningTopK(len(self._asked), self.k)
        for i, keys in enumerate(answers):
            if self._name is not None:
                keys = self.switch.source.take(keys, [self._name]).column(1).combine_chunks()
            names = hash_keys(keys)
            names = (names if own is None else names[names != own[i]])[: self.k]
            found.ids[i, : len(names)] = names.view(np.int64)
            found.similarity[i, : len(names)] = 0  # their order is known, and that they were found
        return found

    def _measured(self, found: RunningTopK | None) -> SearchFigures | None:
        return None if found is None else self._figures(found)

    def _figures(self, found: RunningTopK) -> SearchFigures:
        right = hits(found, self._reference)
        n_wanted = np.minimum((self._reference.similarity > -np.inf).sum(axis=1), self.k)
        overlap = Share.of(right.sum(axis=1) / np.maximum(n_wanted, 1))
        if self.queries.relevant is None:
            return SearchFigures(overlap, Share.of(ndcg(right, n_wanted)), None)
        relevant = np.zeros(right.shape, bool)
        for i, ids in enumerate(self.queries.relevant):
            known, first = np.unique(found.ids[i], return_index=True)  # a key that repeats is found once
            relevant[i, first] = np.isin(known.view(np.uint64), ids)
        relevant &= found.similarity > -np.inf
        n_relevant = np.array([len(ids) for ids in self.queries.relevant])
        with np.errstate(invalid="ignore"):
            recall = relevant.sum(axis=1) / n_relevant
        return SearchFigures(overlap, Share.of(ndcg(relevant, n_relevant)), Share.of(recall))


def _similarity(
    queries: NDArray[np.float32], rows: NDArray[np.float32], own: tuple[NDArray[np.intp], NDArray[np.intp]]
) -> NDArray[np.float32]:
    """Shape (q, m); -inf for rows that can't be found, and for the pairs of a query and its own row."""
    with np.errstate(invalid="ignore"):
        similarity = queries @ rows.T
    similarity[:, np.isnan(rows[:, 0])] = -np.inf
    similarity[own] = -np.inf
    return similarity
