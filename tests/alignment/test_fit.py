"""The minimisation, and the split and mini-batches that feed it from a real table."""

import numpy as np
import pyarrow as pa
import pytest

from lance_tables import make_table, open_source
from planted import rotated_clipped_noisy, unit, vectors
from spec_store.alignment import AlignOptions, FitOptions, Objective, fit
from spec_store.alignment.fit import residual_frequencies
from spec_store.errors import InputError
from spec_store.workflows.pairs import PairReader, Split, gather, mini_batches, training_sample


def pairs(n=2000):
    a, b = rotated_clipped_noisy(n, widths=(12, 9), n_groups=8)
    return a.astype(np.float32), b.astype(np.float32)


def batches(a, b, rows=256, seed=0):
    rng = np.random.default_rng(seed)
    while True:
        at = rng.integers(0, len(a), rows)
        yield a[at], b[at]


def fitted(kind="affine", seed=0, steps=150, **options):
    a, b = pairs()
    start = np.random.default_rng(1).standard_normal((12, 9)) / 4, np.zeros(9)
    objective = Objective("cosine", 0.1, 0.1)
    options = FitOptions(steps=steps, learning_rate=1e-2, **options)
    rest = batches(a[:1500], b[:1500]), (a[1500:], b[1500:]), objective, kind, options
    return fit(start, *rest, in_place=False, seed=seed)


@pytest.mark.parametrize("kind", ["affine", "lowrank", "residual"])
def test_rows_that_are_not_trained_on_get_better(kind):
    found = fitted(kind, rank=9, n_frequencies=64)
    assert found.best_step > 0
    first, best = found.history[0][1], dict(found.history)[found.best_step]
    assert best < 0.3 * first
    assert best == min(value for _, value in found.history)
    assert found.terms.total == pytest.approx(best)


@pytest.mark.parametrize("kind", ["affine", "residual"])
def test_the_same_seed_gives_the_same_map(kind):
    one, two = fitted(kind, steps=40), fitted(kind, steps=40)
    assert np.array_equal(one.map.weights, two.map.weights)
    assert np.array_equal(one.map.bias, two.map.bias)


def test_lowrank_departs_from_its_start_by_so_many_directions():
    a, _ = pairs()
    start = np.random.default_rng(1).standard_normal((12, 9)) / 4
    departure = fitted("lowrank", rank=3).map.weights - start
    values = np.linalg.svd(departure, compute_uv=False)
    assert values[2] > 1e-3
    assert values[3] < 1e-5 * values[0]
    assert len(a)


def test_residual_holds_what_no_affine_map_can():
    """b is the absolute value of a: every affine map is blind to it."""
    rng = np.random.default_rng(0)
    a = unit(rng.standard_normal((3000, 6))).astype(np.float32)
    b = unit(np.abs(a)).astype(np.float32)
    values = {}
    for kind in ("affine", "residual"):
        options = FitOptions(steps=300, learning_rate=1e-2, n_frequencies=128)
        start = np.zeros((6, 6)), b.mean(0)
        found = fit(
            start, batches(a[:2500], b[:2500]), (a[2500:], b[2500:]), Objective("cosine", 0.1, 0.1), kind,
            options, in_place=False,
        )  # fmt: skip
        values[kind] = found.terms.kernel
    assert values["residual"] < 0.5 * values["affine"]


def test_residual_takes_the_starts_own_coordinates_before_random_directions():
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((500, 6))).astype(np.float32)
    weights = (rng.standard_normal((6, 4)) * [1, 3, 0, 2]).astype(np.float32)
    found = residual_frequencies(weights, rows, 10, np.random.default_rng(1))
    angles = rows @ found
    assert np.allclose(angles[:, :6].std(axis=0), [1, 1, 1, 2, 2, 2], atol=1e-5)
    for j, origin in enumerate((1, 3, 0)):  # by their spread; what is constant tells nothing
        assert abs(np.corrcoef(angles[:, j], rows @ weights[:, origin])[0, 1]) > 0.9999
        assert np.allclose(found[:, j + 3], 2 * found[:, j])
    drawn = np.random.default_rng(1).standard_normal((6, 10))[:, :4]
    assert np.allclose(found[:, 6:], drawn, atol=1e-6)
    assert residual_frequencies(weights, rows, 2, np.random.default_rng(1)).shape == (6, 2)


def test_residual_fits_a_target_of_clipped_coordinates_better_than_affine():
    a, b = rotated_clipped_noisy(6000, widths=(24, 16), n_groups=10)
    a, b = a.astype(np.float32), b.astype(np.float32)
    u = np.hstack([a, np.ones((6000, 1), np.float32)])
    solved, *_ = np.linalg.lstsq(u[:5000], b[:5000], rcond=None)
    values = {}
    for kind in ("affine", "residual"):
        options = FitOptions(steps=200, learning_rate=3e-3, n_frequencies=32)
        rest = (a[5000:], b[5000:]), Objective("cosine", 0.1, 0.01), kind, options
        values[kind] = fit((solved[:-1], solved[-1]), batches(a[:5000], b[:5000]), *rest, in_place=False)
    assert values["residual"].terms.kernel < 0.75 * values["affine"].terms.kernel


def test_a_fit_that_only_gets_worse_keeps_its_start():
    a, b = pairs()
    start = np.eye(12), np.zeros(12)
    options = FitOptions(steps=20, learning_rate=5.0)
    found = fit(start, batches(a, b), (a, a), Objective("cosine", 0.1, 0.1), "affine", options, in_place=True)
    assert found.best_step == 0
    assert np.array_equal(found.map.weights, np.eye(12, dtype=np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"minibatch_rows": 32_769}, "minibatch_rows is 32769; expected a whole number from 1 to 32,768"),
        ({"steps": 1.5}, "steps is 1.5"),
        ({"steps": -1}, "steps is -1"),
        ({"n_landmarks": 0}, "n_landmarks is 0"),
        ({"fit_rows": 3}, "fit_rows is 3"),
        ({"learning_rate": 0}, "learning_rate is 0"),
    ],
)
def test_options_that_fit_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        FitOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "cubic"}, "kind is 'cubic'"),
        ({"kernel": "linear"}, "kernel is 'linear'"),
        ({"held_out": 1.0}, "held_out is 1.0"),
        ({"held_out": 0.0}, "held_out is 0.0"),
        ({"fidelity": -1.0}, "fidelity is -1.0"),
        ({"beta": float("nan")}, "beta is nan"),
        ({"steps": -1}, "steps is -1"),
        ({"cross": -1}, "cross is -1"),
        ({"kind": "kernel", "in_place": True}, "kind is 'kernel', which maps into the target's space"),
        ({"column": "a b"}, "column is 'a b'"),
        ({"beta": 1e30}, r"beta is 1e\+30; expected a number from 0 to 1e\+06"),
        ({"seed": -1}, "seed is -1; expected a whole number from 0"),
        ({"learning_rate": float("inf")}, "learning_rate is inf"),
        ({"batch_rows": 999_999_999_999}, "batch_rows is 999999999999"),
        ({"kind": ()}, "kind is empty"),
        ({"threads": 0}, "threads is 0"),
        ({"step": 3}, "No option 'step'. Did you mean 'steps'"),
    ],
)
def test_options_of_an_alignment_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        AlignOptions.from_keywords(options)


def test_options_of_the_fit_may_stand_beside_those_of_the_alignment():
    options = AlignOptions.from_keywords({"steps": 7, "beta": 0.5, "fit": FitOptions(rank=3)})
    assert options == AlignOptions(beta=0.5, fit=FitOptions(rank=3, steps=7))
    assert AlignOptions.from_keywords(options.to_json()) == options


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Each row's vectors tell its number: a is (cos i, sin i) of an angle, b the same, spread over 3."""
    angle = np.arange(3000) * (np.pi / 4000)
    a = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    b = np.stack([np.cos(angle), np.sin(angle), np.zeros(3000)], axis=1)
    folder = tmp_path_factory.mktemp("numbered")
    table = pa.table({"id": np.arange(3000), "a": vectors(5 * a), "b": vectors(b)})
    make_table(folder, table.slice(0, 1700), table.slice(1700))
    return PairReader(open_source(folder), ("a", "b"), (2, 3), held_out=0.2, seed=4, batch_rows=512)


def numbers(rows):
    return np.rint(np.arctan2(rows[:, 1], rows[:, 0]) / (np.pi / 4000)).astype(int)


def gathered(reader, **sizes):
    sizes = {"validation_rows": 200, "held_out_rows": 10_000, **sizes}
    split = Split.of(reader, 3000, **sizes)
    return gather(reader, split, members=None, progress=lambda n: None, workers=2)


def test_rows_are_held_out_kept_aside_or_trained_on_never_two_of_them(reader):
    found = gathered(reader)
    held, aside = numbers(found.held_out.a), numbers(found.validation.a)
    trained = set()
    stream = mini_batches(reader, found.n_train, skip=found.skip, steps=200, rows=256, seed=0)
    for _, (a, b) in zip(range(200), stream, strict=False):
        assert np.array_equal(numbers(a), numbers(b))
        assert np.allclose(np.linalg.norm(a, axis=1), 1, atol=1e-6)
        trained |= set(numbers(a))
    assert len(held) == found.n_held_out
    assert 500 < len(held) < 700
    assert 130 < len(aside) < 270
    assert not set(held) & set(aside)
    assert not set(held) & trained
    assert not set(aside) & trained
    assert len(trained) == found.n_train  # and all others are
    assert found.n_train + len(held) + len(aside) == 3000


def test_batches_do_not_tell_where_fragments_end(reader):
    assert [len(batch) for batch in reader.batches()] == [512] * 5 + [440]


def test_moments_are_those_of_the_training_rows(reader):
    found = gathered(reader)
    others = np.concatenate([numbers(found.held_out.a), numbers(found.validation.a)])
    angle = np.setdiff1d(np.arange(3000), others) * (np.pi / 4000)
    a = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert np.allclose(found.moments.mean_a, a.mean(0), atol=1e-6)
    assert np.allclose(found.moments.aa, a.T @ a / len(a), atol=1e-6)
    assert np.allclose(found.moments.ab[:, :2], a.T @ a / len(a), atol=1e-6)


def test_sampled_training_rows_are_training_rows(reader):
    found = gathered(reader)
    split = Split.of(reader, 3000, validation_rows=200, held_out_rows=10_000)
    all_rows, some = training_sample(reader, split, 10_000), training_sample(reader, split, 500)
    assert len(set(numbers(all_rows.a))) == len(all_rows.a) == found.n_train
    others = set(numbers(found.held_out.a)) | set(numbers(found.validation.a))
    assert not set(numbers(all_rows.a)) & others
    assert 450 < len(some.a) <= 500
    assert set(numbers(some.a)) < set(numbers(all_rows.a))
    assert np.array_equal(numbers(some.a), numbers(some.b))


def test_the_split_is_a_function_of_keys_and_seed_alone(reader):
    one, two = gathered(reader), gathered(PairReader(reader.source, ("a", "b"), (2, 3), 0.2, 4, None, 97))
    assert sorted(numbers(one.held_out.a)) == sorted(numbers(two.held_out.a))
    other = gathered(PairReader(reader.source, ("a", "b"), (2, 3), 0.2, 5))
    assert sorted(numbers(one.held_out.a)) != sorted(numbers(other.held_out.a))


def test_a_table_larger_than_the_buffer_is_read_in_a_mixed_order(reader, monkeypatch):
    import spec_store.workflows.pairs as module

    monkeypatch.setattr(module, "_BUFFER_ROWS", 600)
    stream = mini_batches(reader, 2100, skip=0.3, steps=40, rows=100, seed=0)
    seen = [numbers(a) for _, (a, _) in zip(range(20), stream, strict=False)]
    together = np.concatenate(seen)
    assert len(set(together)) == len(together)  # one reading has each row once
    assert max(np.ptp(part) for part in seen[:3]) > 300
    assert not np.array_equal(together, np.sort(together))


def test_few_steps_draw_from_the_whole_table_in_one_reading(reader, monkeypatch):
    import spec_store.workflows.pairs as module

    monkeypatch.setattr(module, "_BUFFER_ROWS", 50)
    stream = mini_batches(reader, 2200, skip=0.3, steps=5, rows=40, seed=0)
    seen = np.concatenate([numbers(a) for _, (a, _) in zip(range(5), stream, strict=False)])
    assert len(set(seen)) == 200
    assert seen.max() > 2000
    assert seen.min() < 1000
