"""The page in a real browser: headless Chromium, from a file, without a network."""

import json
import os
import re
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

import spec_store

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
REQUIRED = os.environ.get("SPEC_STORE_BROWSER") == "required"
# Of a browser that runs as root, and starts no conversation of its own.
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not REQUIRED,
    reason="no Chromium in $PATH: install Debian's chromium to test the page in a browser",
)


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM, "SPEC_STORE_BROWSER=required, and there is no Chromium in $PATH"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def open_page(browser, things):
    """Opens the page, once it is drawn; what it asked for and complained of are its `requests` and `said`."""
    contexts = []

    def opened(viewport=WIDE, scheme="light", path=None, **options):
        context = browser.new_context(viewport=viewport, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.requests, page.said = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto((path or things.page).as_uri())
        if options.get("java_script_enabled", True):
            page.wait_for_selector("html[data-ready]")
        return page

    yield opened
    for context in contexts:
        context.close()


def drag(page, canvas, start=(0.05, 0.05), end=(0.6, 0.6)):
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    (x0, y0), (x1, y1) = start, end
    page.mouse.move(box["x"] + x0 * box["width"], box["y"] + y0 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + x1 * box["width"], box["y"] + y1 * box["height"], steps=4)
    page.mouse.up()


def n_selected(page):
    return int(re.match(r"(\d+) sampled row", page.locator("#picked").text_content())[1])


def drawn(canvas):
    return canvas.evaluate("c => c.toDataURL()")


def test_nothing_leaves_the_page_and_nothing_goes_wrong(open_page):
    page = open_page()
    for _ in range(40):  # what would be loaded when it comes into view
        page.mouse.wheel(0, 900)
        page.wait_for_timeout(10)
    assert [url for url in page.requests if not url.startswith("data:")] == [page.url]
    assert page.said == []


def test_texts_of_the_table_are_texts(open_page):
    page = open_page()
    drag(page, page.locator("canvas").first)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img:not([src^='data:image/'])").count() == 0
    assert page.locator("[onerror], [onmouseover]").count() == 0
    assert page.get_by_text("</script><script>window.hacked = 1</script> of group").count() > 0
    assert page.get_by_text("{{ 7 * 7 }} ${7 * 7} &lt;b&gt; <!-- of group").count() > 0


def test_the_policy_refuses_other_code_and_every_request(open_page):
    page = open_page()
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            document.body.append(script);
            const image = document.createElement("img");
            image.src = "https://example.com/seen.png";
            document.body.append(image);
            document.body.setAttribute("onclick", "window.hacked = 1");
            document.body.click();
        }"""
    )
    refused = page.evaluate("fetch('https://example.com/').then(() => 'sent', () => 'refused')")
    assert refused == "refused"
    assert page.evaluate("window.hacked") is None
    assert sum("Content Security Policy" in line for line in page.said) >= 4


def test_a_brush_selects_in_both_maps_and_its_filter_selects_the_same_rows(open_page, things):
    page = open_page()
    first, second = page.locator("canvas").all()
    before = drawn(second)
    drag(page, first)
    n = n_selected(page)
    assert n > 10
    assert drawn(second) != before
    assert page.locator("#picked-rows tbody tr").count() == min(n, 48)
    where = page.locator(".picked .sql code").text_content()
    found = spec_store.query("things", where, select=["id"], db=things.db).read_all()
    assert len(found) == n
    page.get_by_role("button", name="Clear selection").click()
    assert page.locator("#picked").text_content() == "Nothing is selected."
    assert drawn(second) == before


def test_pictures_with_a_few_words_stand_side_by_side(open_page, things, tmp_path):
    path = spec_store.report(
        "things", tmp_path / "tiles.html", db=things.db, show=("picture", "size"), projection="pca"
    )
    page = open_page(PHONE, path=path)
    drag(page, page.locator("canvas").last)
    shown = page.locator("#picked-rows .row")
    assert shown.count() == min(n_selected(page), 48)
    assert shown.first.locator("img").is_visible()
    assert page.locator(".card .rows .row img").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.said == []


def test_a_cluster_is_selected_by_its_own_filter(open_page, things):
    page = open_page()
    chip = page.locator(".chip[data-cluster]").first
    chip.click()
    assert chip.get_attribute("aria-pressed") == "true"
    where = page.locator(".picked .sql code").text_content()
    number = chip.get_attribute("data-cluster")
    assert where == f"array_has(spec_clip_dino_clusters, {number})"
    assert f"members of cluster {number}" in page.locator("#picked").text_content()
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"


def test_filters_are_copied(open_page):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    drag(page, page.locator("canvas").first)
    page.get_by_role("button", name="Copy the SQL filter of the selected rows").click()
    expect(page.locator(".status")).to_have_text("Copied.")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator(".picked .sql code").text_content()
    assert copied.startswith("id IN ('it''s ")


def test_filters_are_copied_where_the_clipboard_is_refused(open_page):
    page = open_page()
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('refused')); }")
    page.locator(".card .copy").first.click()
    expect(page.locator(".status")).to_have_text("Copied.")
    assert page.evaluate("document.activeElement.className") == "copy"


def test_all_is_done_by_keyboard(open_page):
    page = open_page()
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.tagName"))
        if page.evaluate("document.activeElement.tagName") == "CANVAS":
            break
    assert {"A", "CANVAS"} <= seen
    page.keyboard.press("Enter")
    begun = page.locator("#picked").text_content()
    for _ in range(12):
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
    for _ in range(12):
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowUp")
    assert page.locator("#picked").text_content() != begun
    assert n_selected(page) > 0
    page.keyboard.press("Escape")
    assert page.locator("#picked").text_content() == "Nothing is selected."
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.classList.contains('chip')")
    page.keyboard.press("Enter")
    assert page.locator(".picked .sql").is_visible()


def test_a_finger_selects_by_a_tap(open_page):
    page = open_page(PHONE, has_touch=True, is_mobile=True)
    canvas = page.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    state = json.loads(page.locator("#state").text_content())
    x, y = (0.04 + 0.92 * v / state["grid"] for v in state["maps"][0]["xy"][:2])  # the map has a margin
    page.touchscreen.tap(box["x"] + x * box["width"], box["y"] + (1 - y) * box["height"])
    assert n_selected(page) > 0


def test_shares_are_shown_by_any_column(open_page):
    page = open_page()
    page.get_by_label("Shares of the sampled rows by").select_option(label="size")
    visible = page.locator("[data-shares]:visible")
    assert visible.count() == 1
    assert "under" in visible.text_content()


@pytest.mark.parametrize(("viewport", "scheme"), [(WIDE, "dark"), (PHONE, "light")], ids=["wide", "phone"])
def test_no_barrier_that_axe_finds_is_serious(open_page, viewport, scheme):
    page = open_page(viewport, scheme)
    drag(page, page.locator("canvas").first)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    found = Axe().run(page).response["violations"]
    serious = [
        (v["id"], [node["target"] for node in v["nodes"]][:3])
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_in_one_direction(open_page, scheme):
    page = open_page(PHONE, scheme)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    drag(page, page.locator("canvas").first)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_dark_mode_is_dark_and_follows_the_system(open_page):
    page = open_page(scheme="dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    before = drawn(page.locator("canvas").first)
    page.emulate_media(color_scheme="light")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", dark)[:3])) < 120
    assert sum(map(int, re.findall(r"\d+", light)[:3])) > 700
    for _ in range(100):  # Playwright's own way of waiting is code that the page's policy refuses
        if drawn(page.locator("canvas").first) != before:
            return
        page.wait_for_timeout(50)
    pytest.fail("the maps were not drawn again")


def test_it_prints_with_what_is_folded_away(open_page):
    page = open_page()
    page.evaluate(
        """() => {
            window.addEventListener("beforeprint", () => {
                window.folded = document.querySelectorAll("details:not([open])").length;
            });
        }"""
    )
    n_folded = page.locator("details:not([open])").count()
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 3
    assert n_folded > 0
    assert page.evaluate("window.folded") == 0
    assert page.locator("details:not([open])").count() == n_folded


def test_without_scripts_the_findings_are_there(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator("h1").text_content() == "clip against dino"
    assert page.locator(".card").count() > 0
    assert page.locator(".card img").first.is_visible()
