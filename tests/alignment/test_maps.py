"""Fitted maps as files and functions, and the closed forms that fits begin from."""

import json
import sys

import numpy as np
import onnx
import onnx.reference
import pytest

import spec_store
from planted import unit
from spec_store.alignment import to_onnx
from spec_store.alignment.maps import AlignmentMap
from spec_store.alignment.start import Moments, affine_start, procrustes_start, ridge_start
from spec_store.errors import InputError, MissingExtraError


def some_map(m=3, unit=True, d=5, d_out=4):
    rng = np.random.default_rng(0)
    shapes = (d + 2 * m, d_out), (d_out,), (d, m)
    weights, bias, frequencies = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    return AlignmentMap(weights, bias, frequencies, unit=unit, about={"columns": ["a", "b"]})


@pytest.mark.parametrize("unit_rows", [True, False])
@pytest.mark.parametrize("m", [0, 3])
def test_transform_is_its_formula(m, unit_rows):
    map_ = some_map(m, unit_rows)
    x = np.random.default_rng(1).standard_normal((9000, 5))
    u = unit(x)
    phi = [np.cos(u @ map_.frequencies), np.sin(u @ map_.frequencies)]
    y = np.hstack([u, *(part / np.sqrt(max(m, 1)) for part in phi)]) @ map_.weights + map_.bias
    expected = unit(y) if unit_rows else y
    assert np.allclose(map_.transform(x), expected, atol=1e-5)
    assert map_.transform(x).dtype == np.float32


def test_transform_takes_any_float_one_vector_and_no_vectors():
    map_ = some_map()
    x = np.random.default_rng(1).standard_normal((7, 5))
    assert np.allclose(map_.transform(x.astype(np.float16)), map_.transform(x), atol=1e-2)
    assert np.allclose(map_.transform(1e30 * x.astype(np.float64)), map_.transform(x), atol=1e-5)
    for scale in (1e-25, 1e25):  # whose squares float32 can't hold
        assert np.allclose(map_.transform((scale * x).astype(np.float32)), map_.transform(x), atol=1e-5)
    assert np.allclose(map_.transform(x[2]), map_.transform(x)[2], atol=1e-6)
    assert map_.transform(x[:0]).shape == (0, 4)
    assert map_.transform(x.tolist()).shape == (7, 4)


def test_a_row_of_zeros_or_that_is_not_finite_has_no_direction():
    x = np.array([[0, 0, 0, 0, 0], [1, 2, 3, 4, 5], [1, 2, 3, 4, np.inf], [1, 2, 3, 4, np.nan]], float)
    for m in (0, 3):
        found = some_map(m).transform(x)
        assert np.isnan(found[[0, 2, 3]]).all()
        assert np.isfinite(found[1]).all()


@pytest.mark.parametrize("shape", [(3, 4), (4,), (2, 5, 1)])
def test_vectors_of_another_width_are_refused(shape):
    with pytest.raises(InputError, match=r"this map takes \(n, 5\)"):
        some_map().transform(np.ones(shape))


def test_a_saved_map_is_the_same_map(tmp_path):
    map_ = some_map(unit=False)
    map_.save(tmp_path / "map.npz")
    loaded = spec_store.load_map(tmp_path / "map.npz")
    x = np.random.default_rng(1).standard_normal((50, 5))
    assert np.array_equal(loaded.transform(x), map_.transform(x))
    assert (loaded.unit, loaded.about) == (False, {"columns": ["a", "b"]})
    assert (loaded.width, loaded.out_width) == (5, 4)


@pytest.mark.parametrize("unit_rows", [True, False])
@pytest.mark.parametrize("m", [0, 3])
def test_the_onnx_model_is_the_same_map(m, unit_rows):
    map_ = some_map(m, unit_rows)
    model = onnx.load_from_string(to_onnx(map_))
    x = np.random.default_rng(1).standard_normal((50, 5)).astype(np.float32)
    (found,) = onnx.reference.ReferenceEvaluator(model).run(["aligned"], {"vectors": x})
    assert np.allclose(found, map_.transform(x), atol=1e-5)
    assert json.loads(model.metadata_props[0].value) == map_.about


def test_onnx_is_an_extra_with_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r'pip install "spec-store\[onnx\]"'):
        to_onnx(some_map())


def broken(folder, what):
    path = folder / "map.npz"
    some_map().save(path)
    if what == "absent":
        path.unlink()
    elif what == "empty":
        path.write_bytes(b"")
    elif what == "cut short":
        path.write_bytes(path.read_bytes()[:200])
    elif what == "no archive":
        path.write_text("weights = 1")
    elif what == "another archive":
        np.savez(path, x=np.ones(3))
    elif what == "pickled":
        np.savez(path, header=np.array([{"format": 1}], dtype=object))
    elif what == "newer":
        header = np.frombuffer(json.dumps({"format": 99}).encode(), np.uint8)
        np.savez(path, header=header, weights=1, bias=1, frequencies=1)
    return path


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("absent", "No map file"),
        ("empty", "is not a map"),
        ("cut short", "is not a map"),
        ("no archive", "is not a map"),
        ("another archive", "is not a map"),
        ("pickled", "is not a map"),
        ("newer", "map format 99 is not known"),
    ],
)
def test_what_is_no_map_is_refused(tmp_path, what, message):
    with pytest.raises(InputError, match=message):
        spec_store.load_map(broken(tmp_path, what))


def pairs(n=4000):
    rng = np.random.default_rng(3)
    a = unit(rng.standard_normal((n, 6)) + 1)
    b = unit(a @ rng.standard_normal((6, 4)) + 0.3 * rng.standard_normal((n, 4)) + 0.5)
    return a, b, Moments(a.mean(0), b.mean(0), a.T @ a / n, a.T @ b / n, b.T @ b / n)


def test_ridge_without_a_penalty_is_least_squares():
    a, b, moments = pairs()
    weights, bias = ridge_start(moments, 0.0)
    expected, *_ = np.linalg.lstsq(np.hstack([a, np.ones((len(a), 1))]), b, rcond=None)
    assert np.allclose(np.vstack([weights, bias]), expected, atol=1e-8)


def test_restored_variance_is_the_targets():
    a, b, moments = pairs()
    weights, bias = affine_start(moments, 0.5)
    y = a @ weights + bias
    assert np.allclose(np.cov(y.T), np.cov(b.T), atol=1e-6)
    assert np.allclose(y.mean(0), b.mean(0))
    shrunk = a @ ridge_start(moments, 0.5)[0]
    assert np.trace(np.cov(shrunk.T)) < 0.8 * np.trace(np.cov(b.T))
    assert np.all(np.einsum("ij,ij->j", y - y.mean(0), shrunk - shrunk.mean(0)) > 0)  # not turned about


def test_a_source_that_knows_less_than_the_target_has_dimensions_is_no_error():
    rng = np.random.default_rng(0)
    a = unit(rng.standard_normal((500, 3)))
    b = unit(a @ rng.standard_normal((3, 8)) + 0.01 * rng.standard_normal((500, 8)))
    moments = Moments(a.mean(0), b.mean(0), a.T @ a / 500, a.T @ b / 500, b.T @ b / 500)
    weights, bias = affine_start(moments, 0.01)
    assert np.isfinite(weights).all()
    assert (unit(a @ weights + bias) * b).sum(1).mean() > 0.95


def test_procrustes_keeps_angles():
    _, _, moments = pairs()
    weights, bias = procrustes_start(moments)
    assert np.allclose(weights.T @ weights, np.eye(4))
    assert not bias.any()
