"""What a page says of itself, and that nothing in a table can become part of it."""

import base64
import hashlib
import html
import json
import re
from dataclasses import replace

import lancedb
import pyarrow as pa
import pytest

import spec_store
from command import run
from planted import planted_mixture, vectors
from reported import HOSTILE, URL, compared, create_table
from spec_store.errors import ColumnNotFoundError, InputError, MissingExtraError, TableNotFoundError
from spec_store.progress import silent
from spec_store.reporting.data import ModelMatrix
from spec_store.reporting.options import ReportOptions
from spec_store.reporting.page import render, script_json
from spec_store.workflows.report import gather

BLOCK = re.compile(r"<(script|style)([^>]*)>(.*?)</\1>", re.DOTALL)


@pytest.fixture(scope="module")
def text(things):
    return things.page.read_text()


def state_of(text):
    return json.loads(re.search(r'id="state">(.*?)</script>', text, re.DOTALL)[1])


def test_the_policy_names_exactly_the_pages_own_style_and_script(text):
    policy = html.unescape(re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1])
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    found = {
        kind: base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        for kind, attributes, content in BLOCK.findall(text)
        if "json" not in attributes
    }
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'sha256-{found['style']}'",
        "script-src": f"'sha256-{found['script']}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert text.index("Content-Security-Policy") < text.index("<style>") < text.index("<script")


def test_nothing_is_loaded_from_elsewhere(text):
    outside_json = BLOCK.sub("", text)
    sources = re.findall(r'(?:src|srcset|href|action|poster)="([^"]*)"', outside_json)
    assert {re.match(r"(#|data:image/|https:)", source)[1] for source in sources} == {
        "#",
        "data:image/",
        "https:",
    }
    links = [s for s in sources if s.startswith("https:")]
    assert set(links) == {html.escape(URL)}  # the table's own, to be followed by hand
    assert re.search(r'<(?!a )[^>]*="https:', outside_json) is None
    assert " style=" not in outside_json  # the policy would refuse it


def test_what_a_table_holds_stays_text(text):
    outside = BLOCK.sub("", text)
    assert "<script>window" not in text
    assert "<img src=x" not in text
    assert re.search(r"<[^>]* onmouseover=", outside) is None
    assert "la&lt;b&gt;el" in outside
    assert "\\u202e reversed \\x1b[31m red" in outside  # as a terminal is shown it
    assert "49 49" not in text


@pytest.mark.parametrize("given", [*HOSTILE, "]]>", "<!--<script>", "\u2029'"])
def test_json_in_a_script_element_has_no_character_that_ends_it(given):
    found = script_json({"a": [given, 1.5, None]})
    assert not set("<>&'\u2028\u2029") & set(found)
    assert json.loads(found) == {"a": [given, 1.5, None]}


def test_each_cluster_has_a_card_with_its_rows_and_its_filter(text, things):
    report = spec_store.clusters("things", db=things.db)
    assert report.run.clusters
    for cluster in report.run.clusters:
        card = re.search(rf'<article[^>]*id="cluster-{cluster.cluster}".*?</article>', text, re.DOTALL)[0]
        assert f"{cluster.size:,} rows" in card
        assert html.escape(cluster.where) in card
        assert card.count("data:image/png;base64,") >= 3 * 6
        for title in ("Typical members", "Members at random", "Just outside", "A typical row as a query"):
            assert title in card
        assert cluster.top_rows[0] in html.unescape(card)


def test_the_page_says_what_the_terminal_says(text, things):
    said = run("clusters", "--table", "things", "--db", things.db, "--cluster", 1).stdout.splitlines()
    plain = html.unescape(re.sub(r"<[^>]*>", " ", text))
    assert " ".join(said[1:2]).strip() in plain
    listed = run("clusters", "--table", "things", "--db", things.db, "--all").stdout
    assert "not confirmed" not in listed or "candidates that were chosen and not confirmed" in plain


def test_the_commands_on_the_page_repeat_the_run(text, things, tmp_path):
    run_record = spec_store.clusters("things", db=things.db).run
    commands = [html.unescape(c) for c in re.findall(r"<code>(spec-store [^<]*)</code>", text)]
    compare, align, report = commands
    assert compare == f"spec-store compare --table things --cols clip,dino --db {things.db} --key id --seed 0"
    assert align.startswith("spec-store align --table things --source clip --target dino ")
    words = report.split()
    again = run(*words[1:-1], tmp_path / "again.html")
    assert "again.html" in again.stdout
    assert run_record.run_id in (tmp_path / "again.html").read_text()


def test_the_same_command_gives_the_same_maps(things, tmp_path):
    options = {"db": things.db, "show": ("text",), "sample_rows": 200, "clusters": 2, "rows": 2}
    pages = [spec_store.report("things", tmp_path / f"{i}.html", **options).read_text() for i in range(2)]
    first, second = map(state_of, pages)
    assert first == second
    assert len(first["rows"]) == 200
    assert len(first["clusters"]) == 2
    other = spec_store.report("things", tmp_path / "c.html", **options, seed=1).read_text()
    assert state_of(other)["rows"] != first["rows"]


def test_rows_without_a_key_are_selected_by_the_stores_own(tmp_path):
    db = compared(tmp_path, key=None)
    page = spec_store.report("things", tmp_path / "page.html", db=db, projection="pca", sample_rows=50)
    state = state_of(page.read_text())
    where = f"{state['filter']['column']} IN ({', '.join(state['filter']['values'][:7])})"
    assert len(spec_store.query("things", where, select=["id"], db=db).read_all()) == 7
    assert "compaction may change them" in page.read_text()


def test_a_table_of_results_alone_has_a_page_without_maps(tmp_path):
    db = create_table(tmp_path)
    columns = ["clip=lancedb:" + db + "#things/clip", "dino=lancedb:" + db + "#things/dino"]
    spec_store.compare("scores", columns, db=db, write=True, key="id")
    page = spec_store.report("scores", tmp_path / "page.html", db=db).read_text()
    assert "<canvas" not in page
    assert "clip and dino are not in table" in html.unescape(page)
    assert '<article class="card' in page


def test_embeddings_that_agree_have_a_page_that_says_so(tmp_path):
    a = vectors(planted_mixture(300, d=16)[0])
    lancedb.connect(tmp_path).create_table("same", pa.table({"one": a, "other": a}))
    spec_store.compare("same", ["one", "other"], db=tmp_path, write=True)
    page = spec_store.report("same", tmp_path / "page.html", db=tmp_path).read_text()
    assert "the embeddings group these rows alike, as far as 300 rows tell." in page
    assert page.count("<canvas") == 2
    assert "<article" not in page


def test_several_models_come_first(things):
    options = ReportOptions(projection="pca", sample_rows=20, clusters=1)
    data = gather("things", prefix=None, db=things.db, progress=silent, options=options)
    values = [[0.0, 0.25, 0.5], [0.25, 0.0, None], [0.5, None, 0.0]]
    models = ModelMatrix(("clip", "<dino>", "siglip"), values, values, values)
    page = render(replace(data, models=models))
    assert page.index("3 models") < page.index("clip</span> against")
    assert page.count('<th scope="row">&lt;dino&gt;</th>') == 3
    assert page.count('<td class="number h10">0.5</td>') == 6
    assert page.count('<td class="number h0">-</td>') == 6


def test_a_page_is_small(things):
    assert things.page.stat().st_size < 3e6


def test_what_cannot_be_written_or_shown_is_refused_before_any_work(things, tmp_path):
    said = []

    def progress(*args):
        said.append(args)

    options = {"db": things.db, "progress": progress}
    link = tmp_path / "link.html"
    link.symlink_to(tmp_path / "elsewhere.html")
    with pytest.raises(InputError, match="symbolic link"):
        spec_store.report("things", link, **options)
    with pytest.raises(TableNotFoundError, match="no folder"):
        spec_store.report("things", tmp_path / "no" / "page.html", **options)
    with pytest.raises(ColumnNotFoundError, match=r"'pictur'.*'picture'"):
        spec_store.report("things", tmp_path / "page.html", show=("pictur",), **options)
    with pytest.raises(InputError, match=r"prefix 'other'"):
        spec_store.report("things", tmp_path / "page.html", prefix="other", **options)
    with pytest.raises(InputError, match=r"projection is 'umap'; expected one of tsne, pca\."):
        spec_store.report("things", tmp_path / "page.html", projection="umap", **options)
    with pytest.raises(InputError, match=r"No option 'cluster'\. Did you mean 'clusters'"):
        spec_store.report("things", tmp_path / "page.html", cluster=3, **options)
    assert said == []
    assert list(tmp_path.iterdir()) == [link]


def test_an_interrupt_leaves_the_page_as_it_was(things, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("an earlier page")

    def interrupted(stage, rows, total):
        if stage == "maps":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spec_store.report("things", page, db=things.db, progress=interrupted)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["an earlier page"]


def test_a_missing_extra_is_named_with_its_install_line(things, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r'pip install "spec-store\[report\]"$'):
        spec_store.report("things", tmp_path / "page.html", db=things.db)
    assert not list(tmp_path.iterdir())
