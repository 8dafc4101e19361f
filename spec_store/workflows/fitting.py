"""The maps that an alignment tries: each kind with each fidelity, and the closed forms to compare with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..alignment.fit import Fitted, Fitting
from ..alignment.maps import AlignmentMap
from ..alignment.objective import Objective
from ..alignment.options import AlignOptions
from ..alignment.start import Linear, affine_start, procrustes_start, ridge_start
from ..spectral.bandwidth import auto_bandwidths
from .pairs import Gathered, PairReader, mini_batches

__all__ = ["closed_forms", "fit_all"]


def fit_all(
    reader: PairReader, found: Gathered, options: AlignOptions, progress: Callable[[int], None]
) -> dict[str, Fitted]:
    """By name, a fit of every kind with every fidelity asked for, all on the same mini-batches."""
    bandwidths = _bandwidths(found, reader, options)
    fits = {
        f"{kind}, fidelity {mu:g}" if options.compares_fidelities else kind: Fitting(
            _start(found, options),
            found.validation,
            Objective(options.kernel, options.beta, mu, bandwidths),
            kind,
            options.fit,
            in_place=options.in_place,
            seed=options.seed,
        )
        for kind in options.kind
        for mu in options.fidelity
    }
    batches = mini_batches(
        reader,
        found.n_train,
        skip=found.skip,
        steps=options.fit.steps,
        rows=options.fit.minibatch_rows,
        seed=options.seed,
    )
    for _, batch in zip(range(options.fit.steps), batches, strict=False):
        for fitting in fits.values():
            fitting.step(batch)
        progress(len(batch.a))
    return {name: fitting.result() for name, fitting in fits.items()}


def closed_forms(found: Gathered, options: AlignOptions) -> dict[str, AlignmentMap]:
    """By name, the maps into the target's space that need no fit; none in place."""
    if options.in_place:
        return {}
    return {
        "ridge": _linear(ridge_start(found.moments, options.ridge)),
        "ridge, variance restored": _linear(affine_start(found.moments, options.ridge)),
        "procrustes": _linear(procrustes_start(found.moments)),
    }


def _start(found: Gathered, options: AlignOptions) -> Linear:
    if options.in_place:
        d = len(found.moments.mean_a)
        return Linear(np.eye(d), np.zeros(d))
    return affine_start(found.moments, options.ridge)


def _linear(linear: Linear) -> AlignmentMap:
    weights, bias = (np.asarray(part, np.float32) for part in linear)
    return AlignmentMap(weights, bias, np.zeros((len(weights), 0), np.float32))


def _bandwidths(found: Gathered, reader: PairReader, options: AlignOptions) -> tuple[float, float]:
    """σ of output and target: the target's for both where the output is to lie in its space."""
    if options.kernel == "cosine":
        return 1.0, 1.0
    samples = (rows.astype(np.float64) for rows in found.validation)
    sigma_a, sigma_b = auto_bandwidths(dict(zip(reader.columns, samples, strict=True))).values
    return (sigma_a if options.in_place else sigma_b), sigma_b
