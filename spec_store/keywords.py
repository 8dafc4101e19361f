"""The options of public functions as keywords, for type checkers and language servers.

Each class holds the fields of a class of options, which has the defaults and says what they mean. Python 3.10
has no `typing.Unpack`: functions take these under a name that only type checkers look up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from .alignment.fit import Kind
from .options import Features, Kernel, Landmarks, Objective
from .reporting.projection import Method

__all__ = ["AgainKeywords", "AlignKeywords", "CompareKeywords", "GateKeywords", "ReportKeywords"]


class CompareKeywords(TypedDict, total=False):
    """The fields of `CompareOptions`."""

    kernel: Kernel
    features: Features
    dim: int | None
    landmarks: Landmarks
    modes: int | None
    write_modes: bool
    describe: bool
    bandwidth: tuple[float, ...] | None
    bandwidth_scale: float
    objective: Objective
    epsilon: str | float
    eta: float
    center: bool
    normalize: bool
    where: str | None
    skip_invalid: bool
    precision: Literal["float32", "float64"]
    key: str | None
    on_missing: Literal["error", "drop"]
    maps_from: str | None
    prefix: str | None
    keep_sample: bool
    sample_rows: int
    fit_rows: int | None
    seed: int
    batch_rows: int
    threads: int | None


class AgainKeywords(TypedDict, total=False):
    """Those fields of `CompareOptions` that `compare_again` can change."""

    modes: int | None
    eta: float
    center: bool
    objective: Objective
    epsilon: str | float
    prefix: str | None
    describe: bool
    write_modes: bool
    batch_rows: int
    threads: int | None


class AlignKeywords(TypedDict, total=False):
    """The fields of `AlignOptions`, and those of `FitOptions` beside them."""

    in_place: bool
    kind: Kind | Sequence[Kind] | None
    kernel: Literal["cosine", "gaussian"]
    beta: float
    cross: float
    fidelity: float | Sequence[float]
    ridge: float | None
    n_landmarks: int
    fit_rows: int | None
    rank: int
    n_frequencies: int
    steps: int | None
    minibatch_rows: int | None
    learning_rate: float | None
    held_out: float
    judged_rows: int
    seed: int
    where: str | None
    key: str | None
    on_missing: Literal["error", "drop"]
    column: str | None
    only_missing: bool
    unit: bool
    force: bool
    skip_invalid: bool
    batch_rows: int
    threads: int | None


class GateKeywords(TypedDict, total=False):
    """The fields of `GateOptions`."""

    slices: Sequence[str]
    k: int
    fail_under: float
    min_rows: int
    judged_rows: int
    query_rows: int
    whole_table: bool
    budget: int | str | None
    cutoff: float | None
    query_source: str | None
    query_target: str | None
    relevant: str | None
    key: str | None
    on_missing: Literal["error", "drop"]


class ReportKeywords(TypedDict, total=False):
    """The fields of `ReportOptions`."""

    show: Sequence[str]
    clusters: int
    rows: int
    sample_rows: int
    projection: Method
    seed: int
