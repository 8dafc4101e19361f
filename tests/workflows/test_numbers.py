"""Figures that must not come from rounding: extreme lengths, extreme types, keys that repeat."""

import numpy as np
import pyarrow as pa
import pytest

import spec_store
from lance_tables import make_table
from planted import batch_of, planted_mixture, vectors
from spec_store.errors import InputError, InvalidVectorsError
from spec_store.spectral.covariance import CovarianceAccumulator
from spec_store.spectral.features import CosineMap
from spec_store.spectral.spectrum import solve

N = 800
QUICK = {"dim": 60, "sample_rows": 400, "modes": 5}


def mixture():
    return planted_mixture(N, n_groups=8, merged=2, d=16)


def table_of(folder, a, b, dtype=np.float32, **columns):
    make_table(
        folder,
        pa.table({"id": np.arange(N), "clip": vectors(a, dtype), "dino": vectors(b, dtype), **columns}),
    )
    return str(folder)


def compared(db, **options):
    return spec_store.compare("images", ["clip", "dino"], db=db, **{**QUICK, **options})


@pytest.mark.parametrize("features", ["nystroem", "orf"])
def test_float32_tells_what_float64_does_of_rows_of_very_different_lengths(tmp_path, features):
    a, b, _ = mixture()
    a[np.random.default_rng(0).permutation(N)[: N // 20]] *= 5e4
    db = table_of(tmp_path, a, b)
    narrow, wide = (
        compared(db, normalize=False, precision=p, features=features) for p in ("float32", "float64")
    )
    assert narrow.spec_diff == pytest.approx(wide.spec_diff, rel=1e-3)
    assert narrow.spectrum.coverage == pytest.approx(wide.spectrum.coverage, abs=1e-3)
    assert max(narrow.spectrum.coverage) <= 1.001
    assert narrow.record.map_error == pytest.approx(wide.record.map_error, abs=1e-3)


@pytest.mark.parametrize("kernel", ["gaussian", "cosine"])
@pytest.mark.parametrize("factor", [1e100, 1e200])
def test_directions_of_float64_vectors_beyond_float32_are_compared(tmp_path, kernel, factor):
    a, b, _ = mixture()
    there, here = tmp_path / "there", tmp_path / "here"
    far = compared(table_of(there, factor * a.astype(np.float64), b, np.float64), kernel=kernel)
    near = compared(table_of(here, a, b, np.float64), kernel=kernel)
    assert far.spec_diff == pytest.approx(near.spec_diff, rel=1e-5)
    sizes = [run.score().clusters["size"].to_pylist() for run in (far, near)]
    assert sizes[0] == pytest.approx(sizes[1], abs=3)
    assert far.n_skipped == 0


def test_vectors_too_long_for_a_distance_are_refused_by_name(tmp_path):
    a, b, _ = mixture()
    a = a.astype(np.float64)
    a[[3, 5]] *= 1e200
    db = table_of(tmp_path, a, b, np.float64)
    with pytest.raises(InvalidVectorsError, match=r"2 rows .* column 'clip': 2 longer than 1e\+18"):
        compared(db, normalize=False)
    assert compared(db, normalize=False, skip_invalid=True).n_skipped == 2
    assert compared(db).n_skipped == 0


def test_a_coverage_above_one_is_an_error_and_no_result():
    a, b, _ = mixture()
    acc = CovarianceAccumulator([CosineMap(c, 16, True, "float64") for c in ("a", "b")])
    acc.update(batch_of(a=a, b=b))
    acc.products[:16, :16] *= 1.5
    with pytest.raises(InputError, match=r"column 'a' cover 1.5 of its kernel, which can be 1 at most"):
        solve(acc)


def test_a_key_that_repeats_hides_no_cluster(tmp_path):
    a, b, groups = mixture()
    labels = pa.array([f"group {g}" for g in groups])
    db = table_of(tmp_path, a, b, label=labels)
    plain, keyed = compared(db), compared(db, key="label")
    assert keyed.spec_diff == plain.spec_diff
    assert len(keyed.clusters_found) == len(plain.clusters_found) > 0
    assert [c.strength for c in keyed.record.clusters] == [c.strength for c in plain.record.clusters]
    assert any("792 rows repeat the 'label' of another row" in w for w in keyed.warnings)
    assert keyed.score().record.clusters[0].top_rows[0].startswith("group ")  # named by the key all the same
    assert not any("repeat" in w for w in compared(db, key="id").warnings)
