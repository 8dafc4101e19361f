"""A fit on a share of the rows: an even draw, honest errors, and every row scored."""

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import spec_store
from command import run as run_command
from lance_tables import open_source
from planted import planted_mixture, vectors
from spec_store.errors import InvalidVectorsError
from spec_store.spectral.covariance import CovarianceAccumulator
from spec_store.spectral.features import CosineMap
from spec_store.spectral.jackknife import standard_errors
from spec_store.spectral.spectrum import solve
from spec_store.workflows.passes import accumulate
from spec_store.workflows.portion import drawn_blocks, sum_blocks

N = 24_000
FIELDS = {"dim": 60, "sample_rows": 1500, "describe": False, "modes": 5, "skip_invalid": True}


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """Three fragments in the order of the groups, so that neighbours are alike; three rows are null."""
    folder = tmp_path_factory.mktemp("db")
    a, b, groups = planted_mixture(N, n_groups=8, merged=2, d=24, seed=5)
    order = np.argsort(groups, kind="stable")
    clip = pa.array([None if i in (5, 9_000, 20_000) else row for i, row in enumerate(a[order])])
    table = pa.table(
        {"id": np.arange(N), "clip": clip.cast(pa.list_(pa.float32(), 24)), "dino": vectors(b[order])}
    )
    lance.write_dataset(table, folder / "images.lance", max_rows_per_file=8_500)
    return str(folder)


def test_every_row_has_the_same_chance_to_be_drawn(db):
    source = open_source(db)
    drawn = np.zeros(N)
    for seed in range(300):
        _, blocks = drawn_blocks(source, 0.25, 6000, n_groups=8, seed=seed)
        starts = {
            p.id: int(p.id.split(":")[0]) * 8_500 + int(p.id.split(":")[1])
            for p in (b.partition for b in blocks)
        }
        for block in blocks:
            at = starts[block.partition.id]
            drawn[at : at + block.partition.n_rows] += 1
        assert [b.group for b in blocks].count(0) in (len(blocks) // 8, len(blocks) // 8 + 1)
    chance = drawn / 300
    assert chance.mean() == pytest.approx(0.25, abs=0.01)
    assert np.abs(chance - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 300)


def test_a_draw_is_a_function_of_the_seed_and_reads_what_it_draws(db):
    maps = [CosineMap(c, 24, True, "float32") for c in ("clip", "dino")]
    read = []

    class Watched:
        def __init__(self, source):
            self.source = source

        def __getattr__(self, name):
            return getattr(self.source, name)

        def batches(self, *columns, **how):
            for batch in self.source.batches(*columns, **how):
                read.append(len(batch))
                yield batch

    def state(seed, threads):
        portion = sum_blocks(
            Watched(open_source(db)),
            maps,
            3000,
            N,
            seed=seed,
            where=None,
            threads=threads,
            progress=lambda n: None,
        )
        return portion.state

    one = state(0, 1)
    n_read = sum(read)
    assert one.n_rows + one.invalid.n_rows == n_read == pytest.approx(3000, rel=0.1)
    np.testing.assert_array_equal(one.products, state(0, 3).products)
    assert not np.array_equal(one.products, state(1, 1).products)


def test_standard_errors_cover_the_answer_on_all_rows(db):
    """The rows are in the order of the groups: errors that took them for independent would be too small."""
    source = open_source(db)
    maps = [CosineMap(c, 24, True, "float32") for c in ("clip", "dino")]
    options = {"where": None, "threads": 1, "progress": lambda n: None}

    def figures(state):
        found = solve(state, modes=2)
        ends = [end.eigenvalues[0] for end in found.ends]
        return np.array([found.spec_diff, found.spec_diff_centered, found.cka, *ends])

    whole = figures(accumulate(source, maps, batch_rows=4096, **options))
    off, errors = [], {3000: [], 12_000: []}
    for seed in range(20):
        for n_rows, found in errors.items():
            portion = sum_blocks(source, maps, n_rows, N, seed=seed, **options)
            found.append(standard_errors(portion.groups, figures, share=n_rows / N))
            off.append((figures(portion.state) - whole) / found[-1])
    spread = np.sqrt(np.mean(np.square(off), axis=0))
    assert (spread > 0.5).all()
    assert (spread < 2).all()
    # √n, and the correction for what is drawn of all
    expected = np.sqrt(12_000 / 3000 * (1 - 0.125) / (1 - 0.5))
    few, many = (np.median(found, axis=0) for found in errors.values())
    np.testing.assert_allclose(few / many, expected, rtol=0.5)


def test_groups_give_the_error_of_a_mean():
    rng = np.random.default_rng(0)
    n, share = 8 * 500, 0.5
    x = rng.standard_normal((n, 1)) + 3
    groups = []
    for part in np.split(x, 8):
        state = CovarianceAccumulator([CosineMap("a", 1, True, "float64")])
        state.n_rows, state.sums = len(part), part.sum(axis=0)
        groups.append(state)

    found = standard_errors(groups, lambda state: state.sums / state.n_rows, share=share)

    assert found[0] == pytest.approx(np.sqrt((1 - share) / n), rel=0.6)
    assert standard_errors(groups, lambda state: state.sums / state.n_rows, share=1.0)[0] == 0


def test_every_row_is_scored_and_the_record_says_how_many_it_is_of(db, tmp_path):
    where = "id >= 4000"
    run = spec_store.compare(
        "images",
        ["clip", "dino"],
        db=db,
        fit_rows=6000,
        where=where,
        **FIELDS,
    )
    fit = run.record.fit
    assert fit["n_scored"] == N - 4000
    assert fit["n_rows"] == run.n_rows == pytest.approx(6000, rel=0.15)
    assert run.to_json()["fit"] == fit
    run = run.write(out=tmp_path / "scores.parquet")
    assert len(pq.read_table(tmp_path / "scores.parquet")) == N - 4000
    assert sum(c.size for c in run.record.clusters) > run.n_rows
    assert [w for w in run.warnings if w.startswith("2 of 20,000 rows hold vectors")]
    with pytest.raises(InvalidVectorsError, match="can't be compared"):
        spec_store.compare(
            "images", ["clip", "dino"], db=db, **{**FIELDS, "skip_invalid": False}, fit_rows=23_000
        )


def test_a_recorded_fit_answers_again_without_its_errors(tmp_path):
    a, b, _ = planted_mixture(5000, n_groups=8, merged=2, d=24, seed=5)
    lancedb.connect(tmp_path).create_table("images", pa.table({"clip": vectors(a), "dino": vectors(b)}))
    words = ["compare", "--table", "images", "--cols", "clip,dino", "--dim", "60", "--sample-rows", "700"]

    result = run_command(*words, "--fit-rows", "2000", "--db", str(tmp_path))

    assert "rows drawn from 5,000, which are all scored." in result.stdout
    assert "Standard errors: SPEC-diff 0.0" in result.stdout
    (run_id,) = {r["run_id"] for r in spec_store.list_runs(db=str(tmp_path)).to_pylist()}
    again = spec_store.compare_again(run_id, db=str(tmp_path), modes=3)
    assert again.record.fit == {"n_rows": again.n_rows, "n_scored": 5000, "standard_errors": None}
    assert not [w for w in again.warnings if "rows" in w]
    several = spec_store.compare_models(
        pa.table({"clip": vectors(a), "dino": vectors(b)}),
        ["clip", "dino"],
        fit_rows=2000,
        dim=60,
        sample_rows=700,
    )
    assert several.record.fit["n_scored"] == 5000
    every = spec_store.compare_models(
        {"clip": a, "dino": b}, ["clip", "dino"], fit_rows=5000, dim=60, sample_rows=700
    )
    assert every.record.fit is None
