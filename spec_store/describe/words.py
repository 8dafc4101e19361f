"""Words that are over-represented in the texts of a cluster."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # its submodules are imported when they are first used
from numpy.typing import NDArray

from .enrichment import enriched, pairs_to_test
from .reservoir import TextSample
from .tokens import Terms, find_terms

__all__ = ["Word", "distinctive_words"]

MOST_WORDS = 8


@dataclass(frozen=True)
class Word:
    """A word, or two neighbouring ones, that is over-represented in the texts of a cluster's members.

    Attributes
    ----------
    column, word
        The texts' column; the word in lower case.
    share
        Of the members with a text, how many have it in theirs; estimated from up to 500 of them.
    lift
        That share over the share of all texts; estimated.
    log_p
        Natural logarithm of the probability of this by chance, corrected for all tests of the column.
    """

    column: str
    word: str
    share: float
    lift: float
    log_p: float


def distinctive_words(column: str, sample: TextSample) -> list[list[Word]]:
    """Of each cluster the words that are over-represented, most significant first, at most 8.

    Parameters
    ----------
    sample
        Texts of the column.

    Notes
    -----
    Members' texts are tested against the texts of other rows as values are, see `enriched`: for words this
    is Dunning's keyness, with exact tails, of numbers of texts rather than of occurrences, so that one long
    text is not taken for many. No list of stop words is needed: they are in most texts, of whatever cluster.
    A pair of words is listed only where both are over-represented, and of a pair and its words only the most
    significant. On docstrings by package the log-odds with an informative prior (Monroe, Colaresi, Quinn,
    "Fightin' words", Political Analysis 2008) ranked general words higher ("args", "the", "of"), and
    class-based TF-IDF listed stop words in half of the packages.

    Cost: see `find_terms`.
    """
    found: list[list[Word]] = [[] for _ in sample.sizes]
    if not sample.texts or not found:
        return found
    terms = find_terms(sample.texts)
    among_members = sample.of_table & sample.member
    drawn = sample.of_cluster.sum(axis=1)
    n_others = sample.of_table.sum() - among_members.sum(axis=1)
    counts = _counts(terms, sample.of_cluster)
    elsewhere = _counts(terms, sample.of_table[None]) - _counts(terms, among_members)
    weight = sample.sizes / sample.n_rows
    bases = weight * counts / np.maximum(drawn, 1) + (1 - weight) * elsewhere / np.maximum(n_others, 1)
    pairs = pairs_to_test(counts, counts + elsewhere, drawn, drawn + n_others, bases)
    result = enriched([pairs])
    passed = set(zip(result.features.tolist(), result.clusters.tolist(), strict=True))
    for i, (term, j) in enumerate(zip(result.features.tolist(), result.clusters.tolist(), strict=True)):
        parts = terms.parts[term].tolist()
        if len(found[j]) < MOST_WORDS and all((part, j) in passed for part in parts):
            word = Word(
                column,
                terms.names[term],
                float(result.shares[i]),
                float(result.lifts[i]),
                float(result.log_p[i]),
            )
            if not _repeats(word.word, found[j]):
                found[j].append(word)
    return found


def _counts(terms: Terms, samples: NDArray[np.bool_]) -> NDArray[np.int64]:
    """In how many texts of each sample each term is, shape (V, n_samples)."""
    product = terms.found.T @ scipy.sparse.csr_array(samples.T.astype(np.int64))
    return np.asarray(product.toarray())


def _repeats(word: str, listed: list[Word]) -> bool:
    """Whether a word is part of a listed one, or the other way round."""
    parts = set(word.split())
    return any(parts <= set(w.word.split()) or parts >= set(w.word.split()) for w in listed)
