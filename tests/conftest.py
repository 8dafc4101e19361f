import os

# Before NumPy loads: on busy cores the threads of one small product wait for each other, six times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # FAISS

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from planted import planted_mixture, vectors


@pytest.fixture(scope="session")
def planted_table():
    """id, clip, dino, label of a planted mixture in which dino merges pairs of clip's groups."""
    a, b, groups = planted_mixture(2000, n_groups=16, merged=3, d=48, seed=5)
    return pa.table(
        {
            "id": np.arange(1000, 3000),
            "clip": vectors(a),
            "dino": vectors(b),
            "label": [f"group {g}" for g in groups],
        }
    )


@pytest.fixture
def db(tmp_path, planted_table):
    """A database with the table `images` in three fragments."""
    table = lancedb.connect(tmp_path).create_table("images", planted_table.slice(0, 900))
    table.add(planted_table.slice(900, 1000))
    table.add(planted_table.slice(1900))
    return str(tmp_path)
