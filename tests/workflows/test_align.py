"""Alignment on real tables: what is judged on which rows, what is written, what is refused before writing."""

import dataclasses
import json

import faiss
import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest

import spec_store
from lance_tables import make_table
from planted import hidden_clusters, rotated_clipped_noisy, vectors
from spec_store.errors import (
    ColumnClashError,
    ColumnNotFoundError,
    FilterError,
    InputError,
    InvalidVectorsError,
    NotBetterError,
    UnsupportedError,
)
from spec_store.keys import hash_keys

QUICK = {"steps": 40, "minibatch_rows": 512, "learning_rate": 3e-3, "key": "id"}
N = 3000
ROUNDING = 3e-5  # of float32 over a thousand landmarks, in another order
BAD_ROWS = [5, 20, 40]  # kept aside, trained on, held out


def pair_table(n=N, seed=0, dtypes=(np.float32, np.float32)):
    a, b = rotated_clipped_noisy(n, widths=(16, 12), n_groups=10, seed=seed)
    return pa.table(
        {
            "id": np.arange(n),
            "clip": vectors(3 * a, dtypes[0]),
            "dino": vectors(b, dtypes[1]),
            "label": [f"l{i % 3}" for i in range(n)],
        }
    )


@pytest.fixture
def db(tmp_path):
    table = pair_table()
    make_table(tmp_path, table.slice(0, 1300), table.slice(1300))
    return str(tmp_path)


def column(db, name, where=None):
    """A vector column by id, read without spec-store; None where it is null."""
    rows = lance.dataset(f"{db}/images.lance").to_table(columns=["id", name], filter=where).sort_by("id")
    return [None if v is None else np.array(v) for v in rows[name].to_pylist()]


def snapshot(db):
    dataset = lance.dataset(f"{db}/images.lance")
    return dataset.version, dataset.schema, sorted(lancedb.connect(db).list_tables().tables)


def align(db, **options):
    return spec_store.align("images", "clip", "dino", db=db, **{**QUICK, **options})


def test_the_column_is_the_map_of_the_source_row_by_row(db):
    run = align(db, write=True)
    assert run.column == "clip_as_dino"
    clip, written = np.stack(column(db, "clip")), np.stack(column(db, "clip_as_dino"))
    assert written.dtype == np.float64  # Arrow's lists; the column itself is:
    assert lance.dataset(f"{db}/images.lance").schema.field("clip_as_dino").type == pa.list_(pa.float32(), 12)
    assert np.allclose(written, run.map.transform(clip), atol=ROUNDING)
    assert np.allclose(np.linalg.norm(written, axis=1), 1, atol=1e-5)
    assert np.stack(column(db, "dino")).shape == (N, 12)


def test_it_is_nearer_to_the_target_than_the_source_and_than_ridge(db):
    run = align(db)
    names = [j.name for j in run.evaluations]
    shares = [f"kernel, variance {share}%" for share in (0, 50, 100)]
    assert names == ["none", "kernel", *shares, "ridge", "procrustes"]
    assert run.after.name.startswith("kernel")
    by_name = {j.name: j for j in run.evaluations}
    assert run.after.spec_diff < 0.5 * run.before.spec_diff
    assert run.after.spec_diff < by_name["ridge"].spec_diff
    assert run.after.recall_1 > 0.9
    assert run.after.cosine_target > 0.8
    assert np.isnan(run.before.recall_1)
    assert run.better


def test_judgements_are_those_of_the_held_out_rows_computed_naively(db):
    run = align(db, held_out=0.2, seed=3)
    ids = pa.array(np.arange(N))
    held = hash_keys(ids, 271_828 + 3) / 2.0**64 < 0.2
    assert run.record.counts["n_held_out"] == run.record.counts["n_judged"] == held.sum()
    a, b = (np.stack(column(db, c))[held] for c in ("clip", "dino"))
    b = b / np.linalg.norm(b, axis=1, keepdims=True)
    f = run.map.transform(a)
    difference = (f @ f.T - b @ b.T) / held.sum()
    values = np.linalg.eigvalsh(difference)
    assert run.after.spec_diff == pytest.approx(np.abs(values).max(), rel=1e-4)
    assert run.after.distance == pytest.approx(np.linalg.norm(difference), rel=1e-4)
    assert np.allclose(run.after.eigenvalues[1][:3], values[:3], rtol=1e-3)
    first = np.argmax(f @ b.T, axis=1) == np.arange(len(f))
    assert run.after.recall_1 == pytest.approx(first.mean(), abs=2 / len(f))
    assert run.after.cosine_target == pytest.approx((f * b).sum(1).mean(), rel=1e-4)


def test_what_is_held_out_does_not_change_the_map(db, tmp_path_factory):
    """Other vectors in rows that are held out: the map is the same to the last bit."""
    table = pair_table()
    held = hash_keys(pa.array(np.arange(N)), 271_828) / 2.0**64 < 0.1
    rng = np.random.default_rng(1)
    for name, width in (("clip", 16), ("dino", 12)):
        rows = np.stack(table[name].to_numpy()).astype(np.float32)
        rows[held] = rng.standard_normal((held.sum(), width))
        table = table.set_column(table.schema.get_field_index(name), name, vectors(rows))
    other = tmp_path_factory.mktemp("other")
    make_table(other, table.slice(0, 1300), table.slice(1300))
    one, two = align(db), align(str(other))
    assert one.before.spec_diff != two.before.spec_diff
    assert np.array_equal(one.map.weights, two.map.weights)


def test_the_same_seed_gives_the_same_map_whatever_the_fragments(db, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    make_table(other, pair_table())
    one, two = align(db), align(str(other))
    clip = np.stack(column(db, "clip"))
    assert np.allclose(one.map.transform(clip), two.map.transform(clip), atol=1e-3)
    assert not np.allclose(one.map.transform(clip), align(db, seed=1).map.transform(clip), atol=1e-3)


def test_a_map_is_fitted_on_so_many_rows_at_most_and_judged_on_the_same(db):
    whole, part = align(db), align(db, fit_rows=600)
    assert whole.record.counts["n_fitted"] == whole.record.counts["n_train"] > 2000
    assert 500 < part.record.counts["n_fitted"] < 700
    assert part.record.counts["n_train"] == whole.record.counts["n_train"]
    assert part.before.search_10 == whole.before.search_10
    assert part.record.n_rows == whole.record.n_rows == N
    assert whole.map.landmarks.shape == (16, 1000)
    assert align(db, n_landmarks=50).map.landmarks.shape == (16, 50)


def test_the_polish_brings_the_kernels_nearer_and_the_cross_term_takes_part_in_it(db):
    few = {"n_landmarks": 10}  # so that the regression leaves something
    run, without, none = align(db, **few), align(db, cross=0.0, **few), align(db, steps=0, **few)
    by_name = {j.name: j for j in run.evaluations}
    assert by_name["kernel"].distance < 0.99 * by_name["kernel, variance 100%"].distance
    assert by_name["kernel"].distance != without.evaluations[1].distance
    assert by_name["kernel, variance 100%"].distance == without.evaluations[4].distance
    start, end = none.evaluations[1], none.evaluations[4]
    assert start.distance == pytest.approx(end.distance, rel=1e-3)  # no steps: the start, rounded to float32


def test_a_given_penalty_is_taken_and_a_huge_one_leaves_a_rotation(db):
    free, fixed = align(db), align(db, ridge=1e6)
    by_name = {j.name: j for j in fixed.evaluations}
    assert by_name["ridge"].recall_10 < 0.1  # towards zero: hardly anything but the mean is left
    assert by_name["kernel, variance 0%"].recall_10 > 0.3  # around a rotation: the rotation
    assert free.after.search_10 > fixed.after.search_10 + 0.05


def test_a_shrunken_map_is_shown_and_never_written(db, monkeypatch):
    """Even if searches on the validation rows can't tell: it is the first of the curve for the target."""
    from spec_store.workflows import fitting

    offered = []

    def first_of_the_curve(candidates):
        offered.extend(c.name for c in candidates)
        return 0

    monkeypatch.setattr(fitting, "best_candidate", first_of_the_curve)
    run = align(db)
    assert "kernel, variance 0%" in [j.name for j in run.evaluations]
    assert offered == ["kernel", "kernel, variance 50%", "kernel, variance 100%"]
    assert run.after.name == "kernel"


def test_in_place_stays_near_the_source(db):
    run = align(db, in_place=True, write=True, steps=150)
    assert run.written == ["clip_aligned"]
    assert run.after.cosine_source > 0.9
    assert run.after.spec_diff < 0.6 * run.before.spec_diff
    assert np.isnan(run.after.recall_1)
    assert [j.name for j in run.evaluations] == ["none", "affine", "residual"]
    clip, written = np.stack(column(db, "clip")), np.stack(column(db, "clip_aligned"))
    cosine = (clip * written).sum(1) / np.linalg.norm(clip, axis=1)
    assert cosine.mean() > 0.9


def test_more_fidelity_means_nearer_to_the_source(db):
    run = align(db, in_place=True, kind="affine", fidelity=(0.0, 0.1, 10.0), steps=150)
    fits = run.evaluations[1:]
    assert run.to_json()["chosen"] is None  # which is best is for a person to say
    assert [j.name for j in fits] == ["affine, fidelity 0", "affine, fidelity 0.1", "affine, fidelity 10"]
    cosines = [j.cosine_source for j in fits]
    assert cosines == sorted(cosines)
    assert fits[2].cosine_source > 0.98
    assert fits[0].spec_diff < fits[2].spec_diff
    with pytest.raises(InputError, match="Several fidelities are for looking at"):
        align(db, in_place=True, fidelity=(0.0, 0.1), write=True)


@pytest.mark.parametrize("kernel", ["cosine", "gaussian"])
@pytest.mark.parametrize("kind", ["lowrank", "residual"])
def test_other_kinds_and_kernels(db, kind, kernel):
    run = align(db, kind=kind, kernel=kernel, n_frequencies=32, rank=4, minibatch_rows=256)
    assert run.after.name == kind
    assert run.after.spec_diff < 0.6 * run.before.spec_diff
    assert run.map.frequencies.shape == (16, 32 if kind == "residual" else 0)


def test_of_several_kinds_the_one_that_does_best_on_rows_kept_aside_is_chosen(db):
    run = align(db, kind=("lowrank", "affine", "residual"), rank=1, n_frequencies=64)
    assert [j.name for j in run.evaluations[1:4]] == ["lowrank", "affine", "residual"]
    assert run.chosen in (2, 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_the_column_has_the_sources_float_type(tmp_path, dtype):
    make_table(tmp_path, pair_table(dtypes=(dtype, np.float32)))
    run = align(str(tmp_path), write=True)
    kind = lance.dataset(tmp_path / "images.lance").schema.field("clip_as_dino").type
    assert kind == pa.list_(pa.from_numpy_dtype(dtype), 12)
    clip, written = (np.stack(column(tmp_path, c)) for c in ("clip", "clip_as_dino"))
    assert np.allclose(written, run.map.transform(clip), atol=2e-3)


def test_raw_output_on_request(db):
    run = align(db, unit=False, write=True)
    lengths = np.linalg.norm(np.stack(column(db, "clip_as_dino")), axis=1)
    assert lengths.std() > 0.01
    assert run.map.unit is False


def test_provenance_and_registry_name_the_run(db):
    run = align(db, write=True)
    metadata = lance.dataset(f"{db}/images.lance").schema.field("clip_as_dino").metadata
    assert metadata[b"spec_store.run"].decode() == run.run_id
    assert json.loads(metadata[b"spec_store.columns"]) == ["clip", "dino"]
    assert json.loads(metadata[b"spec_store.options"])["held_out"] == 0.1
    (row,) = spec_store.list_runs(db=db).to_pylist()
    assert (row["kind"], row["run_id"], row["written"]) == ("align", run.run_id, ["clip_as_dino"])
    assert row["spec_diff"] == run.after.spec_diff
    assert (row["n_rows"], row["n_skipped"]) == (N, 0)
    assert json.loads(row["details"])["maps"][0]["name"] == "none"


def test_an_exported_map_transforms_queries_as_the_column_was_made(db, tmp_path):
    run = align(db, write=True)
    run.export(tmp_path / "map.npz")
    clip, written = np.stack(column(db, "clip")), np.stack(column(db, "clip_as_dino"))
    loaded = spec_store.load_map(tmp_path / "map.npz")
    assert np.abs(loaded.transform(clip) - written).max() < ROUNDING
    assert loaded.about["columns"] == ["clip", "dino"]
    assert sorted(p.name for p in tmp_path.iterdir() if "map" in p.name) == ["map.npz"]
    with pytest.raises(InputError, match="can't be written: there is no folder"):
        run.export(tmp_path / "absent" / "map.npz")


def test_a_given_map_is_judged_on_the_rows_its_own_fit_held_out(db, tmp_path):
    run = align(db, held_out=0.3, seed=7)
    run.export(tmp_path / "map.npz")
    again = spec_store.align("images", "clip", "dino", db=db, map=tmp_path / "map.npz", write=True)
    assert [j.name for j in again.evaluations] == ["none", "given"]
    assert again.record.counts == run.record.counts
    assert again.after.spec_diff == pytest.approx(run.after.spec_diff, rel=1e-5)
    assert "fit" not in again.record.seconds
    clip, written = np.stack(column(db, "clip")), np.stack(column(db, "clip_as_dino"))
    assert np.allclose(written, run.map.transform(clip), atol=ROUNDING)
    with pytest.raises(InputError, match="The map takes 16 dimensions to 12; 'dino' has 12, and 'clip' 16"):
        spec_store.align("images", "dino", "clip", db=db, map=run.map)


def test_a_map_that_makes_it_worse_is_not_written_unless_forced(db, tmp_path):
    before = snapshot(db)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((16, 12)).astype(np.float32)
    noise[:, 0] += 5  # all rows nearly alike
    bad = spec_store.AlignmentMap(noise, np.full(12, 9, np.float32), np.zeros((16, 0), np.float32))
    with pytest.raises(NotBetterError, match="Not written: on the test rows 'clip_as_dino' has SPEC-diff"):
        spec_store.align("images", "clip", "dino", db=db, key="id", map=bad, write=True)
    assert snapshot(db) == before
    run = spec_store.align("images", "clip", "dino", db=db, key="id", map=bad, write=True, force=True)
    assert not run.better
    clip, written = np.stack(column(db, "clip")), np.stack(column(db, "clip_as_dino"))
    assert np.allclose(written, bad.transform(clip), atol=1e-6)


@pytest.mark.parametrize(
    ("spec_diff", "distance", "better"),
    [
        (0.9, 0.9, True),
        (1.02, 0.9, True),
        (0.9, 1.02, True),
        (1.1, 0.5, False),
        (0.5, 1.1, False),
        (1, 1, False),
    ],
)
def test_better_means_one_of_two_figures_smaller_and_none_much_larger(db, spec_diff, distance, better):
    before = align(db).before
    after = dataclasses.replace(
        before, spec_diff=spec_diff * before.spec_diff, distance=distance * before.distance
    )
    assert after.better_than(before) == better


def test_a_rerun_replaces_the_column_and_undo_removes_it(db):
    align(db, write=True)
    one = np.stack(column(db, "clip_as_dino"))
    run = align(db, write=True, seed=1)
    two = np.stack(column(db, "clip_as_dino"))
    assert not np.allclose(one, two)
    assert np.allclose(two, run.map.transform(np.stack(column(db, "clip"))), atol=ROUNDING)
    assert spec_store.undo("images", prefix="clip_as_dino", db=db) == ["clip_as_dino"]
    assert lance.dataset(f"{db}/images.lance").schema.names == ["id", "clip", "dino", "label"]


def test_only_the_rows_that_match_are_fitted_and_written(db):
    run = align(db, where="label = 'l1'", write=True)
    assert run.record.counts["n_train"] + run.record.counts["n_held_out"] < 1000
    values = column(db, "clip_as_dino")
    assert all((v is None) == (i % 3 != 1) for i, v in enumerate(values))


def test_a_second_vector_column_of_one_width_is_warned_of_with_the_remedy(db):
    run = align(db)
    (warning,) = [w for w in run.warnings if "table.search(q)" in w]
    assert "'clip_as_dino' has 12 dimensions, like 'dino'" in warning
    assert "vector_column_name='dino'" in warning
    align(db, write=True)
    found = lancedb.connect(db).open_table("images")
    query = np.ones(12, np.float32)
    assert len(found.search(query, vector_column_name="dino").limit(3).to_list()) == 3


def test_searches_that_a_second_vector_column_breaks_are_named_by_columns_that_the_table_has(tmp_path):
    rows = pair_table(400, seed=0)
    make_table(tmp_path, rows.select(["id", "clip"]))
    make_table(tmp_path, rows.select(["id", "dino"]), name="others")
    target = f"dino=lancedb:{tmp_path}#others/dino"
    run = spec_store.align("images", "clip", target, db=tmp_path, write=True, force=True, **QUICK)
    assert not any("table.search(q)" in w for w in run.warnings)  # its one other vector column is wider
    (warning,) = [w for w in run.warnings if "table.search('words')" in w]
    assert "vector_column_name='clip'" in warning
    table = lancedb.connect(tmp_path).open_table("images")
    with pytest.raises(ValueError, match="more than one vector column"):
        table.search("words")
    again = spec_store.align("images", "clip", target, db=tmp_path, force=True, **QUICK)
    assert [w for w in again.warnings if "search" in w] == [warning]


def test_a_cluster_is_judged_by_its_own_rows(db):
    spec_store.compare("images", ["clip", "dino"], db=db, key="id", write=True, dim=60, sample_rows=1500)
    ids = pa.array(np.arange(N))
    held = hash_keys(ids, 271_828) / 2.0**64 < 0.3
    lists = lance.dataset(f"{db}/images.lance").to_table(columns=["id", "spec_clip_dino_clusters"])
    lists = lists.sort_by("id")["spec_clip_dino_clusters"].to_pylist()
    a, b = (np.stack(column(db, c))[held] for c in ("clip", "dino"))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    to_target, in_place = align(db, held_out=0.3), align(db, held_out=0.3, in_place=True)
    f, g = to_target.map.transform(a), in_place.map.transform(a)
    similarity = f @ b.T
    rank = (similarity > np.diag(similarity)[:, None]).sum(axis=1)
    assert to_target.after.clusters
    for one, two in zip(to_target.after.clusters, in_place.after.clusters, strict=True):
        rows = np.array([one.cluster in row for row in lists])[held]
        assert one.n_rows == two.n_rows == rows.sum()
        assert one.recall_1 == pytest.approx((rank[rows] < 1).mean(), abs=2 / rows.sum())
        assert one.cosine_target == pytest.approx((f * b).sum(axis=1)[rows].mean(), rel=1e-4)
        assert two.cosine_source == pytest.approx((g * a).sum(axis=1)[rows].mean(), rel=1e-4)
        assert np.isnan([one.cosine_source, two.cosine_target, two.recall_1, two.recall_10]).all()
        wanted, found = b @ b.T, b @ f.T
        near = [np.argsort(-np.where(np.eye(len(b)) > 0, -9, s), axis=1)[:, :10] for s in (wanted, found)]
        overlap = np.array(
            [len(set(x) & set(y)) / 10 for x, y in zip(*map(np.ndarray.tolist, near), strict=True)]
        )
        assert one.search_10 == pytest.approx(overlap[rows].mean(), abs=0.2 / rows.sum())
        assert 0 < two.search_10 <= 1


def test_clusters_of_a_comparison_are_judged_one_by_one(db):
    assert any("run spec-store compare first" in w for w in align(db).warnings)
    compared = spec_store.compare(
        "images", ["clip", "dino"], db=db, key="id", write=True, dim=60, sample_rows=1500
    )
    run = align(db, held_out=0.3)
    assert [c.cluster for c in run.after.clusters] == sorted(c.number for c in compared.clusters_found)
    assert not any("compare first" in w for w in run.warnings)
    for c in run.after.clusters:
        assert 0 <= c.n_rows <= run.record.counts["n_judged"]
        assert np.isnan(c.recovered) or c.capture[1] > c.capture[0] + 0.1
        assert c.of_target == (compared.record.clusters[c.cluster - 1].side == "dino")
    if any(c.of_target for c in run.after.clusters):
        assert 0 <= run.after.mismatch_mass <= run.before.mismatch_mass


def hidden_db(folder):
    """Two clusters in dino of which clip knows nothing."""
    a, b = rotated_clipped_noisy(6000, widths=(32, 24), n_groups=10)
    b, truth = hidden_clusters(b, n_rows=400, n_clusters=2, shift=2.5)
    table = pa.table({"id": np.arange(6000), "clip": vectors(a), "dino": vectors(b), "truth": truth})
    make_table(folder, table)
    options = {"db": str(folder), "key": "id"}
    compared = spec_store.compare("images", ["clip", "dino"], write=True, dim=100, **options)
    return str(folder), truth, compared


def test_what_the_source_cannot_see_is_told_as_lost_and_the_gate_names_those_rows(tmp_path):
    db, truth, _ = hidden_db(tmp_path)
    run = align(db, write=True, held_out=0.3, steps=100)
    lost = [c for c in run.after.clusters if c.lost]
    assert lost
    for c in lost:
        assert c.capture[2] < 0.3 < 0.8 < c.capture[1]  # however good the map is on average
        assert c.recall_10 < 0.2
        where = f"array_has(spec_clip_dino_clusters, {c.cluster})"
        members = spec_store.query("images", where, select=["truth"], db=db).read_all()["truth"].to_numpy()
        assert (members >= 0).mean() > 0.95
    assert run.after.recall_10 > 0.7
    assert [c["lost"] for c in run.after.to_json()["clusters"]] == [c.lost for c in run.after.clusters]

    found = spec_store.gate("images", "clip", "dino", db=db, fail_under=0.4)
    failing = {s.name for s in found.slices if s.verdict in ("re-embed", "in part")}
    assert {f"cluster {c.cluster} (grouped by dino)" for c in lost} <= failing
    told = spec_store.query("images", found.re_embed, select=["id"], db=db).read_all()["id"].to_numpy()
    wanted = np.flatnonzero(truth >= 0)
    assert found.n_re_embed == len(told)
    assert len(np.intersect1d(told, wanted)) > 0.97 * max(len(told), len(wanted))
    assert {s.name for s in found.failed} == failing


@pytest.mark.parametrize("bad", ["null", "nan", "zero", "null target"])
def test_rows_without_a_usable_vector(tmp_path, bad):
    table = pair_table()
    name = "dino" if bad == "null target" else "clip"
    values = table[name].to_pylist()
    for row in BAD_ROWS:
        values[row] = {"nan": [float("nan")] * len(values[row]), "zero": [0.0] * len(values[row])}.get(bad)
    kind = table.schema.field(name).type
    table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, kind))
    lance.write_dataset(table, tmp_path / "images.lance")
    before = snapshot(str(tmp_path))
    with pytest.raises(
        InvalidVectorsError,
        match=r"3 rows of table 'images'.* can't be aligned: .*: 3 \w+.* \(first: row 5\).*--skip-invalid",
    ):
        align(str(tmp_path), write=True)
    assert snapshot(str(tmp_path)) == before
    run = align(str(tmp_path), write=True, skip_invalid=True)
    assert run.record.n_skipped == 3
    values = column(str(tmp_path), "clip_as_dino")
    empty = [i for i, v in enumerate(values) if v is None]
    assert empty == (
        [] if bad == "null target" else BAD_ROWS
    )  # without a target, there is a source all the same


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"source": "clop"}, ColumnNotFoundError, "Did you mean 'clip'"),
        ({"target": "label"}, InputError, "label"),
        ({"target": "clip"}, InputError, "can't be aligned to itself"),
        ({"where": "nonsense ="}, FilterError, "can't be used"),
        ({"where": "label = 'x'"}, FilterError, "No row of"),
        ({"where": "id < 30"}, InputError, "gives 6 rows for validation; at least 12 are needed"),
        ({"column": "dino"}, ColumnClashError, "already has dino"),
        ({"beta": -1}, InputError, "beta is -1"),
        ({"betta": 1}, InputError, "Did you mean 'beta'"),
        ({"map": "absent.npz"}, InputError, "No map file"),
    ],
)
def test_what_can_be_refused_is_refused_before_any_write(db, arguments, error, message):
    before = snapshot(db)
    given = {"source": "clip", "target": "dino", **QUICK, **arguments}
    with pytest.raises(error, match=message):
        spec_store.align("images", given.pop("source"), given.pop("target"), db=db, write=True, **given)
    assert snapshot(db) == before


@pytest.mark.parametrize("n", [0, 1, 20])
def test_tables_too_small_to_hold_anything_out(tmp_path, n):
    make_table(tmp_path, pair_table(60).slice(0, n))
    with pytest.raises(InputError, match=r"at least 12 are needed|is empty"):
        align(str(tmp_path), write=True)


def test_a_target_in_a_faiss_index(db, tmp_path):
    ids = np.random.default_rng(0).permutation(N)
    dino = np.stack(column(db, "dino")).astype(np.float32)
    index = faiss.IndexIDMap(faiss.IndexFlatL2(12))
    index.add_with_ids(dino[ids], ids.astype(np.int64))
    path = tmp_path / "dino.index"
    faiss.write_index(index, str(path))
    joined = spec_store.align("images", "clip", f"other=faiss:{path}", db=db, write=True, **QUICK)
    assert joined.written == ["clip_as_other"]
    plain = align(db)
    assert joined.after.spec_diff == pytest.approx(plain.after.spec_diff, rel=1e-2)
    assert len([v for v in column(db, "clip_as_other") if v is not None]) == N
    with pytest.raises(InputError, match=r"one of them must be a column of table 'images'"):
        spec_store.align(
            "images", f"a=faiss:{path}", f"b=faiss:{path}", db=db, write=True, **{**QUICK, "key": None}
        )


def test_rows_that_the_target_lacks_are_aligned_all_the_same(db, tmp_path):
    """The new model has seen two thirds of the rows: the map serves the others."""
    keep = np.arange(2000)
    dino = np.stack(column(db, "dino")).astype(np.float32)[keep]
    index = faiss.IndexIDMap(faiss.IndexFlatL2(12))
    index.add_with_ids(dino, keep)
    faiss.write_index(index, str(tmp_path / "dino.index"))
    run = spec_store.align(
        "images", "clip", f"new=faiss:{tmp_path}/dino.index", db=db, write=True, on_missing="drop", **QUICK
    )
    assert run.record.counts["n_train"] + run.record.counts["n_held_out"] < 2000
    assert all(v is not None for v in column(db, "clip_as_new"))


def test_a_vector_index_tells_its_recall(db):
    run = align(db, write=True)
    run = run.create_index()
    recall = run.record.index_recall
    assert 0.8 < recall <= 1
    assert run.to_json()["index_recall"] == recall
    indexed = lance.dataset(f"{db}/images.lance").describe_indices()
    assert [i.field_names for i in indexed] == [["clip_as_dino"]]
    other = spec_store.compare({"id": [1, 2, 3], "a": np.eye(3), "b": np.eye(3)[::-1]}, ["a", "b"], modes=1)
    with pytest.raises(UnsupportedError, match="has no vector indices"):
        other.source.create_vector_index("a", np.eye(3, dtype=np.float32))


def test_update_fills_rows_that_came_later_with_the_recorded_map(db):
    run = align(db, write=True)
    extra = pair_table(200, seed=0)
    extra = extra.set_column(0, "id", pa.array(np.arange(N, N + 200)))
    table = lancedb.connect(db).open_table("images")
    table.add(extra)
    table.update(where="id = 7", values={"clip": [float(i) for i in range(16)]})
    assert sum(v is None for v in column(db, "clip_as_dino")) == 200

    (updated,) = spec_store.update("images", db=db)
    assert (updated.column, updated.n_filled, updated.n_missing) == ("clip_as_dino", 200, 0)
    assert (updated.n_rows, updated.run_id) == (N + 200, run.run_id)
    clip, written = np.stack(column(db, "clip")), np.stack(column(db, "clip_as_dino"))
    assert np.allclose(written, run.map.transform(clip), atol=ROUNDING)  # row 7, which had changed, too
    metadata = lance.dataset(f"{db}/images.lance").schema.field("clip_as_dino").metadata
    assert metadata[b"spec_store.run"].decode() == run.run_id


def test_update_keeps_to_the_filter_of_its_run_and_skips_columns_that_were_undone(db):
    align(db, where="label = 'l1'", write=True)
    align(db, write=True, in_place=True)
    spec_store.undo("images", prefix="clip_aligned", db=db)
    (updated,) = spec_store.update("images", db=db)
    assert (updated.column, updated.n_filled, updated.n_missing) == ("clip_as_dino", 0, 2000)


def test_update_without_an_alignment_says_what_to_do(db):
    with pytest.raises(InputError, match=r"no results.*spec-store compare or spec-store align first"):
        spec_store.update("images", db=db)


def test_update_renews_a_column_whose_name_begins_with_a_digit(tmp_path):
    rows = pair_table(1200).rename_columns(["id", "1a", " 2b ", "label"])
    table = make_table(tmp_path, rows.slice(0, 1000))
    run = spec_store.align("images", "1a", " 2b ", db=str(tmp_path), write=True, force=True, **QUICK)
    assert run.column == "1a_as__2b_"
    table.add(rows.slice(1000))
    (updated,) = spec_store.update("images", db=str(tmp_path))
    assert (updated.column, updated.n_filled, updated.n_missing) == (run.column, 200, 0)


def test_update_refuses_a_recorded_filter_that_is_not_one_expression_before_any_work(db):
    spec_store.align("images", "clip", "dino", db=db, write=True, force=True, where="id < 1000", **QUICK)
    registry = lancedb.connect(db).open_table("spec_store_runs")
    options = registry.to_arrow()["options"][0].as_py().replace("id < 1000", "id < 1000 LIMIT 5")
    registry.update(values={"options": options})
    before = snapshot(db)
    with pytest.raises(FilterError, match="LIMIT"):
        spec_store.update("images", db=db)
    assert snapshot(db) == before


def test_messages_leave_the_case_of_paths_and_names_as_it_is(tmp_path):
    folder = tmp_path / "MyData"
    make_table(folder, pair_table(20).slice(0, 0), name="Images")
    with pytest.raises(InputError) as refusal:
        spec_store.align("Images", "clip", "dino", db=str(folder))
    assert f"Table 'Images' in {folder} is empty" in str(refusal.value)


def partly_embedded(folder, n_embedded=1400):
    """Rows from `n_embedded` on have no dino vector yet; three have no clip vector, one of them dino's."""
    table = pair_table()
    dino = table["dino"].to_pylist()
    clip = table["clip"].to_pylist()
    for i in range(n_embedded, N):
        dino[i] = None
    for i in (3, N - 1, N - 2):
        clip[i] = None
    for name, rows, width in (("dino", dino, 12), ("clip", clip, 16)):
        kind = pa.list_(pa.float32(), width)
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(rows, kind))
    lance.write_dataset(table, f"{folder}/images.lance")  # LanceDB takes no null vectors
    return str(folder)


def test_only_missing_vectors_are_mapped_and_one_column_serves_a_migration(tmp_path):
    db = partly_embedded(tmp_path)
    with pytest.raises(InvalidVectorsError, match="1,601 rows"):
        align(db)
    with pytest.raises(InvalidVectorsError, match="'clip'"):
        align(db, only_missing=True)  # null sources are errors still
    run = align(db, only_missing=True, skip_invalid=True, write=True)
    assert run.written == ["clip_as_dino", "clip_as_dino_from"]
    dino, written = column(db, "dino"), column(db, "clip_as_dino")
    labels = lance.dataset(f"{db}/images.lance").to_table(columns=["id", "clip_as_dino_from"]).sort_by("id")
    labels = labels["clip_as_dino_from"].to_pylist()
    assert labels == ["embedded"] * 1400 + ["mapped"] * 1598 + [None, None]
    assert written[N - 1] is None
    embedded = np.stack(dino[:1400])
    embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
    assert np.allclose(np.stack(written[:1400]), embedded, atol=1e-6)
    clip = np.stack(column(db, "clip")[1400 : N - 2])
    assert np.allclose(np.stack(written[1400 : N - 2]), run.map.transform(clip), atol=ROUNDING)

    later = lance.dataset(f"{db}/images.lance")
    fresh = unit_rows(np.random.default_rng(3).standard_normal((200, 12)))
    rows = later.to_table(filter="id >= 1400 AND id < 1600").drop_columns(["dino"])
    rows = rows.append_column("dino", vectors(fresh)).select(later.schema.names).cast(later.schema)
    later.merge_insert("id").when_matched_update_all().execute(rows)
    (updated,) = spec_store.update("images", db=db)
    assert updated.n_missing == 2
    found = lance.dataset(f"{db}/images.lance").to_table().sort_by("id")
    assert found["clip_as_dino_from"].to_pylist() == ["embedded"] * 1600 + ["mapped"] * 1398 + [None, None]
    ids = rows["id"].to_numpy()
    assert np.allclose(np.stack([found["clip_as_dino"][int(i)].as_py() for i in ids]), fresh, atol=1e-6)
    spec_store.undo("images", prefix="clip_as_dino", db=db)
    assert not {"clip_as_dino", "clip_as_dino_from"} & set(lance.dataset(f"{db}/images.lance").schema.names)


def unit_rows(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_a_column_of_mapped_rows_alone_can_become_one_of_both(tmp_path):
    db = partly_embedded(tmp_path)
    align(db, skip_invalid=True, write=True)
    run = align(db, skip_invalid=True, only_missing=True, write=True)
    assert run.written == ["clip_as_dino", "clip_as_dino_from"]
    one = np.stack(column(db, "clip_as_dino")[:1400])
    assert np.allclose(one, unit_rows(np.stack(column(db, "dino")[:1400])), atol=1e-6)
    assert spec_store.list_runs(db=db).num_rows == 2


@pytest.mark.parametrize("options", [{"unit": False}, {"in_place": True}])
def test_only_missing_wants_unit_vectors_in_the_targets_space(db, options):
    with pytest.raises(InputError, match="only_missing keeps the target's own vectors"):
        align(db, only_missing=True, **options)
