"""The benchmark's measures of other means: the exact answer, and what a chart of them shows."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from chart import speed_at_accuracy
from peers import MODES, Row, against, exact


def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    both = [np.repeat(rng.standard_normal((k, d)), 400 // k, axis=0) for k, d in ((40, 8), (20, 12))]
    noisy = [x + 0.2 * rng.standard_normal(x.shape) for x in both]
    a, b = ((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in noisy)
    return a, b


def difference(sigmas: tuple[float, float]) -> np.ndarray:
    kernels = [
        np.exp(-((x[:, None].astype(float) - x[None]) ** 2).sum(axis=2) / (2 * s * s))
        for x, s in zip(rows(), sigmas, strict=True)
    ]
    centring = np.eye(400) - 1 / 400
    return centring @ (kernels[0] - kernels[1]) @ centring / 400


def test_the_reference_is_the_centred_difference_of_all_pairs():
    found = exact(rows(), (0.5, 0.6))
    values = np.linalg.eigvalsh(difference((0.5, 0.6)))
    # Subspace iteration: the last of ten modes is the least converged.
    np.testing.assert_allclose(found.values[0], values[::-1][:MODES], rtol=1e-3)
    np.testing.assert_allclose(found.values[1], values[:MODES], rtol=1e-3)


def test_other_modes_than_the_exact_ones_lose_energy_and_top_rows():
    truth, other = exact(rows(), (0.5, 0.6)), exact(rows()[::-1], (0.9, 0.3))
    same = against(truth, "same", truth)
    assert (same.eigenvalue_error, same.overlap) == (0.0, 1.0)
    assert same.energy == pytest.approx(1.0)
    worse = against(truth, "other", other)
    assert max(worse.energy, worse.overlap) < 0.9
    assert worse.eigenvalue_error > 0.1


def test_the_chart_has_a_dot_and_a_name_for_each_method():
    table = [Row("exact", 10.0, 8, 0.0, 1.0, 1.0), Row("spec-store, <500>", 0.1, 8, 0.01, 0.99, 0.9)]
    chart = ElementTree.fromstring(speed_at_accuracy(table, 400))
    dots = chart.findall("{http://www.w3.org/2000/svg}circle")
    assert float(dots[0].get("cx", "")) > float(dots[1].get("cx", ""))
    assert {"exact", "spec-store, <500>"} <= {t.text for t in chart.iter("{http://www.w3.org/2000/svg}text")}
