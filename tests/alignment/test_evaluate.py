"""What is said of a map's output on test rows."""

import numpy as np
import pytest

from planted import rotated_clipped_noisy
from spec_store.alignment.evaluate import Evaluator


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_outputs_that_are_not_finite_or_zero_are_worse_than_nothing(value):
    a, b = (x.astype(np.float32) for x in rotated_clipped_noisy(400, widths=(12, 9), n_groups=6))
    evaluator = Evaluator(a, b, {0: np.arange(400) < 40}, to_target=True)
    found = evaluator.after("broken", np.full_like(b, value))
    assert found.recall_10 == 0
    assert found.overlap_target < 0.1
    assert np.isfinite(found.spec_diff)
    assert not found.better_than(evaluator.before())
    assert not evaluator.before().better_than(evaluator.before())
