"""What one LanceDB client does; run in the client's own environment, whose Python and LanceDB may be old.

python client.py create FOLDER      tables of every kind, as an application makes them
python client.py digest FOLDER      rows and a digest of every column, by id, of every table
python client.py use FOLDER TABLE,TABLE COLUMN
                                    open, filter by COLUMN, search, append, update, delete, optimise

The last line printed is JSON.
"""

import hashlib
import json
import os
import sys
import warnings

import lancedb
import numpy as np
import pyarrow as pa

ROWS = 1200


def rows(n, start=0):
    """Two embeddings that disagree about groups, and columns of many types, some with nulls."""
    ids = np.arange(start, start + n)
    rng = np.random.default_rng(start)
    group = ids % 8
    clip = np.eye(16)[group] + 0.15 * rng.standard_normal((n, 16))
    dino = np.eye(24)[group // 2] + 0.15 * rng.standard_normal((n, 24))
    nullable = [None if i % 7 == 3 else float(i) / 3 for i in ids]
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "clip": vectors(clip),
            "dino": vectors(dino),
            "label": [f"group {g}" for g in group],
            "price": pa.array(nullable, pa.float64()),
            "text": [None if i % 5 == 2 else f"Ünïcode {i} " * (i % 4) for i in ids],
            "flag": [bool(i % 3) for i in ids],
            "when": pa.array(ids * 1_000_003, pa.timestamp("us")),
            "payload": pa.array([bytes([i % 256]) * (i % 9) for i in ids], pa.binary()),
            "tags": pa.array([[f"t{i % 4}"] * (i % 3) for i in ids], pa.list_(pa.string())),
            "box": pa.array([{"x": int(i), "y": float(i)} for i in ids]),
        }
    )


def vectors(matrix):
    flat = pa.array(np.asarray(matrix, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])


def part(data, start, stop):
    """A copy: LanceDB 0.14 writes slices of structs whole, which newer releases can't read."""
    return data.take(pa.array(range(start, stop)))


def create(folder):
    """One table a kind of history; names tell which."""
    db = lancedb.connect(folder)
    data = rows(ROWS)

    def in_parts(name):
        table = db.create_table(name, part(data, 0, 500))
        table.add(part(data, 500, 600))
        table.add(part(data, 600, ROWS))
        return table

    db.create_table("plain", data)
    in_parts("fragments")
    in_parts("deleted").delete("id % 11 = 5 OR (id >= 500 AND id < 600)")
    in_parts("updated").update(where="id % 13 = 4", values={"label": "changed", "price": 0.25})
    table = in_parts("indexed")
    table.create_index(metric="cosine", num_partitions=2, num_sub_vectors=4, vector_column_name="clip")
    table.create_scalar_index("id")
    table = in_parts("compacted")
    table.delete("id % 11 = 5")
    compact(table)
    return {"tables": sorted(db.table_names())}


def compact(table):
    if hasattr(table, "optimize"):
        table.optimize()
    else:
        table.compact_files()


def everything(table):
    """All rows; `to_arrow` of LanceDB 0.20 returns ten."""
    return table.search().limit(1_000_000).to_arrow()


def digest(folder):
    db = lancedb.connect(folder)
    names = [name for name in sorted(db.table_names()) if name != "spec_store_runs"]
    return {name: attempt(lambda name: digests(everything(db.open_table(name))), name) for name in names}


def digests(data):
    """By column, of the values in order of id: of their bytes, or of what Python shows if some are null."""
    order = np.argsort(data["id"].to_numpy(), kind="stable")
    found = {"n_rows": data.num_rows}
    for name in data.column_names:
        column = data[name].combine_chunks().take(pa.array(order))
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        seen = hashlib.sha256(str(column.type).encode())
        for chunk in chunks:
            if chunk.null_count:
                seen.update(repr(chunk.to_pylist()).encode())
            else:
                seen.update(pa.RecordBatch.from_arrays([chunk], [name]).serialize())
        found[name] = seen.hexdigest()
    return found


def use(folder, tables, column):
    return {name: attempt(use_one, folder, name, column) for name in tables.split(",")}


def attempt(action, *arguments):
    try:
        return action(*arguments)
    except BaseException as error:  # Lance's panics are no Exception
        return {"error": message(error)}


def use_one(folder, name, column):
    """Each step's outcome: "ok", or what went wrong; later steps are tried all the same."""
    table = lancedb.connect(folder).open_table(name)
    query = np.asarray(rows(1)["clip"].to_pylist()[0], np.float32)
    before = everything(table)
    fresh = [i for i in range(900, 1200) if i in set(before["id"].to_pylist())]
    changed, gone = fresh[0], fresh[1]
    others = [i for i in before["id"].to_pylist() if i not in (changed, gone)]

    def by_filter():
        expected = sum(v == 0 for v in before[column].to_pylist())
        found = table.search(query, vector_column_name="clip").where(f"{column} = 0", prefilter=True)
        near = found.limit(2000).to_arrow().num_rows
        counted = table.count_rows(f"{column} = 0")
        assert expected == counted == near > 0, (expected, counted, near)

    def search():
        found = table.search(query, vector_column_name="clip").limit(5).to_arrow()
        assert 0 in found["id"].to_pylist(), found["id"]

    def append():
        table.add(rows(20, 5000))
        assert table.count_rows() == before.num_rows + 20

    def update():
        table.update(where=f"id = {changed}", values={"price": 12.5})
        assert table.count_rows(f"id = {changed} AND price = 12.5") == 1

    def delete():
        table.delete(f"id = {gone}")
        assert table.count_rows(f"id = {gone}") == 0

    def optimise():
        compact(table)

    def unchanged():
        after = everything(lancedb.connect(folder).open_table(name))
        kept = set(others)
        pick = pa.array([i in kept for i in after["id"].to_pylist()])
        keep = pa.array([i in kept for i in before["id"].to_pylist()])
        old, new = digests(before.filter(keep)), digests(after.filter(pick))
        assert old == new, [c for c in old if old[c] != new.get(c)]

    steps = {
        "filter": by_filter,
        "search": search,
        "append": append,
        "update": update,
        "delete": delete,
        "optimise": optimise,
        "search after": search,
        "others unchanged": unchanged,
    }
    return {"open": "ok", **{step: outcome(action) for step, action in steps.items()}}


def outcome(action):
    failed = attempt(action)
    return failed["error"] if failed else "ok"


def message(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    command, *arguments = sys.argv[1:]
    print(json.dumps({"create": create, "digest": digest, "use": use}[command](*arguments)), flush=True)
    os._exit(0)  # threads of old releases abort the process when the interpreter ends
