"""SPEC-align on stored vectors: a map from one embedding's vectors to another's, fitted, evaluated and kept.

`maps` holds the map itself, `start` its closed-form beginnings and baselines, `objective` what is minimised,
with gradients, `fit` the minimisation over mini-batches.
"""

from .fit import FitOptions, Fitted, fit
from .maps import AlignmentMap, load_map
from .objective import Objective
from .onnx import to_onnx
from .options import AlignOptions
from .start import affine_start, procrustes_start, ridge_start

__all__ = [
    "AlignOptions",
    "AlignmentMap",
    "FitOptions",
    "Fitted",
    "Objective",
    "affine_start",
    "fit",
    "load_map",
    "procrustes_start",
    "ridge_start",
    "to_onnx",
]
