"""The clusters of two matrices, found without a store."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from planted import batch_of, unit
from spec_store.options import CompareOptions
from spec_store.spectral.candidates import SampledRows
from spec_store.spectral.clusters import Found, find_clusters
from spec_store.spectral.covariance import CovarianceAccumulator
from spec_store.spectral.features import FeatureMap
from spec_store.spectral.spectrum import Spectrum, solve
from spec_store.workflows.sampling import Sample, evaluated_rows, fit_maps


@dataclass
class Listed:
    """What a comparison of all rows finds, and what it is found from."""

    maps: list[FeatureMap]
    spectrum: Spectrum
    rows: SampledRows
    found: Found
    batch: pa.RecordBatch


def listed(a, b, *, n_modes=40, **fields):
    """The clusters of two matrices, every row of which is sampled."""
    options = CompareOptions(**{"dim": 100, "seed": 0} | fields)
    rows = tuple((unit(x) if options.normalize else x).astype(options.precision) for x in (a, b))
    sample = Sample(("a", "b"), rows, np.arange(min(1000, len(a))), pa.table({}), pa.array(range(len(a))))
    maps = fit_maps(sample, options).maps
    batch = batch_of(a=a, b=b)
    state = CovarianceAccumulator(maps)
    state.update(batch)
    spectrum = solve(state, modes=n_modes, eta=options.eta, center=options.center)
    evaluated = evaluated_rows(sample.stored(options), maps, spectrum)
    found = find_clusters(evaluated, seed=options.seed)
    return Listed(maps, spectrum, evaluated, found, batch)
