"""What the page of each example claims is what the example prints."""

import re
import subprocess
import sys
from pathlib import Path

import lancedb

EXAMPLES = Path(__file__).parents[2] / "examples"


def shown(example, *arguments):
    command = [sys.executable, str(EXAMPLES / example), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def percentages(text):
    return [int(found) / 100 for found in re.findall(r"(\d+)%", text)]


def test_digits():
    text = shown("digits.py")
    assert "cluster 1, grouped by pixels: " in text
    assert "typical of cluster 1: [" in text


def test_sentences_disagree_on_the_words_that_look_alike_and_on_no_others(tmp_path):
    text = shown("sentences.py", "--db", tmp_path)
    assert text.splitlines()[-1] == "The strongest 12: 12 of the 12 look-alikes, 0 other words."
    mixed = dict(re.findall(r"with (\w+)\. Capture: .* most with (\w+)\.", text))
    for one, other in [("curious", "furious"), ("judge", "judges"), ("baker", "bakes"), ("nurse", "nurses")]:
        assert mixed[one] == other
    for line in text.splitlines()[1:13]:
        purity, by_words, by_letters = percentages(line)
        assert purity > 0.8
        assert by_words - by_letters > 0.2
    assert "spec_words_letters_cluster" in lancedb.connect(tmp_path).open_table("sentences").schema.names


def test_the_strongest_cluster_of_an_overlay_is_the_stamp(tmp_path):
    first, second, third = shown("overlay.py", "--db", tmp_path).splitlines()
    assert re.search(r"\d+ rows, (9|10) different digits, grouped by hog", first)
    purity, found = percentages(second)
    assert purity >= 0.9
    assert found >= 0.7
    by_hog, by_classifier = percentages(third)
    assert by_hog > 0.85
    assert by_classifier < 0.3


def test_a_faiss_index_is_migrated(tmp_path):
    text = shown("faiss_migration.py", "--folder", tmp_path)
    for file in ("old.index", "new.index", "map.npz", "migrated.index"):
        assert (tmp_path / file).exists()
    assert "Passed." in text
    today, migrated = percentages("\n".join(text.splitlines()[-2:]))
    assert today < 0.6
    assert migrated > today + 0.1
