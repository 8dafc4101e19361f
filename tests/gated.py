"""A table whose target moves rows in a way that the source can't know, and naive searches of it."""

import io

import lancedb
import numpy as np
import pyarrow as pa

import spec_store
from lance_tables import make_table
from planted import hidden_clusters, rotated_clipped_noisy, unit, vectors
from spec_store.keys import hash_keys
from spec_store.runs.registry import Registry
from spec_store.stores.locate import location_of

QUICK = {"steps": 40, "minibatch_rows": 512, "learning_rate": 3e-3, "key": "id", "held_out": 0.3}
N = 4000


def lost_table():
    """The target moves 300 rows, labelled lost, unseen by the source."""
    a, b = rotated_clipped_noisy(N, widths=(32, 24), n_groups=10)
    b, truth = hidden_clusters(b, n_rows=300, n_clusters=1, shift=2.5)
    labels = np.where(truth == 0, "lost", np.where(np.arange(N) % 2, "odd", "even"))
    return pa.table({"id": np.arange(N), "clip": vectors(a), "dino": vectors(b), "label": labels})


def aligned(folder):
    """A database in `folder` in which `align` has run and `compare` has not."""
    make_table(folder, lost_table())
    spec_store.align("images", "clip", "dino", db=str(folder), write=True, **QUICK)
    return str(folder)


def recorded_map(db):
    """The file of the map that `align` recorded."""
    registry = Registry(location_of(db))
    (run,) = registry.alignments()
    return io.BytesIO(registry.state(run.run_id))


def gate(db, *slices, **options):
    return spec_store.gate("images", "clip", "dino", db=db, slices=slices, **{"fail_under": 0.4, **options})


def matrix(table, name):
    return unit(np.stack(table[name].to_numpy()).astype(np.float64))


class Naive:
    """All rows of a table in memory, searched by sorting every similarity."""

    def __init__(self, db, held_out=0.3):
        self.table = lancedb.connect(db).open_table("images").to_arrow()
        self.ids = self.table["id"].combine_chunks()
        self.clip, self.dino = matrix(self.table, "clip"), matrix(self.table, "dino")
        self.mapped = unit(spec_store.load_map(recorded_map(db)).transform(self.clip).astype(np.float64))
        self.test = np.flatnonzero(hash_keys(self.ids, 271_828) / 2.0**64 < held_out)
        self.label = self.table["label"].to_numpy(zero_copy_only=False)

    @staticmethod
    def found(queries, index, k, own=None):
        similarity = queries @ index.T
        if own is not None:
            similarity[np.arange(len(own)), own] = -9
        return np.argsort(-similarity, axis=1)[:, :k]

    def overlap(self, index, rows, k, queries=None, wanted=None):
        """Per row of `rows`: what its own query finds of the right answer."""
        wanted = self.dino if wanted is None else wanted
        queries = wanted if queries is None else queries
        near = [self.found(q[rows], x, k, rows) for q, x in ((wanted, wanted), (queries, index))]
        return np.array([len(set(p) & set(q)) / k for p, q in zip(*near, strict=True)])
