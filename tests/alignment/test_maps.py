"""Fitted maps as files and functions, and the closed forms that fits begin from."""

import io
import json
import sys
import tracemalloc
import zipfile

import numpy as np
import onnx
import onnx.reference
import pytest

import spec_store
from planted import unit
from spec_store.alignment import to_onnx
from spec_store.alignment.maps import AlignmentMap
from spec_store.alignment.start import PairMoments, RidgePath, procrustes_start
from spec_store.errors import InputError, MissingExtraError


def some_map(m=3, unit=True, d=5, d_out=4, n_landmarks=0):
    rng = np.random.default_rng(0)
    shapes = (d + 2 * m + n_landmarks, d_out), (d_out,), (d, m), (d, n_landmarks)
    weights, bias, frequencies, landmarks = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    about = {"columns": ["a", "b"]}
    return AlignmentMap(
        weights, bias, frequencies, landmarks=landmarks, bandwidth=0.7, unit=unit, about=about
    )


@pytest.mark.parametrize("unit_rows", [True, False])
@pytest.mark.parametrize("m", [0, 3])
@pytest.mark.parametrize("n_landmarks", [0, 6])
def test_transform_is_its_formula(m, unit_rows, n_landmarks):
    map_ = some_map(m, unit_rows, n_landmarks=n_landmarks)
    x = np.random.default_rng(1).standard_normal((9000, 5))
    u = unit(x)
    phi = [np.cos(u @ map_.frequencies), np.sin(u @ map_.frequencies)]
    phi = [part / np.sqrt(max(m, 1)) for part in phi]
    sq = ((u[:, None, :] - map_.landmarks.T[None]) ** 2).sum(axis=2)
    phi.append(np.exp(-sq / (2 * 0.7**2)))
    y = np.hstack([u, *phi]) @ map_.weights + map_.bias
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
@pytest.mark.parametrize("n_landmarks", [0, 6])
def test_the_onnx_model_is_the_same_map(m, unit_rows, n_landmarks):
    map_ = some_map(m, unit_rows, n_landmarks=n_landmarks)
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


def archive(path, compression=zipfile.ZIP_STORED, **members):
    """An .npz whose members are arrays, or bytes as they are."""
    map_ = some_map()
    header = np.frombuffer(json.dumps({"format": 1, "unit": True, "about": {}}).encode(), np.uint8)
    parts = {"header": header, **{n: getattr(map_, n) for n in ("weights", "bias", "frequencies")}, **members}
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in parts.items():
            if not isinstance(content, bytes):
                buffer = io.BytesIO()
                np.save(buffer, np.asarray(content))
                content = buffer.getvalue()
            file.writestr(f"{name}.npy", content)
    return path


def header_only(shape, dtype="<f4"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def about(**values):
    return np.frombuffer(json.dumps({"format": 1, "unit": True, "about": values}).encode(), np.uint8)


def test_an_archive_as_others_write_it_is_read(tmp_path):
    map_ = some_map()
    loaded = spec_store.load_map(archive(tmp_path / "m.npz", weights=np.asfortranarray(map_.weights)))
    assert np.array_equal(loaded.weights, map_.weights)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"weights": np.full((11, 4), np.nan, np.float32)}, "44 of 44 weights of a map are not finite"),
        ({"bias": np.array([0, 1, np.inf, 2], np.float32)}, "1 of 4 bias of a map are not finite"),
        ({"weights": np.zeros((10, 4), np.float32)}, r"shape \(10, 4\).*want \(11, 4\)"),
        ({"bias": np.zeros((4, 1), np.float32)}, "expected a float32 array of 1 axes"),
        ({"frequencies": np.zeros((5, 3), np.int64)}, "expected a float32 array of 2 axes"),
        ({"weights": np.array([["x"] * 4] * 11)}, "expected a float32 array of 2 axes"),
        ({"weights": header_only((1 << 40, 1 << 10))}, "is not a map"),
        ({"weights": header_only((-1, 4))}, "is not a map"),
        ({"weights": header_only((11, 4)) + bytes(11 * 4 * 4 + 1)}, "is not a map"),
        ({"weights": header_only((11, 4), "|O") + bytes(8 * 44)}, "is not a map"),
        ({"header": np.frombuffer(b"[" * 100_000, np.uint8)}, "is not a map"),
        ({"header": about(held_out="all")}, "is not a map"),
        ({"header": about(held_out=float("nan"))}, "is not a map"),
        ({"header": about(seed=0.5)}, "is not a map"),
        ({"compression": zipfile.ZIP_DEFLATED, "bias": bytes(50_000_000)}, "compressed, or larger"),
    ],
)
def test_a_map_file_that_lies_or_holds_no_numbers_is_refused(tmp_path, members, message):
    path = archive(tmp_path / "m.npz", **members)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=message):
            spec_store.load_map(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_map_of_values_that_are_not_finite_cannot_be_made(value):
    weights = np.full((5, 4), value, np.float32)
    with pytest.raises(InputError, match="20 of 20 weights of a map are not finite"):
        AlignmentMap(weights, np.zeros(4, np.float32), np.zeros((5, 0), np.float32))


def pairs(n=4000):
    rng = np.random.default_rng(3)
    a = unit(rng.standard_normal((n, 6)) + 1)
    b = unit(a @ rng.standard_normal((6, 4)) + 0.3 * rng.standard_normal((n, 4)) + 0.5)
    return a, b, PairMoments(a.mean(0), b.mean(0), a.T @ a / n, a.T @ b / n, b.T @ b / n)


def test_ridge_without_a_penalty_is_least_squares():
    a, b, moments = pairs()
    weights, bias = RidgePath(moments).at(0.0)
    expected, *_ = np.linalg.lstsq(np.hstack([a, np.ones((len(a), 1))]), b, rcond=None)
    assert np.allclose(np.vstack([weights, bias]), expected, atol=1e-8)


def test_restored_variance_is_the_targets():
    a, b, moments = pairs()
    weights, bias = RidgePath(moments).restored(0.5)
    y = a @ weights + bias
    assert np.allclose(np.cov(y.T), np.cov(b.T), atol=1e-6)
    assert np.allclose(y.mean(0), b.mean(0))
    shrunk = a @ RidgePath(moments).at(0.5).weights
    assert np.trace(np.cov(shrunk.T)) < 0.8 * np.trace(np.cov(b.T))
    assert np.all(np.einsum("ij,ij->j", y - y.mean(0), shrunk - shrunk.mean(0)) > 0)  # not turned about


def test_a_source_that_knows_less_than_the_target_has_dimensions_is_no_error():
    rng = np.random.default_rng(0)
    a = unit(rng.standard_normal((500, 3)))
    b = unit(a @ rng.standard_normal((3, 8)) + 0.01 * rng.standard_normal((500, 8)))
    moments = PairMoments(a.mean(0), b.mean(0), a.T @ a / 500, a.T @ b / 500, b.T @ b / 500)
    weights, bias = RidgePath(moments).restored(0.01)
    assert np.isfinite(weights).all()
    assert (unit(a @ weights + bias) * b).sum(1).mean() > 0.95


def test_procrustes_keeps_angles():
    _, _, moments = pairs()
    weights, bias = procrustes_start(moments)
    assert np.allclose(weights.T @ weights, np.eye(4))
    assert not bias.any()


def test_a_map_with_landmarks_comes_back_from_its_file_and_one_without_stays_readable(tmp_path):
    for n_landmarks, number in ((6, 2), (0, 1)):
        map_ = some_map(n_landmarks=n_landmarks)
        map_.save(tmp_path / "map.npz")
        with np.load(tmp_path / "map.npz") as stored:
            assert json.loads(stored["header"].tobytes())["format"] == number
            assert ("landmarks" in stored.files) == (n_landmarks > 0)
        again = spec_store.load_map(tmp_path / "map.npz")
        assert again.bandwidth == (0.7 if n_landmarks else 1.0)
        x = np.random.default_rng(1).standard_normal((20, 5))
        assert np.array_equal(again.transform(x), map_.transform(x))


def test_landmarks_of_another_width_or_without_a_bandwidth_are_refused():
    parts = np.zeros((8, 4), np.float32), np.zeros(4, np.float32), np.zeros((5, 0), np.float32)
    with pytest.raises(InputError, match=r"Landmarks of a map have shape \(4, 3\)"):
        AlignmentMap(*parts, landmarks=np.ones((4, 3), np.float32))
    with pytest.raises(InputError, match=r"landmarks \(5, 2\)"):
        AlignmentMap(*parts, landmarks=np.ones((5, 2), np.float32))
    for bandwidth in (0.0, np.nan, np.inf):
        with pytest.raises(InputError, match="a positive number"):
            AlignmentMap(*parts, landmarks=np.ones((5, 3), np.float32), bandwidth=bandwidth)
