"""Verdicts on a switch: computed on rows the map was not fitted on, with a filter of the rows that fail."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest

import spec_store
from lance_tables import make_table
from planted import hidden_clusters, rotated_clipped_noisy, vectors
from spec_store.errors import FilterError, InputError
from spec_store.keys import hash_keys
from spec_store.runs.registry import Registry
from spec_store.stores.locate import location_of

QUICK = {"steps": 40, "minibatch_rows": 512, "learning_rate": 3e-3, "key": "id", "held_out": 0.3}
N = 4000


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """The target moves 300 rows, labelled lost, unseen by the source; `align` has run, `compare` has not."""
    folder = tmp_path_factory.mktemp("gate")
    a, b = rotated_clipped_noisy(N, widths=(32, 24), n_groups=10)
    b, truth = hidden_clusters(b, n_rows=300, n_clusters=1, shift=2.5)
    labels = np.where(truth == 0, "lost", np.where(np.arange(N) % 2, "odd", "even"))
    table = pa.table({"id": np.arange(N), "clip": vectors(a), "dino": vectors(b), "label": labels})
    make_table(folder, table)
    spec_store.align("images", "clip", "dino", db=str(folder), write=True, **QUICK)
    return str(folder)


def recorded_map(db):
    """The file of the map that `align` recorded."""
    registry = Registry(location_of(db))
    (run,) = registry.alignments()
    return io.BytesIO(registry.state(run.run_id))


def gate(db, *slices, **options):
    return spec_store.gate("images", "clip", "dino", db=db, slices=slices, **options)


def test_recall_is_that_of_held_out_rows_among_held_out_targets(db):
    found = gate(db, "label = 'lost'", k=3)
    table = spec_store.query("images", db=db, select=["id", "label", "clip", "dino"]).read_all()
    held = hash_keys(table["id"].combine_chunks(), 271_828) / 2.0**64 < 0.3
    stored = recorded_map(db)
    f = spec_store.load_map(stored).transform(np.stack(table["clip"].to_numpy())[held])
    b = np.stack(table["dino"].to_numpy())[held]
    b = b / np.linalg.norm(b, axis=1, keepdims=True)
    similarity = f @ b.T
    rank = (similarity > np.diag(similarity)[:, None]).sum(axis=1)
    lost = table["label"].to_numpy(zero_copy_only=False)[held] == "lost"
    assert found.overall.n_judged == held.sum()
    assert found.overall.recall == pytest.approx((rank < 3).mean(), abs=1e-3)
    (slice_,) = found.slices
    assert (slice_.n_rows, slice_.n_judged) == (300, lost.sum())
    assert slice_.recall == pytest.approx((rank < 3)[lost].mean(), abs=1e-3)


def test_overlap_is_the_share_of_neighbours_in_common(db):
    found = gate(db, "label = 'odd'", map=None, k=5)
    table = spec_store.query("images", db=db, select=["id", "label", "clip", "dino"]).read_all()
    near = []
    order = np.argsort(hash_keys(table["id"].combine_chunks(), 271_828))
    odd = table["label"].to_numpy(zero_copy_only=False) == "odd"
    judged = [i for i in order if odd[i]][:1000]
    for name in ("clip", "dino"):
        x = np.stack(table[name].to_numpy())
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        similarity = x[judged] @ x.T
        similarity[np.arange(len(judged)), judged] = -9
        near.append(np.argsort(-similarity, axis=1)[:, :5])
    expected = np.mean([len(set(p) & set(q)) / 5 for p, q in zip(*near, strict=True)])
    assert found.slices[0].overlap == pytest.approx(expected, abs=0.01)
    assert found.slices[0].recall is None
    assert found.map is None
    assert found.fail_under == 0.5


def test_a_slice_that_the_map_fails_is_to_be_embedded_anew_and_no_other(db):
    found = gate(db, "label = 'odd'", "label = 'lost'", "label = 'even'")
    assert [s.verdict for s in found.slices] == ["keep", "re-embed", "keep"]
    assert found.overall.verdict == "keep"
    assert (found.re_embed, found.n_re_embed) == ("(label = 'lost')", 300)
    assert [s.name for s in found.failed] == ["label = 'lost'"]
    assert found.map.startswith("run ")


def test_a_slice_that_fails_for_the_rows_of_a_worse_one_fails_in_part(db):
    found = gate(db, "label IN ('lost', 'odd') AND id < 900", "label = 'lost'", fail_under=0.93)
    assert [s.verdict for s in found.slices] == ["in part", "re-embed"]
    assert found.re_embed == "(label = 'lost')"
    assert {s.name for s in found.failed} >= {"label = 'lost'", "label IN ('lost', 'odd') AND id < 900"}


def test_slices_with_fewer_rows_than_asked_never_fail(db):
    found = gate(db, "label = 'lost'", min_rows=301)
    assert found.slices[0].verdict == "re-embed"
    assert not found.failed
    assert gate(db, "label = 'lost'", min_rows=300).failed


def test_slices_with_too_few_held_out_rows_get_no_verdict(db):
    found = gate(db, "id < 12", "id < 0")
    assert [s.verdict for s in found.slices] == ["too few rows"] * 2
    assert found.slices[0].recall is None
    assert not found.failed


def test_everything_is_to_be_embedded_anew_where_all_rows_fail_and_no_slice_says_which(db):
    found = gate(db, map=spec_store.AlignmentMap(*noise()))
    assert found.overall.verdict == "re-embed"
    assert (found.re_embed, found.n_re_embed) == ("true", N)


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_a_map_of_zeros_or_of_one_vector_fails(db, bias):
    shapes = (32, 24), (24,), (32, 0)
    weights, constant, frequencies = (np.zeros(s, np.float32) for s in shapes)
    found = gate(db, map=spec_store.AlignmentMap(weights, constant + np.float32(bias), frequencies))
    assert found.overall.recall < 0.1
    assert found.overall.overlap < 0.1
    assert found.overall.verdict == "re-embed"
    assert found.failed


def test_a_map_of_nan_is_refused(db, tmp_path):
    stored = recorded_map(db)
    with np.load(stored) as parts:
        arrays = {name: parts[name] for name in parts.files}
    np.savez(tmp_path / "nan.npz", **{**arrays, "weights": np.full_like(arrays["weights"], np.nan)})
    with pytest.raises(InputError, match="weights of a map are not finite"):
        gate(db, map=tmp_path / "nan.npz")


def noise():
    rng = np.random.default_rng(0)
    return (rng.standard_normal(s).astype(np.float32) for s in ((32, 24), (24,), (32, 0)))


def test_clusters_of_the_newest_comparison_come_first(tmp_path):
    a, b = rotated_clipped_noisy(N, widths=(32, 24), n_groups=10)
    b, truth = hidden_clusters(b, n_rows=300, n_clusters=1, shift=2.5)
    make_table(tmp_path, pa.table({"id": np.arange(N), "clip": vectors(a), "dino": vectors(b), "t": truth}))
    options = {"db": str(tmp_path), "key": "id", "write": True}
    run = spec_store.compare("images", ["dino", "clip"], dim=100, **options)  # the other way round
    spec_store.align("images", "clip", "dino", **{**QUICK, **options})
    found = gate(str(tmp_path), "t = 0")
    names = [f"cluster {c.number} (grouped by {run.columns[c.end]})" for c in run.clusters_found]
    assert [s.name for s in found.slices] == [*names, "t = 0"]
    told = spec_store.query("images", found.re_embed, select=["t"], db=str(tmp_path)).read_all()["t"]
    assert (told.to_numpy() == 0).mean() > 0.97
    assert len(told) > 290
    plain = json.loads(json.dumps(found.to_json()))
    assert set(plain) == {
        *("table", "columns", "map", "k", "fail_under", "min_rows", "overall", "slices", "re_embed"),
        *("n_re_embed", "passed", "failed", "warnings"),
    }
    assert set(plain["slices"][0]) == {"name", "where", "n_rows", "n_judged", "recall", "overlap", "verdict"}
    assert plain["passed"] is False


def test_a_map_in_place_is_judged_by_neighbours(db):
    run = spec_store.align("images", "clip", "dino", db=db, in_place=True, **QUICK)
    found = gate(db, map=run.map)
    assert found.overall.recall is None
    assert 0.2 < found.overall.overlap < 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, InputError, "k is 0"),
        ({"fail_under": 1.5}, InputError, "fail_under is 1.5"),
        ({"slices": ["nonsense ="]}, FilterError, "can't be used"),
        ({"map": "absent.npz"}, InputError, "No map file"),
        ({"source": "dino", "target": "clip"}, InputError, "holds no column that aligns 'dino' to 'clip'"),
        ({"map": "wrong width"}, InputError, "The map takes 3 dimensions; 'clip' has 32"),
        ({"table": "imagos"}, InputError, "images"),
    ],
)
def test_what_cannot_be_judged_is_refused(db, options, error, message):
    given = {"table": "images", "source": "clip", "target": "dino", **options}
    if options.get("map") == "wrong width":
        given["map"] = spec_store.AlignmentMap(*(np.zeros(s, np.float32) for s in ((3, 2), (2,), (3, 0))))
    with pytest.raises(error, match=message):
        spec_store.gate(given.pop("table"), given.pop("source"), given.pop("target"), db=db, **given)


@pytest.mark.parametrize("slice_", ["label = 'lost'", "label = 'lost' -- those that we know of"])
def test_rows_whose_label_is_null_are_among_those_outside_a_slice(tmp_path, slice_):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((600, 16))
    b = a.copy()
    b[:277] = rng.standard_normal((277, 16))  # 77 rows that are labelled, and 200 that are not
    labels = ["lost"] * 77 + [None] * 200 + ["kept"] * 323
    make_table(tmp_path, pa.table({"clip": vectors(a), "dino": vectors(b), "label": labels}))
    found = gate(str(tmp_path), slice_, map=None, fail_under=0.35)
    assert [s.verdict for s in found.slices] == ["re-embed"]
    assert found.overall.verdict == "re-embed"  # 200 of the other 523 rows fail
    assert (found.re_embed, found.n_re_embed) == ("true", 600)
    found = gate(str(tmp_path), slice_, map=None, fail_under=0.2)
    assert found.overall.verdict == "keep"
    assert (found.re_embed, found.n_re_embed) == ("(label = 'lost')", 77)


def test_text_after_a_slice_is_refused_before_any_work(db):
    for bad in ("label = 'lost' LIMIT 5", "label = 'lost' ADN id < 5", "id < 3 banana"):
        with pytest.raises(FilterError, match="Expected one boolean expression"):
            gate(db, bad)
