"""Results that follow a table which grows, changes and shrinks."""

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest

import spec_store
from planted import planted_mixture, vectors
from spec_store.errors import InputError, RetryError
from spec_store.runs import registry as registry_module
from spec_store.runs.registry import Registry
from spec_store.spectral.scoring import Scorer
from spec_store.stores.locate import location_of, open_table
from spec_store.workflows.comparison import RULES
from spec_store.workflows.passes import accumulate
from spec_store.workflows.solving import kept_state

N = 900
EXACT = {"dim": 40, "modes": 6, "precision": "float64", "sample_rows": 900, "describe": False}
ROWS = planted_mixture(1500, n_groups=8, merged=2, d=24, seed=5)


def rows(start, stop, *, ids=None, shift=0.0):
    a, b, groups = (x[start:stop] for x in ROWS)
    return pa.table(
        {
            "id": np.arange(start, stop) if ids is None else ids,
            "clip": vectors(a + np.float32(shift)),
            "dino": vectors(b),
            "label": [f"g{g}" for g in groups],
        }
    )


def make(folder, *, stable=True):
    for start in range(0, N, 300):
        lance.write_dataset(
            rows(start, start + 300),
            f"{folder}/images.lance",
            mode="append" if start else "create",
            enable_stable_row_ids=stable,
            data_storage_version="2.1",
        )
    return str(folder)


@pytest.fixture
def db(tmp_path):
    """A table with stable row ids, in three fragments of 300 rows."""
    return make(tmp_path)


def table(db):
    return lancedb.connect(db).open_table("images")


def add(db, new):
    """Rows as a writer appends them who knows nothing of result columns."""
    lance.write_dataset(new, f"{db}/images.lance", mode="append")


def change(db):
    """60 rows come, 45 go, 30 get other vectors."""
    add(db, rows(N, N + 60))
    table(db).delete("id % 20 = 3")
    table(db).merge_insert("id").when_matched_update_all().execute(
        rows(1200, 1230, ids=np.arange(100, 130)).append_column("extra", pa.nulls(30)).drop_columns("extra")
    )


def compact(db):
    lance.dataset(f"{db}/images.lance").optimize.compact_files(target_rows_per_fragment=5000)


def clean_up(db):
    lance.dataset(f"{db}/images.lance").cleanup_old_versions(retain_versions=1)


def compare(db, **options):
    return spec_store.compare("images", ["clip", "dino"], db=db, write=True, **{**EXACT, **options})


def state_error(db, run_id, where=None):
    """How far the recorded state is from one of all rows through the same maps, relatively."""
    state = kept_state(location_of(db), run_id)
    fresh = accumulate(
        open_table("images", db),
        state.maps,
        where=where,
        batch_rows=512,
        threads=1,
        progress=lambda n: None,
    )
    assert (state.n_rows, state.invalid.counts) == (fresh.n_rows, fresh.invalid.counts)
    upper = np.triu_indices(state.n_columns)
    return max(
        np.linalg.norm((state.products - fresh.products)[upper]) / np.linalg.norm(fresh.products[upper]),
        np.linalg.norm(state.sums - fresh.sums) / np.linalg.norm(fresh.sums),
    )


def assert_scored(db, run_id, prefix="spec_clip_dino", owner=None, where=None):
    """Every row's results are those of its values, by the run's rules."""
    location = location_of(db)
    maps = {m.column: m for m in kept_state(location, owner or run_id).maps}
    data = Registry(location).artifact(run_id, RULES)
    columns = Registry(location).run(run_id).columns
    scorer = Scorer.from_bytes(data, [maps[c] for c in columns])
    found = lance.dataset(f"{db}/images.lance").to_table(filter=where).combine_chunks()
    for batch in found.to_batches():
        expected = scorer.compute(batch.select(["id", *columns]))
        for name in expected.schema.names:
            assert batch[name].equals(expected[name]), name


@pytest.mark.parametrize("stable", [True, False], ids=["stable ids", "addresses"])
@pytest.mark.parametrize("where", [None, "id >= 40"])
@pytest.mark.parametrize("then", [[], [compact], [compact, clean_up]], ids=["", "compacted", "cleaned up"])
def test_the_updated_state_and_scores_are_those_of_all_rows(tmp_path, stable, where, then):
    db = make(tmp_path, stable=stable)
    run = compare(db, where=where)
    change(db)
    for step in then:
        step(db)
    (updated,) = spec_store.update("images", db=db)
    known = (stable and clean_up not in then) or not then
    assert updated.state == ("folded" if known else "read again")
    if known:
        assert (updated.n_added, updated.n_removed) == (57 + 28, 28 + (45 if where is None else 43))
    assert updated.n_rows == spec_store.query("images", select=["id"], where=where, db=db).read_all().num_rows
    assert state_error(db, run.run_id, where) < 1e-10
    assert_scored(db, run.run_id, where=where)
    assert spec_store.status("images", db=db).up_to_date
    (again,) = spec_store.update("images", db=db)
    assert (again.state, again.n_added, again.n_removed, again.n_written) == ("current", 0, 0, 0)


def test_only_fragments_that_changed_get_new_files_and_figures_are_counted_again(db):
    run = compare(db)

    def files():
        return {d.path for f in lance.dataset(f"{db}/images.lance").get_fragments() for d in f.metadata.files}

    change(db)
    before = files()
    (updated,) = spec_store.update("images", db=db)
    assert before < files()
    assert len(files() - before) == 2  # appended rows, and changed ones, which moved
    assert updated.n_written == 88
    record = spec_store.clusters("images", db=db).run
    assert (record.run_id, record.n_rows, len(record.updates)) == (run.run_id, N, 1)
    assert record.updates[0]["n_added"] == 85
    for c in record.clusters:
        assert c.size == spec_store.query("images", where=c.where, db=db).read_all().num_rows


def test_a_refit_keeps_numbers_and_reads_no_row_that_stayed_for_the_state(db):
    before = compare(db)
    change(db)
    (updated,) = spec_store.update("images", refit=True, db=db)
    assert (updated.state, updated.run_id != before.run_id) == ("folded", True)
    assert len(updated.changes["kept"]) >= len(before.clusters_found) - 1
    assert state_error(db, updated.run_id) < 1e-10
    assert_scored(db, updated.run_id)
    fresh = spec_store.compare("images", ["clip", "dino"], db=db, maps_from=before.run_id, **EXACT)
    again = spec_store.clusters("images", db=db).run
    np.testing.assert_allclose(again.eigenvalues["clip"], fresh.eigenvalues["clip"], rtol=1e-8)
    assert spec_store.status("images", db=db).up_to_date


def test_advice_to_fit_anew_comes_with_rows_that_the_maps_and_modes_do_not_know(db):
    compare(db)
    add(db, rows(N, N + 60))
    (updated,) = spec_store.update("images", db=db)
    assert updated.advice == ()
    assert updated.coverage_added["clip"] == pytest.approx(updated.coverage["clip"], abs=0.03)
    rng = np.random.default_rng(0)
    far = rows(1000, 1400)
    one_group = far["dino"].combine_chunks().take(pa.array(np.zeros(400, int)))
    lone = rng.standard_normal(24) * 8 + rng.standard_normal((400, 24))
    add(db, far.set_column(1, "clip", vectors(lone)).set_column(2, "dino", one_group))
    (updated,) = spec_store.update("images", db=db)
    assert updated.coverage_added["clip"] < updated.coverage["clip"] - 0.05
    assert any("coverage" in reason for reason in updated.advice)
    add(db, rows(1000, 1500))
    (updated,) = spec_store.update("images", db=db)
    assert any("of the rows came since" in reason for reason in updated.advice)


def test_rows_that_cannot_be_compared_get_null_results_and_are_told_of(db):
    run = compare(db)
    new = rows(N, N + 30)
    clip = pa.array([None if i < 4 else v for i, v in enumerate(new["clip"].to_pylist())], new["clip"].type)
    add(db, new.set_column(1, "clip", clip))
    (updated,) = spec_store.update("images", db=db)
    assert updated.n_rows == N + 26
    assert "4 rows of" in updated.warnings[0]
    assert spec_store.status("images", db=db).up_to_date
    assert_scored(db, run.run_id)
    table(db).delete(f"id < {N + 2} AND id >= {N}")
    (updated,) = spec_store.update("images", db=db)
    assert "2 rows of" in updated.warnings[0]
    assert state_error(db, run.run_id) < 1e-10


def test_runs_that_share_a_state_fold_it_once_and_aligned_columns_follow(db):
    run = spec_store.compare_models("images", ["clip", "dino"], pairs="all", db=db, write=True, **EXACT)
    other = spec_store.compare_again(
        run.run_id, pair=["clip", "dino"], eta=0.5, prefix="half", db=db, write=True
    )
    spec_store.align(
        "images", "clip", "dino", db=db, write=True, force=True, kind="affine", steps=5, key="id"
    )
    change(db)
    found = spec_store.update("images", db=db)
    assert {u.state for u in found[:2]} == {"folded"}
    assert [u.n_added for u in found[:2]] == [85, 85]
    assert (found[2].column, found[2].n_filled, found[2].n_written) == ("clip_as_dino", 57, 88)
    assert state_error(db, run.run_id) < 1e-10
    assert_scored(db, run.comparisons[0].run_id, owner=run.run_id)
    assert_scored(db, other.run_id, "half", owner=run.run_id)
    compact(db)
    assert spec_store.status("images", db=db).up_to_date
    (one,) = spec_store.update("images", prefix="half", db=db)
    assert (one.prefix, one.state) == ("half", "current")


def test_results_that_another_run_replaces_meanwhile_are_not_written_under_its_name(db):
    def align(seed):
        kind = {"kind": "affine", "steps": 5, "key": "id", "force": True, "seed": seed}
        return spec_store.align("images", "clip", "dino", db=db, write=True, **kind)

    compare(db)
    align(0)
    add(db, rows(N, N + 60))
    later = []

    def progress(stage, n, total):
        if stage == "write spec_clip_dino" and not later:  # before the aligned column's turn
            later.append(align(1))

    with pytest.raises(RetryError, match="somebody else has written clip_as_dino in table"):
        spec_store.update("images", db=db, progress=progress)
    found = lance.dataset(f"{db}/images.lance").to_table(["clip", "clip_as_dino"])
    clip, aligned = (np.stack(column.to_numpy()) for column in found.columns)
    assert np.allclose(later[0].map.transform(clip), aligned, atol=1e-5)
    assert spec_store.update("images", db=db, prefix="clip_as_dino")[0].run_id == later[0].run_id


def test_results_that_are_removed_meanwhile_are_named(db):
    compare(db)
    compare(db, prefix="second")
    add(db, rows(N, N + 60))

    def progress(stage, n, total):
        if stage.startswith("write") and "spec_clip_dino_score" in table(db).schema.names:
            spec_store.undo("images", db=db, prefix="spec_clip_dino")

    with pytest.raises(RetryError, match="somebody else has removed spec_clip_dino_cluster in table"):
        spec_store.update("images", db=db, progress=progress)


def test_a_state_too_large_for_one_row_lies_in_pieces_and_is_updated_like_any(db, monkeypatch):
    monkeypatch.setattr(registry_module, "LARGEST_STATE", 20_000)
    monkeypatch.setattr(registry_module, "_PIECE", 20_000)
    run = compare(db)
    registry = Registry(location_of(db))
    assert lance.dataset(f"{db}/spec_store_runs.lance").to_table()["state"].to_pylist() == [None]
    for _ in range(3):
        add(db, rows(N, N + 20))
        (updated,) = spec_store.update("images", db=db)
        assert updated.n_added == 20
        assert state_error(db, run.run_id) < 1e-10
    pieces = lance.dataset(f"{db}/spec_store_artifacts.lance")
    torn = f"name = '{run.run_id} state a0'"
    pieces.update({"data": "X'00'"}, where=torn)
    pieces.update({"data": "X'00'"}, where=torn.replace("a0", "b0"))
    assert registry.state(run.run_id) is None


def test_results_whose_rules_are_not_kept_are_only_found_anew(db):
    compare(db)
    lance.dataset(f"{db}/spec_store_artifacts.lance").delete("name = 'rules'")
    with pytest.raises(InputError, match="--refit"):
        spec_store.update("images", db=db)
    (updated,) = spec_store.update("images", refit=True, db=db)
    assert len(updated.changes["gone"]) < len(updated.changes["kept"])


def test_a_table_without_results_or_with_too_few_rows_is_refused(db):
    with pytest.raises(InputError, match="spec-store compare or spec-store align first"):
        spec_store.update("images", db=db)
    compare(db)
    with pytest.raises(InputError, match="no results with prefix 'other'"):
        spec_store.update("images", prefix="other", db=db)
    table(db).delete("id > 0")
    with pytest.raises(InputError, match="1 rows left to compare; 6 are needed"):
        spec_store.update("images", db=db)


def test_results_in_a_table_of_their_own_are_refused(db, tmp_path):
    own = rows(0, 300)
    lance.write_dataset(own, f"{db}/other.lance")
    columns = [f"{name}=lancedb:{db}#other/{name}" for name in ("clip", "dino")]
    spec_store.compare("scores", columns, key="id", db=db, write=True, **EXACT)
    with pytest.raises(InputError, match="lie in a table of their own"):
        spec_store.update("scores", db=db)
    assert spec_store.status("scores", db=db).results[0].rows is None


def test_a_column_of_another_store_is_read_again(db):
    lance.write_dataset(rows(0, 1500).select(["id", "dino"]), f"{db}/other.lance")
    columns = ["clip", f"dino=lancedb:{db}#other/dino"]
    run = spec_store.compare(
        "images", columns, key="id", on_missing="drop", db=db, write=True, prefix="two", **EXACT
    )
    change(db)
    (updated,) = spec_store.update("images", db=db)
    assert (updated.state, updated.n_rows) == ("read again", N + 60 - 48)
    found = lance.dataset(f"{db}/images.lance").to_table()
    assert found["two_scores"].null_count == 0
    (result,) = spec_store.status("images", db=db).results
    assert (result.run_id, result.other_stores) == (run.run_id, (columns[1],))


@pytest.mark.parametrize("refit", [False, True])
def test_a_state_of_a_share_is_drawn_again_where_anything_changed(tmp_path, refit, monkeypatch):
    monkeypatch.setattr("spec_store.workflows.portion._BLOCK_ROWS", (20, 20))
    db = str(tmp_path)
    lance.write_dataset(rows(0, 1400), f"{db}/images.lance", enable_stable_row_ids=True)
    run = compare(db, fit_rows=1000)
    (updated,) = spec_store.update("images", db=db)
    assert (updated.state, updated.n_rows) == ("current", run.n_rows)
    add(db, rows(1400, 1500))
    table(db).delete("id < 30")
    (updated,) = spec_store.update("images", refit=refit, db=db)
    assert (updated.state, updated.n_added) == ("drawn again", None)
    assert 950 <= updated.n_rows <= 1050
    assert updated.n_written == (1470 if refit else 100)
    record = spec_store.clusters("images", db=db).run
    assert record.fit["n_scored"] == (1470 if refit else 1400)
    assert spec_store.status("images", db=db).up_to_date
