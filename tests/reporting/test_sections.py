"""The parts of a page that are computed: maps, shares, similarities, neighbours, command lines."""

import shlex
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from planted import planted_mixture, unit
from records import COLUMNS, cluster, comparison
from spec_store.cli import main
from spec_store.options import CompareOptions
from spec_store.reporting.charts import spectrum_svg
from spec_store.reporting.commands import compare_command
from spec_store.reporting.projection import project
from spec_store.reporting.sample import ReportSample
from spec_store.reporting.shares import column_shares
from spec_store.reporting.similarity import kernel_blocks, nearest, spreads
from spec_store.reporting.views import spectrum_charts

N = 600


@pytest.fixture(scope="module")
def sample():
    """Rows of six groups, of which a keeps all apart and b merges the first two."""
    a, b, groups = planted_mixture(N, n_groups=6, merged=1, d=24, noise=0.4, seed=1)
    members = np.stack([groups == g for g in (0, 1)], axis=1)
    return ReportSample(
        keys=pa.array(np.arange(N)),
        vectors={"a": unit(a).astype(np.float32), "b": unit(b).astype(np.float32)},
        numbers=(1, 4),
        members=members,
        scores=members * np.linspace(0.6, 1.4, N)[:, None].astype(np.float32),
        others=pa.table(
            {
                "group": [f"group {g}" for g in groups],
                "many": [f"value {i % 40:02}" for i in range(N)],
                "number": np.where(groups == 0, 100.0, np.arange(N) / N),
                "count": groups,
                "text": [f"a text {i}" for i in range(N)],
                "identifier": np.arange(N),
                "constant": ["same"] * N,
                "holes": pa.array([None if i % 2 else i / 7 for i in range(N)], pa.float64()),
            }
        ),
    )


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_a_map_is_the_same_on_each_call_and_keeps_groups_together(sample, method):
    points = project(sample.vectors["a"], method, 3)
    assert points.shape == (N, 2)
    assert points.dtype == np.float32
    assert np.abs(points).max() == pytest.approx(1)
    assert np.array_equal(points, project(sample.vectors["a"], method, 3))
    if method == "tsne":
        groups = sample.others["group"].to_numpy()
        distances = ((points[:, None] - points) ** 2).sum(axis=-1)
        np.fill_diagonal(distances, np.inf)
        assert (groups[distances.argmin(axis=1)] == groups).mean() > 0.99


@pytest.mark.parametrize("n", [1, 2, 3, 9, 12])
def test_a_map_of_few_rows_is_a_map(n):
    x = np.random.default_rng(0).standard_normal((n, 5)).astype(np.float32)
    assert np.isfinite(project(x, "tsne", 0)).all()
    assert np.isfinite(project(np.ones_like(x), "tsne", 0)).all()
    assert np.isfinite(project(x[:, :1], "tsne", 0)).all()


def test_neighbours_say_who_is_a_member(sample):
    query = int(sample.most_typical(1, 1)[0])
    in_a, in_b = (nearest(sample, c, query, 1, 10) for c in "ab")
    x = sample.vectors["b"]
    expected = [i for i in np.argsort(-(x @ x[query]), kind="stable") if i != query][:10]
    assert list(in_b.rows) == expected
    assert in_a.n_wide == in_b.n_wide == sample.members[:, 0].sum() - 1
    assert in_a.n_wide_members / in_a.n_wide > 0.95
    assert 0.3 < in_b.n_wide_members / in_b.n_wide < 0.7
    assert list(in_b.members) == [bool(sample.members[i, 0]) for i in expected]


def test_similarities_within_are_higher_than_across_where_the_group_stands_apart(sample):
    found = spreads(sample, 1, {"a": 0.5, "b": None}, seed=0)
    assert np.median(found["a"].within) > 5 * np.median(found["a"].across)
    again = spreads(sample, 1, {"a": 0.5, "b": None}, seed=0)
    assert np.array_equal(found["b"].within, again["b"].within)


def test_kernel_blocks_hold_each_row_once(sample):
    blocks = kernel_blocks(sample, (1, 4), {"a": 0.5, "b": 0.5}, rows=20)
    assert blocks.clusters == ((1, 20), (4, 20))
    a, b = blocks.kernels["a"], blocks.kernels["b"]
    assert a.shape == (40, 40)
    assert a[:20, :20].mean() > 5 * a[:20, 20:].mean()
    assert b[:20, 20:].mean() > 0.8 * b[:20, :20].mean()  # b merges the two
    assert kernel_blocks(sample, (), {"a": 0.5, "b": 0.5}, rows=20) is None


def test_shares_are_counts_of_the_sampled_rows(sample):
    found = {s.column: s for s in column_shares(sample, sample.others.column_names)}
    assert set(found) == {"group", "many", "number", "count", "holes"}
    group = found["group"]
    assert group.values == tuple(f"group {g}" for g in range(6))
    assert group.within[0].tolist() == [sample.members[:, 0].sum(), 0, 0, 0, 0, 0]
    assert len(found["many"].values) == 10
    assert found["many"].values[-1] == "31 other values"
    assert found["count"].values == tuple(map(str, range(6)))
    assert found["number"].within[0].argmax() == len(found["number"].values) - 1
    assert found["holes"].values[-1] == "not known"
    for shares in found.values():
        assert shares.everywhere.sum() == N
        assert (shares.within.sum(axis=1) == sample.members.sum(axis=0)).all()


def test_both_ends_of_the_spectrum_are_drawn_upwards():
    run = comparison(eigenvalues={"minilm": [0.02, 0.01, 0.0005], "lsa": [-0.015, -0.0002]}, map_error=0.001)
    first, second = spectrum_charts(run)
    assert first.said.startswith("2 of the 3 leading eigenvalues of this end are above 0.001")
    assert second.said.startswith("1 of the 2 leading")
    assert first.chart.count('class="bar"') == 2
    assert second.chart.count('class="bar low"') == 1


def test_a_label_of_a_chart_is_escaped():
    assert 'aria-label="&lt;b&gt; &#34;"' in spectrum_svg([0.1], 0.0, 0.1, '<b> "')


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel": "cosine", "center": False, "normalize": False, "describe": False, "skip_invalid": True},
        {"bandwidth": (0.25, 1e-3), "eta": 0.5, "dim": 64, "write_modes": True, "precision": "float64"},
        {"where": "split = 'train' AND x > 3", "key": "image id", "prefix": "mine", "seed": 7, "threads": 2},
    ],
    ids=["defaults", "flags", "numbers", "texts"],
)
def test_the_command_line_of_a_run_gives_its_options_again(options):
    given = CompareOptions(**options)
    run = replace(comparison(cluster(1)), table="my table", options=given.to_json())
    words = shlex.split(compare_command(run, "--db", "a folder"))
    assert words[:2] == ["spec-store", "compare"]
    parsed = main.commands["compare"].make_context("compare", words[2:]).params
    assert parsed["table"] == "my table"
    assert parsed["db"] == "a folder"
    assert parsed["cols"] == ",".join(COLUMNS)
    named = {name: parsed[name] for name in given.to_json()} | {
        "write_modes": parsed["write_modes"] is not None
    }
    assert CompareOptions(**named) == given
