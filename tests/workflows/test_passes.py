"""The two streams over a source: their threads, and what they leave behind."""

import io
import threading

import numpy as np
import pyarrow as pa
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from lance_tables import make_table, open_source
from planted import random_pair, vectors
from spec_store.connector import Partition, Source
from spec_store.plugins import get_connector
from spec_store.spectral.covariance import CovarianceAccumulator
from spec_store.spectral.features import CosineMap
from spec_store.spectral.scoring import Scorer
from spec_store.workflows.passes import ClusterTally, accumulate, scored
from spec_store.workflows.units import Progressed, units_of

MAPS = [CosineMap("a", 6, True, "float32"), CosineMap("b", 9, True, "float32")]


@pytest.fixture(scope="module")
def source():
    a, b = random_pair(3000)
    return get_connector("arrow").wrap(pa.table({"a": vectors(a), "b": vectors(b)}))


def blas_threads():
    return [p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"]


def our_threads():
    return sum(t.name.startswith("spec-store") for t in threading.enumerate())


def test_a_pass_that_is_left_half_way_keeps_no_limit_on_products(source):
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        batches = scored(
            source, Scorer(MAPS, (), "spec"), ClusterTally(()),
            where=None, batch_rows=100, threads=2, progress=lambda rows: None,
        )  # fmt: skip
        next(batches)
        assert blas_threads() == before
        batches.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_passes_take_the_threads_they_are_given(source, threads):
    idle, seen = our_threads(), []
    options = {"where": None, "batch_rows": 100, "threads": threads}
    accumulate(source, MAPS, **options, progress=lambda rows: seen.append(our_threads() - idle))
    stream = scored(source, Scorer(MAPS, (), "spec"), ClusterTally(()), **options, progress=lambda rows: None)
    seen.extend(our_threads() - idle for _ in stream)
    assert max(seen) == threads


def test_the_state_does_not_depend_on_the_number_of_threads(source):
    one, many = (
        accumulate(source, MAPS, where=None, batch_rows=100, threads=n, progress=lambda rows: None)
        for n in (1, 4)
    )
    assert np.array_equal(one.products, many.products)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Three fragments, the first of three partitions, rows deleted: four units, the last one small."""
    folder = tmp_path_factory.mktemp("large")
    parts = [
        pa.table({"a": vectors(a), "b": vectors(b)}) for a, b in map(random_pair, (150_000, 100, 70_000))
    ]
    make_table(folder, *parts).delete("_rowaddr % 50 = 3")
    return open_source(folder)


def test_units_are_runs_of_partitions_of_65536_rows(large):
    units = units_of(large)
    counts = [sum(p.n_rows for p in unit) for unit in units]
    assert [p for unit in units for p in unit] == large.partitions()
    assert counts == [65_536, 65_536, 15_928 + 98 + 65_536, 3064]
    wide = Stub([Partition(str(i), 10_000_000) for i in range(25)])
    assert [len(unit) for unit in units_of(wide)] == [1] * 25
    many = Stub([Partition(str(i), 50_000) for i in range(6000)])
    assert {sum(p.n_rows for p in unit) for unit in units_of(many)} == {300_000}


class Stub(Source):
    """Partitions alone."""

    def __init__(self, parts):
        self._parts = parts

    def partitions(self):
        return self._parts

    def count(self, where=None):
        raise NotImplementedError

    batches = count


def test_a_pass_that_goes_on_from_its_middle_gives_the_same_state_to_the_bit(large):
    options = {"where": "_rowaddr % 3 <> 0", "batch_rows": 8192, "progress": lambda rows: None}
    seen = []

    def keep(done):
        seen.append((done.n_units, CovarianceAccumulator.load(io.BytesIO(done.state.to_bytes()))))

    whole = accumulate(large, MAPS, **options, threads=2, merged=keep)
    assert [n for n, _ in seen] == [1, 2, 3, 4]
    assert whole.n_rows == large.count("_rowaddr % 3 <> 0")
    for n, state in seen:
        assert (state.n_rows == whole.n_rows) == (n == 4)
        rows = []
        later = accumulate(
            large, state.maps, **{**options, "progress": rows.append}, threads=1, start=Progressed(state, n)
        )
        before = sum(large_count(large, unit) for unit in units_of(large)[:n])
        assert sum(rows) == whole.n_rows - before
        assert np.array_equal(np.triu(later.products), np.triu(whole.products))
        assert np.array_equal(later.sums, whole.sums)


def large_count(source, unit):
    return sum(len(b) for p in unit for b in source.batches([], where="_rowaddr % 3 <> 0", partition=p))


def test_units_without_rows_are_counted_as_done(large):
    done = []
    state = accumulate(
        large, MAPS, where="_rowaddr = 200000", batch_rows=8192, threads=2,
        progress=lambda rows: None, merged=lambda d: done.append(d.n_units),
    )  # fmt: skip
    assert (state.n_rows, done) == (0, [1, 2, 3, 4])
