"""The options of an alignment: built by the command line, taken by the library, stored with the run."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal, get_args

from ..errors import InputError, did_you_mean
from ..options import (
    LARGEST_BATCH,
    LARGEST_SEED,
    MOST_THREADS,
    check_choice,
    check_count,
    check_number,
)
from .fit import FitOptions, Kind

__all__ = ["AlignOptions"]


@dataclass(frozen=True)
class AlignOptions:
    """What to fit, and how.

    Attributes
    ----------
    in_place
        The output stays in the source's space, near the source; otherwise it lies in the target's.
    kind
        "kernel", "affine", "lowrank" or "residual", see `spec_store.alignment.fit.Kind`; of several, the one
        that does best on validation rows is written. None is "kernel", or "affine" and "residual" in place.
    kernel
        Kernel of the objective: "cosine", or "gaussian" with automatic bandwidths.
    beta
        Weight of SPEC-diff² beside kernel matching.
    cross
        Weight of the similarities of mapped rows to the target's, which are what its queries see. Without
        effect in place.
    fidelity
        Weight μ of staying near the target's vectors (near the source's own, in place). Of several, each is
        fitted and evaluated, and none is written.
    ridge
        Penalty of the closed forms, as a share of the mean variance; None chooses it by search overlap on
        validation rows.
    fit
        Size and steps of the fit. Its fields can be given as keywords of `align` beside these.
    held_out
        Share of the rows, selected by a hash of their keys, that is never trained on: the test rows.
    judged_rows
        Approximate maximum number of test rows on which maps are evaluated.
    seed
        Seed of the split and of every random draw.
    where
        SQL filter: only these rows are fitted, evaluated and written.
    key, on_missing
        As in `CompareOptions`.
    column
        The result column; None is ``{source}_as_{target}``, or ``{source}_aligned`` in place.
    only_missing
        Write the target's own vectors, at unit length, where rows have them, and mapped ones where they are
        null; a second column, ``{column}_from``, says "embedded" or "mapped". Null targets are no error.
    unit
        Write unit vectors, which is what the objective sees and what cosine search ranks alike; otherwise the
        map's raw output.
    force
        Write even if the column is no better than the source on test rows.
    skip_invalid
        Skip null, NaN and zero vectors; their results are null.
    batch_rows
        Rows per batch.
    threads
        As in `CompareOptions`.
    """

    in_place: bool = False
    kind: tuple[Kind, ...] | None = None
    kernel: Literal["cosine", "gaussian"] = "cosine"
    beta: float = 0.1
    cross: float = 4.0
    fidelity: tuple[float, ...] = (0.01,)
    ridge: float | None = None
    fit: FitOptions = field(default_factory=FitOptions)
    held_out: float = 0.1
    judged_rows: int = 5000
    seed: int = 0
    where: str | None = None
    key: str | None = None
    on_missing: Literal["error", "drop"] = "error"
    column: str | None = None
    only_missing: bool = False
    unit: bool = True
    force: bool = False
    skip_invalid: bool = False
    batch_rows: int = 4096
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("kind", "fidelity"):  # one value, or several
            given = getattr(self, name)
            if isinstance(given, (str, float, int)):
                object.__setattr__(self, name, (given,))
            if given is not None and not getattr(self, name):
                raise InputError(f"{name} is empty; expected one value or more.")
        for kind in self.kinds:
            check_choice("kind", kind, get_args(Kind))
        if self.in_place and "kernel" in self.kinds:
            raise InputError(
                "kind is 'kernel', which maps into the target's space; in place: affine, lowrank or residual."
            )
        if self.only_missing and (self.in_place or not self.unit):
            raise InputError(
                "only_missing keeps the target's own vectors beside mapped ones: it takes unit vectors in the"
                " target's space, neither in_place nor unit=False (--no-unit)."
            )
        check_choice("kernel", self.kernel, ("cosine", "gaussian"))
        check_choice("on_missing", self.on_missing, ("error", "drop"))
        if not 0 < self.held_out < 1:
            raise InputError(f"held_out is {self.held_out}; expected a share between 0 and 1.")
        check_count("judged_rows", self.judged_rows, 1, 100_000)
        check_count("batch_rows", self.batch_rows, 1, LARGEST_BATCH)
        check_count("seed", self.seed, 0, LARGEST_SEED)
        if self.threads is not None:
            check_count("threads", self.threads, 1, MOST_THREADS)
        ridge = () if self.ridge is None else (self.ridge,)
        weights = ("beta", (self.beta,)), ("cross", (self.cross,)), ("fidelity", self.fidelity)
        for name, values in (*weights, ("ridge", ridge)):
            for value in values:
                check_number(name, value, 0, 1e6)
        if self.column is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.column, re.ASCII):
            raise InputError(
                f"column is {self.column!r}; expected letters, digits and underscores, a letter first."
            )

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of map to fit."""
        return self.kind or (("affine", "residual") if self.in_place else ("kernel",))

    @property
    def compares_fidelities(self) -> bool:
        """Whether several are tried: to be compared by a person, since no figure says which is the best."""
        return len(self.fidelity) > 1

    def column_for(self, source: str, target: str) -> str:
        """The result column's name."""
        name = f"{source}_aligned" if self.in_place else f"{source}_as_{target}"
        return self.column or re.sub(r"\W", "_", name, flags=re.ASCII)

    def with_split_of(self, about: dict[str, Any]) -> AlignOptions:
        """These options, with what a fitted map says of its fit: its split of the rows, and its space."""
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
        """Plain values, stored with the run; those of `fit` stand beside the others."""
        plain = dataclasses.asdict(self)
        fit = plain.pop("fit")
        return {**plain, **fit}

    @classmethod
    def from_keywords(cls, given: Mapping[str, Any]) -> AlignOptions:
        """From keyword arguments, those of `FitOptions` among them.

        Raises InputError naming the nearest option for an unknown one.
        """
        own, fit = ({f.name for f in dataclasses.fields(kind)} for kind in (cls, FitOptions))
        for name in given:
            if name not in own | fit:
                raise InputError(f"No option {name!r}. {did_you_mean(name, own | fit)}")
        options = cls(**{name: value for name, value in given.items() if name in own})
        fields = {name: value for name, value in given.items() if name in fit}
        return dataclasses.replace(options, fit=dataclasses.replace(options.fit, **fields))
