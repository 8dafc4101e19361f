"""Rows and clusters put through a `Describer`, in whatever batches."""

import itertools

import numpy as np
import pyarrow as pa

from spec_store.describe import Describer

LISTS = pa.list_(pa.int32())


def batch_of(table):
    """A table as one record batch."""
    (batch,) = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    return batch


def describer_of(table, members, *, numbers=range(3), cuts=(), sample=None, **options):
    """A describer that has seen the table, cut into batches before the given rows."""
    describer = Describer(table.schema, table if sample is None else sample, numbers, **options)
    batch, lists = batch_of(table), pa.array(members, LISTS)
    edges = sorted({0, *cuts, len(batch)})
    for start, stop in itertools.pairwise(edges):
        describer.update(batch.slice(start, stop - start), lists.slice(start, stop - start))
    return describer


def described(table, members, **options):
    return describer_of(table, members, **options).result()


def claimed(description):
    """(column, value) of what is over-represented."""
    return [(v.column, v.value) for v in description.over_represented]


def three_groups(n, seed=0):
    """Random groups 0, 1, 2, and the lists that make each a cluster."""
    groups = np.random.default_rng([seed, 11]).integers(0, 3, n)  # not the numbers of a test's own generator
    return groups, [[int(g)] for g in groups]
