"""Views and joins are sources in full: nothing of a source can be missed in silence, and they travel."""

import inspect
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from planted import vectors
from spec_store.connector import Source
from spec_store.errors import InputError
from spec_store.plugins import get_connector
from spec_store.stores.delegating import DelegatingSource
from spec_store.stores.join import Joined
from spec_store.stores.view import View


def public_members(kind):
    return {
        n: m
        for n, m in vars(kind).items()
        if not n.startswith("_") and (callable(m) or isinstance(m, property))
    }


def test_every_member_of_a_source_is_passed_on():
    offered, passed_on = public_members(Source), public_members(DelegatingSource)
    assert set(offered) == set(passed_on)
    for name, member in offered.items():
        if not isinstance(member, property):
            assert (
                inspect.signature(member).parameters.keys()
                == inspect.signature(passed_on[name]).parameters.keys()
            )


class Recorder(Source):
    """Says what it was asked."""

    uri, table, version, key, connector = "somewhere", "images", 7, "id", "recorder"
    schema = pa.schema([("id", pa.int64())])
    portable_key = True

    def count(self, where=None):
        raise NotImplementedError

    def batches(self, columns, **how):
        raise NotImplementedError


@pytest.mark.parametrize("name", sorted(public_members(Source)))
def test_calls_and_their_arguments_reach_the_source(name):
    source = Recorder()
    member = inspect.getattr_static(Source, name)
    if isinstance(member, property):
        assert getattr(DelegatingSource(source), name) == getattr(source, name)
        return
    parameters = list(inspect.signature(member).parameters.values())[1:]
    positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    keyword = {p.name: p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    asked = []
    setattr(source, name, lambda *a, **k: asked.append((a, k)) or "answer")
    DelegatingSource(source).__getattribute__(name)(*positional, **keyword)
    ((a, k),) = asked
    assert [*a, *k.values()] == [p.name for p in parameters]


def test_attributes_are_those_of_the_source():
    wrapped = DelegatingSource(Recorder())
    for name in Source.__annotations__:
        assert getattr(wrapped, name) == getattr(Recorder, name)


def stores(folder, n=60):
    x = np.random.default_rng(0).standard_normal((n, 3)).astype(np.float32)
    names = [f"row {i}" for i in range(n)]
    pq.write_table(pa.table({"name": names, "clip": vectors(x)}), folder / "a.parquet")
    order = np.random.default_rng(1).permutation(n)
    pq.write_table(
        pa.table({"name": [names[i] for i in order], "v": vectors(2 * x[order])}), folder / "b.parquet"
    )
    left, right = (get_connector("arrow").open(str(folder / name)) for name in ("a.parquet", "b.parquet"))
    return View(left, key="name"), View(right, key="name", names={"dino": "v"})


def contents(source, columns):
    return pa.Table.from_batches(list(source.batches(columns))).to_pylist()


def test_views_and_joins_give_the_same_rows_after_pickling_whatever_was_computed_before(tmp_path):
    left, right = stores(tmp_path)
    joined = Joined(left, right)
    expected = contents(joined, ["clip", "dino"])  # now with an index of the keys and a copy on disk
    for again in (pickle.loads(pickle.dumps(joined)), pickle.loads(pickle.dumps(Joined(left, right)))):
        assert contents(again, ["clip", "dino"]) == expected
        assert again.schema == joined.schema
        assert again.fingerprint == joined.fingerprint
    assert len(pickle.dumps(joined)) < 20_000
    view = pickle.loads(pickle.dumps(right))
    assert contents(view, ["dino"]) == contents(right, ["dino"])


IN_ANOTHER_PROCESS = """
import pickle, sys
source = pickle.load(sys.stdin.buffer)
sys.stdout.write(str(sum(sum(b.column(2).flatten().to_pylist()) for b in source.batches(["clip", "dino"]))))
"""


def test_a_join_travels_to_another_process(tmp_path):
    joined = Joined(*stores(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        input=pickle.dumps(joined),
        capture_output=True,
        check=True,
        cwd="/",
    )
    assert float(done.stdout) == sum(v for row in contents(joined, ["dino"]) for v in row["dino"])


def test_unmatched_rows_are_refused_every_time(tmp_path):
    left, _ = stores(tmp_path)
    pq.write_table(
        pa.table({"name": ["row 0", "row x"], "v": vectors(np.ones((2, 3)))}), tmp_path / "c.parquet"
    )
    other = View(get_connector("arrow").open(str(tmp_path / "c.parquet")), key="name", names={"dino": "v"})
    joined = Joined(left, other)
    for _ in range(2):
        with pytest.raises(InputError, match=r"59 of 60 rows .* were not matched"):
            joined.count()
