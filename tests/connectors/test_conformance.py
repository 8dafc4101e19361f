"""Our own connectors, through the suite that anyone's must pass."""

import faiss
import lance
import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spec_store.testing import ConnectorTests


class TestLanceDB(ConnectorTests):
    connector = "lancedb"

    def put(self, folder, rows):
        lancedb.connect(folder).create_table("images", schema=rows.schema)
        lance.write_dataset(rows, folder / "images.lance", mode="append")  # LanceDB refuses bad vectors
        return {"uri": str(folder), "table": "images"}

    def add(self, folder, rows):
        lancedb.connect(folder).open_table("images").add(rows)


class TestFaiss(ConnectorTests):
    connector = "faiss"
    other_columns = ()
    holds_null_vectors = holds_uneven_vectors = False

    def put(self, folder, rows):
        index = faiss.index_factory(8, "IDMap,Flat")
        vectors = np.array(rows["vector"].to_pylist(), np.float32).reshape(-1, 8)
        index.add_with_ids(vectors, rows["id"].to_numpy())
        faiss.write_index(index, str(folder / "rows.index"))
        return {"uri": str(folder / "rows.index")}


class TestParquet(ConnectorTests):
    connector = "arrow"
    # Older releases neither write nor read Parquet files with nulls among lists of a fixed size.
    holds_null_vectors = int(pa.__version__.split(".")[0]) >= 25

    def put(self, folder, rows):
        pq.write_table(rows, folder / "rows.parquet", row_group_size=70)
        return {"uri": str(folder / "rows.parquet")}

    def new(self, folder):
        return str(folder / "fresh.parquet"), None


class TestParquetFolder(TestParquet):
    def put(self, folder, rows):
        for name, part in (("b", rows.slice(100)), ("a", rows.slice(0, 100))):
            (folder / "rows" / name).mkdir(parents=True)
            pq.write_table(part, folder / "rows" / name / "part.parquet")
        return {"uri": str(folder / "rows")}
