"""`clusters`: a table that a stranger can read, one cluster in full, and rows of each, typical and not."""

import csv
import io
import json
from dataclasses import replace

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from command import run
from records import cluster, comparison, rejected
from spec_store.cli.cluster_text import full_lines, overview, reading_lines
from spec_store.cli.text import aligned, shortened
from spec_store.connector import Location
from spec_store.errors import ColumnNotFoundError, InputError
from spec_store.reporting.text import display_width
from spec_store.runs.registry import Registry
from spec_store.workflows.members import members
from spec_store.workflows.query import clusters as find

N = 3000
PREFIX = "spec_minilm_lsa"
MERGED = {"kind": "merged", "clusters": [{"cluster": 4, "share": 0.62}], "others": 0.1, "purity": 0.4}
VALUES = (
    {"column": "label", "value": "rust", "count": 500, "share": 0.99, "lift": 12.34, "p_value": 2.5e-80},
    {"column": "size", "value": "under 3", "count": 40, "share": 0.08, "lift": 2, "p_value": 0.0},
)
WORDS = ({"column": "text", "word": "parse", "share": 0.3, "lift": 5.5},)
FOUND = (
    cluster(1, size=1000, name="rust 99%", seen_by_other=MERGED, over_represented=VALUES, words=WORDS),
    cluster(4, "minilm", capture=(0.8, 0.2), size=300, share=0.05, seen_by_other={"kind": "scattered"}),
    cluster(2, size=2, share=0.001),
)


def stored(folder, *clusters, numbers, scores, **fields):
    """A database whose table `texts` holds results written by hand, and the run that wrote them."""
    columns = {
        "id": np.arange(N) + 10_000,
        "name": [f"package {i}" for i in range(N)],
        "label": ["rust" if i % 3 == 0 else "go" for i in range(N)],
        f"{PREFIX}_cluster": pa.array([c[0] if c else None for c in numbers], pa.int32()),
        f"{PREFIX}_clusters": pa.array(numbers, pa.list_(pa.int32())),
        f"{PREFIX}_scores": pa.array(scores, pa.list_(pa.float32())),
    }
    db = lancedb.connect(folder)
    table = db.create_table("texts", pa.table(columns).slice(0, 1000))
    table.add(pa.table(columns).slice(1000))
    record = comparison(*clusters, written=tuple(c for c in columns if c.startswith(PREFIX)), **fields)
    Registry(Location(str(folder), "lancedb", {})).finish(record, None)
    return str(folder)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Every third row is in cluster 1, rows 0 to 299 in 4 too, rows 7 and 8 in 2; none is in 3."""
    numbers, scores = [], []
    for i in range(N):
        held = [n for n, is_in in ((1, i % 3 == 0), (4, i < 300), (2, i in (7, 8))) if is_in]
        numbers.append(held)
        scores.append([0.5 + i / N, 0.1 * i, None, 2.0 - i / N])
    scores[2999] = numbers[2999] = None  # a row that could not be compared
    fields = {"rejected": (rejected(),), "n_candidates": 9, "average_pair": {"minilm": 0.05, "lsa": 0.06}}
    return stored(tmp_path_factory.mktemp("texts"), *FOUND, numbers=numbers, scores=scores, **fields)


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """As versions before 0.2 wrote it: clusters 0 and 1, the score of cluster k after k others."""
    numbers = [[0] if i < 50 else [1, 0] if i < 60 else [] for i in range(N)]
    scores = [[i / 100, 60 - i] for i in range(N)]
    found = [cluster(n, capture=None, size=9, top_rows=("10059",)) for n in (0, 1)]
    return stored(tmp_path_factory.mktemp("older"), *found, numbers=numbers, scores=scores)


def shown(*arguments, db, **more):
    return run("clusters", "--table", "texts", *arguments, db=db, **more).stdout


def test_the_table_says_what_each_cluster_claims_and_how_to_read_it(texts):
    lines = shown(db=texts).splitlines()
    header, first = (" ".join(line.split()) for line in lines[1:3])
    assert header == (
        "cluster grouped by rows capture in minilm in lsa contrast in minilm in lsa seen by the other name"
    )
    assert first == "1 lsa 1,000 31% 92% 0.97 4.01 merged with 4 (62%) rust 99%"
    assert " ".join(lines[3].split()) == "4 minilm 300 80% 20% 0.97 4.01 scattered"
    assert lines[5].startswith("Capture: of the rows nearest to a cluster")
    assert lines[-1] == "Next: spec-store clusters --table texts --cluster 1"


def test_labels_asked_for_stand_in_the_place_of_names(texts):
    lines = shown("--by", "label", db=texts).splitlines()
    assert lines[1].endswith("over-represented")
    assert lines[2].endswith("rust 100% (x3.0)")
    assert "rust 99%" not in lines[2]


def test_all_lists_what_was_not_confirmed_and_says_so(texts):
    assert "not confirmed" not in shown(db=texts)
    line = shown("--all", db=texts).splitlines()[5]
    assert " ".join(line.split()) == "- lsa 2% 50% 60% 1.10 1.30 not confirmed: gap 0.10, under 0.12"


def test_clusters_of_one_family_stand_together_and_rejected_ones_last():
    run = comparison(
        cluster(1, share=0.3, family=1),
        cluster(2, share=0.2),
        cluster(3, share=0.1, family=1),
        cluster(9, share=0.01),
    )
    header, body, right = overview(run, (rejected("minilm"),))
    assert [row[0] for row in body] == ["1", "3", "2", "9", "-"]
    assert {len(row) for row in body} == {len(header)}
    assert max(right) < header.index("seen by the other")


def test_a_run_of_an_earlier_version_shows_strengths_and_typical_rows(older):
    lines = shown(db=older).splitlines()
    header, first = (" ".join(line.split()) for line in lines[1:3])
    assert header == "cluster grouped by rows strength in minilm in lsa name typical rows"
    assert first == "0 lsa 9 0.0184 0.0145 0.0329 10059"
    assert lines[-1].startswith("Next: ")
    assert len(lines) == 5
    assert "Cluster 0, grouped by lsa" in shown("--cluster", "0", db=older)


def test_nothing_found_is_said_once():
    assert reading_lines(comparison()) == [
        "No cluster holds: the embeddings group these rows alike, as far as 20,000 rows tell."
    ]


def test_columns_that_were_not_described_are_named_with_the_reason():
    run = comparison(cluster(1), skipped_columns={"url": "each value once"})
    assert reading_lines(run)[-1] == "Not described: url (each value once)."


def test_one_cluster_in_full_has_intervals_values_words_and_the_filter(texts):
    lines = shown("--cluster", "1", db=texts).splitlines()
    assert lines[0] == "Cluster 1, grouped by lsa: rust 99%"
    by_name = {line.split("  ")[0]: line for line in lines}
    assert by_name["capture"].split("  ")[-1].strip() == "92% (90–94%)"
    assert by_name["contrast"].split("  ")[-1].strip() == "4.01 (3.80–4.20)"
    assert by_name["of any two rows"].split()[-2:] == ["0.05", "0.06"]
    assert any(line.startswith("Gap, the difference of capture: 61% (55–67%); strength: ") for line in lines)
    assert (
        "Seen by minilm: merged with 4 (62%); of the rows that it ranks nearest 10% are others;"
        in "\n".join(lines)
    )
    table = lines[lines.index("Over-represented values:") + 1 :][:3]
    assert [line.split() for line in table] == [
        ["column", "value", "rows", "share", "lift", "p"],
        ["label", "rust", "500", "99%", "x12.3", "2e-80"],
        ["size", "under", "3", "40", "8%", "x2.0", "<1e-300"],
    ]
    assert "Distinctive words: parse 30% (x5.5)." in lines
    assert lines[-2] == f"Filter: array_has({PREFIX}_clusters, 1)"
    assert lines[-1].startswith("Next: spec-store query --table texts --where ")


def test_a_cluster_without_anything_but_its_energy_can_be_shown_in_full():
    lines = full_lines(cluster(0, capture=None), comparison())
    assert lines[0] == "Cluster 0, grouped by lsa"
    assert [line.split()[0] for line in lines[2:4]] == ["figure", "energy"]
    assert lines[-1] == f"Filter: array_has({PREFIX}_clusters, 0)"


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"kind": "split", "purity": 0.9}, "Seen by minilm: split into parts that each keep together;"),
        (
            {"kind": "scattered", "purity": 0.1},
            "Seen by minilm: scattered, with rows from everywhere nearer;",
        ),
    ],
)
def test_in_full_the_way_the_other_one_sees_it_is_explained(seen, said):
    lines = full_lines(replace(FOUND[0], seen_by_other=seen), comparison())
    assert any(line.startswith(said) for line in lines)


def test_a_p_value_under_the_smallest_number_is_told_by_its_logarithm():
    (tiny,) = ({**VALUES[1], "log10_p_value": -412.4},)
    text = "\n".join(full_lines(replace(FOUND[0], over_represented=(tiny,)), comparison()))
    assert "1e-412" in text


def test_an_unknown_number_is_refused_with_those_that_exist(texts):
    said = run("clusters", "--table", "texts", "--cluster", "3", db=texts, code=1).stderr
    assert "There is no cluster 3 in the results spec_minilm_lsa_…" in said
    assert "There are 1, 2, 4." in said
    with pytest.raises(InputError, match=r"There are 1, 2, 4\."):
        members("texts", 0, db=texts)


def test_typical_rows_are_those_of_the_highest_score_in_the_clusters_own_place(texts):
    found = members("texts", columns=["name"], n=3, db=texts)
    assert list(found) == [1, 4, 2]
    assert found[1].typical.column_names == ["id", "name", "membership"]
    assert found[1].typical["id"].to_pylist() == [12997, 12994, 12991]
    assert found[4].typical["name"].to_pylist() == ["package 0", "package 1", "package 2"]
    assert found[4].typical["membership"].to_pylist() == pytest.approx([2.0, 2 - 1 / N, 2 - 2 / N])
    assert found[2].typical["name"].to_pylist() == ["package 8", "package 7"]


def test_scores_of_an_earlier_version_are_found_in_their_place(older):
    found = members("texts", n=2, db=older)
    assert found[0].typical["id"].to_pylist() == [10059, 10058]
    assert found[1].typical["id"].to_pylist() == [10050, 10051]


def test_members_at_random_are_members_and_come_from_the_whole_cluster(texts):
    seen = set()
    for seed in range(40):
        drawn = members("texts", 1, n=5, seed=seed, db=texts)[1].at_random["id"].to_numpy() - 10_000
        assert len(set(drawn)) == 5
        assert (drawn % 3 == 0).all()
        seen |= set(drawn)
    assert np.mean([i < N / 2 for i in seen]) == pytest.approx(0.5, abs=0.15)
    assert len(seen) > 150


def test_the_same_seed_draws_the_same_rows_alone_and_among_others(texts):
    alone = members("texts", 1, columns=["label"], seed=3, db=texts)[1]
    among = members("texts", [1, 4], columns=["label"], seed=3, db=texts)[1]
    other = members("texts", 1, columns=["label"], seed=4, db=texts)[1]
    assert alone == among
    assert alone.typical == other.typical
    assert alone.at_random != other.at_random


def test_members_ask_for_columns_and_numbers_that_exist(texts):
    with pytest.raises(ColumnNotFoundError, match="Did you mean 'name'"):
        members("texts", columns=["nam"], db=texts)
    with pytest.raises(InputError, match="expected 1 or more"):
        members("texts", n=0, db=texts)


def test_show_prints_both_kinds_of_rows_within_the_width_of_the_terminal(texts, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = shown("--show", "name,label", "--rows", "2", db=texts).splitlines()
    assert lines[0].startswith("1  lsa groups 1,000 rows (rust 99%): 92% of the")
    assert max(map(display_width, lines)) <= 60
    header = next(line for line in lines if line.lstrip().startswith("id"))
    assert header.split() == ["id", "name", "label", "membership"]
    kinds = [line[:9].strip() for line in lines if line.startswith(("typical", "at random"))]
    assert kinds == 3 * (2 * ["typical"] + 2 * ["at random"])
    one = shown("--show", "name", "--cluster", "4", "--rows", "1", db=texts).splitlines()
    assert [line.split()[-3:-1] for line in one if line.startswith("typical")] == [["package", "0"]]


def test_json_holds_the_records_and_what_was_asked_for(texts):
    found = json.loads(shown("--format", "json", "--all", db=texts))
    assert [c["cluster"] for c in found["clusters"]] == [1, 4, 2]
    assert found["clusters"][0]["capture"] == {"minilm": 0.31, "lsa": 0.92}
    assert found["clusters"][0]["capture_second"] == 0.92
    assert found["rejected"][0]["reason"] == "gap 0.10, under 0.12"
    one = json.loads(shown("--json", "--cluster", "4", "--show", "name", "--rows", "1", db=texts))
    (only,) = one["clusters"]
    assert only["typical"] == [{"id": 10000, "name": "package 0", "membership": 2.0}]
    assert len(only["at_random"]) == 1
    assert "rejected" not in one


def test_csv_is_a_line_of_plain_values_for_each_cluster(texts):
    rows = list(csv.DictReader(io.StringIO(shown("--format", "csv", "--all", "--by", "label", db=texts))))
    assert [r["cluster"] for r in rows] == ["1", "4", "2", ""]
    assert rows[0]["capture_second"] == "0.92"
    assert rows[0]["seen_by_other"] == "merged"
    assert rows[0]["family"] == "1"
    assert rows[0]["over_represented"] == "rust 100% (x3.0)"
    assert [r["not_confirmed"] for r in rows] == ["", "", "", "gap 0.10, under 0.12"]
    assert not {"details", "top_rows", "run_id"} & set(rows[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--json", "--format", "csv"], "--json contradicts --format csv"),
        (["--cluster", "1", "--all"], "give one of them"),
        (["--by", "label", "--show", "name"], "give one of them"),
        (["--show", "name", "--format", "csv"], "--show has no csv"),
    ],
)
def test_what_contradicts_itself_is_a_usage_error(texts, arguments, said):
    assert said in run("clusters", "--table", "texts", *arguments, db=texts, code=2).stderr


def test_labels_are_counted_by_the_number_of_the_cluster(texts):
    table = find("texts", by="label", db=texts).clusters
    by_number = dict(zip(table["cluster"].to_pylist(), table["labels"].to_pylist(), strict=True))
    assert [entry["value"] for entry in by_number[1]] == ["rust"]
    assert [entry["value"] for entry in by_number[2]] == ["go"]


def test_wide_columns_are_cut_alike_and_narrow_ones_not_at_all():
    lines = aligned([["id", "text", "wide"], ["12345678", "x" * 60, "日本" * 30]], width=50)
    assert [display_width(line) for line in lines][1] <= 50
    assert lines[1].startswith("12345678  xxx")
    assert lines[1].count("…") == 2
    assert shortened("日本語", 4) == "日…"
    assert shortened("abc", 3) == "abc"
