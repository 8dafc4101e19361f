"""More questions to a recorded run: no vector is read, and the answers are those of a new comparison."""

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest

import spec_store
from planted import planted_mixture, vectors
from spec_store.errors import InputError
from spec_store.plugins import get_connector
from spec_store.runs.registry import Registry
from spec_store.stores.locate import location_of

SMALL = {"dim": 60, "sample_rows": 700}


@pytest.fixture
def db(tmp_path):
    a, b, groups = planted_mixture(700, n_groups=8, merged=2, d=24, seed=5)
    table = {"id": np.arange(700), "clip": vectors(a), "dino": vectors(b), "label": [f"g{g}" for g in groups]}
    lancedb.connect(tmp_path).create_table("images", pa.table(table))
    return str(tmp_path)


@pytest.fixture
def columns_read(monkeypatch):
    """Names of the columns that are read of LanceDB tables from here on."""
    source = type(get_connector("lancedb")).__module__.rpartition(".")[0]
    module = __import__(f"{source}.source", fromlist=["LanceDBSource"])
    read = set()
    kinds = [c for c in vars(module).values() if isinstance(c, type) and hasattr(c, "batches")]
    (kind,) = [c for c in kinds if c.__module__ == module.__name__]
    for name in ("batches", "take"):
        original = getattr(kind, name)

        def spied(self, *arguments, original=original, **named):
            for argument in (*arguments, *named.values()):
                if isinstance(argument, (list, tuple)):
                    read.update(argument)
            return original(self, *arguments, **named)

        monkeypatch.setattr(kind, name, spied)
    return read


def test_the_answer_is_that_of_a_new_comparison_and_no_vector_is_read(db, columns_read):
    run = spec_store.compare("images", ["clip", "dino"], db=db, write=True, **SMALL)
    assert {"clip", "dino"} <= columns_read
    columns_read.clear()
    again = spec_store.compare_again(run.run_id, db=db, eta=2.0, center=False, modes=10)
    assert not columns_read & {"clip", "dino"}
    anew = spec_store.compare("images", ["clip", "dino"], db=db, eta=2.0, center=False, modes=10, **SMALL)
    for column in ("clip", "dino"):
        np.testing.assert_allclose(again.eigenvalues[column], anew.eigenvalues[column], atol=1e-9)
    assert again.record.map_error == pytest.approx(anew.record.map_error, rel=1e-3)
    assert [c.capture for c in again.record.clusters] == [c.capture for c in anew.record.clusters]
    assert again.record.state_run == run.run_id
    assert not again.written


def test_numbers_are_kept_and_results_written_where_the_run_wrote_them(db):
    run = spec_store.compare("images", ["clip", "dino"], db=db, write=True, key="id", **SMALL)
    again = spec_store.compare_again(run.run_id, db=db, write=True, objective="koda", epsilon="30%")
    kept = set(again.record.changes["kept"])
    assert len(kept) >= 4
    before = {c.cluster: c for c in run.record.clusters}
    for c in again.record.clusters:
        inside = spec_store.query("images", c.where, db=db).read_all()
        assert len(inside) == c.size
        if c.cluster in kept:
            assert c.over_represented[0]["value"] == before[c.cluster].over_represented[0]["value"]
    assert spec_store.clusters("images", db=db).run.run_id == again.run_id
    third = spec_store.compare_again(again.run_id, db=db)  # of a run that keeps no state of its own
    assert third.record.state_run == run.run_id
    assert third.record.options["objective"] == "koda"


def test_kodas_directions_are_seen_less_by_the_other_embedding_and_energies_are_recorded(db):
    run = spec_store.compare("images", ["clip", "dino"], db=db, write=True, **SMALL)
    koda = spec_store.compare_again(run.run_id, db=db, objective="koda", epsilon=0.001)
    for end, column in enumerate(("clip", "dino")):
        energies = np.array(koda.record.mode_energies[column])
        assert (energies[:, 1 - end] <= 0.001 + 1e-6).all()
        spec = np.array(run.record.mode_energies[column])[0]
        assert energies[0, end] / energies[0, 1 - end] > spec[end] / spec[1 - end]


def test_a_run_that_described_nothing_answers_too_and_its_numbers_are_kept(db):
    run = spec_store.compare("images", ["clip", "dino"], db=db, write=True, describe=False, **SMALL)
    again = spec_store.compare_again(run.run_id, db=db, eta=1.1)
    assert len(again.record.changes["kept"]) >= 4
    assert all(c.name is None for c in again.score().record.clusters)


def test_rows_that_came_since_are_scored_and_told_of(db):
    run = spec_store.compare("images", ["clip", "dino"], db=db, write=True, **SMALL)
    table = lancedb.connect(db).open_table("images")
    table.add(table.to_arrow().slice(0, 50).select(["id", "clip", "dino", "label"]))
    again = spec_store.compare_again(run.run_id, db=db, write=True, prefix="later")
    assert any("is of 700 rows, and there are 750 now" in w for w in again.warnings)
    scores = lance.dataset(f"{db}/images.lance").to_table()["later_scores"]
    assert scores.null_count == 0
    assert again.n_rows == 700


def test_without_a_kept_sample_the_sampled_rows_are_read_again(db):
    run = spec_store.compare("images", ["clip", "dino"], db=db, write=True, keep_sample=False, **SMALL)
    assert Registry(location_of(db)).artifact(run.run_id, "sample") is None
    again = spec_store.compare_again(run.run_id, db=db)
    assert len(again.sample) == 700
    assert len(again.clusters_found) >= 4


def test_a_large_sample_is_kept_in_half_precision_and_answers_alike(db, monkeypatch):
    monkeypatch.setattr("spec_store.workflows.sampling._LARGEST_SINGLE", 0)
    run = spec_store.compare("images", ["clip", "dino"], db=db, write=True, **SMALL)
    again = spec_store.compare_again(run.run_id, db=db, prefix="other")
    assert again.sample.rows[0].dtype == np.float16
    assert [c.capture for c in again.record.clusters] == [c.capture for c in run.record.clusters]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": "cosine"}, "kernel is part of the state of run .* made with 'gaussian'"),
        ({"where": "id < 10"}, "where is part of the state"),
        ({"epsilon": "lots"}, "epsilon is 'lots'"),
        ({"pair": ("clip", "clip")}, "is no pair of columns"),
        ({"pair": ("clip", "other")}, "holds no embedding 'other'"),
    ],
)
def test_what_the_state_can_not_answer_is_refused(db, changes, message):
    run = spec_store.compare("images", ["clip", "dino"], db=db, write=True, describe=False, **SMALL)
    with pytest.raises(InputError, match=message):
        spec_store.compare_again(run.run_id, db=db, **changes)


def test_runs_that_are_not_there_or_no_comparisons_are_refused(db):
    with pytest.raises(InputError, match="No run 'x' is recorded"):
        spec_store.compare_again("x", db=db)
    aligned = spec_store.align("images", "clip", "dino", db=db, write=True, force=True)
    with pytest.raises(InputError, match="is an alignment; expected a comparison"):
        spec_store.compare_again(aligned.run_id, db=db)
    with pytest.raises(InputError, match="keeps no state"):
        spec_store.compare("images", ["clip", "dino"], db=db, maps_from=aligned.run_id)


def test_what_is_new_between_two_runs_is_found_and_named(db):
    first = "label != 'g3' and id < 500"
    new = spec_store.compare("images", ["clip", "dino"], db=db, write=True, prefix="new", key="id", **SMALL)
    old = spec_store.compare(
        "images",
        ["clip", "dino"],
        db=db,
        write=True,
        prefix="old",
        key="id",
        where=first,
        maps_from=new.run_id,
        **SMALL,
    )
    found = spec_store.compare_times(old.run_id, new.run_id, "clip", db=db)
    assert [(g.kind, g.name) for g in found.groups] == [("more", "g3")]
    labels = spec_store.query(
        "images", f"id in ({', '.join(found.groups[0].typical)})", select=["label"], db=db
    ).read_all()
    assert set(labels["label"].to_pylist()) == {"g3"}
    assert found.groups[0].share_old == 0
    back = spec_store.compare_times(new.run_id, old.run_id, "clip", db=db)
    assert [g.kind for g in back.groups] == ["fewer"]
    assert spec_store.compare_times(new.run_id, new.run_id, "dino", db=db).groups == ()


def test_no_group_is_listed_where_the_map_sees_one_time_much_better(db):
    late = "label = 'g3' or label = 'g5'"
    old = spec_store.compare(
        "images", ["clip", "dino"], db=db, write=True, prefix="old", where=f"not ({late})", **SMALL
    )
    new = spec_store.compare(
        "images", ["clip", "dino"], db=db, write=True, prefix="new", where=late, maps_from=old.run_id, **SMALL
    )
    found = spec_store.compare_times(old.run_id, new.run_id, "clip", db=db)
    assert found.coverage[1] < 0.9 * found.coverage[0]
    assert found.groups == ()
    assert "No group is listed" in found.warnings[0]


def test_states_of_different_maps_are_not_compared(db):
    runs = [
        spec_store.compare("images", ["clip", "dino"], db=db, write=True, prefix=p, where=w, **SMALL)
        for p, w in (("one", "id < 400"), ("two", "id >= 400"))
    ]
    with pytest.raises(InputError, match=f"--maps-from {runs[0].run_id}"):
        spec_store.compare_times(runs[0].run_id, runs[1].run_id, "clip", db=db)
    with pytest.raises(InputError, match="has no embedding 'siglip'; it compared clip, dino"):
        spec_store.compare_times(runs[0].run_id, runs[1].run_id, "siglip", db=db)
