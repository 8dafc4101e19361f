"""The conformance suite: claims that hold for every connector, by what it declares it can do."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from ..connector import Annotation, Capability, Connector, Source
from ..errors import (
    ColumnClashError,
    ColumnNotFoundError,
    FilterError,
    InputError,
    SpecStoreError,
    UnsupportedError,
)
from ..plugins import get_connector

__all__ = ["ConnectorTests"]

_N = 300
_WIDTH = 8
_RESULT = pa.schema([("r_twice", pa.int32()), ("r_list", pa.list_(pa.float32())), ("r_name", pa.string())])


def _rows(start: int, stop: int) -> pa.Table:
    """Ids, vectors whose first value is the id, and labels."""
    ids = np.arange(start, stop)
    matrix = np.random.default_rng(7).standard_normal((max(stop, 1), _WIDTH))[start:stop].astype(np.float32)
    matrix[:, 0] = ids
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel(), pa.float32()), _WIDTH)
    return pa.table(
        {"id": ids, "vector": vectors, "label": pa.array([f"l{i % 3}" for i in ids], pa.string())}
    )


def _with_vectors(rows: pa.Table, vectors: list[Any], kind: pa.DataType) -> pa.Table:
    return rows.set_column(1, "vector", pa.array(vectors, kind))


class ConnectorTests:
    """Subclass it, name the connector, and say how rows get into the store without it.

    Attributes
    ----------
    connector
        The registered name.
    vector_column, other_columns
        Under which names the store shows the vectors, and which of ``id`` and ``label`` it keeps beside
        them.
    holds_null_vectors, holds_nan, holds_uneven_vectors
        Whether `put` can store rows without a vector, with values that are not numbers, and vectors of
        unequal width. What a store can't hold is not asked of it.
    """

    connector: ClassVar[str]
    vector_column: ClassVar[str] = "vector"
    other_columns: ClassVar[tuple[str, ...]] = ("id", "label")
    holds_null_vectors: ClassVar[bool] = True
    holds_nan: ClassVar[bool] = True
    holds_uneven_vectors: ClassVar[bool] = True

    def put(self, folder: Path, rows: pa.Table) -> Mapping[str, Any]:
        """Make a new store in an empty folder, by the store's own means.

        Parameters
        ----------
        rows
            Columns ``id`` (int64, unique), ``vector`` (a list of 8 float32) and ``label`` (string).

        Returns
        -------
        The arguments of `Connector.open`: ``{"uri": …}``, with ``"table"`` where there are tables.
        """
        raise NotImplementedError(f"{type(self).__name__}.put: say how rows get into the store without it.")

    def add(self, folder: Path, rows: pa.Table) -> None:
        """Append rows to what `put` made, as another writer would. Only for VERSIONS."""
        raise NotImplementedError(
            f"{type(self).__name__}.add: {self.connector} declares versions; say how another writer appends."
        )

    # --- what the tests share

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Source:
        """A source over 300 rows."""
        return self._open(self.put(tmp_path, _rows(0, _N)))

    def _connector(self) -> Connector:
        return get_connector(self.connector)

    def _open(self, where: Mapping[str, Any]) -> Source:
        return self._connector().open(where["uri"], table=where.get("table"))

    # A store is asked for what it declares, and a refusal for the rest: the other tests are skipped by name.

    def _need(self, capability: Capability) -> None:
        if capability not in self._connector().capabilities:
            pytest.skip(f"{self.connector} does not declare {capability.value}")

    def _refuse(self, capability: Capability) -> None:
        if capability in self._connector().capabilities:
            pytest.skip(f"{self.connector} declares {capability.value}")

    def _stream(self, source: Source, **how: Any) -> tuple[list[Any], np.ndarray[Any, Any]]:
        """All keys, and all vectors as a matrix."""
        batches = list(source.batches([self.vector_column], **how))
        keys = [key for b in batches for key in b.column(0).to_pylist()]
        vectors = [v for b in batches for v in b.column(1).to_pylist()]
        return keys, np.array(vectors, np.float32).reshape(-1, _WIDTH)

    @staticmethod
    def _ids(vectors: np.ndarray[Any, Any]) -> list[int]:
        return [int(v) for v in vectors[:, 0]]

    # --- reading

    def test_batches_hold_at_most_what_was_asked_key_first(self, opened: Source) -> None:
        for batch_rows in (1, 37, 10_000):
            batches = list(opened.batches([self.vector_column, *self.other_columns], batch_rows=batch_rows))
            assert max(len(b) for b in batches) <= batch_rows
            assert sum(len(b) for b in batches) == _N == opened.count()
            for batch in batches:
                assert batch.schema.names == [opened.key, self.vector_column, *self.other_columns]

    def test_every_row_comes_once_with_its_own_vector(self, opened: Source) -> None:
        keys, vectors = self._stream(opened)
        assert len(set(keys)) == _N
        ids = self._ids(vectors)
        assert sorted(ids) == list(range(_N))
        expected = np.array(_rows(0, _N)["vector"].to_pylist(), np.float32)
        np.testing.assert_array_equal(vectors, expected[ids])
        if opened.portable_key:
            assert keys == ids

    def test_other_columns_stay_in_step_with_the_vectors(self, opened: Source) -> None:
        for batch in opened.batches([*self.other_columns, self.vector_column], batch_rows=41):
            ids = [int(v[0]) for v in batch.column(self.vector_column).to_pylist()]
            if "id" in self.other_columns:
                assert batch.column("id").to_pylist() == ids
            if "label" in self.other_columns:
                assert batch.column("label").to_pylist() == [f"l{i % 3}" for i in ids]

    def test_two_streams_agree_whatever_the_batch_size(self, opened: Source) -> None:
        one, two = self._stream(opened, batch_rows=7), self._stream(opened, batch_rows=1000)
        assert one[0] == two[0]
        np.testing.assert_array_equal(one[1], two[1])

    def test_no_columns_streams_the_keys(self, opened: Source) -> None:
        batches = list(opened.batches([]))
        assert {b.num_columns for b in batches} == {1}
        assert [k for b in batches for k in b.column(0).to_pylist()] == self._stream(opened)[0]

    def test_the_schema_tells_the_columns_and_not_the_key(self, opened: Source) -> None:
        assert {self.vector_column, *self.other_columns} <= set(opened.schema.names)
        assert opened.key not in opened.schema.names
        batch = next(iter(opened.batches([self.vector_column])))
        assert batch.schema.field(1).type == opened.schema.field(self.vector_column).type

    def test_an_unknown_column_is_refused_before_any_row(self, opened: Source) -> None:
        with pytest.raises(ColumnNotFoundError, match="nosuch"):
            opened.batches(["nosuch"])

    def test_what_is_not_there_is_refused_and_not_created(self, tmp_path: Path) -> None:
        before = sorted(tmp_path.iterdir())
        with pytest.raises(SpecStoreError, match="nothing-here"):
            self._connector().open(str(tmp_path / "nothing-here"), table=None)
        assert sorted(tmp_path.iterdir()) == before

    def test_an_empty_store_has_no_rows_and_breaks_nothing(self, tmp_path: Path) -> None:
        source = self._open(self.put(tmp_path, _rows(0, 0)))
        assert source.count() == 0
        assert self._stream(source)[0] == []
        assert sum(p.n_rows for p in source.partitions()) == 0

    def test_one_row_is_not_lost(self, tmp_path: Path) -> None:
        source = self._open(self.put(tmp_path, _rows(5, 6)))
        assert self._ids(self._stream(source)[1]) == [5]

    def test_null_vectors_keep_their_place(self, tmp_path: Path) -> None:
        if not self.holds_null_vectors:
            pytest.skip("the store can't hold null vectors")
        rows = _rows(0, 50)
        vectors = [None if i % 7 == 3 else v for i, v in enumerate(rows["vector"].to_pylist())]
        source = self._open(self.put(tmp_path, _with_vectors(rows, vectors, rows["vector"].type)))
        for batch in source.batches([self.vector_column, "id"], batch_rows=8):
            for vector, i in zip(batch.column(1).to_pylist(), batch.column(2).to_pylist(), strict=True):
                assert vector == vectors[i]

    def test_values_that_are_not_numbers_come_through(self, tmp_path: Path) -> None:
        if not self.holds_nan:
            pytest.skip("the store can't hold NaN")
        rows = _rows(0, 20)
        vectors = rows["vector"].to_pylist()
        vectors[4][1], vectors[9][1] = float("nan"), float("inf")
        source = self._open(self.put(tmp_path, _with_vectors(rows, vectors, rows["vector"].type)))
        found = dict(zip(*(lambda s: (self._ids(s[1]), s[1]))(self._stream(source)), strict=True))
        assert np.isnan(found[4][1])
        assert np.isinf(found[9][1])
        assert sum(bool(np.isfinite(v).all()) for v in found.values()) == 18

    def test_vectors_of_unequal_width_come_through_as_they_are(self, tmp_path: Path) -> None:
        if not self.holds_uneven_vectors:
            pytest.skip("the store can't hold vectors of unequal width")
        rows = _rows(0, 20)
        vectors = [v[: 3 + i % 4] for i, v in enumerate(rows["vector"].to_pylist())]
        source = self._open(self.put(tmp_path, _with_vectors(rows, vectors, pa.list_(pa.float32()))))
        found = [v for b in source.batches([self.vector_column]) for v in b.column(1).to_pylist()]
        assert sorted(found) == sorted(vectors)

    def test_partitions_cover_every_row_exactly_once(self, opened: Source) -> None:
        parts = opened.partitions()
        assert len({p.id for p in parts}) == len(parts)
        ids = []
        for part in parts:
            found = self._ids(self._stream(opened, partition=part)[1])
            assert len(found) == part.n_rows
            ids += found
        assert sorted(ids) == list(range(_N))
        assert ids == self._ids(self._stream(opened)[1])

    def test_partitions_hold_the_rows_that_a_filter_selects(self, opened: Source) -> None:
        self._need(Capability.WHERE)
        where = "id % 4 = 1 AND label = 'l0'"
        found = [
            i
            for part in opened.partitions()
            for i in self._ids(self._stream(opened, where=where, partition=part)[1])
        ]
        assert found == self._ids(self._stream(opened, where=where)[1])
        assert found

    def test_a_pickled_source_has_the_same_partitions(self, opened: Source) -> None:
        elsewhere = pickle.loads(pickle.dumps(opened))
        assert elsewhere.partitions() == opened.partitions()
        last = opened.partitions()[-1]
        keys, vectors = self._stream(elsewhere, partition=last)
        assert keys == self._stream(opened, partition=last)[0]
        np.testing.assert_array_equal(vectors, self._stream(opened, partition=last)[1])

    def test_take_finds_rows_by_key_in_the_order_asked(self, opened: Source) -> None:
        self._need(Capability.TAKE)
        keys, vectors = self._stream(opened)
        order = np.random.default_rng(0).permutation(_N)[:50]
        first = next(iter(opened.batches([])))
        wanted = pa.array([keys[i] for i in order], first.schema.field(0).type)
        taken = opened.take(wanted, [self.vector_column])
        assert taken.column_names == [opened.key, self.vector_column]
        assert taken.column(0).to_pylist() == wanted.to_pylist()
        np.testing.assert_array_equal(np.array(taken.column(1).to_pylist(), np.float32), vectors[order])
        assert len(opened.take(wanted[:0], [self.vector_column])) == 0

    def test_take_refuses_keys_that_are_not_there(self, opened: Source) -> None:
        self._need(Capability.TAKE)
        kind = next(iter(opened.batches([]))).schema.field(0).type
        for unknown in (_N + 10**6, *([-1] if pa.types.is_signed_integer(kind) else [])):
            with pytest.raises(InputError):
                opened.take(pa.array([unknown]).cast(kind), [self.vector_column])

    def test_a_sample_is_a_function_of_the_seed(self, opened: Source) -> None:
        columns = [self.vector_column]
        one = opened.sample(40, seed=1, columns=columns)
        assert one.column_names == [opened.key, self.vector_column]
        assert len(set(one.column(0).to_pylist())) == 40
        assert opened.sample(40, seed=1, columns=columns) == one
        assert opened.sample(40, seed=2, columns=columns) != one
        keys, vectors = self._stream(opened)
        place = {key: i for i, key in enumerate(keys)}
        chosen = vectors[[place[key] for key in one.column(0).to_pylist()]]
        np.testing.assert_array_equal(np.array(one.column(1).to_pylist(), np.float32), chosen)
        assert len(opened.sample(10 * _N, seed=1, columns=columns)) == _N

    def test_a_filter_selects_everywhere_alike(self, opened: Source) -> None:
        self._need(Capability.WHERE)
        assert opened.count("id < 40 AND label = 'l0'") == 14
        found = self._ids(self._stream(opened, where="id < 40 AND label = 'l0'")[1])
        assert sorted(found) == list(range(0, 40, 3))
        sample = opened.sample(10, seed=0, columns=["id"], where="id < 40")
        assert max(sample["id"].to_pylist()) < 40
        assert opened.count("id < 40 -- the first ones") == 40
        assert len(self._ids(self._stream(opened, where="id < 40 /* the first ones */")[1])) == 40
        for bad in (
            "id <",
            "nosuch = 1",
            "id < 40 LIMIT 5",
            "id < 40 AND",
            "id < 9 banana",
            "1=1; SELECT 2",
            "id < 9) OR (1=1",
        ):
            with pytest.raises(FilterError):
                opened.count(bad)
            with pytest.raises(FilterError):
                opened.batches([self.vector_column], where=bad)

    def test_a_filter_is_refused_where_there_are_none(self, opened: Source) -> None:
        self._refuse(Capability.WHERE)
        with pytest.raises(InputError):
            opened.count("id < 40")
        with pytest.raises(InputError):
            opened.batches([self.vector_column], where="id < 40")

    def test_two_streams_are_read_by_turns(self, opened: Source) -> None:
        keys, vectors = self._stream(opened)
        columns = [self.vector_column]
        pair = opened.batches(columns, batch_rows=11), opened.batches(columns, batch_rows=50)
        found: tuple[list[pa.RecordBatch], ...] = ([], [])
        for batches in itertools.zip_longest(*pair):
            for batch, seen in zip(batches, found, strict=True):
                seen += [] if batch is None else [batch]
        for seen in found:
            assert [key for b in seen for key in b.column(0).to_pylist()] == keys
            read = [v for b in seen for v in b.column(1).to_pylist()]
            np.testing.assert_array_equal(np.array(read, np.float32), vectors)

    def test_a_stream_that_is_left_early_leaves_the_source_as_it_was(self, opened: Source) -> None:
        stream = opened.batches([self.vector_column], batch_rows=20)
        next(stream)
        del stream
        assert len(self._stream(opened)[0]) == _N

    def test_threads_take_at_the_same_time(self, opened: Source) -> None:
        self._need(Capability.TAKE)
        keys, vectors = self._stream(opened)
        kind = next(iter(opened.batches([]))).schema.field(0).type

        def taken(seed: int) -> bool:
            order = np.random.default_rng(seed).permutation(_N)[:40]
            rows = opened.take(pa.array([keys[i] for i in order], kind), [self.vector_column])
            found = np.array(rows.column(1).to_pylist(), np.float32)
            same = rows.column(0).to_pylist() == [keys[i] for i in order]
            return same and np.array_equal(found, vectors[order])

        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(taken, range(24)))

    def test_a_pickled_source_reads_the_same_rows_in_another_process(self, tmp_path: Path) -> None:
        source = self._open(self.put(tmp_path, _rows(0, _N)))
        if Capability.VERSIONS in self._connector().capabilities:
            self.add(tmp_path, _rows(_N, _N + 25))
        read = (
            "import pickle, sys; source, columns = pickle.load(sys.stdin.buffer);"
            " batches = [b.to_pylist() for b in source.batches(columns)];"
            " about = source.uri, source.table, source.version, source.fingerprint, source.schema;"
            " pickle.dump((about, batches), sys.stdout.buffer)"
        )
        columns = [self.vector_column, *self.other_columns]
        done = subprocess.run(
            [sys.executable, "-c", read],
            input=pickle.dumps((source, columns)),
            capture_output=True,
            cwd=tmp_path.parent,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        about, batches = pickle.loads(done.stdout)
        assert about == (source.uri, source.table, source.version, source.fingerprint, source.schema)
        assert batches == [b.to_pylist() for b in source.batches(columns)]
        assert sum(len(rows) for rows in batches) == _N

    def test_a_pinned_version_does_not_move_while_another_writer_appends(self, tmp_path: Path) -> None:
        self._need(Capability.VERSIONS)
        source = self._open(self.put(tmp_path, _rows(0, _N)))
        batches = source.batches([self.vector_column], batch_rows=50)
        seen = len(next(batches))
        self.add(tmp_path, _rows(_N, _N + 25))
        assert seen + sum(len(b) for b in batches) == _N
        assert source.count() == len(self._stream(source)[0]) == _N
        assert source.latest().count() == _N + 25

    # --- writing

    def _annotation(
        self, compute: Callable[[pa.RecordBatch], pa.RecordBatch] | None = None, **how: Any
    ) -> Annotation:
        def twice(batch: pa.RecordBatch) -> pa.RecordBatch:
            ids = [int(v[0]) for v in batch.column(self.vector_column).to_pylist()]
            arrays = [[2 * i for i in ids], [[float(i)] for i in ids], [f"n{i}" for i in ids]]
            return pa.RecordBatch.from_arrays(
                [pa.array(a, f.type) for a, f in zip(arrays, _RESULT, strict=True)], schema=_RESULT
            )

        how = {"schema": _RESULT, "token": "0" * 24, "metadata": {"spec_store.run": "test"}, **how}
        return Annotation(reads=(self.vector_column,), compute=compute or twice, batch_rows=64, **how)

    def _assert_annotated(self, source: Source, unless: Callable[[int], bool] = lambda i: False) -> None:
        columns = [self.vector_column, *_RESULT.names]
        n_rows = 0
        for batch in source.batches(columns):
            for row in batch.to_pylist():
                i = int(row[self.vector_column][0])
                expected = (None, None, None) if unless(i) else (2 * i, [float(i)], f"n{i}")
                assert tuple(row[name] for name in _RESULT.names) == expected
                n_rows += 1
        assert n_rows == source.count()

    def test_results_are_written_to_their_rows_and_a_re_run_changes_nothing(self, opened: Source) -> None:
        self._need(Capability.ANNOTATE)
        opened.check_annotation(_RESULT)
        published = opened.annotate(self._annotation())
        assert published.columns == tuple(_RESULT.names)
        self._assert_annotated(opened.latest())
        opened.latest().annotate(self._annotation())
        self._assert_annotated(opened.latest())
        assert opened.latest().count() == _N

    def test_rows_outside_the_filter_are_null(self, opened: Source) -> None:
        self._need(Capability.ANNOTATE)
        self._need(Capability.WHERE)
        opened.annotate(self._annotation(where="id >= 100"))
        self._assert_annotated(opened.latest(), unless=lambda i: i < 100)

    def test_work_that_fails_publishes_nothing_and_can_be_taken_up_again(self, opened: Source) -> None:
        self._need(Capability.ANNOTATE)
        whole = self._annotation()

        def fail(batch: pa.RecordBatch) -> pa.RecordBatch:
            if any(int(v[0]) > 200 for v in batch.column(self.vector_column).to_pylist()):
                raise RuntimeError("the power went out")
            return whole.compute(batch)

        names = opened.latest().schema.names
        with pytest.raises(RuntimeError, match="the power went out"):
            opened.annotate(self._annotation(fail))
        assert opened.latest().schema.names == names
        opened.latest().annotate(whole)
        self._assert_annotated(opened.latest())

    def test_columns_of_others_are_neither_replaced_nor_removed(self, opened: Source) -> None:
        self._need(Capability.ANNOTATE)
        schema = pa.schema([("label", pa.string())])
        with pytest.raises(ColumnClashError, match="label"):
            opened.check_annotation(schema)
        with pytest.raises(ColumnClashError, match="label"):
            opened.annotate(self._annotation(schema=schema))
        with pytest.raises(ColumnClashError, match="label"):
            opened.undo(["label"])
        assert "label" in opened.latest().schema.names

    def test_a_vector_index_finds_rows_by_key_nearest_first(self, opened: Source) -> None:
        self._need(Capability.SEARCH)
        schema = pa.schema([("r_vector", pa.list_(pa.float32(), _WIDTH))])

        def copied(batch: pa.RecordBatch) -> pa.RecordBatch:
            return pa.RecordBatch.from_arrays(
                [batch.column(self.vector_column).cast(schema.types[0])], schema=schema
            )

        opened.annotate(replace(self._annotation(copied), schema=schema))
        source = opened.latest()
        keys, vectors = self._stream(source)
        queries = vectors[::30] + np.float32(0.01)
        assert source.search_index("r_vector", queries, k=5) is None  # there is none yet
        recall = source.create_vector_index("r_vector", queries, k=5)
        found = source.latest().search_index("r_vector", queries, k=5)
        assert found is not None
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosine = queries / np.linalg.norm(queries, axis=1, keepdims=True) @ unit.T
        right = 0
        for answer, similarity in zip(found, cosine, strict=True):
            rows = [keys.index(key) for key in answer.to_pylist()]
            assert len(set(rows)) == 5
            assert similarity[rows[0]] > np.sort(similarity)[-5]
            right += len(set(rows) & set(np.argsort(-similarity)[:5].tolist()))
        assert abs(right / (5 * len(queries)) - recall) < 0.05
        assert recall > 0.6

    def test_a_store_without_vector_indices_finds_nothing(self, opened: Source) -> None:
        self._refuse(Capability.SEARCH)
        assert opened.search_index(self.vector_column, np.ones((1, _WIDTH), np.float32), k=3) is None

    def test_undo_takes_the_results_away_and_nothing_else(self, opened: Source) -> None:
        self._need(Capability.ANNOTATE)
        names = opened.schema.names
        opened.annotate(self._annotation())
        opened.latest().undo(_RESULT.names)
        assert opened.latest().schema.names == names
        assert self._ids(self._stream(opened.latest())[1]) == self._ids(self._stream(opened)[1])

    def test_a_read_only_store_refuses_before_any_work(self, opened: Source) -> None:
        self._refuse(Capability.ANNOTATE)
        with pytest.raises(UnsupportedError):
            opened.check_annotation(_RESULT)
        with pytest.raises(UnsupportedError):
            opened.annotate(self._annotation())
        with pytest.raises(UnsupportedError):
            opened.undo(_RESULT.names)

    # --- new tables

    def new(self, folder: Path) -> tuple[str, str | None]:
        """URI and table under which `create` may make something new. Only for CREATE."""
        return str(folder), "fresh"

    def _results(self, *, own: bool = True) -> tuple[pa.Schema, Callable[[], Iterator[pa.RecordBatch]]]:
        rows = _rows(0, _N).select(["id", "label"])
        schema = rows.schema
        if own:
            schema = pa.schema([f.with_metadata({"spec_store.run": "test"}) for f in schema])
        return schema, lambda: iter(rows.cast(schema).to_batches(max_chunksize=90))

    def _read(self, uri: str, table: str | None) -> list[int]:
        source = self._connector().open(uri, table=table)
        return sorted(i for b in source.batches(["id"]) for i in b.column(1).to_pylist())

    def test_a_new_table_holds_the_batches_and_is_replaced_only_if_it_is_ours(self, tmp_path: Path) -> None:
        self._need(Capability.CREATE)
        connector, (uri, table) = self._connector(), self.new(tmp_path)
        schema, batches = self._results()
        connector.check_create(uri, table, schema)
        for _ in range(2):
            connector.create(uri, table, schema, batches())
            assert self._read(uri, table) == list(range(_N))
        other = tmp_path / "other"
        other.mkdir()
        uri, table = self.new(other)
        schema, batches = self._results(own=False)
        connector.create(uri, table, schema, batches())
        with pytest.raises(InputError, match="holds more than spec-store's results"):
            connector.check_create(uri, table, schema)
        with pytest.raises(InputError, match="holds more than spec-store's results"):
            connector.create(uri, table, schema, batches())
        assert self._read(uri, table) == list(range(_N))

    def test_a_stream_that_fails_creates_nothing_and_leaves_what_was(self, tmp_path: Path) -> None:
        self._need(Capability.CREATE)
        connector, (uri, table) = self._connector(), self.new(tmp_path)
        schema, batches = self._results()

        def fail() -> Iterator[pa.RecordBatch]:
            yield next(batches())
            raise RuntimeError("the power went out")

        before = sorted(tmp_path.iterdir())
        with pytest.raises(Exception, match="the power went out"):
            connector.create(uri, table, schema, fail())
        assert sorted(tmp_path.iterdir()) == before
        connector.create(uri, table, schema, batches())
        with pytest.raises(Exception, match="the power went out"):
            connector.create(uri, table, schema, fail())
        assert self._read(uri, table) == list(range(_N))

    def test_rows_are_appended_to_a_table_that_is_made_when_needed(self, tmp_path: Path) -> None:
        self._need(Capability.APPEND)
        connector, (uri, table) = self._connector(), self.new(tmp_path)
        assert table is not None
        rows = _rows(0, 20).select(["id", "label"])
        connector.append(uri, table, rows.slice(0, 12))
        connector.append(uri, table, rows.slice(12))
        assert self._read(uri, table) == list(range(20))

    def test_a_row_of_a_known_key_is_replaced_and_new_columns_are_added(self, tmp_path: Path) -> None:
        self._need(Capability.APPEND)
        connector, (uri, table) = self._connector(), self.new(tmp_path)
        assert table is not None
        connector.append(uri, table, pa.table({"name": ["a", "b"], "size": pa.array([1, 2])}), key="name")
        later = pa.table({"name": ["b", "c"], "size": pa.array([3, 4]), "sizes": [[1.5], None]})
        connector.append(uri, table, later, key="name")
        source = connector.open(uri, table=table)
        columns = ["name", "size", "sizes"]
        found = [row for batch in source.batches(columns) for row in batch.select(columns).to_pylist()]
        assert sorted((r["name"], r["size"], r["sizes"]) for r in found) == [
            ("a", 1, None),
            ("b", 3, [1.5]),
            ("c", 4, None),
        ]
