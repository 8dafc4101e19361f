"""Words of texts: planted topics come back, whatever the batches; samples are bounded and uniform; names."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from described import LISTS, described, describer_of, three_groups
from spec_store.describe import Describer
from spec_store.describe.members import Members
from spec_store.describe.naming import name_of
from spec_store.describe.readable import readable
from spec_store.describe.reservoir import Reservoir
from spec_store.describe.tokens import find_terms, split_words
from spec_store.describe.values import Value
from spec_store.describe.words import Word

TOPICS = (
    ("parser", "token", "syntax"),
    ("kernel", "scheduler", "interrupt"),
    ("colour", "canvas", "palette"),
)
COMMON = ["the", "of", "a", "returns", "this", "value", "with", "is", "to", "argument", "when", "given", "it"]


def written(n, seed=0):
    """Texts of common words; on two thirds of the rows two or three words of the group's topic."""
    rng = np.random.default_rng(seed)
    groups, members = three_groups(n, seed)
    texts = []
    for g in groups:
        words = list(rng.choice(COMMON, 12))
        if rng.random() < 0.67:
            words[3:3] = rng.choice(TOPICS[g], rng.integers(2, 4), replace=False)
        texts.append(" ".join(words).capitalize() + ".")
    return texts, groups, members


TEXTS, GROUPS, MEMBERS = written(2_400)
TABLE = pa.table({"text": TEXTS})


def told(descriptions):
    return [[w.word for w in d.words] for d in descriptions]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_words_of_planted_topics_are_told_and_no_common_ones(kind):
    found = described(pa.table({"text": pa.array(TEXTS).cast(kind)}), MEMBERS)
    for topic, d in zip(TOPICS, found, strict=True):
        assert {part for w in d.words for part in w.word.split()} == set(topic)
        assert d.over_represented == ()
        assert d.name == " · ".join(w.word for w in d.words)[:40]


def test_shares_and_lifts_are_those_of_all_rows_where_all_are_sampled():
    lists = [[int(g)] if i % 2 else [] for i, g in enumerate(GROUPS[:900])]
    for d in described(TABLE.slice(0, 900), lists):
        for w in d.words:
            holds = np.array([f" {w.word} " in f" {t.lower().rstrip('.')} " for t in TEXTS[:900]])
            member = np.array([d.number in m for m in lists])
            assert w.share == pytest.approx(holds[member].mean())
            assert w.lift == pytest.approx(w.share / holds.mean())
            assert w.log_p < np.log(0.01)


def test_estimates_from_a_sample_are_near_those_of_all_rows():
    texts, groups, members = written(30_000, seed=2)
    for d in described(pa.table({"text": texts}), members, cuts=range(0, 30_000, 4_000)):
        for w in d.words:
            holds = np.array([w.word in t.lower() for t in texts])
            assert w.share == pytest.approx(holds[groups == d.number].mean(), abs=0.08)
            assert w.lift == pytest.approx(w.share / holds.mean(), rel=0.1)


@given(st.lists(st.integers(0, 2_400), max_size=8), st.integers(0, 3))
@settings(deadline=None, max_examples=15)
def test_batches_cut_anywhere_give_the_same_words(cuts, seed):
    few, many = (Reservoir(3, seed=seed, n_texts=1_000) for _ in range(2))
    for reservoir, at in ((few, [0, 2_400]), (many, sorted({0, *cuts, 2_400}))):
        for start, stop in itertools.pairwise(at):
            reservoir.update(
                pa.array(TEXTS[start:stop]),
                Members.of(pa.array(MEMBERS[start:stop], LISTS), np.arange(3)),
                start,
            )
    one, other = few.sample(), many.sample()
    assert one.texts == other.texts
    for name in ("of_cluster", "of_table", "member", "sizes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.n_rows == other.n_rows == 2_400
    assert told(described(TABLE, MEMBERS, cuts=cuts, seed=seed)) == told(described(TABLE, MEMBERS, seed=seed))


def test_one_seed_gives_one_sample_and_another_seed_another():
    texts, _, members = written(30_000, seed=2)
    table = pa.table({"text": texts})
    first, again, other = (described(table, members, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_samples_are_bounded_uniform_and_of_the_right_rows():
    n = 40_000
    reservoir = Reservoir(2, seed=5)
    members = Members.of(pa.array([[0] if i % 100 == 3 else [1] for i in range(1_000)], LISTS), np.arange(2))
    for start in range(0, n, 1_000):
        reservoir.update(pa.array([f"row {i}" for i in range(start, start + 1_000)]), members, start)
        assert len(reservoir) <= 20_000
    sample = reservoir.sample()
    rows = np.array([int(text.removeprefix("row ")) for text in sample.texts])
    assert sample.of_cluster.sum(axis=1).tolist() == [400, 500]
    assert sample.of_table.sum() == 4_000
    assert sample.sizes.tolist() == [400, 39_600]
    np.testing.assert_array_equal(sample.member[0], rows % 100 == 3)
    np.testing.assert_array_equal(sample.member[1], rows % 100 != 3)
    assert (rows[sample.of_cluster[0]] % 100 == 3).all()
    for drawn in (sample.of_table, sample.of_cluster[1]):
        assert rows[drawn].mean() == pytest.approx(n / 2, abs=5 * n / np.sqrt(12 * drawn.sum()))


def test_long_texts_are_cut_and_null_or_empty_ones_take_no_part():
    reservoir = Reservoir(1, seed=0)
    members = Members.of(pa.array([[0]] * 4, LISTS), np.arange(1))
    reservoir.update(pa.array(["é" * 5_000, None, "", "x"]), members, 0)
    sample = reservoir.sample()
    assert [len(text) for text in sample.texts] == [2_000, 1]
    assert (sample.n_rows, sample.sizes.tolist()) == (2, [2])


def test_missing_texts_are_told_of_as_null_and_not_as_words():
    texts = [
        None if g == 0 and i % 4 else text for i, (g, text) in enumerate(zip(GROUPS, TEXTS, strict=True))
    ]
    first, second, _ = described(pa.table({"text": texts}), MEMBERS)
    assert [(v.column, v.value) for v in first.over_represented] == [("text", "null")]
    assert set(TOPICS[0]) <= {part for w in first.words for part in w.word.split()}
    assert second.over_represented == ()


def test_a_pair_of_words_replaces_its_parts_where_it_tells_more():
    texts = [
        text + (" Gradient descent." if g == 1 else " Gradient." if i % 2 else " Descent.")
        for i, (text, g) in enumerate(zip(TEXTS, GROUPS, strict=True))
    ]
    words = told(described(pa.table({"text": texts}), MEMBERS))[1]
    assert words[0] == "gradient descent"
    assert not {"gradient", "descent"} & set(words)


def test_repeated_texts_are_described_by_value_and_by_word():
    captions = [
        f"a photo of the {a} {b}" for a in TOPICS[0] + TOPICS[1] for b in ("xy", "zz", "ww", "vv", "uu")
    ]
    rng = np.random.default_rng(0)
    texts = [captions[rng.integers(0, 15) + 15 * int(g == 1)] for g in GROUPS]
    found = described(pa.table({"caption": texts}), MEMBERS)[1]
    assert found.over_represented[0].value.startswith("a photo of the ")
    assert {w.word for w in found.words} == set(TOPICS[1])


def test_words_of_any_script_are_told():
    scripts = ("разбор слов", "हिन्दी शब्द", "機械学習")
    texts = [f"{text} {scripts[g]}" for text, g in zip(TEXTS, GROUPS, strict=True)]
    words = [" ".join(d) for d in told(described(pa.table({"text": texts}), MEMBERS))]
    assert "разбор" in words[0]
    assert "शब्द" in words[1]
    assert "機械" in words[2]


def test_texts_are_split_at_what_is_no_letter():
    texts = pa.array(["Don't parse_URL2, a naïve\tÉcole!", "", "東京 x", "b"])
    text, words = split_words(texts)
    assert words.to_pylist() == ["don", "parse", "url", "naïve", "école", "東", "京"]
    assert text.tolist() == [0, 0, 0, 0, 0, 2, 2]


def test_terms_are_counted_once_for_a_text():
    terms = find_terms(["red red car", "red car", "Red; car car", "blue car", ""])
    found = dict(zip(terms.names, terms.found.sum(axis=0).tolist(), strict=True))
    assert found == {"car": 4, "red": 3, "red car": 3}
    assert find_terms([]).names == find_terms(["", "1"]).names == []


def test_two_columns_of_texts_share_the_list_of_words():
    table = pa.table({"title": TEXTS, "body": TEXTS[:1_200] + written(1_200, seed=5)[0]})
    for topic, d in zip(TOPICS, described(table, MEMBERS), strict=True):
        assert len({w.word for w in d.words}) == len(d.words) <= 8
        assert set(topic) <= {part for w in d.words for part in w.word.split()}


def test_a_describer_can_tell_before_and_after_more_rows():
    describer = describer_of(TABLE.slice(0, 1_200), MEMBERS[:1_200], sample=TABLE)
    before = describer.result()
    assert before == describer.result()
    describer.update(TABLE.slice(1_200).to_batches()[0], pa.array(MEMBERS[1_200:], LISTS))
    assert describer.result() == described(TABLE, MEMBERS)
    assert before != describer.result()
    assert Describer(TABLE.schema, TABLE, range(3)).result()[0].words == ()


def value(column, text, share=1.0, lift=5.0):
    return Value(column, text, 10, share, lift, -20.0)


def word(text):
    return Word("text", text, 0.5, 5.0, -20.0)


@pytest.mark.parametrize(
    ("values", "words", "name"),
    [
        ([], [], ""),
        ([value("language", "rust", 0.99)], [], "rust 99%"),
        ([value("digit", "3")], [], "digit 3"),
        ([value("public", "true", 0.9)], [], "public true 90%"),
        ([value("price", "10 to 20")], [], "price 10 to 20"),
        ([], [word("parse"), word("token"), word("syntax")], "parse · token · syntax"),
        ([value("language", "rust", 0.99)], [word("Rust"), word("parse")], "rust 99% · parse"),
        ([value("a", "x", 0.3)], [word("parse")], "parse"),
        ([value("a", "x", 0.3)], [], "x 30%"),
        ([value("a", "x"), value("b", "y", lift=1.3), value("c", "z", lift=3)], [], "x · z"),
        ([value("a", "x" * 60, 0.994)], [word("parse")], "x" * 35 + "… 99%"),
        ([value("c" * 60, "3")], [], "c" * 39 + "…"),
        ([], [word("w" * 50), word("x")], "w" * 39 + "…"),
        ([], [word("w" * 30), word("x" * 12), word("yy")], "w" * 30 + " · yy"),
    ],
)
def test_names_are_short_and_say_what_a_person_would(values, words, name):
    assert name_of(values, words) == name
    assert len(name) <= 40


def test_readable_text_is_one_short_line_without_control_characters():
    assert readable("a\r\n\tb\x00\x1b[0m\u202e\u200bc\ufeff") == "a b [0m c"
    assert readable(" \n ") == ""
    assert readable("x" * 61) == "x" * 59 + "…"
    assert readable("é 日本 👍") == "é 日本 👍"
