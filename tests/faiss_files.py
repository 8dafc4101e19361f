"""Real FAISS index files, made without the connector."""

import faiss
import numpy as np

WIDTH = 64


def random_rows(n, width=WIDTH, seed=0):
    return np.random.default_rng(seed).standard_normal((n, width), dtype=np.float32)


def shuffled_ids(n, seed=1):
    """Unique ids in no order, with gaps."""
    return np.random.default_rng(seed).permutation(10 * n)[:n].astype(np.int64)


def write_index(path, description, rows, ids=None):
    """An index by its factory description; `ids` where the kind takes them."""
    index = faiss.index_factory(rows.shape[1], description)
    index.train(rows[:2000])
    if ids is None:
        index.add(rows)
    else:
        index.add_with_ids(rows, ids)
    faiss.write_index(index, str(path))
    return str(path)


def write_index_with_lists_on_disk(folder, rows, name="x.index"):
    """An inverted file whose lists are in ``merged.ivfdata``, by absolute path."""
    index = faiss.index_factory(rows.shape[1], "IVF16,Flat")
    index.train(rows)
    index.add(rows)
    on_disk = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(folder / "merged.ivfdata"))
    on_disk.merge_from_1(index.invlists)
    index.replace_invlists(on_disk)
    faiss.write_index(index, str(folder / name))
    return str(folder / name)
