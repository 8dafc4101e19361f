"""The options of an alignment: built by the command line, taken by the library, stored with the run."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal, get_args

import numpy as np

from ..errors import InputError, did_you_mean
from .fit import Kind

__all__ = ["AlignOptions"]


@dataclass(frozen=True)
class AlignOptions:
    """What to fit, and how.

    Attributes
    ----------
    in_place
        The output stays in the source's space, near the source; otherwise it lies in the target's.
    kind
        "affine", "lowrank" or "residual", see `spec_store.alignment.FitOptions`; of several, the one that
        does best on training rows kept aside is written.
    kernel
        Of the objective: "cosine", or "gaussian" with automatic bandwidths.
    beta
        Weight of SPEC-diff² beside kernel matching.
    fidelity
        Weight μ of staying near the target's vectors (near the source's own, in place). Of several, each is
        fitted and judged, and none is written.
    ridge
        Penalty of the closed-form start, as a share of the mean variance.
    rank, n_frequencies
        Of "lowrank" and "residual" maps, see `spec_store.alignment.FitOptions`.
    steps, minibatch_rows, learning_rate
        Of the fit.
    held_out
        Share of the rows, told by a hash of their keys, that is never trained on.
    judged_rows
        Held-out rows on which maps are judged, at most about.
    seed
        Of the split and of every draw.
    where
        SQL filter: only these rows are fitted, judged and written.
    key, on_missing
        As in `CompareOptions`.
    column
        The result column; None is ``{source}_as_{target}``, or ``{source}_aligned`` in place.
    unit
        Write unit vectors, which is what the objective sees and what cosine search ranks alike; otherwise the
        map's raw output.
    force
        Write even if the column is no better than the source on held-out rows.
    skip_invalid
        Leave out null, NaN and zero vectors; their results are null.
    batch_rows
        Rows per batch.
    """

    in_place: bool = False
    kind: tuple[Kind, ...] = ("affine", "residual")
    kernel: Literal["cosine", "gaussian"] = "cosine"
    beta: float = 0.1
    fidelity: tuple[float, ...] = (0.01,)
    ridge: float = 0.01
    rank: int = 32
    n_frequencies: int = 256
    steps: int = 400
    minibatch_rows: int = 2048
    learning_rate: float = 1e-3
    held_out: float = 0.1
    judged_rows: int = 5000
    seed: int = 0
    where: str | None = None
    key: str | None = None
    on_missing: Literal["error", "drop"] = "error"
    column: str | None = None
    unit: bool = True
    force: bool = False
    skip_invalid: bool = False
    batch_rows: int = 4096

    def __post_init__(self) -> None:
        for name in ("kind", "fidelity"):  # one value, or several
            given = getattr(self, name)
            if isinstance(given, (str, float, int)):
                object.__setattr__(self, name, (given,))
        for kind in self.kind:
            if kind not in get_args(Kind):
                raise InputError(f"kind is {kind!r}; expected one of {', '.join(get_args(Kind))}.")
        if self.kernel not in ("cosine", "gaussian"):
            raise InputError(f"kernel is {self.kernel!r}; expected cosine or gaussian.")
        if not 0 < self.held_out < 1:
            raise InputError(f"held_out is {self.held_out}; expected a share between 0 and 1.")
        for name in ("steps", "minibatch_rows", "judged_rows", "batch_rows", "rank", "n_frequencies"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected 1 or more.")
        for name, values in (("fidelity", self.fidelity), ("beta", (self.beta,)), ("ridge", (self.ridge,))):
            for value in values:
                if not (np.isfinite(value) and value >= 0):
                    raise InputError(f"{name} is {value}; expected a finite number, 0 or more.")
        if self.column is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.column, re.ASCII):
            raise InputError(
                f"column is {self.column!r}; expected letters, digits and underscores, a letter first."
            )

    @property
    def compares_fidelities(self) -> bool:
        """Whether several are tried: to be looked at, since no figure tells which is the best."""
        return len(self.fidelity) > 1

    def column_for(self, source: str, target: str) -> str:
        """The result column's name."""
        name = f"{source}_aligned" if self.in_place else f"{source}_as_{target}"
        return self.column or re.sub(r"\W", "_", name, flags=re.ASCII)

    def with_split_of(self, about: dict[str, Any]) -> AlignOptions:
        """These options, with what a fitted map says of its fit: which rows it held out, and its space."""
        known = {name: about[name] for name in ("in_place", "held_out", "seed") if name in about}
        return dataclasses.replace(self, key=self.key or about.get("key"), **known)

    def about(self, columns: tuple[str, str]) -> dict[str, Any]:
        """What a map says of its fit, see `with_split_of`."""
        return {
            "columns": list(columns),
            "in_place": self.in_place,
            "held_out": self.held_out,
            "seed": self.seed,
            "key": self.key,
            "options": self.to_json(),
            "version": version("spec-store"),
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values, stored with the run."""
        return dataclasses.asdict(self)

    @classmethod
    def from_keywords(cls, given: dict[str, Any]) -> AlignOptions:
        """From keyword arguments; raises InputError naming the nearest option for an unknown one."""
        known = {f.name for f in dataclasses.fields(cls)}
        for name in given:
            if name not in known:
                raise InputError(f"No option {name!r}. {did_you_mean(name, known)}")
        return cls(**given)
