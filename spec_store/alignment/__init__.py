"""SPEC-align on stored vectors: a map from one embedding's vectors to another's, fitted, evaluated and kept.

`maps` holds the map itself, `start` regressions in closed form and baselines, `kernel` the features that they
are fitted on, `objective` what is minimised, with gradients, `fit` the minimisation over mini-batches,
`validation` the choice among maps, `evaluate` figures on test rows.
"""

from .fit import FitOptions, Fitted, fit
from .maps import AlignmentMap, load_map
from .objective import Objective
from .onnx import to_onnx
from .options import AlignOptions
from .start import RidgePath, procrustes_start

__all__ = [
    "AlignOptions",
    "AlignmentMap",
    "FitOptions",
    "Fitted",
    "Objective",
    "RidgePath",
    "fit",
    "load_map",
    "procrustes_start",
    "to_onnx",
]
