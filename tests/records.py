"""Records of comparisons made by hand: what a run stores, without the run."""

from dataclasses import replace

from spec_store.runs.clusters import ClusterRecord, RejectedRecord
from spec_store.runs.records import ComparisonRecord

COLUMNS = ("minilm", "lsa")


def cluster(number, side="lsa", *, capture=(0.31, 0.92), contrast=(0.97, 4.01), share=0.1, **fields):
    """A cluster as a run records it; figures are (in minilm, in lsa)."""
    begin = {
        "cluster": number,
        "side": side,
        "strength": 0.0184,
        "energy": {"minilm": 0.0145, "lsa": 0.0329},
        "where": f"array_has(spec_minilm_lsa_clusters, {number})",
    }
    if capture is None:  # as of versions before 0.2
        return ClusterRecord(**begin, **fields)
    held, other = capture[::-1] if side == "lsa" else capture
    later = {
        "capture": dict(zip(COLUMNS, capture, strict=True)),
        "contrast": dict(zip(COLUMNS, contrast, strict=True)),
        "cohesion": dict(zip(COLUMNS, (0.12, 0.4), strict=True)),
        "gap": round(held - other, 6),
        "intervals": {
            "gap": [0.55, 0.67],
            "capture": {"minilm": [0.28, 0.34], "lsa": [0.9, 0.94]},
            "contrast": {"minilm": [0.93, 1.01], "lsa": [3.8, 4.2]},
        },
        "stability": 0.98,
        "share": share,
        "family": number,
    }
    return ClusterRecord(**{**begin, **later, **fields})


def rejected(side="lsa", reason="gap 0.10, under 0.12", **fields):
    """A candidate that was not confirmed."""
    figures = {
        "share": 0.02,
        "capture": {"minilm": 0.5, "lsa": 0.6},
        "gap": 0.1,
        "contrast": {"minilm": 1.1, "lsa": 1.3},
    }
    return RejectedRecord(side=side, reason=reason, **{**figures, **fields})


def comparison(*clusters, **fields):
    """A run over 20,000 rows of the table `texts`."""
    run = ComparisonRecord(
        table="texts",
        columns=COLUMNS,
        prefix="spec_minilm_lsa",
        source_version=1,
        n_rows=20_000,
        n_skipped=0,
        options={"kernel": "gaussian", "features": "nystroem", "key": "id"},
        seconds={"sample": 1.5},
        bandwidth={"minilm": 0.656, "lsa": 0.314},
        coverage={"minilm": 0.8, "lsa": 0.7},
        map_error=0.001,
        spec_diff=0.13,
        spec_diff_centered=0.02,
        cka=0.61,
        eigenvalues={"minilm": [0.02], "lsa": [0.01]},
        clusters=clusters,
    )
    return replace(run, **fields)
