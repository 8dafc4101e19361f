"""The two streams over a source: their threads, and what they leave behind."""

import threading

import numpy as np
import pyarrow as pa
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from planted import random_pair, vectors
from spec_store.plugins import get_connector
from spec_store.spectral.features import CosineMap
from spec_store.spectral.scoring import Scorer
from spec_store.workflows.passes import ClusterTally, accumulate, scored

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
