"""Verdicts on a switch by what searchers find, each figure against a naive search."""

import json
import shutil

import faiss
import lance
import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import spec_store
from gated import QUICK, N, Naive, aligned, gate, lost_table, recorded_map
from lance_tables import make_table
from planted import hidden_clusters, rotated_clipped_noisy, vectors
from spec_store.errors import FilterError, InputError
from spec_store.keys import hash_keys

LOST = "label = 'lost'"


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    return aligned(tmp_path_factory.mktemp("gate"))


@pytest.fixture(scope="module")
def naive(db):
    return Naive(db)


def test_search_overlap_is_what_a_target_query_finds_in_the_mapped_rows(db, naive):
    found = gate(db, "label = 'lost'", k=3)
    after = naive.overlap(naive.mapped, naive.test, 3)
    today = naive.overlap(naive.clip, naive.test, 3, queries=naive.clip)
    lost = naive.label[naive.test] == "lost"
    (slice_,) = found.slices
    for s, rows in ((found.overall, np.ones(len(lost), bool)), (slice_, lost)):
        assert s.n_queries == rows.sum()
        one_row = 1.5 / (3 * rows.sum())  # float32 may rank one otherwise than float64
        assert s.search_overlap.value == pytest.approx(after[rows].mean(), abs=one_row)
        assert s.do_nothing == pytest.approx(today[rows].mean(), abs=one_row)
        assert s.search_overlap.low <= s.search_overlap.value <= s.search_overlap.high
    spread = after.std() / np.sqrt(len(after))
    whole = found.overall.search_overlap
    assert whole.high - whole.low == pytest.approx(3.92 * spread, rel=0.15)
    assert slice_.n_rows == 300
    assert (found.n_rows, found.n_searched) == (N, N)
    assert found.headline == found.overall.search_overlap


def test_twin_recall_is_beside_it_and_no_verdict_goes_by_it(db, naive):
    found = gate(db, "label = 'odd'", k=3, fail_under=0.9)
    similarity = naive.mapped[naive.test] @ naive.dino.T
    own = similarity[np.arange(len(naive.test)), naive.test][:, None]
    rank = (similarity > own).sum(axis=1)
    odd = naive.label[naive.test] == "odd"
    assert found.overall.twin_recall == pytest.approx((rank < 3).mean(), abs=1e-3)
    assert found.slices[0].twin_recall == pytest.approx((rank < 3)[odd].mean(), abs=1e-3)
    assert found.slices[0].twin_recall > 0.95
    assert found.slices[0].verdict == "re-embed"


def test_without_a_map_old_queries_find_old_rows(db, naive):
    found = gate(db, "label = 'odd'", map=None, k=5)
    rows = np.argsort(hash_keys(naive.ids, 271_828))[:2000]
    today = naive.overlap(naive.clip, rows, 5, queries=naive.clip)
    assert found.overall.search_overlap.value == pytest.approx(today.mean(), abs=1e-3)
    odd = naive.label[rows] == "odd"
    assert found.slices[0].search_overlap.value == pytest.approx(today[odd].mean(), abs=1e-3)
    assert found.slices[0].do_nothing == found.slices[0].search_overlap.value
    assert found.slices[0].twin_recall is None
    assert found.map is found.mixed is found.plan is None
    assert found.n_re_embed == N


def test_a_sampled_index_holds_rows_that_the_map_was_fitted_on(db, naive):
    found = gate(db, "label = 'lost'", judged_rows=500, query_rows=100)
    assert (found.n_searched, found.n_rows) == (500, N)
    assert found.overall.n_queries == 100
    assert found.slices[0].n_queries == (naive.label[naive.test] == "lost").sum()  # fewer than 200
    index = np.argsort(hash_keys(naive.ids, 161_803))[:500]
    assert 0.2 < np.isin(index, naive.test).mean() < 0.4
    rows = np.argsort(hash_keys(naive.ids, 271_828))[:100]
    near = []
    for x in (naive.dino, naive.mapped):
        similarity = naive.dino[rows] @ x[index].T
        similarity[rows[:, None] == index] = -9
        near.append(np.argsort(-similarity, axis=1)[:, :10])
    expected = np.mean([len(set(p) & set(q)) / 10 for p, q in zip(*near, strict=True)])
    assert found.overall.search_overlap.value == pytest.approx(expected, abs=1e-3)
    whole = gate(db).overall.search_overlap.value
    assert found.overall.search_overlap.value > whole  # the fewer rows, the easier


def test_a_slice_that_the_map_fails_is_to_be_re_embedded_and_no_other(db):
    found = gate(db, "label = 'odd'", "label = 'lost'", "label = 'even'")
    assert [s.verdict for s in found.slices] == ["keep", "re-embed", "keep"]
    assert found.overall.verdict == "keep"
    assert (found.re_embed, found.n_re_embed) == ("(label = 'lost')", 300)
    assert [s.name for s in found.failed] == ["label = 'lost'"]
    assert found.map.startswith("run ")
    assert repr(found).startswith("<Gate of clip to dino: search overlap@10 0.5")
    assert repr(found).endswith(", 1 failed>")


def test_a_slice_fails_only_if_its_whole_interval_is_under_the_bar(db):
    odd = gate(db, "label = 'odd'").slices[0].search_overlap
    for bar, verdict in ((odd.high + 1e-6, "re-embed"), (odd.high - 1e-6, "keep"), (odd.low, "keep")):
        assert gate(db, "label = 'odd'", fail_under=bar).slices[0].verdict == verdict


def test_an_index_that_finds_all_rows_passes_the_highest_bar(db, naive, tmp_path):
    weights, zeros = np.eye(24, dtype=np.float32), np.zeros(24, np.float32)
    same = spec_store.AlignmentMap(weights, zeros, np.zeros((24, 0), np.float32))
    make_table(tmp_path, lost_table().append_column("copy", lost_table()["dino"]))
    found = spec_store.gate("images", "copy", "dino", db=str(tmp_path), map=same, fail_under=1.0, k=7)
    assert found.overall.search_overlap.value == pytest.approx(1)
    assert found.overall.do_nothing == pytest.approx(1)
    assert found.passed


def test_a_slice_that_fails_for_the_rows_of_a_worse_one_fails_in_part(db):
    found = gate(db, "label = 'lost' OR id < 900", "label = 'lost'", fail_under=0.5)
    assert [s.verdict for s in found.slices] == ["in part", "re-embed"]
    assert found.re_embed == "(label = 'lost')"
    assert {s.name for s in found.failed} >= {"label = 'lost'", "label = 'lost' OR id < 900"}


def test_slices_with_fewer_rows_than_asked_never_fail(db):
    found = gate(db, "label = 'lost'", min_rows=301)
    assert found.slices[0].verdict == "re-embed"
    assert not found.failed
    assert gate(db, "label = 'lost'", min_rows=300).failed


def test_slices_with_too_few_test_rows_get_no_verdict(db):
    found = gate(db, "id < 12", "id < 0")
    assert [s.verdict for s in found.slices] == ["too few rows"] * 2
    assert found.slices[0].search_overlap.value is None
    assert not found.failed


def test_everything_is_to_be_re_embedded_where_all_rows_fail_and_no_slice_says_which(db):
    found = gate(db, map=spec_store.AlignmentMap(*noise()))
    assert found.overall.verdict == "re-embed"
    assert (found.re_embed, found.n_re_embed) == ("true", N)
    assert found.mixed.value == 1


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_a_map_of_zeros_or_of_one_vector_fails(db, bias):
    shapes = (32, 24), (24,), (32, 0)
    weights, constant, frequencies = (np.zeros(s, np.float32) for s in shapes)
    found = gate(db, map=spec_store.AlignmentMap(weights, constant + np.float32(bias), frequencies))
    assert found.overall.search_overlap.value < 0.1
    assert found.overall.twin_recall < 0.1
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
        *("table", "columns", "map", "in_place", "k", "fail_under", "min_rows", "n_rows", "n_searched"),
        *("n_embedded", "overall", "slices", "re_embed", "n_re_embed", "mixed", "plan", "cutoff", "queries"),
        "through_index",
        *("passed", "failed", "warnings"),
    }
    assert set(plain["slices"][0]) == {
        *("name", "where", "n_rows", "n_queries", "search_overlap", "do_nothing", "twin_recall", "verdict")
    }
    assert set(plain["mixed"]) == {"value", "low", "high"}
    steps = {"name", "where", "n_rows", "n_rows_total", "search_overlap", "gain"}
    assert set(plain["plan"]) == {"steps", "budget", "skipped", "where", "n_rows", "search_overlap"}
    assert set(plain["plan"]["steps"][0]) == steps
    assert plain["passed"] is False


def test_a_map_in_place_is_judged_by_the_source_s_own_queries(db, naive):
    run = spec_store.align("images", "clip", "dino", db=db, in_place=True, **QUICK)
    found = gate(db, "label = 'odd'", map=run.map, k=4)
    mapped = run.map.transform(naive.clip).astype(np.float64)
    mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
    after = naive.overlap(mapped, naive.test, 4, wanted=naive.clip)
    assert found.in_place
    assert found.overall.search_overlap.value == pytest.approx(after.mean(), abs=1e-3)
    odd = naive.label[naive.test] == "odd"
    assert found.slices[0].search_overlap.value == pytest.approx(after[odd].mean(), abs=1e-3)
    assert found.overall.do_nothing == 1  # unmapped, nothing changes for the source's queries
    assert found.overall.twin_recall is None


def test_a_map_into_the_wrong_space_is_refused(db):
    shapes = (32, 20), (20,), (32, 0)
    wide = spec_store.AlignmentMap(*(np.zeros(s, np.float32) for s in shapes))
    with pytest.raises(InputError, match=r"The map gives 20 dimensions; 'dino'.*has 24"):
        gate(db, map=wide)


def test_a_cut_off_is_moved_on_the_pairs_of_old_and_new_queries(db, naive):
    found = gate(db, cutoff=0.6).cutoff
    rows = np.argsort(hash_keys(naive.ids, 271_828))[:500]
    pairs = rows[:, None] != np.arange(N)
    before, after = ((q[rows] @ x.T)[pairs] for q, x in ((naive.clip,) * 2, (naive.dino, naive.mapped)))
    passed = before >= 0.6
    assert found.n_pairs == pairs.sum()
    assert found.share == pytest.approx(passed.mean(), abs=1e-5)
    assert found.new == pytest.approx(np.sort(after)[-passed.sum()], abs=1e-4)
    assert found.overlap == pytest.approx((passed & (after >= found.new)).sum() / passed.sum(), abs=1e-3)


def test_keys_that_repeat_are_no_obstacle(tmp_path):
    table = lost_table()
    table = table.set_column(0, "id", pa.array(np.arange(N) // 2))
    make_table(tmp_path, table)
    found = gate(str(tmp_path), "label = 'odd'", map=None, key="id")
    unique = gate(str(tmp_path), "label = 'odd'", map=None)
    assert found.n_searched == N
    assert found.overall.search_overlap.value == pytest.approx(unique.overall.search_overlap.value, abs=0.03)


def test_rows_without_a_usable_vector_are_not_found_or_left_out(tmp_path):
    table = lost_table()
    for name, rows in (("clip", range(400)), ("dino", range(390, 420))):
        at = table.schema.get_field_index(name)
        values = table[name].to_pylist()
        values = [None if i in rows else v for i, v in enumerate(values)]
        table = table.set_column(at, name, pa.array(values, table.schema.field(name).type))
    lance.write_dataset(table, tmp_path / "images.lance")
    rng = np.random.default_rng(0)
    exact = spec_store.AlignmentMap(
        rng.standard_normal((32, 24)).astype(np.float32), *(np.zeros(s, np.float32) for s in (24, (32, 0)))
    )
    found = gate(str(tmp_path), "id < 390", map=exact)
    assert found.slices[0].do_nothing == 0  # no old query either
    assert found.slices[0].search_overlap.value < 0.02
    assert found.n_searched == N - 30
    assert "30 sampled rows have no usable dino" in found.warnings[-1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, InputError, "k is 0"),
        ({"k": 4000, "judged_rows": 9000}, InputError, "k is 4000; table 'images' .* has 4,000 rows"),
        ({"k": 50, "judged_rows": 50}, InputError, "k is 50, and 50 rows are searched"),
        ({"query_rows": 5}, InputError, "query_rows is 5; expected 10 or more"),
        ({"cutoff": 2}, InputError, "cutoff is 2"),
        ({"cutoff": 0.5, "map": None}, InputError, "without a map there is none"),
        ({"budget": "much"}, InputError, "budget is 'much'; expected a number of rows"),
        ({"budget": "120%"}, InputError, "expected at most 100%"),
        ({"budget": -5}, InputError, "budget is -5"),
        ({"k": 3, "unheard": 1}, InputError, "No option 'unheard'"),
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


def test_that_most_of_the_rows_searched_were_fitted_is_told(db):
    assert "fitted on about 70% of the rows searched" in gate(db).warnings[0]
    rng = np.random.default_rng(0)
    unknown = spec_store.AlignmentMap(
        rng.standard_normal((32, 24)).astype(np.float32), *(np.zeros(s, np.float32) for s in (24, (32, 0)))
    )
    for given in (None, unknown):
        assert not any("rows searched" in w for w in gate(db, map=given).warnings)


def test_text_after_a_slice_is_refused_before_any_work(db):
    for bad in ("label = 'lost' LIMIT 5", "label = 'lost' ADN id < 5", "id < 3 banana"):
        with pytest.raises(FilterError, match="Expected one boolean expression"):
            gate(db, bad)


def test_rows_that_came_later_are_evaluated_as_update_would_fill_them(tmp_path, db):
    db = str(shutil.copytree(db, tmp_path / "db"))
    table = lancedb.connect(db).open_table("images")
    late = table.to_arrow().slice(0, 400).drop_columns(["id", "clip_as_dino"])
    table.add(late.append_column("id", pa.array(np.arange(N, N + 400))))
    before = gate(db, "id >= 4000")
    assert "400 rows have no clip_as_dino yet" in before.warnings[-1]
    spec_store.update("images", db=db)
    after = gate(db, "id >= 4000")
    assert not any("no clip_as_dino" in w for w in after.warnings)
    assert after.overall == before.overall
    assert after.slices == before.slices


def test_a_file_without_random_access_and_an_index_give_what_the_table_gives(db, tmp_path):
    table = lost_table()
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=700)
    index = faiss.IndexIDMap(faiss.IndexFlatIP(24))
    shuffled = np.random.default_rng(0).permutation(N)
    index.add_with_ids(np.stack(table["dino"].to_numpy())[shuffled].astype(np.float32), shuffled)
    faiss.write_index(index, str(tmp_path / "dino.index"))
    options = {"map": None, "judged_rows": 900, "key": "id"}
    expected = spec_store.gate("images", "clip", "dino", db=db, slices=[LOST], **options)
    by_file = spec_store.gate(str(tmp_path / "rows.parquet"), "clip", "dino", **options)
    new = f"new=faiss:{tmp_path}/dino.index"
    joined = spec_store.gate("images", "clip", new, db=db, slices=[LOST], **options)
    assert by_file.overall == joined.overall == expected.overall
    assert joined.slices == expected.slices
