"""The plan of a switch: what to re-embed first, each figure against a search of that mixed index."""

import shutil

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest

import spec_store
from gated import N, Naive, aligned, gate, lost_table
from lance_tables import make_table
from planted import hidden_clusters, rotated_clipped_noisy, unit, vectors
from spec_store.alignment.mixed import MixedSearch
from spec_store.errors import InputError
from spec_store.keys import hash_keys
from spec_store.workflows.plan import PlanSlice, budget_rows, make_plan

SLICES = ("label = 'odd'", "label = 'lost'", "label = 'even'", "id < 500")


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    return aligned(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def naive(db):
    return Naive(db)


def mixed(naive, rows):
    """Search overlap of test rows in an index in which these rows are re-embedded."""
    index = np.where(rows[:, None], naive.dino, naive.mapped)
    return naive.overlap(index, naive.test, 10).mean()


def selected(db, where):
    ids = spec_store.query("images", where, select=["id"], db=db).read_all()["id"].to_numpy()
    return np.isin(np.arange(N), ids)


def re_embed(db, where, origin=False):
    """Write the target's vectors into the aligned column, as a person would who has the new model."""
    table = lancedb.connect(db).open_table("images").to_arrow()
    rows = selected(db, where)[table["id"].to_numpy()]
    at = table.schema.get_field_index("clip_as_dino")
    field = table.schema.field(at)
    values = np.where(
        rows[:, None], np.stack(table["dino"].to_numpy()), np.stack(table["clip_as_dino"].to_numpy())
    )
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel().astype(np.float32)), values.shape[1])
    table = table.set_column(at, field, column.cast(field.type))
    if origin:
        table = table.append_column("clip_as_dino_from", pa.array(np.where(rows, "embedded", "mapped")))
    lance.write_dataset(table, f"{db}/images.lance", mode="overwrite")


def test_each_step_is_what_a_search_of_that_index_finds(db, naive):
    plan = gate(db, *SLICES).plan
    assert plan.steps[0].where == "label = 'lost'"
    assert {s.where for s in plan.steps} <= set(SLICES)
    rows = np.zeros(N, bool)
    before = mixed(naive, rows)
    for step in plan.steps:
        added = selected(db, step.where) & ~rows
        rows |= added
        now = mixed(naive, rows)
        assert step.n_rows == added.sum()
        assert step.n_rows_total == rows.sum()
        assert step.search_overlap.value == pytest.approx(now, abs=1e-3)
        assert step.gain == pytest.approx(now - before, abs=1e-3)
        before = now
    assert plan.n_rows == rows.sum()
    assert (selected(db, plan.where) == rows).all()
    assert plan.search_overlap == plan.steps[-1].search_overlap


def test_the_first_step_gains_the_most_per_row(db, naive):
    plan = gate(db, *SLICES).plan
    nothing = mixed(naive, np.zeros(N, bool))
    per_row = {w: (mixed(naive, selected(db, w)) - nothing) / selected(db, w).sum() for w in SLICES}
    assert plan.steps[0].where == max(per_row, key=per_row.get)


def test_the_failing_rows_re_embedded_give_the_mixed_figure(db, naive):
    found = gate(db, *SLICES)
    assert found.re_embed == "(label = 'lost')"
    expected = mixed(naive, naive.label == "lost")
    assert found.mixed.value == pytest.approx(expected, abs=1e-3)
    assert found.mixed.low < expected < found.mixed.high


def test_a_budget_skips_what_is_larger_and_says_so(db):
    plan = gate(db, *SLICES, budget=850).plan
    assert [s.where for s in plan.steps] == ["label = 'lost'", "id < 500"]
    assert plan.n_rows == np.sum(selected(db, "label = 'lost' OR id < 500")) <= 850
    assert set(plan.skipped) == {"label = 'odd'", "label = 'even'"}
    assert (plan.where, plan.budget) == ("(label = 'lost') OR (id < 500)", 850)
    assert gate(db, *SLICES, budget="10%").plan.budget == 400
    nothing = gate(db, *SLICES, budget=0).plan
    assert (nothing.steps, nothing.where, nothing.n_rows) == ((), None, 0)
    assert nothing.search_overlap.value == pytest.approx(gate(db).overall.search_overlap.value)


@pytest.mark.parametrize("origin", [False, True])
def test_what_the_plan_says_is_what_re_embedding_gives(db, tmp_path, origin):
    db = str(shutil.copytree(db, tmp_path / "db"))
    before = gate(db, *SLICES, budget="10%")
    assert (before.n_embedded, before.plan.n_rows) == (0, 300)
    re_embed(db, before.plan.where, origin)
    after = gate(db, *SLICES)
    assert after.n_embedded == 300
    assert after.overall.search_overlap.value == pytest.approx(before.plan.search_overlap.value, abs=1e-6)
    assert after.overall.search_overlap.value > before.overall.search_overlap.value + 0.05
    lost = after.slices[1]
    assert (lost.search_overlap.value > 0.9, lost.verdict) == (True, "keep")
    assert "label = 'lost'" not in [s.where for s in after.plan.steps]
    assert [s.gain for s in after.plan.steps[:2]] == pytest.approx(
        [s.gain for s in gate(db, *SLICES[:1], *SLICES[2:]).plan.steps[:2]]
    )
    if origin:  # rows that are known to be re-embedded are in no filter
        assert after.plan.steps[-1].n_rows_total == N - 300
        assert not (selected(db, after.plan.where) & selected(db, "label = 'lost'")).any()


def test_the_plan_begins_with_the_clusters_that_the_source_cannot_know(tmp_path):
    n, hidden = 12_000, 400
    a, b = rotated_clipped_noisy(n, widths=(48, 32), n_groups=20)
    b, truth = hidden_clusters(b, n_rows=hidden, n_clusters=3, shift=2.0)
    make_table(tmp_path, pa.table({"id": np.arange(n), "clip": vectors(a), "dino": vectors(b)}))
    options = {"db": str(tmp_path), "key": "id", "write": True}
    spec_store.compare("images", ["clip", "dino"], dim=150, **options)
    spec_store.align("images", "clip", "dino", steps=60, held_out=0.2, **options)
    plan = gate(str(tmp_path), fail_under=0.8, budget="10%").plan
    assert all("grouped by dino" in s.name for s in plan.steps[:3])
    where = " OR ".join(f"({s.where})" for s in plan.steps[:3])
    told = spec_store.query("images", where, select=["id"], db=str(tmp_path)).read_all()["id"].to_numpy()
    wanted = np.flatnonzero(truth >= 0)
    assert len(np.intersect1d(told, wanted)) > 0.97 * max(len(told), len(wanted))


@pytest.mark.parametrize(
    ("budget", "rows"), [(500, 500), ("500", 500), ("1,000", 1000), ("10%", 200), ("2.5 %", 50), ("0%", 0)]
)
def test_budgets_are_rows_or_percentages(budget, rows):
    assert budget_rows(budget, 2000) == rows


@pytest.mark.parametrize("budget", ["", "ten", "-1", "5 rows", "1e3", "101%", True, 2.5, "nan"])
def test_other_budgets_are_refused(budget):
    with pytest.raises(InputError, match="budget is"):
        budget_rows(budget, 2000)


def test_a_migration_under_way_is_evaluated_on_the_rows_that_have_a_target(tmp_path):
    """Two rows of three are embedded already: their own vectors in the index say nothing of the map."""
    table = lost_table()
    known = np.arange(N) % 3 != 0
    values = [v if has else None for v, has in zip(table["dino"].to_pylist(), known, strict=True)]
    at = table.schema.get_field_index("dino")
    table = table.set_column(at, "dino", pa.array(values, table.schema.field(at).type))
    lance.write_dataset(table, tmp_path / "images.lance")
    options = {"steps": 40, "key": "id", "held_out": 0.3, "write": True}
    run = spec_store.align("images", "clip", "dino", db=str(tmp_path), only_missing=True, **options)
    found = gate(str(tmp_path), *SLICES, fail_under=0.3)
    assert found.n_searched == known.sum()
    assert found.n_embedded == known.sum()
    assert f"{(~known).sum():,} rows have no dino yet" in found.warnings[-1]
    clip, dino = (unit(np.stack([v for v, has in zip(table[c].to_pylist(), known, strict=True) if has]))
                  for c in ("clip", "dino"))  # fmt: skip
    mapped = unit(run.map.transform(clip).astype(np.float64))
    ids = pa.array(np.arange(N)[known])
    test = np.flatnonzero(hash_keys(ids, 271_828) / 2.0**64 < 0.3)
    near = []
    for x in (dino, mapped):
        similarity = dino[test] @ x.T
        similarity[np.arange(len(test)), test] = -9
        near.append(np.argsort(-similarity, axis=1)[:, :10])
    expected = np.mean([len(set(p) & set(q)) / 10 for p, q in zip(*near, strict=True)])
    assert found.overall.search_overlap.value == pytest.approx(expected, abs=2e-3)
    assert found.plan.steps[0].where == "label = 'lost'"
    label = table["label"].to_numpy(zero_copy_only=False)
    assert found.plan.steps[0].n_rows == ((label == "lost") & ~known).sum()
    assert not selected(str(tmp_path), found.plan.where)[known].any()


def test_a_slice_that_nobody_gains_by_is_not_in_the_plan():
    rng = np.random.default_rng(0)
    target = rng.standard_normal((400, 8)).astype(np.float32)
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    mapped, half = target.copy(), np.arange(400) < 200
    mapped[half] = rng.permutation(mapped[half])  # the other half is mapped without error
    search = MixedSearch(target[:100], target, mapped, np.arange(100), 10)
    slices = [PlanSlice("right", "right", ~half), PlanSlice("wrong", "wrong", half)]
    plan = make_plan(
        search,
        100,
        slices,
        embedded=np.zeros(400, bool),
        embedded_filter=None,
        count=lambda where: 200 * (1 + where.count(" OR ")),
        budget=None,
    )
    assert [step.name for step in plan.steps] == ["wrong"]
    assert plan.steps[0].gain > 0.2
    assert plan.search_overlap.value == 1
