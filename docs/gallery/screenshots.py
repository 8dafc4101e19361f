"""Screenshots of parts of a report, for docs/gallery.md.

python docs/gallery/screenshots.py overlay.html overview=overlay.png cluster-1=overlay-stamp.png

Each part is an element's id in the page. Needs Playwright's Python package and Debian's chromium.
"""

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH = 1280
MARGIN = 24
N_EXACT = 64
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Take screenshots of parts of a report.")
    parser.add_argument("page", type=Path, help="The report, an HTML file.")
    parser.add_argument("parts", nargs="+", metavar="ID=FILE", help="An element's id, and its PNG file.")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page(viewport={"width": WIDTH, "height": 900})
        page.goto(options.page.resolve().as_uri())
        page.wait_for_timeout(3000)  # the maps are drawn once they are in view
        page.locator("header, nav").first.evaluate("bar => { bar.style.display = 'none' }")
        for part in options.parts:
            name, file = part.split("=")
            element = page.locator(f"#{name}")
            element.scroll_into_view_if_needed()
            page.wait_for_timeout(1500)
            box = element.bounding_box()
            top = page.evaluate("window.scrollY") + box["y"]
            clip = {
                "x": box["x"] - MARGIN,
                "y": top,
                "width": box["width"] + 2 * MARGIN,
                "height": box["height"],
            }
            save(page.screenshot(clip=clip, full_page=True), Path(__file__).parent / file)
        browser.close()


def save(content: bytes, path: Path) -> None:
    """As a PNG file of 256 colours."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    counted = sorted(picture.getcolors(picture.width * picture.height), reverse=True)
    frequent = [colour for _, colour in counted[:N_EXACT]]  # a tinted background would be seen
    covering = picture.quantize(256 - N_EXACT, Image.Quantize.MAXCOVERAGE).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(value for colour in frequent for value in colour), *covering])
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
