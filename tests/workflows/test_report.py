"""Which rows and columns a report takes from a table, whatever its shape."""

import lancedb
import numpy as np
import pyarrow as pa
import pytest

import spec_store
from planted import planted_mixture, vectors
from spec_store.progress import silent
from spec_store.reporting.options import ReportOptions
from spec_store.workflows.report import gather

N = 900


def gathered(table, db, **options):
    shown = {"projection": "pca", "sample_rows": 2000, **options}
    return gather(table, prefix=None, db=str(db), progress=silent, options=ReportOptions(**shown))


def columns_of(n=N, seed=4):
    a, b, groups = planted_mixture(n, n_groups=10, merged=3, d=24, noise=0.5, seed=seed)
    return a, b, pa.table({"id": np.arange(n), "group": [f"g{g}" for g in groups]})


def test_rows_that_were_not_compared_are_not_shown(tmp_path):
    a, b, table = columns_of()
    a[np.arange(N) % 50 == 7] = 0
    table = table.append_column("clip", vectors(a)).append_column("dino", vectors(b))
    opened = lancedb.connect(tmp_path).create_table("t", table)
    spec_store.compare(
        "t", ["clip", "dino"], db=tmp_path, write=True, key="id", where="id < 800", skip_invalid=True
    )
    opened.add(table.slice(0, 5).set_column(0, "id", pa.array(range(5000, 5005))))
    data = gathered("t", tmp_path)
    shown = {int(row.key) for row in data.rows}
    assert shown == {i for i in range(800) if i % 50 != 7}
    assert len(data.sample) == len(shown)
    assert np.allclose(np.linalg.norm(data.sample.vectors["clip"], axis=1), 1, atol=1e-5)
    outside = {int(row.key) for e in data.examples.values() for row in e.near}
    assert outside <= shown


def test_members_of_the_sample_are_those_of_the_table(tmp_path):
    a, b, table = columns_of()
    table = table.append_column("clip", vectors(a)).append_column("dino", vectors(b))
    lancedb.connect(tmp_path).create_table("t", table)
    spec_store.compare("t", ["clip", "dino"], db=tmp_path, write=True, key="id")
    data = gathered("t", tmp_path)
    keys = np.array([int(row.key) for row in data.rows])
    for j, number in enumerate(data.sample.numbers):
        where = f"array_has(spec_clip_dino_clusters, {number})"
        found = spec_store.query("t", where, select=["id"], db=tmp_path).read_all()
        assert set(keys[data.sample.members[:, j]]) == set(found["id"].to_pylist())
        assert (data.sample.scores[data.sample.members[:, j], j] >= 0.5).all()
        near = data.examples[number].near
        assert 0 < len(near) <= 6  # fewer where no other row has any membership
        assert all(row.membership < 0.5 for row in near)
        assert [row.membership for row in near] == sorted((row.membership for row in near), reverse=True)
        outside = data.sample.scores[~data.sample.members[:, j], j]
        assert near[0].membership == pytest.approx(outside.max())


@pytest.mark.parametrize("key", ["order", "Image Id"])
def test_a_key_that_sql_wants_quoted_selects_rows(tmp_path, key):
    a, b, table = columns_of(300)
    table = table.rename_columns([key, "group"])
    table = table.append_column("clip", vectors(a)).append_column("dino", vectors(b))
    lancedb.connect(tmp_path).create_table("t", table)
    spec_store.compare("t", ["clip", "dino"], db=tmp_path, write=True, key=key)
    found = gathered("t", tmp_path).filter
    where = f"{found.column} IN ({', '.join(found.literals[:4])})"
    assert len(spec_store.query("t", where, select=["group"], db=tmp_path).read_all()) == 4


def test_a_key_that_repeats_is_named_so(tmp_path):
    a, b, table = columns_of(300)
    table = table.set_column(0, "id", pa.array(np.arange(300) // 2))
    table = table.append_column("clip", vectors(a)).append_column("dino", vectors(b))
    lancedb.connect(tmp_path).create_table("t", table)
    spec_store.compare("t", ["clip", "dino"], db=tmp_path, write=True, key="id")
    assert gathered("t", tmp_path).filter.note.startswith("Values of the key repeat")


def test_nested_columns_have_maps(tmp_path):
    a, b, table = columns_of(400)
    both = pa.StructArray.from_arrays([vectors(a), vectors(b)], ["clip", "dino"])
    lancedb.connect(tmp_path).create_table("t", table.append_column("of", both))
    spec_store.compare("t", ["of.clip", "of.dino"], db=tmp_path, write=True)
    data = gathered("t", tmp_path)
    assert list(data.maps) == ["of.clip", "of.dino"]
    assert data.shown == ("id", "group")


def test_an_aligned_column_with_holes_is_left_out(tmp_path):
    a, b, table = columns_of(400)
    table = table.append_column("clip", vectors(a)).append_column("dino", vectors(b))
    opened = lancedb.connect(tmp_path).create_table("t", table)
    spec_store.align("t", "clip", "dino", db=tmp_path, key="id", held_out=0.3, force=True).write()
    opened.add(table.slice(0, 3))
    spec_store.compare("t", ["clip", "dino"], db=tmp_path, write=True)
    data = gathered("t", tmp_path)
    assert data.aligned is None
    assert len(data.sample) == 403
    spec_store.update("t", db=tmp_path)
    data = gathered("t", tmp_path)
    assert data.aligned.name == "clip_as_dino"
    assert set(data.blocks.kernels) == {"clip", "dino", "clip_as_dino"}


def test_maps_are_computed_once_and_stored_with_the_run(tmp_path, monkeypatch):
    a, b, table = columns_of(300)
    table = table.append_column("clip", vectors(a)).append_column("dino", vectors(b))
    opened = lancedb.connect(tmp_path).create_table("t", table)
    spec_store.compare("t", ["clip", "dino"], db=tmp_path, write=True, key="id")
    first = gathered("t", tmp_path)
    calls = []
    project = spec_store.workflows.report_maps.project
    monkeypatch.setattr(
        "spec_store.workflows.report_maps.project", lambda *given: calls.append(given) or project(*given)
    )
    again = gathered("t", tmp_path)
    assert not calls
    for column in ("clip", "dino"):
        np.testing.assert_array_equal(again.maps[column], first.maps[column])
    gathered("t", tmp_path, projection="tsne")
    gathered("t", tmp_path, seed=1)
    assert len(calls) == 4
    opened.update(where="id = 7", values={"clip": [1.0] * 24})  # other vectors have other maps
    moved = gathered("t", tmp_path)
    assert len(calls) == 6
    assert not np.array_equal(moved.maps["clip"], first.maps["clip"])


def test_maps_that_can_not_be_stored_are_shown_with_a_note(tmp_path):
    a, b, table = columns_of(300)
    table = table.append_column("clip", vectors(a)).append_column("dino", vectors(b))
    lancedb.connect(tmp_path).create_table("t", table)
    spec_store.compare("t", ["clip", "dino"], db=tmp_path, write=True, key="id", keep_sample=False)
    foreign = pa.table({"run_id": ["x"], "something": [1]})
    lancedb.connect(tmp_path).create_table("spec_store_artifacts", foreign, mode="overwrite")
    data = gathered("t", tmp_path)
    assert set(data.maps) == {"clip", "dino"}
    assert any("could not be stored" in note for note in data.notes)


def test_a_pair_of_several_models_has_their_matrix_on_its_page(tmp_path):
    a, b, table = columns_of(300)
    table = table.append_column("clip", vectors(a)).append_column("dino", vectors(b))
    table = table.append_column("siglip", vectors(a[:, :10]))
    lancedb.connect(tmp_path).create_table("t", table)
    names = ["clip", "dino", "siglip"]
    pairs = [("clip", "siglip")]
    run = spec_store.compare_models("t", names, pairs=pairs, db=tmp_path, write=True, dim=50)
    models = gathered("t", tmp_path).models
    entry = next(e for e in run.record.matrix if (e["first"], e["second"]) == ("clip", "siglip"))
    assert models.columns == tuple(names)
    assert models.spec_diff[0][2] == models.spec_diff[2][0] == entry["spec_diff"]
    assert models.cka_unbiased[2][0] == entry["cka_unbiased"]
    assert models.cka[1][1] is None
    spec_store.compare("t", ["clip", "dino"], db=tmp_path, write=True, dim=50)
    assert gathered("t", tmp_path).models is None


def test_a_written_comparison_writes_its_page(tmp_path):
    a, b, table = columns_of(300)
    table = table.append_column("clip", vectors(a)).append_column("dino", vectors(b))
    lancedb.connect(tmp_path).create_table("t", table)
    run = spec_store.compare("t", ["clip", "dino"], db=tmp_path, key="id")
    with pytest.raises(spec_store.SpecStoreError, match="write the comparison to one first"):
        run.report(tmp_path / "r.html")
    page = run.write().report(tmp_path / "r.html", projection="pca", show=["group"])
    text = page.read_text()
    assert "clip groups" in text
    assert "spec-store compare --table t --cols clip,dino" in text
