"""One pair of embeddings compared on a state: its spectrum, its clusters, and the record of both."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..connector import Location, Source
from ..errors import InputError
from ..options import CompareOptions, default_prefix
from ..progress import timed
from ..runs.records import AlignmentRecord, ComparisonRecord, new_run_id
from ..runs.registry import Registry
from ..spectral.covariance import CovarianceAccumulator
from ..spectral.features import FeatureMap
from ..spectral.jackknife import standard_errors
from ..spectral.koda import Epsilon, koda
from ..spectral.scoring import ModeWeights, Scorer
from ..spectral.spectrum import Spectrum, solve
from ..stores.locate import Destination
from ..stores.streaming import usable_cores
from .basis import Basis
from .comparison import Comparison
from .listing import Described, Earlier, list_clusters, members_in_columns
from .sampling import evaluated_rows

__all__ = ["Question", "compared", "given_maps", "kept_state", "number_or_none", "spectrum_of"]

_DEFAULT_MODES = 40
_DEFAULT_DIRECTIONS = 20
# Of each end, in the column of modes.
_WRITTEN_MODES = 10


@dataclass(frozen=True)
class Question:
    """What is asked of a state.

    Attributes
    ----------
    pair
        The two embeddings.
    options
        Those of the answer: modes, η, centring, objective, prefix.
    earlier
        The run whose cluster numbers are kept.
    destination
        Where the results go instead of the source.
    run_id
        Of the answer.
    """

    pair: tuple[str, str]
    options: CompareOptions
    earlier: Earlier
    destination: Destination | None = None
    run_id: str | None = None

    @property
    def prefix(self) -> str:
        """Of the result columns."""
        return self.options.prefix or default_prefix(self.pair)


def compared(basis: Basis, question: Question) -> Comparison:
    """The answer: no vector is read. Cost: see `solve`, and `find_clusters` on the sample."""
    pair, options, prefix = question.pair, question.options, question.prefix
    maps = basis.maps(pair)
    sample = basis.sample.of(pair)
    seconds = dict(basis.seconds)
    with timed(seconds, "solve"):
        spectrum = spectrum_of(basis.state, basis.positions(pair), options)
        error = basis.map_error(pair, options.eta)
        fit = _fit(basis, pair, options, spectrum)
    with timed(seconds, "clusters"):
        listing = list_clusters(
            evaluated_rows(sample, maps, spectrum),
            members_in_columns(sample.others, question.earlier, pair),
            question.earlier.run,
            pair,
            prefix,
            eta=options.eta,
            seed=options.seed,
            threads=options.threads or usable_cores(),
        )
    modes = ModeWeights.of(spectrum.leading(_WRITTEN_MODES)) if options.write_modes else None
    scorer = Scorer(maps, listing.clusters, prefix, modes)
    source, destination = basis.source, question.destination
    ends = list(zip(pair, spectrum.ends, strict=True))
    record = ComparisonRecord(
        run_id=question.run_id or new_run_id(),
        table=source.table if destination is None else destination.table,
        columns=pair,
        prefix=prefix,
        source_version=source.version,
        n_rows=spectrum.n_rows,
        n_skipped=basis.state.invalid.n_rows,
        options=options.to_json(),
        seconds=seconds,
        warnings=(*basis.warnings, *_warnings(options, spectrum)),
        bandwidth={m.column: m.sigma for m in maps},
        coverage=dict(zip(pair, spectrum.coverage, strict=True)),
        map_error=error,
        spec_diff=spectrum.spec_diff,
        spec_diff_centered=spectrum.spec_diff_centered,
        cka=number_or_none(spectrum.cka),
        cka_unbiased=number_or_none(spectrum.cka_unbiased),
        rounding=spectrum.rounding,
        eigenvalues={c: [float(v) for v in end.eigenvalues] for c, end in ends},
        mode_energies={c: [[float(a), float(b)] for a, b in end.energies.T] for c, end in ends},
        state_run=basis.state_run,
        references=basis.references,
        fit=fit,
        **listing.fields,
    )
    return Comparison(
        source=source,
        options=options,
        spectrum=spectrum,
        clusters_found=listing.clusters,
        scorer=scorer,
        state=basis.state,
        sample=basis.sample,
        record=record,
        described=Described.of(source, basis.columns, sample.others, options.seed)
        if options.describe
        else None,
        destination=destination,
        executor=basis.executor,
    )


def given_maps(source: Source, columns: Sequence[str], options: CompareOptions) -> list[FeatureMap] | None:
    """The maps of the run that the options name; None where they name none.

    Raises InputError where the run has none for these columns, or keeps no state.
    """
    if options.maps_from is None:
        return None
    known = {m.column: m for m in kept_state(source.location, options.maps_from).maps}
    missing = [c for c in columns if c not in known]
    if missing:
        raise InputError(
            f"Run {options.maps_from} has no feature map for column {missing[0]!r}; it has maps for"
            f" {', '.join(known)}."
        )
    return [known[c] for c in columns]


def kept_state(location: Location | None, run_id: str) -> CovarianceAccumulator:
    """The state that a recorded run was solved from. Raises InputError where none is kept."""
    registry = Registry.of(location)
    if registry is None:
        raise InputError(f"{location or 'Data in memory'} keeps no runs, so there is no run {run_id}.")
    run = registry.run(run_id)
    owner = getattr(run, "state_run", None) or run_id
    data = registry.state(owner) if not isinstance(run, AlignmentRecord) else None
    if data is None:
        raise InputError(f"Run {run_id} keeps no state: it is no comparison, or its state is lost.")
    return CovarianceAccumulator.load(io.BytesIO(data))


def spectrum_of(
    state: CovarianceAccumulator, positions: tuple[int, int], options: CompareOptions
) -> Spectrum:
    """The spectrum of two of a state's embeddings, by the objective that the options name."""
    if options.objective == "koda":
        wanted = options.modes or min(_DEFAULT_DIRECTIONS, state.n_rows)
        epsilon = Epsilon.parse(options.epsilon)
        return koda(state, epsilon=epsilon, pair=positions, directions=wanted, center=options.center)
    modes = options.modes or min(_DEFAULT_MODES, state.n_rows)
    return solve(state, pair=positions, modes=modes, eta=options.eta, center=options.center)


def _fit(
    basis: Basis, pair: tuple[str, str], options: CompareOptions, spectrum: Spectrum
) -> dict[str, Any] | None:
    """What the record says of a fit on a share of the rows; None for one on all."""
    if basis.n_scored is None:
        return None
    told = {"n_rows": spectrum.n_rows, "n_scored": basis.n_scored}
    if basis.portion is None or len(basis.portion.groups) < 2:
        return {**told, "standard_errors": None}
    numbers = [len(end.eigenvalues) for end in spectrum.ends]
    positions = basis.positions(pair)

    def figures(state: CovarianceAccumulator) -> NDArray[np.float64]:
        found = spectrum_of(state, positions, options)
        values = [found.spec_diff, found.spec_diff_centered, found.cka]
        for n, end in zip(numbers, found.ends, strict=True):  # without some rows there may be fewer modes
            values += [*end.eigenvalues[:n], *[0.0] * (n - len(end.eigenvalues))]
        return np.array(values)

    share = (basis.state.n_rows + basis.state.invalid.n_rows) / basis.n_scored
    errors = standard_errors(basis.portion.groups, figures, share=min(share, 1.0)).tolist()
    first, second = errors[3 : 3 + numbers[0]], errors[3 + numbers[0] :]
    named = dict(zip(("spec_diff", "spec_diff_centered", "cka"), errors[:3], strict=True))
    return {
        **told,
        "standard_errors": {**named, "eigenvalues": dict(zip(pair, (first, second), strict=True))},
    }


def number_or_none(value: float) -> float | None:
    """None for what is not a number."""
    return None if math.isnan(value) else value


def _warnings(options: CompareOptions, spectrum: Spectrum) -> list[str]:
    if options.precision == "float32" and spectrum.spec_diff < 10 * spectrum.rounding:
        return [
            f"the embeddings hardly differ: float32 can't tell eigenvalues under {spectrum.rounding:.1g} from"
            " rounding. Use --precision float64 for smaller ones."
        ]
    return []
