"""A few rounds of the program of chaos, and that it notices what it looks for."""

from pathlib import Path

import pyarrow as pa
import pytest

import s3_server
import spec_store
from chaos import COMPARE, Chaos, Place, Writer, faults


@pytest.fixture
def place(tmp_path):
    return Place(str(tmp_path))


def local(folder):
    def make(number):
        place = folder / f"db-{number}"
        place.mkdir()
        return Place(str(place))

    return make


def test_rounds_of_kills_and_changes_leave_rows_results_and_folder_as_they_should_be(tmp_path):
    chaos = Chaos(local(tmp_path), seed=4)
    chaos.run(3)
    assert chaos.violations == []
    assert chaos.totals["kills"] > 0


def test_rounds_in_an_object_store(tmp_path):
    with s3_server.running_apart() as server:
        uri = f"s3://{s3_server.BUCKET}/db"
        chaos = Chaos(lambda i: Place(uri, server.options, lambda: server.names("db/")), seed=7)
        chaos.run(1)
    assert chaos.violations == []


@pytest.fixture
def writer(place):
    """Of a table with results."""
    writer = Writer(place, 1, stable=True)
    spec_store.compare("images", ["clip", "dino"], db=place.location, write=True, **COMPARE)
    assert list(faults(writer)) == []
    return writer


def test_rows_that_are_not_the_journal_s_are_noticed(writer, place):
    place.dataset().update({"note": "'somebody else'"}, where="id = 7")
    assert {f.partition(":")[0] for f in faults(writer)} == {"pylance", "lancedb"}
    place.dataset().delete("id = 7")
    assert any("lancedb counts 239 rows; the journal has 240" in f for f in faults(writer))


def test_results_that_are_not_those_of_their_run_are_noticed(writer, place):
    name = "spec_clip_dino_scores"
    rows = place.dataset().to_table(["id", name])
    field = place.dataset().schema.field(name)
    other = pa.array(rows[name].to_pylist()[::-1], field.type)
    place.dataset().drop_columns([name])
    place.dataset().merge(pa.table({"id": rows["id"], name: other}), "id")
    marks = {key.decode(): value.decode() for key, value in field.metadata.items()}
    place.dataset().update_field_metadata({name: marks})
    assert any("rows are not as recomputed" in f or "status says" in f for f in faults(writer))


def test_files_that_nobody_needs_are_noticed(writer, place):
    (Path(place.table_uri) / "data" / "spec-left-over.lance").write_bytes(b"x")
    assert list(faults(writer)) == ["images.lance/data/spec-left-over.lance is left after status --clean"]
