"""Texts whose truth is known: do two embeddings of sentences disagree on what they were made to disagree on?

python examples/sentences.py --db sentences-db

Each of 2,000 sentences has a mood, a job, a verb and an object: "the curious baker paints a piano". `words`
counts whole words; `letters` counts runs of three letters, reduced to 24 dimensions. Some words share most of
their letters (baker and bakes, curious and furious), so that `letters` should take the one for the other. Are
these what compare lists, and nothing else?
"""

import argparse
import tempfile

import lancedb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

import spec_store

Matrix = NDArray[np.float32]

N_SENTENCES = 2000
ATTRIBUTES = {
    "mood": ["cheerful", "anxious", "calm", "curious", "proud", "furious", "gloomy", "tired"],
    "job": ["painter", "doctor", "farmer", "judge", "sailor", "nurse", "baker", "pilot"],
    "verb": ["bakes", "paints", "repairs", "farms", "sells", "judges", "carries", "nurses"],
    "object": ["fence", "piano", "bicycle", "lantern", "mirror", "ladder", "kettle", "drum"],
}
LOOK_ALIKE = [
    ("curious", "furious"),
    ("baker", "bakes"),
    ("farmer", "farms"),
    ("judge", "judges"),
    ("nurse", "nurses"),
    ("painter", "paints"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare two embeddings of generated sentences.")
    parser.add_argument("--db", help="Database in which the table stays. Default: a temporary one.")
    db = parser.parse_args().db
    if db is None:
        with tempfile.TemporaryDirectory() as temporary:
            compare_sentences(temporary)
    else:
        compare_sentences(db)


def compare_sentences(db: str) -> None:
    lancedb.connect(db).create_table("sentences", sentences())
    run = spec_store.compare("sentences", ["words", "letters"], db=db, write=True, key="id")
    print(f"SPEC-diff {run.spec_diff:.4f} over {run.n_rows:,} sentences")
    words = {}
    for cluster in run.record.clusters:
        rows = spec_store.query("sentences", cluster.where, select=list(ATTRIBUTES), db=db).read_all()
        words[cluster.cluster] = most_frequent_word(rows)
    for cluster in run.record.clusters:
        word, share = words[cluster.cluster]
        captured = ", ".join(f"{column} {p:.0%}" for column, p in cluster.capture.items())
        mixed = [words[other["cluster"]][0] for other in cluster.seen_by_other["clusters"][:1]]
        print(
            f"{cluster.cluster:2}  {cluster.side} groups {cluster.size} rows, {share:.0%} with {word}."
            f" Capture: {captured}{', which mixes it most with ' + mixed[0] if mixed else ''}."
        )
    expected = {word for pair in LOOK_ALIKE for word in pair}
    strongest = run.record.clusters[: len(expected)]
    found = {words[c.cluster][0] for c in strongest if c.side == "words" and words[c.cluster][1] > 0.8}
    true, false = len(found & expected), len(found - expected)
    print(f"The strongest {len(strongest)}: {true} of the {len(expected)} look-alikes, {false} other words.")


def sentences(seed: int = 0) -> pa.Table:
    """Their attributes, each drawn independently of the others, their text, and both embeddings."""
    rng = np.random.default_rng(seed)
    drawn = {
        attribute: [values[i] for i in rng.integers(len(values), size=N_SENTENCES)]
        for attribute, values in ATTRIBUTES.items()
    }
    texts = ["the {} {} {} a {}".format(*words) for words in zip(*drawn.values(), strict=True)]
    counted = TfidfVectorizer(stop_words=["the"], dtype=np.float32).fit_transform(texts)
    runs = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), sublinear_tf=True).fit_transform(texts)
    letters = TruncatedSVD(24, random_state=0).fit_transform(runs)
    return pa.table(
        {
            "id": np.arange(N_SENTENCES),
            "text": texts,
            **drawn,
            "words": vectors(counted.toarray()),
            "letters": vectors(letters.astype(np.float32)),
        }
    )


def vectors(rows: Matrix) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


def most_frequent_word(rows: pa.Table) -> tuple[str, float]:
    """Of the words in all attributes, that of the most rows, and the share of the rows that have it."""
    words, counts = np.unique(np.concatenate([rows[a].to_numpy() for a in ATTRIBUTES]), return_counts=True)
    return str(words[counts.argmax()]), float(counts.max() / len(rows))


if __name__ == "__main__":
    main()
