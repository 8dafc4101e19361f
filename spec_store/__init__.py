"""spec-store: which rows of my table do two embedding models group differently?

The pieces, each usable alone: `compare` and `Comparison`; `CovarianceAccumulator`, feature maps and
`solve`; `query`, `clusters`, `list_runs` and `undo` on an annotated table; `align`, `update`, `load_map` and
`gate` for a switch of models.
"""

from .align import Alignment, align
from .alignment import AlignmentMap, AlignOptions, load_map
from .bandwidth import Bandwidths, auto_bandwidths
from .clusters import Cluster, find_clusters, varimax
from .compare import Comparison, compare
from .connector import installed_connectors
from .covariance import CovarianceAccumulator
from .errors import SpecStoreError
from .features import CosineMap, FeatureMap, NystroemMap, RandomFourierMap, kmeans_landmarks
from .gate import Gate, gate
from .options import CompareOptions
from .query import clusters, query, undo
from .runs import list_runs
from .spectrum import Modes, Spectrum, solve
from .update import update

__all__ = [
    "AlignOptions",
    "Alignment",
    "AlignmentMap",
    "Bandwidths",
    "Cluster",
    "CompareOptions",
    "Comparison",
    "CosineMap",
    "CovarianceAccumulator",
    "FeatureMap",
    "Gate",
    "Modes",
    "NystroemMap",
    "RandomFourierMap",
    "SpecStoreError",
    "Spectrum",
    "align",
    "auto_bandwidths",
    "clusters",
    "compare",
    "find_clusters",
    "gate",
    "installed_connectors",
    "kmeans_landmarks",
    "list_runs",
    "load_map",
    "query",
    "solve",
    "undo",
    "update",
    "varimax",
]
