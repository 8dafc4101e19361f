"""In a notebook a result says what the command line prints, in tables that follow its theme."""

import re
from html.parser import HTMLParser

import pytest

import gated
import spec_store
from command import run
from planted import planted_mixture
from records import cluster, comparison
from spec_store.reporting.findings import summary_lines
from spec_store.workflows.models import compare_models
from spec_store.workflows.notebook import comparison_html

MERGED = {"kind": "merged", "clusters": [{"cluster": 4, "share": 0.62}], "others": 0.1, "purity": 0.4}
EMPTY = {"br", "hr", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """Well-formed HTML, its words, the cells of its table, and its styles."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.styles, self.words, self.rows = [], set(), [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        assert all(name in ("style", "class") for name, _ in attributes)
        self.styles.append((tag, dict(attributes).get("style", "")))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        else:
            self.words.append(data)


def test_a_comparison_says_its_headline_and_shows_its_clusters_families_together():
    record = comparison(
        cluster(1, "lsa", size=200, name="genre opera", seen_by_other=MERGED, family=1),
        cluster(2, "minilm", capture=(0.9, 0.3), share=0.3),
        cluster(4, "lsa", size=1500, share=0.01, family=1),
        mismatch={"minilm": {"mass": 0.118, "rows": 0.312}, "lsa": {"mass": 0.05, "rows": 0.1}},
    )
    page = Page(comparison_html(record))
    assert page.words[:2] == summary_lines(record)
    assert page.rows == [
        ["cluster", "grouped by", "rows", "capture in minilm", "in lsa", "seen by the other", "name"],
        ["2", "minilm", "30%", "90%", "30%", "", ""],
        ["1", "lsa", "200", "31%", "92%", "merged with 4 (62%) by minilm", "genre opera"],
        ["4", "lsa", "1,500", "31%", "92%", "", ""],
    ]
    assert page.words[-1] == "20,000 rows; SPEC-diff 0.13, centred 0.02; CKA 0.61. Not written."


def test_no_cluster_is_said_without_a_table_and_many_are_cut():
    none = Page(comparison_html(comparison()))
    assert none.words[0].startswith("No cluster holds")
    assert not none.rows
    many = Page(comparison_html(comparison(*(cluster(i) for i in range(1, 26)))))
    assert len(many.rows) == 21
    assert "… and 5 more: .clusters holds all." in many.words


def test_data_are_text_never_markup_mathematics_or_controls():
    evil = "</td><script>alert(1)</script> $x$ \x1b[31m \u202e"
    html = comparison_html(comparison(cluster(1, name=evil)))
    page = Page(html)
    assert page.tags <= {"div", "p", "strong", "br", "table", "thead", "tbody", "tr", "th", "td"}
    assert page.rows[1][-1] == "</td><script>alert(1)</script> $x$ \\x1b[31m \\u202e"
    assert html.startswith('<div class="tex2jax_ignore mathjax_ignore">')


def test_numbers_are_aligned_and_no_colour_is_set():
    page = Page(comparison_html(comparison(cluster(1, size=5))))
    styles = [style for tag, style in page.styles if tag == "td"]
    assert ["text-align:right" in style and "tabular-nums" in style for style in styles] == [
        *(True, False, True, True, True, False, False)
    ]
    for _, style in page.styles:
        assert not re.search(r"#[0-9a-f]{3}|rgb|background|(^|;)color:(?!inherit)", style)


def test_several_models_show_their_matrix_and_what_is_said_of_the_pairs_asked_for():
    a, b, _ = planted_mixture(600, n_groups=8, merged=2, d=24, seed=5)
    data = {"clip": a, "dino": b, "copy": a}
    found = compare_models(data, ["clip", "dino", "copy"], pairs=[("clip", "dino")], dim=60)
    page = Page(found._repr_html_())
    assert page.words[:2] == summary_lines(found.pair("clip", "dino").record)
    assert [row[:2] for row in page.rows[1:]][-1] == ["clip", "copy"]
    assert page.rows[0] == ["first", "second", "SPEC-diff", "centred", "CKA", "unbiased CKA"]
    assert page.rows[-1][4:] == ["1", "1"]
    assert page.words[-1] == "600 rows. Not written."


@pytest.fixture(scope="module")
def switch(tmp_path_factory):
    db = gated.aligned(tmp_path_factory.mktemp("gate"))
    options = {"db": db, "slices": ["label = 'lost'", "label = 'odd'"], "fail_under": 0.4}
    return db, spec_store.gate("images", "clip", "dino", **options)


def test_a_gate_says_the_sentence_and_the_verdicts_of_the_command_line(switch):
    db, found = switch
    page = Page(found._repr_html_())
    arguments = ["gate", "--table", "images", "--source", "clip", "--target", "dino", "--fail-under", "0.4"]
    arguments += ["--slice", "label = 'lost'", "--slice", "label = 'odd'"]
    printed = run(*arguments, db=db, code=0 if found.passed else 1).stdout.splitlines()
    assert page.words[0] == printed[0]
    assert page.words[-1] == printed[-1]
    at = next(i for i, line in enumerate(printed) if line.startswith("slice "))
    assert [re.split(r"  +", line) for line in printed[at : at + 4]] == page.rows
    bold = [tag for tag, style in page.styles if tag == "td" and "bold" in style]
    assert len(bold) == len(found.failed) * len(page.rows[0])


def test_an_alignment_says_the_sentences_and_the_figures_of_the_command_line(switch):
    db, _ = switch
    found = spec_store.align("images", "clip", "dino", db=db, **gated.QUICK)
    page = Page(found._repr_html_())
    arguments = ["align", "--table", "images", "--source", "clip", "--target", "dino", "--dry-run"]
    for name, value in gated.QUICK.items():
        arguments += [f"--{name.replace('_', '-')}", value]
    printed = run(*arguments, db=db).stdout
    begin, figures = printed.split("Figures of ")
    assert begin.replace("\n", " ").split() == " ".join(page.words[:-1]).split()
    lines = figures.splitlines()[1 : 1 + len(page.rows)]
    assert [re.split(r"  +", line)[:6] for line in lines] == page.rows
    assert page.words[-1] == "Not written."
