"""The progress of pass 1, kept as it goes on."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..connector import Source, Workspace
from ..spectral.covariance import CovarianceAccumulator
from ..spectral.features import FeatureMap
from .checkpoint import Checkpoint, Content
from .kept import load_sample, sample_to_bytes
from .portion import Portion
from .sampling import Sample
from .units import Progressed

__all__ = ["PassCheckpoint", "Prepared"]

# A larger state is not kept: its copies would take more memory than all else.
_LARGEST_STATE = 512 << 20


@dataclass(frozen=True)
class Prepared:
    """What is fixed on the sample before pass 1.

    Attributes
    ----------
    sample
        As it is kept with a run.
    maps
        A feature map per embedding.
    map_errors
        By pair, see `sampling.map_error`.
    messages
        What a person should know of keys and bandwidths.
    by_own_key
        Whether rows go by the store's own key, since the one that was asked for repeats.
    seed
        Of the sample.
    """

    sample: Sample
    maps: Sequence[FeatureMap]
    map_errors: Mapping[tuple[str, str], float]
    messages: tuple[str, ...]
    by_own_key: bool
    seed: int

    def to_content(self) -> Content:
        """All but the maps, which a state holds."""
        header: dict[str, Any] = {
            "map_errors": [[*pair, error] for pair, error in self.map_errors.items()],
            "messages": list(self.messages),
            "by_own_key": self.by_own_key,
            "seed": self.seed,
        }
        return header, sample_to_bytes(self.sample, self.seed, compression=None)

    @classmethod
    def from_content(cls, content: Content, maps: Sequence[FeatureMap]) -> Prepared:
        """What `to_content` gave."""
        header, sample = content
        return cls(
            load_sample(sample),
            maps,
            {(a, b): float(error) for a, b, error in header["map_errors"]},
            tuple(header["messages"]),
            header["by_own_key"],
            header["seed"],
        )


class PassCheckpoint(Checkpoint):
    """What is fixed before pass 1, and what of the rows has been summed.

    Attributes
    ----------
    prepared, start, portion
        What the interrupted run had fixed, and summed of all rows or of a share of them; None where none is
        continued.
    """

    parts = ("base", "state")

    def __init__(self, source: Source, workspace: Workspace | None = None, stem: str = "") -> None:
        super().__init__(source, workspace, stem)
        self.prepared: Prepared | None = None
        self.start: Progressed | None = None
        self.portion: Portion | None = None
        self._n_rows: int | None = None  # in the state that is kept
        self._n_units: int | None = None  # 0: all, of a share of the rows

    @property
    def progress(self) -> str:
        """As of the state that is kept."""
        return "" if self._n_rows is None else f"after {self._n_rows:,} rows of its first pass"

    def keep(self, prepared: Prepared, done: Progressed | Portion, share: float) -> None:
        """Keep the progress, where it is time to: of all rows as they are summed, of a share at the end.

        Parameters
        ----------
        share
            Of the pass that is done.
        """
        states = (done.state,) if isinstance(done, Progressed) else done.groups
        n_units = done.n_units if isinstance(done, Progressed) else 0
        n_bytes = 4 * len(states) * states[0].n_columns ** 2
        if n_units == self._n_units or n_bytes > _LARGEST_STATE:
            return
        first = self._n_units is None
        more = sum(x.nbytes for x in prepared.sample.rows) if first else 0
        if not self._is_due(n_bytes + more, share):
            return
        contents = {"base": prepared.to_content} if first else {}
        if self._put({**contents, "state": lambda: _state(states, n_units)}, first=first):
            self._n_units, self._n_rows = n_units, _rows_in(states)

    def _take(self, found: Mapping[str, Content]) -> None:
        base, (progress, sums) = (found[part] for part in self.parts)
        states = _loaded(sums, progress["sizes"])
        self.prepared = Prepared.from_content(base, states[0].maps)
        self._n_rows, self._n_units = _rows_in(states), progress["n_units"]
        if self._n_units:
            self.start = Progressed(states[0], self._n_units)
        else:
            self.portion = Portion(tuple(states))

    def _forget(self) -> None:
        self._n_rows = self._n_units = self.start = self.portion = self.prepared = None


def _state(states: Sequence[CovarianceAccumulator], n_units: int) -> Content:
    parts = [state.to_bytes() for state in states]
    return {"n_units": n_units, "sizes": [len(part) for part in parts]}, b"".join(parts)


def _rows_in(states: Sequence[CovarianceAccumulator]) -> int:
    """Rows read, those that were skipped among them."""
    return sum(state.n_rows + state.invalid.n_rows for state in states)


def _loaded(data: bytes, sizes: Sequence[int]) -> list[CovarianceAccumulator]:
    """States that lie one behind the other."""
    file = io.BytesIO(data)
    return [CovarianceAccumulator.load(io.BytesIO(file.read(size))) for size in sizes]
