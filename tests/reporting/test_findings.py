"""Sentences say what the figures of a record say, and no more."""

from dataclasses import replace

import pytest

from records import COLUMNS, cluster, comparison, rejected
from spec_store.reporting.findings import (
    WIDTH,
    changes_lines,
    families,
    figures_line,
    finding,
    finding_lines,
    seen_in_words,
    summary_lines,
    unlisted_lines,
    wrapped,
)
from spec_store.reporting.text import display_width, format_percent

MERGED = {"kind": "merged", "clusters": [{"cluster": 4, "share": 0.62}], "others": 0.1, "purity": 0.4}
SCATTERED = {"kind": "scattered", "clusters": [], "others": 0.7, "purity": 0.1}
SPLIT = {"kind": "split", "clusters": [], "others": 0.7, "purity": 0.9}


def test_each_end_says_its_share_of_rows_mismatch_and_number_of_clusters():
    mismatch = {"minilm": {"mass": 0.118, "rows": 0.312}, "lsa": {"mass": 0.0, "rows": 0.0}}
    run = comparison(cluster(1, "minilm"), cluster(2, "minilm"), mismatch=mismatch)
    assert summary_lines(run) == [
        "minilm groups 31% of the rows that lsa does not: mismatch 0.12 (2 clusters)",
        "lsa groups nothing that minilm does not.",
    ]


def test_an_end_of_an_earlier_version_says_its_number_of_clusters():
    run = comparison(cluster(0, "minilm", capture=None), cluster(1, "lsa", capture=None))
    assert summary_lines(run) == [
        "minilm groups 1 cluster that lsa does not.",
        "lsa groups 1 cluster that minilm does not.",
    ]


def test_no_cluster_is_said_with_the_number_of_rows():
    assert summary_lines(comparison()) == [
        "No cluster holds: the embeddings group these rows alike, as far as 20,000 rows tell."
    ]
    assert finding_lines(comparison()) == []


def test_a_small_share_and_a_small_mismatch_are_not_called_nothing():
    run = comparison(cluster(1), mismatch={"lsa": {"mass": 0.001, "rows": 0.003}})
    assert summary_lines(run)[1] == (
        "lsa groups <1% of the rows that minilm does not: mismatch <0.01 (1 cluster)"
    )
    assert [format_percent(x) for x in (0, 0.006, 0.995, 1, None)] == ["0%", "1%", "100%", "100%", "-"]


def test_the_figures_of_the_method_stay():
    assert figures_line(comparison()) == "SPEC-diff 0.13, centred 0.02; CKA 0.61"
    assert figures_line(comparison(cka=None)) == "SPEC-diff 0.13, centred 0.02; CKA -"


@pytest.mark.parametrize(
    ("seen", "ending"),
    [
        (MERGED, ", which merges them with cluster 4."),
        (
            MERGED | {"clusters": [{"cluster": n, "share": 0.2} for n in (4, 9, 12)]},
            ", which merges them with clusters 4 and 9.",
        ),
        (MERGED | {"clusters": []}, ", which merges them with other rows."),
        (SCATTERED, ", which puts others nearer."),
        (SPLIT, ", which splits them up."),
        (None, "."),
    ],
)
def test_a_finding_names_its_figures_and_how_the_other_embedding_sees_it(seen, ending):
    found = cluster(1, size=506, name="rust 99%", seen_by_other=seen)
    begin = "lsa groups 506 rows (rust 99%): 92% of the 506 nearest are members, in minilm 31%"
    assert finding(found, COLUMNS) == begin + ending


def test_a_finding_of_the_first_column_names_that_one_first():
    said = finding(cluster(1, "minilm", capture=(0.8, 0.2), size=1), COLUMNS)
    assert said == "minilm groups 1 row: 80% of the 1 nearest are members, in lsa 20%."


def test_without_a_size_a_finding_says_the_share_of_rows():
    assert finding(cluster(1, share=0.124), COLUMNS).startswith(
        "lsa groups 12% of the rows: 92% of the nearest are members"
    )


def test_a_finding_of_an_earlier_version_says_its_strength():
    assert finding(cluster(0, capture=None, size=506), COLUMNS) == (
        "lsa groups 506 rows: strength 0.0184 (minilm 0.0145, lsa 0.0329)."
    )


def test_findings_come_by_share_and_gap_over_both_ends():
    run = comparison(
        cluster(1, share=0.1),
        cluster(12, share=0.3),
        cluster(3, "minilm", capture=(0.9, 0.1), share=0.25),
    )
    lines = finding_lines(run)
    assert lines[0] == (" 3  minilm groups 25% of the rows: 90% of the nearest are members, in lsa 10%.")
    assert [line[:4] for line in lines] == [" 3  ", "12  ", " 1  "]


def test_clusters_that_the_other_embedding_merges_are_shown_as_a_family():
    run = comparison(
        cluster(
            3,
            share=0.2,
            size=400,
            family=3,
            seen_by_other=MERGED | {"clusters": [{"cluster": 7, "share": 0.5}]},
        ),
        cluster(5, share=0.1, size=200),
        cluster(
            7,
            share=0.05,
            size=100,
            family=3,
            seen_by_other=MERGED | {"clusters": [{"cluster": 5, "share": 0.5}]},
        ),
    )
    assert finding_lines(run) == [
        "Clusters 3, 7: together in minilm.",
        "  3  lsa groups 400 rows: 92% of the 400 nearest are members, in minilm 31%.",
        "  7  lsa groups 100 rows: 92% of the 100 nearest are members, in minilm 31%,"
        " which merges them with cluster 5.",
        "5  lsa groups 200 rows: 92% of the 200 nearest are members, in minilm 31%.",
    ]


def test_families_are_of_one_side_and_clusters_of_earlier_versions_keep_their_order():
    both = [cluster(1, "minilm", family=1), cluster(2, "lsa", family=1)]
    assert [[c.cluster for c in f] for f in families(both)] == [[2], [1]]
    old = [cluster(n, capture=None) for n in (0, 1, 2)]
    assert [c.cluster for (c,) in families(old)] == [0, 1, 2]


def test_ten_findings_are_shown_and_a_whole_output_fits_a_screen():
    found = [
        cluster(n, share=1 / n, size=20_000 // n, name="documentation 99% · parse", seen_by_other=MERGED)
        for n in range(1, 39)
    ]
    rejections = {
        "not grouped": 512,
        "grouped by both": 300,
        "no edge": 250,
        "overlap stronger ones": 130,
        "not confirmed": 10,
    }
    run = comparison(
        *found,
        n_candidates=1240,
        rejections=rejections,
        rejected=(rejected(),),
        changes={"kept": list(range(12)), "new": [13, 14, 15], "gone": [4, 9]},
    )
    lines = finding_lines(run)
    assert [line.split()[0] for line in lines if "groups" in line] == [str(n) for n in range(1, 11)]
    around = [*unlisted_lines(run, stored=True), *changes_lines(run), *summary_lines(run)]
    assert len(lines) + len(around) + 5 <= 31
    assert max(map(display_width, lines + around)) <= WIDTH


def test_candidates_that_are_not_listed_are_counted_by_reason():
    rejections = {"not grouped": 512, "grouped by both": 300, "no edge": 0, "not confirmed": 10}
    run = comparison(cluster(1), n_candidates=1240, rejections=rejections, rejected=(rejected(),))
    (line, *rest) = unlisted_lines(run, stored=False)
    assert line == (
        "Of 1,240 candidates 1 is listed. Not listed: 512 not grouped, 300 grouped by both, 10 not confirmed."
    )
    assert rest == []
    hinted = " ".join(line.strip() for line in unlisted_lines(run, stored=True))
    assert hinted.endswith("10 not confirmed (see clusters --all).")
    assert unlisted_lines(comparison(cluster(1)), stored=True) == []


def test_changes_name_the_new_and_the_gone():
    run = comparison(changes={"kept": list(range(12)), "new": [13, 14, 15], "gone": [4, 9]})
    assert changes_lines(run) == [
        "Against the last run: 12 clusters kept, 3 new (13, 14, 15), 2 gone (4, 9)."
    ]
    run = replace(run, changes={"kept": [], "new": list(range(20, 32)), "gone": []})
    assert changes_lines(run) == [
        "Against the last run: no cluster kept, 12 new (20, 21, 22, 23, 24, 25, 26, 27, 28, 29, …)."
    ]
    assert changes_lines(comparison()) == []


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (MERGED, "merged with 4 (62%)"),
        (MERGED | {"clusters": []}, "merged with other rows"),
        (SCATTERED, "scattered"),
        (SPLIT, "split"),
        (None, ""),
    ],
)
def test_how_the_other_one_sees_it_in_a_few_words(seen, words):
    assert seen_in_words(cluster(1, seen_by_other=seen)) == words


def test_a_name_cannot_begin_a_line_or_control_the_terminal():
    (line,) = wrapped(finding(cluster(1, size=3, name="a\n\x1b[2Jb"), COLUMNS))
    assert r"(a\n\x1b[2Jb)" in line
