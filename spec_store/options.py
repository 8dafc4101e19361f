"""The options of a comparison: built by the command line, taken by the library, stored with the run."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .errors import InputError, did_you_mean

__all__ = [
    "CHANGEABLE",
    "LARGEST_BATCH",
    "LARGEST_SEED",
    "MOST_THREADS",
    "MOST_WORKERS",
    "CompareOptions",
    "Features",
    "Kernel",
    "Landmarks",
    "Objective",
    "check_choice",
    "check_count",
    "check_number",
    "default_prefix",
]

LARGEST_BATCH = 1 << 20
LARGEST_SEED = (1 << 31) - 1  # k-means takes 32 bits
MOST_THREADS = 1024
MOST_WORKERS = 1024

Kernel = Literal["gaussian", "cosine"]
Features = Literal["nystroem", "orf", "rff"]
Landmarks = Literal["kmeans", "uniform"]
Objective = Literal["difference", "koda"]

CHANGEABLE = (
    "modes",
    "eta",
    "center",
    "objective",
    "epsilon",
    "prefix",
    "describe",
    "write_modes",
    "batch_rows",
    "threads",
)
"""Options in which an answer from a recorded run may differ from it: all others are part of its state."""

_FEWEST_FITTED = 1000
_DEFAULT_DIM = {"nystroem": 500, "orf": 1000, "rff": 3000}


@dataclass(frozen=True)
class CompareOptions:
    """What to compare, and how.

    Attributes
    ----------
    kernel
        "gaussian" exp(-|x-y|²/2σ²), or "cosine".
    features
        How the Gaussian kernel becomes features: "nystroem" (landmarks from the data: the most accurate
        for its size), "orf" (orthogonal random features: states merge without sharing landmarks), or
        "rff" (random Fourier features, the paper's recipe).
    dim
        Landmarks (nystroem) or frequencies (orf, rff) per embedding; None is 500, 1000 and 3000.
    landmarks
        "kmeans" centroids of the sample, or "uniform" rows of it.
    modes
        Leading modes at each end, which propose clusters; None is 40, or as many as there are rows.
    write_modes
        Write the scores of the ten leading modes of each end too, as a column of their own.
    describe
        Count, beside pass 2, which values and words are over-represented in each cluster.
    bandwidth
        σ for each embedding; None chooses both, see `spec_store.spectral.bandwidth`.
    bandwidth_scale
        Multiplies the chosen or given bandwidths.
    objective
        What modes are: "difference", eigenvectors of the kernel difference; or "koda", directions that one
        embedding captures most among those of which the other sees no more than `epsilon`.
    epsilon
        That limit of koda: a number from 0 to 1, or a quantile of the other kernel's eigenvalues, "50%".
    eta
        Weight of the second kernel in the difference; koda has none.
    center
        Compare covariances, without the mode that is the mean similarity itself. False is the paper's.
    normalize
        Scale rows to unit length first. False is the paper's. The cosine kernel always does.
    where
        SQL filter: only these rows are compared and annotated.
    skip_invalid
        Skip rows with null, non-finite or zero vectors, instead of refusing.
    precision
        In which features and their products are computed. "float64" takes about twice as long, and
        distinguishes nearly identical embeddings.
    key
        A column that identifies rows: columns of two stores are matched by it, and typical rows are named by
        it. The sample depends on it too, unless its values repeat: then on the store's own row key, which
        None stands for.
    on_missing
        What to do with rows that only one of two stores holds: "error" refuses, "drop" leaves them out.
    maps_from
        A recorded run whose feature maps, bandwidths among them, are used instead of fitted ones: the two
        states can then be compared, see `compare_times`.
    prefix
        Of the result columns; None is ``spec_{first}_{second}``.
    keep_sample
        Keep the sample with the recorded run, vectors in half precision, so that later questions to it and
        reports read no vectors.
    sample_rows
        Size of the seeded sample for landmarks (at most 10,000 of its rows), rotation and scale.
    fit_rows
        Fit on a seeded share of the rows, about this many: all figures are of these rows, with standard
        errors, and every row is scored. None, or no fewer than there are, fits on all rows.
    seed
        Seed of every random draw.
    batch_rows
        Rows in memory per batch and thread.
    threads
        Threads for both passes; None is as many as the process may use of the machine's cores.
    """

    kernel: Kernel = "gaussian"
    features: Features = "nystroem"
    dim: int | None = None
    landmarks: Landmarks = "kmeans"
    modes: int | None = None
    write_modes: bool = False
    describe: bool = True
    bandwidth: tuple[float, ...] | None = None
    bandwidth_scale: float = 1.0
    objective: Objective = "difference"
    epsilon: str | float = "50%"
    eta: float = 1.0
    center: bool = True
    normalize: bool = True
    where: str | None = None
    skip_invalid: bool = False
    precision: Literal["float32", "float64"] = "float32"
    key: str | None = None
    on_missing: Literal["error", "drop"] = "error"
    maps_from: str | None = None
    prefix: str | None = None
    keep_sample: bool = True
    sample_rows: int = 20_000
    fit_rows: int | None = None
    seed: int = 0
    batch_rows: int = 4096
    threads: int | None = None

    def __post_init__(self) -> None:
        check_choice("kernel", self.kernel, get_args(Kernel))
        check_choice("features", self.features, get_args(Features))
        check_choice("landmarks", self.landmarks, get_args(Landmarks))
        check_choice("objective", self.objective, get_args(Objective))
        check_choice("precision", self.precision, ("float32", "float64"))
        check_choice("on_missing", self.on_missing, ("error", "drop"))
        if self.modes is not None:
            check_count("modes", self.modes, 1, 10_000)
        check_count("sample_rows", self.sample_rows, 1, 10_000_000)
        if self.fit_rows is not None:
            check_count("fit_rows", self.fit_rows, max(_FEWEST_FITTED, self.modes or 0), 1 << 50)
        check_count("batch_rows", self.batch_rows, 1, LARGEST_BATCH)
        check_count("seed", self.seed, 0, LARGEST_SEED)
        if self.dim is not None:
            check_count("dim", self.dim, 1, 16_384)
        if self.threads is not None:
            check_count("threads", self.threads, 1, MOST_THREADS)
        check_number("bandwidth_scale", self.bandwidth_scale, 1e-6, 1e6)
        check_number("eta", self.eta, 1e-6, 1e6)
        if self.bandwidth is not None:
            if len(self.bandwidth) < 2:
                raise InputError(f"bandwidth is {self.bandwidth}; expected one σ per embedding, or auto.")
            for sigma in self.bandwidth:
                check_number("bandwidth", sigma, 1e-12, 1e12)
        if self.prefix is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.prefix, re.ASCII):
            raise InputError(
                f"prefix is {self.prefix!r}; expected letters, digits and underscores, a letter first."
            )

    @property
    def fewest_rows(self) -> int:
        """How many rows a comparison needs: 2, and as many as modes are asked for."""
        return max(self.modes or 0, 2)

    @property
    def n_features(self) -> int:
        """`dim`, or its default for these features."""
        return self.dim or _DEFAULT_DIM[self.features]

    def to_json(self) -> dict[str, Any]:
        """Plain values, stored with the run."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> CompareOptions:
        """What `to_json` gave, of this version or an earlier one.

        Raises InputError for options that a newer version stored.
        """
        plain = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        return cls.from_keywords(plain)

    @classmethod
    def from_keywords(cls, given: Mapping[str, Any]) -> CompareOptions:
        """From keyword arguments; raises InputError naming the nearest option for an unknown one."""
        known = {f.name for f in dataclasses.fields(cls)}
        for name in given:
            if name not in known:
                raise InputError(f"No option {name!r}. {did_you_mean(name, known)}")
        return cls(**given)


def default_prefix(columns: tuple[str, str]) -> str:
    """``spec_clip_dino``; characters that SQL would want quoted become underscores."""
    return re.sub(r"\W", "_", f"spec_{columns[0]}_{columns[1]}", flags=re.ASCII)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError for a value that is none of the choices."""
    if value not in choices:
        raise InputError(f"{name} is {value!r}; expected one of {', '.join(choices)}.")


def check_count(name: str, value: int, least: int, most: int) -> None:
    """Raise InputError for what is no whole number from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"{name} is {value}; expected a whole number from {least:,} to {most:,}.")


def check_number(name: str, value: float, least: float, most: float) -> None:
    """Raise InputError for what is no number from `least` to `most`."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"{name} is {value}; expected a number from {least:g} to {most:g}.")
