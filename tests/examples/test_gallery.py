"""The gallery's commands can be run as they stand, and its pictures are there and small."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from spec_store.cli import main

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "docs" / "gallery.md", ROOT / "examples" / "pictures" / "README.md")
LINES = [line.strip() for page in PAGES for line in page.read_text().splitlines() if line.startswith("    ")]
SCREENSHOTS = re.findall(r"\]\((gallery/\S+\.png)\)", PAGES[0].read_text())


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("spec-store ")])
def test_its_commands_parse(line):
    words = shlex.split(line)
    main.commands[words[1]].make_context(words[1], words[2:])


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("python ")])
def test_its_examples_exist(line):
    assert (ROOT / shlex.split(line)[1]).exists()


def test_its_screenshots_are_there_and_small():
    found = {f"gallery/{path.name}" for path in (ROOT / "docs" / "gallery").glob("*.png")}
    assert found == set(SCREENSHOTS)
    for name in SCREENSHOTS:
        path = ROOT / "docs" / name
        assert path.stat().st_size < 150_000, name
        with Image.open(path) as picture:
            assert picture.width <= 1280, name
