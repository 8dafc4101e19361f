"""The connector, through the suite that every connector must pass."""

import sqlite3

import numpy as np

from spec_store.testing import ConnectorTests


class TestSQLite(ConnectorTests):
    connector = "sqlite"
    holds_uneven_vectors = False

    def put(self, folder, rows):
        with sqlite3.connect(folder / "rows.db") as db:
            db.execute("CREATE TABLE images (id INTEGER PRIMARY KEY, vector BLOB, label TEXT)")
            blobs = [None if v is None else np.float32(v).tobytes() for v in rows["vector"].to_pylist()]
            ids, labels = rows["id"].to_pylist(), rows["label"].to_pylist()
            db.executemany("INSERT INTO images VALUES (?, ?, ?)", zip(ids, blobs, labels, strict=True))
        db.close()
        return {"uri": str(folder / "rows.db"), "table": "images"}

    def new(self, folder):
        return str(folder / "new.db"), "fresh"
