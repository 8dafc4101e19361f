"""Groups that one time has more of than the other."""

import numpy as np
import pytest

from planted import batch_of
from spec_store.spectral.covariance import CovarianceAccumulator
from spec_store.spectral.drift import drift
from spec_store.spectral.features import NystroemMap, kmeans_landmarks
from spec_store.spectral.spectrum import second_moment

CENTRES = 2 * np.random.default_rng(7).standard_normal((12, 24))


def rows_of(shares, n, seed):
    """Rows of groups in given shares."""
    rng = np.random.default_rng(seed)
    group = rng.choice(12, size=n, p=np.asarray(shares) / np.sum(shares))
    return CENTRES[group] + 0.7 * rng.standard_normal((n, 24)), group


def drifted(old, new):
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (old, new)]
    landmarks = kmeans_landmarks(np.concatenate(unit), 100, seed=0)
    m = NystroemMap("a", 24, True, "float64", 0.6, landmarks, np.zeros(24))
    moments, features = [], []
    for x in (old, new):
        state = CovarianceAccumulator([m])
        state.update(batch_of(a=x))
        moments.append(second_moment(state, [0]))
        features.append(m.features(x))
    return drift(tuple(moments), tuple(features), seed=0)


def test_a_group_that_is_new_and_one_that_is_gone_are_found_with_their_rows():
    old, _ = rows_of([1] * 11 + [0], 3000, 0)
    new, group = rows_of([0] + [1] * 11, 3000, 1)
    found = drifted(old, new)
    more, fewer = (next(c for c in found.changes if c.end == end) for end in (0, 1))
    assert len(found.changes) == 2
    assert more.shares[0] < 0.005 < 0.07 < more.shares[1]
    assert fewer.shares[1] < 0.005 < 0.07 < fewer.shares[0]
    assert np.mean(group[more.members] == 11) > 0.98
    assert np.mean(more.members[group == 11]) > 0.9
    assert more.intervals[1][0] <= np.mean(group == 11) * 1.05
    assert found.eigenvalues[0][0] == pytest.approx(1 / 11, rel=0.3)


def test_no_change_lists_nothing():
    shares = np.linspace(1, 3, 12)
    for seed in range(4):
        old, _ = rows_of(shares, 3000, 10 + seed)
        new, _ = rows_of(shares, 3000, 20 + seed)
        assert drifted(old, new).changes == ()


def test_shares_are_counted_on_rows_that_took_no_part_in_proposing():
    """Of few rows the proposing half itself holds directions in which it stands out."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        old, new = rng.standard_normal((2, 240, 24))
        assert drifted(old, new).changes == ()


def test_a_group_that_doubled_is_found_and_its_shares_are_told():
    shares = np.ones(12)
    old, _ = rows_of(shares, 4000, 3)
    shares[4] = 3
    new, group = rows_of(shares, 4000, 4)
    found = [c for c in drifted(old, new).changes if c.end == 0]
    assert len(found) == 1
    assert found[0].shares[1] / found[0].shares[0] == pytest.approx(3 * 12 / 14, rel=0.25)
    assert np.mean(group[found[0].members] == 4) > 0.95
