"""Real LanceDB tables in temporary folders, made and inspected without the connector."""

import hashlib
from pathlib import Path

import lance
import lancedb
import numpy as np
import pyarrow as pa

from planted import vectors
from spec_store.connector import Annotation
from spec_store.plugins import get_connector

SCHEMA = pa.schema([("r_number", pa.int32()), ("r_list", pa.list_(pa.float32())), ("r_name", pa.string())])


def rows(n, start=0, seed=0, widths=(4, 6)):
    """id, clip, dino and a payload that depends on nothing but the id."""
    ids = np.arange(start, start + n)
    rng = np.random.default_rng([seed, start])
    return pa.table(
        {
            "id": ids,
            "clip": vectors(rng.standard_normal((n, widths[0]))),
            "dino": vectors(rng.standard_normal((n, widths[1]))),
            "payload": [f"payload {i}" for i in ids],
        }
    )


def make_table(folder, *parts, name="images", **options):
    """A table whose fragments are the parts."""
    db = lancedb.connect(folder)
    table = db.create_table(name, parts[0], **options)
    for part in parts[1:]:
        table.add(part)
    return table


def open_source(folder, name="images", version=None):
    return get_connector("lancedb").open(str(folder), table=name, version=version)


def expected_number(clip):
    """What `annotation` writes: a function of the row's vector alone."""
    return np.floor(1000 * np.asarray(clip)[..., 0]).astype(np.int32)


def annotation(
    compute=None, *, where=None, token="a" * 24, run="run-1", batch_rows=64, schema=SCHEMA, reads=("clip",)
):
    def number(batch):
        clip = batch.column(1)
        flat = np.stack(clip.to_numpy(zero_copy_only=False)) if len(clip) else np.zeros((0, 4))
        n = expected_number(flat)
        arrays = [
            pa.array(n),
            pa.array([[float(v)] for v in n], pa.list_(pa.float32())),
            pa.array([f"n{v}" for v in n]),
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)

    return Annotation(
        schema=schema,
        reads=reads,
        compute=compute or number,
        token=token,
        metadata={"spec_store.run": run},
        where=where,
        batch_rows=batch_rows,
    )


def other_prefix():
    """An annotation of another column: 1 in every row."""
    schema = pa.schema([("q_number", pa.int32())])

    def ones(batch):
        return pa.record_batch([pa.array([1] * len(batch), pa.int32())], schema=schema)

    return annotation(ones, schema=schema, token="c" * 24)


def annotate_observed(folder, on_step, a=None, name="images", storage_options=None, **options):
    """Annotate as the source does, with an observer of the steps."""
    from spec_store_lancedb.annotate import annotate

    dataset = lance.dataset(f"{folder}/{name}.lance", storage_options=storage_options)
    return annotate(dataset, a or annotation(), f"table {name!r}", on_step=on_step, **options)


def contents(folder, name="images", columns=("id", "clip", "payload", "r_number", "r_list", "r_name")):
    """All rows by id, read by plain LanceDB."""
    dataset = lance.dataset(f"{folder}/{name}.lance")
    held = [c for c in columns if c in dataset.schema.names]
    return {row["id"]: row for row in dataset.to_table(columns=held).to_pylist()}


def assert_annotated(folder, name="images", *, ids=None, null=()):
    """Every row holds its own annotation, and rows `null` none."""
    found = contents(folder, name)
    if ids is not None:
        assert sorted(found) == sorted(ids)
    for i, row in found.items():
        assert row["payload"] == f"payload {i}"
        if i in null:
            assert (row["r_number"], row["r_list"], row["r_name"]) == (None, None, None)
        else:
            n = expected_number(row["clip"])
            assert (row["r_number"], row["r_list"], row["r_name"]) == (n, [n], f"n{n}"), i


def data_files(folder, name="images"):
    """Digest of every data file."""
    data = Path(folder) / f"{name}.lance" / "data"
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in data.iterdir()}


NOTHING = (set(), [], [], [])


def leftovers(folder, name="images"):
    """Staged files that no version refers to, what lies with the ledgers, tags, detached manifests."""
    table = Path(folder) / f"{name}.lance"
    dataset = lance.dataset(table)
    versions = [dataset.checkout_version(v["version"]) for v in dataset.versions()]
    live = {d.path for v in versions for f in v.get_fragments() for d in f.metadata.files}
    staged = {p for p in data_files(folder, name) if p.startswith("spec-")} - live
    ledgers = [p.name for p in table.glob("_spec_store/**/*")]
    return staged, ledgers, list(dataset.tags.list()), list(table.glob("_versions/d*"))
