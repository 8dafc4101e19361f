"""Work shared out in a real Ray cluster of two nodes."""

import gc
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import lancedb
import numpy as np
import pyarrow as pa
import pytest

import pieces
import spec_store
from lance_tables import NOTHING, leftovers, make_table, open_source
from pieces import until
from planted import planted_mixture, vectors
from spec_store.connector import Annotation
from spec_store.errors import InputError
from spec_store.spectral.features import CosineMap
from spec_store.workflows.executor import RayTasks
from spec_store.workflows.passes import accumulate

pytest.importorskip("ray", reason="the extra ray is not installed")
# A cluster on this machine is started by forks that run other programs at once.
pytestmark = [
    pytest.mark.filterwarnings("ignore:lance is not fork-safe"),
    pytest.mark.filterwarnings("ignore:lancedb fork support"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

N = 3000
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core each, on this machine; nothing about them is reported to Ray's makers."""
    from ray.cluster_utils import Cluster

    kept = dict(os.environ)
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    started = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    started.add_node(**NODE)
    yield started
    started.shutdown()
    os.environ.clear()
    os.environ |= kept
    with warnings.catch_warnings():  # what Ray leaves open is no matter of later tests
        warnings.simplefilter("ignore")
        del started
        gc.collect()


@pytest.fixture
def workers(cluster):
    with RayTasks(cluster.address) as executor:
        yield executor


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Six fragments of 500 rows, each of which is a unit."""
    monkeypatch.setattr("spec_store.workflows.units._LEAST_ROWS", 500)
    a, b, _ = planted_mixture(N, n_groups=8, merged=2, d=8, seed=3)
    data = pa.table({"id": np.arange(N), "clip": vectors(a), "dino": vectors(b)})
    make_table(tmp_path, *(data.slice(s, 500) for s in range(0, N, 500)))
    return tmp_path


def read(folder):
    return lancedb.connect(folder).open_table("images").to_arrow().sort_by("id")


def test_results_come_in_order_from_both_nodes(workers, cluster):
    assert workers.workers == 2
    assert list(workers.map(pieces.double, range(12))) == [2 * i for i in range(12)]
    assert len(workers.nodes) == 2


def test_an_error_is_raised_in_its_turn_with_where_it_arose(workers):
    results = workers.map(pieces.refuse_three, range(8))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="3 is refused") as raised:
        next(results)
    assert "refuse_three" in str(raised.value.__cause__)


def test_a_comparison_in_a_cluster_writes_the_same_columns_in_one_commit(images, workers):
    options = {"kernel": "cosine", "sample_rows": 500, "describe": False, "db": str(images), "write": True}
    here = spec_store.compare("images", ["clip", "dino"], **options)
    table = lancedb.connect(images).open_table("images")
    versions = [len(table.list_versions())]
    spec_store.compare("images", ["clip", "dino"], prefix="threads", **options)
    versions.append(len(table.list_versions()))
    there = spec_store.compare("images", ["clip", "dino"], prefix="ray", executor=workers, **options)
    versions.append(len(table.list_versions()))
    assert versions[2] - versions[1] == versions[1] - versions[0]
    assert len(workers.nodes) == 2
    found = read(images)
    for name in ("cluster", "clusters", "side", "score", "scores"):
        assert found[f"ray_{name}"] == found[f"spec_clip_dino_{name}"]
    assert here.record.spec_diff == there.record.spec_diff
    assert len(here.record.clusters) > 1


class Holding(RayTasks):
    """Units that reach one node stay there until it is lost."""

    def __init__(self, address, node, folder):
        super().__init__(address, workers=3)
        self.held = node, folder

    def map(self, function, items):
        return super().map(pieces.Held(function, *self.held), items)


def test_a_node_removed_in_mid_pass_gives_the_same_state(images, cluster, tmp_path_factory):
    source, folder = open_source(images), tmp_path_factory.mktemp("held")
    maps = [CosineMap(column, 8, True, "float32") for column in ("clip", "dino")]
    options = {"where": None, "batch_rows": 100, "threads": 1, "progress": lambda n: None}
    here = accumulate(source, maps, **options)
    third = cluster.add_node(**NODE)

    def remove():
        until(lambda: any(folder.iterdir()))
        cluster.remove_node(third, allow_graceful=False)

    with ThreadPoolExecutor() as pool, Holding(cluster.address, third.node_id, str(folder)) as workers:
        removed = pool.submit(remove)
        there = accumulate(source, maps, **options, executor=workers)
        removed.result()
    assert there.n_rows == N
    assert np.array_equal(np.triu(there.products), np.triu(here.products))
    assert third.node_id not in workers.nodes
    assert workers.nodes


def test_rows_deleted_while_a_cluster_writes_stay_deleted(images, workers):
    table = lancedb.connect(images).open_table("images")
    version = table.version

    def progress(rows):
        if table.version == version:
            table.delete("id < 20 OR id = 2000")

    annotation = Annotation(
        schema=pieces.Scores.schema, reads=("id",), compute=pieces.Scores(), token="t" * 24,
        metadata={"spec_store.run": "run-1"}, executor=workers, batch_rows=200, progress=progress,
    )  # fmt: skip
    assert open_source(images).annotate(annotation).attempts == 1
    found = read(images)
    assert found["id"].to_pylist() == [i for i in range(20, N) if i != 2000]
    assert found["r_number"].to_pylist() == [i % 1000 for i in found["id"].to_pylist()]
    assert leftovers(images) == NOTHING
    assert len(workers.nodes) == 2
