"""A fitted map as an ONNX graph, for serving processes that have no Python or no spec-store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingExtraError

if TYPE_CHECKING:
    from .maps import AlignmentMap

__all__ = ["import_onnx", "is_onnx", "to_onnx"]

_OPSET = 18


def is_onnx(path: str) -> bool:
    """Whether a file of this name is to hold an ONNX model."""
    return path.lower().endswith(".onnx")


def import_onnx() -> Any:
    """The onnx package. Raises MissingExtraError with the install line."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError('A map as ONNX needs its extra: pip install "spec-store[onnx]"') from error
    return onnx


def to_onnx(map: AlignmentMap) -> bytes:
    """`AlignmentMap.transform` as a model with input ``vectors`` (n, d) and output ``aligned`` (n, d_out).

    Both float32, n free; what is known of the fit is in the model's metadata, under ``spec_store.map``.
    Raises MissingExtraError where onnx is not installed.
    """
    onnx = import_onnx()
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    m = map.frequencies.shape[1]
    constants = {"weights": map.weights, "bias": map.bias}
    nodes = [_unit(helper, "vectors", "unit")]
    parts = ["unit"]
    if m:
        weights = map.weights.copy()
        weights[map.width : map.width + 2 * m] *= (
            m**-0.5
        )  # their scale: they are cosines and sines alone here
        constants |= {"weights": weights, "frequencies": map.frequencies}
        nodes += [
            helper.make_node("MatMul", ["unit", "frequencies"], ["angles"]),
            helper.make_node("Cos", ["angles"], ["cosines"]),
            helper.make_node("Sin", ["angles"], ["sines"]),
        ]
        parts += ["cosines", "sines"]
    if map.landmarks.size:
        scale = np.float32(map.bandwidth**-2)
        half_sq = 0.5 + 0.5 * np.einsum("ij,ij->j", map.landmarks, map.landmarks)
        constants |= {"landmarks": map.landmarks * scale, "offsets": half_sq * scale}
        nodes += [
            helper.make_node("MatMul", ["unit", "landmarks"], ["products"]),
            helper.make_node("Sub", ["products", "offsets"], ["exponents"]),
            helper.make_node("Exp", ["exponents"], ["kernel"]),
        ]
        parts.append("kernel")
    inputs = "unit"
    if len(parts) > 1:
        inputs = "features"
        nodes.append(helper.make_node("Concat", parts, [inputs], axis=1))
    output = "mapped" if map.unit else "aligned"
    nodes.append(helper.make_node("Gemm", [inputs, "weights", "bias"], [output]))
    if map.unit:
        nodes.append(_unit(helper, output, "aligned"))
    graph = helper.make_graph(
        nodes,
        "alignment",
        [helper.make_tensor_value_info("vectors", float32, ["n", map.width])],
        [helper.make_tensor_value_info("aligned", float32, ["n", map.out_width])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)
    helper.set_model_props(model, {"spec_store.map": json.dumps(map.about)})
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def _unit(helper: Any, rows: str, name: str) -> Any:
    """Rows at unit length."""
    return helper.make_node("LpNormalization", [rows], [name], axis=1, p=2)
