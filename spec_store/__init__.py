"""spec-store: which rows of my table do two embedding models group differently?

The pieces, each usable alone: `compare` and `Comparison`; `CovarianceAccumulator`, feature maps and
`solve`; `query`, `clusters`, `members`, `report`, `export`, `list_runs` and `undo` on an annotated
table; `update` and `status` while it changes; `align`, `load_map` and `gate` for a switch of models;
`Processes`, `RayTasks` and `Job` to share out the work.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .alignment import AlignmentMap, AlignOptions, load_map
    from .connector import Location
    from .errors import SpecStoreError
    from .options import CompareOptions
    from .plugins import installed_connectors
    from .reporting.options import ReportOptions
    from .spectral.bandwidth import Bandwidths, auto_bandwidths
    from .spectral.clusters import Cluster, find_clusters
    from .spectral.covariance import CovarianceAccumulator
    from .spectral.features import CosineMap, FeatureMap, NystroemMap, RandomFourierMap, kmeans_landmarks
    from .spectral.spectrum import Modes, Spectrum, solve
    from .workflows.again import compare_again
    from .workflows.align import align
    from .workflows.alignment import Alignment
    from .workflows.compare import compare
    from .workflows.comparison import Comparison
    from .workflows.executor import Processes, RayTasks
    from .workflows.export import Exported, export
    from .workflows.gate import Gate, GateOptions, gate
    from .workflows.job import Job
    from .workflows.members import Members, members
    from .workflows.models import ModelComparison, compare_models
    from .workflows.query import clusters, list_runs, query, undo
    from .workflows.report import report
    from .workflows.status import TableStatus, status
    from .workflows.times import TimesComparison, compare_times
    from .workflows.update import Updated, UpdatedClusters, update

_HOMES = {
    "AlignOptions": ".alignment",
    "Alignment": ".workflows.alignment",
    "AlignmentMap": ".alignment",
    "Bandwidths": ".spectral.bandwidth",
    "Cluster": ".spectral.clusters",
    "CompareOptions": ".options",
    "Comparison": ".workflows.comparison",
    "CosineMap": ".spectral.features",
    "CovarianceAccumulator": ".spectral.covariance",
    "Exported": ".workflows.export",
    "FeatureMap": ".spectral.features",
    "Gate": ".workflows.gate",
    "GateOptions": ".workflows.gate",
    "Job": ".workflows.job",
    "Location": ".connector",
    "Members": ".workflows.members",
    "ModelComparison": ".workflows.models",
    "Modes": ".spectral.spectrum",
    "NystroemMap": ".spectral.features",
    "Processes": ".workflows.executor",
    "RandomFourierMap": ".spectral.features",
    "RayTasks": ".workflows.executor",
    "ReportOptions": ".reporting.options",
    "SpecStoreError": ".errors",
    "Spectrum": ".spectral.spectrum",
    "TableStatus": ".workflows.status",
    "TimesComparison": ".workflows.times",
    "Updated": ".workflows.updated",
    "UpdatedClusters": ".workflows.updated",
    "align": ".workflows.align",
    "auto_bandwidths": ".spectral.bandwidth",
    "clusters": ".workflows.query",
    "compare": ".workflows.compare",
    "compare_again": ".workflows.again",
    "compare_models": ".workflows.models",
    "compare_times": ".workflows.times",
    "export": ".workflows.export",
    "find_clusters": ".spectral.clusters",
    "gate": ".workflows.gate",
    "installed_connectors": ".plugins",
    "kmeans_landmarks": ".spectral.features",
    "list_runs": ".workflows.query",
    "load_map": ".alignment",
    "members": ".workflows.members",
    "query": ".workflows.query",
    "report": ".workflows.report",
    "solve": ".spectral.spectrum",
    "status": ".workflows.status",
    "undo": ".workflows.query",
    "update": ".workflows.update",
}

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
    "Exported",
    "FeatureMap",
    "Gate",
    "GateOptions",
    "Job",
    "Location",
    "Members",
    "ModelComparison",
    "Modes",
    "NystroemMap",
    "Processes",
    "RandomFourierMap",
    "RayTasks",
    "ReportOptions",
    "SpecStoreError",
    "Spectrum",
    "TableStatus",
    "TimesComparison",
    "Updated",
    "UpdatedClusters",
    "align",
    "auto_bandwidths",
    "clusters",
    "compare",
    "compare_again",
    "compare_models",
    "compare_times",
    "export",
    "find_clusters",
    "gate",
    "installed_connectors",
    "kmeans_landmarks",
    "list_runs",
    "load_map",
    "members",
    "query",
    "report",
    "solve",
    "status",
    "undo",
    "update",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for, and only then: SciPy and the stores take a second."""
    if name == "__version__":
        from importlib.metadata import version

        return version("spec-store")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
