"""Per-row results without writing: what `write` writes, streamed to whoever reads."""

import threading

import faiss
import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import spec_store
from faiss_files import write_index
from planted import vectors

SMALL = {"dim": 60, "sample_rows": 1500, "threads": 2}
COLUMNS = ["clip", "dino"]


@pytest.fixture(scope="module")
def in_memory(planted_table):
    run = spec_store.compare(planted_table, COLUMNS, batch_rows=100, **SMALL)
    assert run.record.clusters
    return run


def without_metadata(table):
    return table.cast(pa.schema([f.remove_metadata() for f in table.schema])).combine_chunks()


def test_a_lancedb_table_s_are_the_columns_that_write_adds_before_it_and_after(db):
    run = spec_store.compare("images", COLUMNS, db=db, where="id >= 1200", **SMALL)
    before = run.scores().read_all()
    assert lance.dataset(f"{db}/images.lance").version == run.source.version
    done = run.write()
    dataset = lance.dataset(f"{db}/images.lance")
    names = dataset.to_table(columns=done.written, filter="id >= 1200", with_row_id=True)
    written = without_metadata(names.select(["_rowid", *done.written]))
    assert before.num_rows == 1800
    assert before.combine_chunks().rename_columns(written.column_names) == written
    assert done.scores().read_all() == before


def test_a_pair_of_faiss_indices_gives_what_its_file_holds(tmp_path, planted_table):
    ids = planted_table["id"].to_numpy()
    for column in COLUMNS:
        matrix = np.stack(planted_table[column].to_numpy()).astype(np.float32)
        write_index(tmp_path / f"{column}.index", "IDMap,Flat", matrix, ids)
    columns = [f"{c}=faiss:{tmp_path}/{c}.index" for c in COLUMNS]
    out = str(tmp_path / "scores.parquet")
    run = spec_store.compare(None, columns, out=out, **SMALL)
    found = run.scores().read_all()
    run.write()
    assert found.combine_chunks() == without_metadata(pq.read_table(out))
    assert sorted(found.column(0).to_pylist()) == sorted(ids.tolist())
    assert faiss.read_index(str(tmp_path / "clip.index")).ntotal == found.num_rows


def test_data_in_memory_give_what_its_file_holds(in_memory, tmp_path):
    found = in_memory.scores().read_all()
    in_memory.write(out=tmp_path / "scores.parquet")
    assert found.combine_chunks() == without_metadata(pq.read_table(tmp_path / "scores.parquet"))
    assert found.column(0).to_pylist() == list(range(2000))


def test_pandas_polars_and_duckdb_read_the_stream(in_memory):
    import duckdb
    import polars

    wanted = in_memory.score().record.clusters
    frame = in_memory.scores().read_pandas()
    assert len(frame) == 2000
    sides = polars.DataFrame(in_memory.scores())[f"{in_memory.prefix}_side"]
    assert sides.drop_nulls().to_list() == frame[f"{in_memory.prefix}_side"].dropna().tolist()
    reader = in_memory.scores()  # DuckDB finds it by name
    rows = duckdb.sql(f"SELECT unnest({in_memory.prefix}_clusters) AS k, count(*) FROM reader GROUP BY k")
    assert dict(rows.fetchall()) == {c.cluster: c.size for c in wanted}
    del reader


def test_a_reader_that_stops_half_way_leaves_no_thread_and_no_limit_on_products(in_memory):
    def blas_threads():
        return [p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"]

    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        reader = in_memory.scores()
        assert reader.read_next_batch().num_rows == 100
        assert blas_threads() == before
        assert not any(t.name.startswith("spec-store") for t in threading.enumerate())


def test_products_take_one_thread_while_a_batch_is_computed(in_memory, monkeypatch):
    seen = []
    compute = type(in_memory.scorer).compute

    def watched(scorer, batch):
        seen.extend(p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas")
        return compute(scorer, batch)

    monkeypatch.setattr(type(in_memory.scorer), "compute", watched)
    with threadpool_limits(2, user_api="blas"):
        in_memory.scores().read_all()
    assert set(seen) == {1}


def test_only_as_many_batches_as_threads_are_read_ahead(in_memory, monkeypatch):
    given = []
    batches = type(in_memory.source).batches

    def counted(source, *arguments, **options):
        for batch in batches(source, *arguments, **options):
            given.append(len(batch))
            yield batch

    monkeypatch.setattr(type(in_memory.source), "batches", counted)
    reader = in_memory.scores()
    for _ in range(3):
        reader.read_next_batch()
    assert given == [100] * 4


def test_a_skipped_row_is_null_in_every_result_column(planted_table):
    matrix = np.stack(planted_table["clip"].to_numpy()).astype(np.float32)
    matrix[7] = 0
    table = planted_table.set_column(1, "clip", vectors(matrix))
    found = spec_store.compare(table, COLUMNS, skip_invalid=True, **SMALL).scores().read_all()
    (row,) = found.slice(7, 1).to_pylist()
    assert row.pop(found.column_names[0]) == 7
    assert set(row.values()) == {None}
