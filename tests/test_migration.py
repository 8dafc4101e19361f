"""The benchmark of switches: its figures against naive ones, and baselines where the answer is known."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from baselines import BASELINES
from evaluation import unit_rows
from outcomes import BEGIN, END, Outcome, cells, difference, fill, mean_of, standings
from outcomes import FIGURES as FIGURES_SHOWN
from searches import Search, ndcg, ranked
from upgrade_pairs import quantised

OVERLAP = FIGURES_SHOWN[0]


@pytest.fixture(scope="module")
def rotated():
    """600 rows, and the same rows under a rotation."""
    rng = np.random.default_rng(0)
    old = unit_rows(rng.standard_normal((600, 24)) * np.linspace(0.2, 2, 24) + 0.5)
    rotation = np.linalg.qr(rng.standard_normal((24, 24)))[0]
    return old, unit_rows(old @ rotation)


def naive_ndcg(wanted, found):
    k = len(wanted)
    relevance = {row: k - place for place, row in enumerate(wanted)}
    gain = sum(relevance.get(row, 0) / np.log2(place + 2) for place, row in enumerate(found))
    return gain / sum((k - place) / np.log2(place + 2) for place in range(k))


def test_ndcg_is_the_naive_one():
    rng = np.random.default_rng(0)
    wanted = np.stack([rng.permutation(20)[:10] for _ in range(30)])
    found = np.stack([rng.permutation(20)[:10] for _ in range(30)])
    expected = [naive_ndcg(w, f) for w, f in zip(wanted.tolist(), found.tolist(), strict=True)]
    np.testing.assert_allclose(ndcg(wanted, found), expected, atol=1e-12)
    np.testing.assert_allclose(ndcg(wanted, wanted), 1)
    assert (ndcg(wanted, wanted[:, ::-1]) < 1).all()


def test_a_search_leaves_the_query_s_own_row_out(rotated):
    new = rotated[1]
    found = ranked(new, new)
    assert not (found == np.arange(len(new))[:, None]).any()
    similarity = np.take_along_axis(new @ new.T, found, axis=1)
    assert (np.diff(similarity, axis=1) <= 0).all()


def test_a_perfect_map_finds_everything_and_rows_in_disorder_find_nothing(rotated):
    new = rotated[1]
    perfect = Search(new, new, new)
    assert (perfect.overlap, perfect.twin_recall) == (1, 1)
    assert perfect.ndcg == pytest.approx(1)
    assert perfect.spec_diff < 1e-6
    disordered = Search(new, new[np.random.default_rng(1).permutation(len(new))], new)
    assert disordered.overlap < 0.05
    assert disordered.ndcg < 0.05


def test_twins_are_found_by_a_map_that_loses_the_neighbours():
    """Rows far from all others find themselves however the others are moved."""
    rng = np.random.default_rng(0)
    new = unit_rows(rng.standard_normal((300, 64)))
    mapped = unit_rows(new + 0.15 * rng.standard_normal(new.shape))
    search = Search(new, mapped, new)
    assert search.twin_recall > 0.95
    assert search.overlap < 0.6


@pytest.mark.parametrize("name", ["Procrustes", "ridge", "ridge + MLP"])
def test_a_baseline_with_a_linear_part_learns_a_rotation(rotated, name):
    old, new = rotated
    fitted = BASELINES[name](old[:500], new[:500], 0)
    search = Search(new[500:], fitted(old[500:]), new[500:])
    assert search.overlap > 0.98


def test_low_rank_affine_learns_a_map_of_low_rank():
    rng = np.random.default_rng(0)
    old = unit_rows(rng.standard_normal((600, 60)))
    new = old @ (rng.standard_normal((60, 10)) @ rng.standard_normal((10, 40))).astype(np.float32)
    fitted = BASELINES["low-rank affine"](old[:500], unit_rows(new[:500]), 0)
    mapped, wanted = fitted(old[500:]), unit_rows(new[500:])
    assert np.linalg.matrix_rank(mapped, tol=1e-3) <= 17  # 16 directions and the mean
    assert Search(wanted, mapped, wanted).overlap > 0.8


def test_a_perceptron_learns_what_no_linear_map_can():
    rng = np.random.default_rng(0)
    old = unit_rows(rng.standard_normal((1500, 6)))
    new = unit_rows(np.abs(old) @ rng.standard_normal((6, 12)))
    overlap = {}
    for name in ("ridge", "MLP", "ridge + MLP"):
        fitted = BASELINES[name](old[:1200], new[:1200], 0)
        overlap[name] = Search(new[1200:], fitted(old[1200:]), new[1200:]).overlap
    assert overlap["MLP"] > overlap["ridge"] + 0.2
    assert overlap["ridge + MLP"] > overlap["ridge"] + 0.2


def test_a_mean_shift_needs_equal_widths(rotated):
    old, new = rotated
    assert BASELINES["mean shift"](old, new[:, :5], 0) is None
    fitted = BASELINES["mean shift"](old, new, 0)
    expected = old + new.mean(axis=0) - old.mean(axis=0)
    np.testing.assert_allclose(fitted(old), unit_rows(expected), atol=1e-6)


def test_int8_has_at_most_255_values_and_stays_near():
    x = np.random.default_rng(0).standard_normal((2000, 3)).astype(np.float32)
    assert max(len(np.unique(column)) for column in quantised(x).T) <= 255
    assert np.abs(quantised(x) - x).max() <= np.abs(x).max() / 127 / 2 + 1e-6


def outcome(name, seed, overlap):
    return Outcome("words", name, seed, overlap, 0.5, None, 0.1, None, None, None)


def test_an_interval_is_student_s():
    mean = mean_of([0.1, 0.2, 0.4])
    assert mean.value == pytest.approx(0.7 / 3)
    assert mean.half == pytest.approx(4.302653 * np.std([0.1, 0.2, 0.4], ddof=1) / np.sqrt(3))
    assert mean_of([0.3]).half is None


def test_maps_are_compared_on_the_same_splits():
    found = [outcome("ours: residual", seed, 0.6 + seed / 10) for seed in range(3)]
    found += [outcome("ridge", seed, 0.5 + seed / 10) for seed in range(2)]
    against = difference(found, "words", "ours: residual", "ridge", "overlap")
    assert against.value == pytest.approx(0.1)
    assert against.half == pytest.approx(0, abs=1e-9)
    ((title, lines),) = standings(found)
    assert title.startswith("ours: residual")
    assert lines[1] == ["words", "+0.100 ± 0.000 (ridge)", "+0.100 ± 0.000", "1.00", "–"]


def test_the_best_of_the_others_is_the_one_that_is_least_behind():
    found = [outcome("ours: residual", 0, 0.6), outcome("ridge", 0, 0.5), outcome("MLP", 0, 0.65)]
    ((_, lines),) = standings(found)
    assert lines[1][1:3] == ["-0.050 (MLP)", "+0.100"]


def test_the_best_mean_of_a_line_is_bold():
    found = [outcome("ridge", 0, 0.5), outcome("MLP", 0, 0.6)]
    assert cells(found, OVERLAP, bold=True) == [["pair", "ridge", "MLP"], ["words", "0.500", "**0.600**"]]


def test_a_document_is_filled_between_its_marks():
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    filled = fill(document, "new")
    assert filled == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert fill(filled, "new") == filled
    with pytest.raises(ValueError, match="no place for the tables"):
        fill("nothing to fill", "new")
