"""What changed between two versions of a table, how fresh results are, and renewing only what changed."""

from dataclasses import replace

import lance
import numpy as np
import pyarrow as pa
import pytest

from lance_tables import (
    NOTHING,
    SCHEMA,
    annotation,
    assert_annotated,
    contents,
    data_files,
    leftovers,
    open_source,
    rows,
)
from spec_store.connector import Freshness
from spec_store.errors import RetryError

N = 200


@pytest.fixture(params=[False, True], ids=["addresses", "stable ids"])
def stable(request):
    return request.param


@pytest.fixture
def folder(tmp_path, stable):
    """Four fragments of 50 rows."""
    lance.write_dataset(
        rows(N),
        tmp_path / "images.lance",
        max_rows_per_file=50,
        enable_stable_row_ids=stable,
        data_storage_version="2.1",
    )
    return tmp_path


def dataset(folder):
    return lance.dataset(folder / "images.lance")


def append(folder):
    lance.write_dataset(with_results(folder, rows(20, N)), folder / "images.lance", mode="append")


def with_results(folder, table):
    """Rows as a writer appends them who knows nothing of result columns."""
    return table.select([n for n in dataset(folder).schema.names if n in table.column_names])


def merge(folder):
    changed = rows(10, 100, seed=9)
    dataset(folder).merge_insert("id").when_matched_update_all().execute(with_results(folder, changed))


CHANGES = {
    "append": append,
    "delete": lambda folder: dataset(folder).delete("id % 20 = 3"),
    "delete a fragment": lambda folder: dataset(folder).delete("id < 50"),
    "update": lambda folder: dataset(folder).update({"payload": "'new'"}, where="id BETWEEN 60 AND 64"),
    "merge": merge,
    "add a column": lambda folder: dataset(folder).add_columns({"double": "id * 2"}),
    "compact": lambda folder: dataset(folder).optimize.compact_files(target_rows_per_fragment=1000),
    "restore": lambda folder: dataset(folder).checkout_version(1).restore(),
}
SEQUENCES = [
    ["append"],
    ["delete"],
    ["delete a fragment", "append"],
    ["update", "delete", "append"],
    ["merge", "compact"],
    ["update", "add a column", "merge", "append", "delete", "compact"],
    ["compact", "merge", "delete", "compact"],
    ["merge", "delete", "restore", "append"],
    [],
]


def values(source, where=None):
    """The multiset of a source's rows, by id and the first number of a vector."""
    batches = source.batches(["id", "clip"], where=where, batch_rows=64)
    tables = [pa.table({"id": b.column(1), "clip": b.column(2)}).to_pylist() for b in batches]
    return sorted((row["id"], row["clip"][0]) for table in tables for row in table)


def counted(pairs):
    found = {}
    for pair, sign in pairs:
        found[pair] = found.get(pair, 0) + sign
    return {pair: n for pair, n in found.items() if n}


@pytest.mark.parametrize("sequence", SEQUENCES, ids=", then ".join)
@pytest.mark.parametrize("where", [None, "id >= 30 AND payload != 'new'"])
def test_the_difference_turns_the_rows_of_one_version_into_those_of_the_other(folder, sequence, where):
    old = open_source(folder)
    for name in sequence:
        CHANGES[name](folder)
    new = open_source(folder)
    found = new.difference(old.version, ["clip"], where)
    removed, added = values(found.removed), values(found.added)
    assert (found.removed.count(), found.added.count()) == (len(removed), len(added))
    expected = counted([(p, 1) for p in values(new, where)] + [(p, -1) for p in values(old, where)])
    assert counted([(p, 1) for p in added] + [(p, -1) for p in removed]) == expected
    for side in (found.removed, found.added):
        parts = [b for p in side.partitions() for b in side.batches(["id"], partition=p, batch_rows=7)]
        assert sum(len(b) for b in parts) == side.count()


@pytest.mark.parametrize("where", ["flag > 0", "FLAG > 0", "`flag` > 0"])
def test_rows_that_the_filter_takes_in_or_leaves_out_count_though_their_vectors_stayed(folder, where):
    dataset(folder).add_columns({"flag": "id % 2"})
    published = open_source(folder).annotate(annotation(where=where))
    old = open_source(folder)
    assert freshness(folder, published, where) == Freshness(current=100)
    dataset(folder).drop_columns(["flag"])
    dataset(folder).add_columns({"flag": "id % 4"})  # of a file of its own: no file of vectors changed
    new = open_source(folder)
    found = new.difference(old.version, ["clip"], where)
    expected = counted([(p, 1) for p in values(new, where)] + [(p, -1) for p in values(old, where)])
    assert sum(abs(n) for n in expected.values()) == 50
    assert (
        counted([(p, 1) for p in values(found.added)] + [(p, -1) for p in values(found.removed)]) == expected
    )
    assert freshness(folder, published, where) != Freshness(current=150)


def test_with_stable_row_ids_rows_that_were_only_moved_count_as_the_same(folder, stable):
    old = open_source(folder)
    open_source(folder).annotate(annotation())  # adds a file to every fragment
    for name in ("merge", "add a column", "delete", "compact"):
        CHANGES[name](folder)
    found = open_source(folder).difference(old.version, ["clip"], None)
    n_deleted = len([i for i in range(N) if i % 20 == 3])
    assert (found.added.count() == 10 - 1) == stable  # one of the ten was deleted afterwards
    assert (found.removed.count() == 10 - 1 + n_deleted) == stable


def test_a_version_that_was_cleaned_up_has_no_difference(folder):
    old = open_source(folder).version
    append(folder)
    dataset(folder).cleanup_old_versions(retain_versions=1)
    assert open_source(folder).difference(old, ["clip"], None) is None


def test_vectors_replaced_in_place_count_as_changed_though_no_row_was_updated(folder):
    old = open_source(folder)
    replace_in_place(folder)
    found = open_source(folder).difference(old.version, ["clip"], None)
    assert [i for i, _ in values(found.added)] == [i for i, _ in values(found.removed)] == list(range(50))
    CHANGES["compact"](folder)
    found = open_source(folder).difference(old.version, ["clip"], None)
    assert found.added.count() == N


def replace_in_place(folder):
    """Somebody else's DataReplacement of the first fragment's vectors, in place."""
    ds = dataset(folder)
    ds.add_columns(pa.schema([pa.field("other", ds.schema.field("clip").type)]))
    ds = dataset(folder)
    (kept,) = {f.path for f in ds.get_fragments()[0].metadata.files}
    shuffled = ds.get_fragments()[0].to_table(columns=["clip"]).take(np.arange(50)[::-1])
    name = "theirs.lance"
    with ds.new_file_session().open_writer(
        f"data/{name}", schema=pa.schema([shuffled.schema.field("clip")]), version=ds.data_storage_version
    ) as writer:
        for batch in shuffled.combine_chunks().to_batches():
            writer.write_batch(batch)
    major, minor = map(int, ds.data_storage_version.split("."))
    (field,) = [f.id() for f in ds.lance_schema.fields() if f.name() == "clip"]
    group = lance.LanceOperation.DataReplacementGroup(
        0, lance.fragment.DataFile(name, [field], [0], major, minor)
    )
    lance.LanceDataset.commit(ds, lance.LanceOperation.DataReplacement([group]), read_version=ds.version)
    assert kept in {f.path for f in dataset(folder).get_fragments()[0].metadata.files}


def freshness(folder, published=None, where=None):
    since = None if published is None else published.computed_version
    return open_source(folder).freshness(SCHEMA.names, ["clip"], where, since=since)


def test_results_are_current_until_rows_change(folder, stable):
    published = open_source(folder).annotate(annotation())
    assert freshness(folder, published) == freshness(folder) == Freshness(current=N)
    CHANGES["delete"](folder)
    append(folder)
    assert freshness(folder, published) == Freshness(current=N - 10, missing=20)
    merge(folder)
    assert freshness(folder, published) == (
        Freshness(current=N - 19, missing=20, stale=9)
        if stable
        else Freshness(current=N - 19, missing=20, unknown=9)
    )
    CHANGES["compact"](folder)
    assert freshness(folder, published) == (
        Freshness(current=N - 19, missing=20, stale=9) if stable else Freshness(missing=20, unknown=N - 10)
    )


def test_rows_outside_the_filter_need_no_results(folder):
    where = "id < 100"
    published = open_source(folder).annotate(annotation(where=where))
    assert freshness(folder, published, where) == Freshness(current=100)
    append(folder)
    assert freshness(folder, published, where) == Freshness(current=100)


@pytest.mark.parametrize("sequence", SEQUENCES[:-2], ids=", then ".join)
def test_only_fragments_that_changed_are_written_anew(folder, sequence):
    published = open_source(folder).annotate(annotation())
    before = {p for p in data_files(folder) if p.startswith("spec-")}
    for name in sequence:
        CHANGES[name](folder)
    computed, inner = set(), annotation().compute

    def compute(batch):
        computed.update(batch.column(0).to_pylist())
        return inner(batch)

    renewed = replace(annotation(compute), since=published.computed_version)
    again = open_source(folder).annotate(renewed)
    assert again.columns == published.columns
    found = contents(folder)
    assert all(row["r_number"] == int(np.floor(1000 * np.float64(row["clip"][0]))) for row in found.values())
    assert freshness(folder, again) == Freshness(current=len(found))
    kept = {d.path for f in dataset(folder).get_fragments() for d in f.metadata.files} & before
    if "compact" not in sequence:
        assert len(kept) == (3 if "delete a fragment" in sequence else 4)
        assert len(computed) <= 20 + 10 + 5
    third = open_source(folder).annotate(replace(renewed, since=again.computed_version))
    assert (third.n_rows, third.version) == (0, again.version)
    assert leftovers(folder) == NOTHING


def test_columns_that_were_removed_meanwhile_are_not_renewed(folder):
    published = open_source(folder).annotate(annotation())
    source = open_source(folder)
    dataset(folder).drop_columns(["r_list"])
    with pytest.raises(RetryError, match="removed"):
        source.annotate(replace(annotation(), since=published.computed_version))
    assert leftovers(folder) == NOTHING


def test_results_of_another_run_are_not_renewed_as_one_s_own(folder):
    published = open_source(folder).annotate(annotation())
    source = open_source(folder)
    open_source(folder).annotate(annotation(run="run-2", token="b" * 24))
    append(folder)
    with pytest.raises(RetryError, match="Another spec-store run wrote"):
        source.annotate(replace(annotation(), since=published.computed_version))
    assert leftovers(folder) == NOTHING


def test_rows_appended_without_results_are_filled_and_others_left(folder):
    published = open_source(folder).annotate(annotation())
    append(folder)
    again = open_source(folder).annotate(replace(annotation(), since=published.computed_version))
    assert again.n_rows == 20
    assert_annotated(folder, ids=range(N + 20))
