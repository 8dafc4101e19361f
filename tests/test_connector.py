"""What every connector builds on: row hashes, the default sample, the registry and its errors."""

import pickle
import sys

import numpy as np
import pyarrow as pa
import pytest

from spec_store.connector import Annotation, Source, find_field
from spec_store.errors import (
    ColumnNotFoundError,
    ConnectorError,
    InputError,
    MissingExtraError,
    UnsupportedError,
)
from spec_store.keys import hash_keys
from spec_store.plugins import get_connector, installed_connectors


class Rows(Source):
    """A source with nothing but what it must have."""

    uri, table, version, key = "memory", None, None, "key"

    def __init__(self, keys, values):
        self._table = pa.table({"key": keys, "value": values})
        self.schema = pa.schema([("value", self._table["value"].type)])

    def count(self, where=None):
        return len(self._table)

    def batches(self, columns, *, where=None, partition=None, batch_rows=8192):
        yield from self._table.select(["key", *columns]).to_batches(max_chunksize=batch_rows)


def test_hashes_do_not_depend_on_the_batch_nor_on_the_integer_type():
    keys = pa.array(range(1000), pa.int64())
    whole = hash_keys(keys, 3)
    parts = np.concatenate([hash_keys(keys[:10], 3), hash_keys(keys[10:], 3)])
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_array_equal(whole, hash_keys(keys.cast(pa.uint64()), 3))
    assert not np.array_equal(whole, hash_keys(keys, 4))


def test_hashes_are_spread_evenly_and_known_for_ever():
    hashes = hash_keys(pa.array(range(100_000)), 0)
    assert len(set(hashes.tolist())) == 100_000
    assert abs(np.mean(hashes & np.uint64(1)) - 0.5) < 0.01
    # Saved states depend on these values: they must be the same on every machine and in every release.
    assert hash_keys(pa.array([0, 1]), 0).tolist() == [16294208416658607535, 10451216379200822465]


def test_equal_keys_hash_alike_in_every_encoding():
    text = pa.array(["a", "b", "ä", "b"])
    views = pa.DictionaryArray.from_arrays([0, 1, 2, 1], pa.array(["a", "b", "ä"], pa.string_view()))
    encodings = [
        text.cast(kind) for kind in (pa.large_string(), pa.string_view(), pa.binary(), pa.binary_view())
    ]
    for keys in (*encodings, text.dictionary_encode(), views):
        np.testing.assert_array_equal(hash_keys(keys), hash_keys(text))
    raw = pa.array([bytes([i]) * 16 for i in range(4)])
    for keys in (raw.cast(pa.binary(16)), raw.cast(pa.binary(16)).cast(pa.uuid())):
        np.testing.assert_array_equal(hash_keys(keys), hash_keys(raw))
    numbers = pa.array([5, 6, 5])
    np.testing.assert_array_equal(hash_keys(numbers.dictionary_encode()), hash_keys(numbers))


def test_keys_that_are_null_or_of_no_usable_type_are_refused():
    with pytest.raises(InputError, match="1 row keys are null"):
        hash_keys(pa.array([1, None]))
    with pytest.raises(InputError, match="not double"):
        hash_keys(pa.array([1.5]))


def test_the_default_sample_is_uniform_seeded_and_free_of_batches_and_order():
    source = Rows([f"row {i}" for i in range(5000)], list(range(5000)))
    sample = source.sample(500, seed=1, columns=["value"])
    values = sample["value"].to_pylist()
    assert len(set(values)) == 500
    assert [f"row {v}" for v in values] == sample["key"].to_pylist()
    assert 2000 < np.mean(values) < 3000
    assert source.sample(500, seed=1, columns=["value"]) == sample
    assert source.sample(500, seed=2, columns=["value"]) != sample
    backwards = Rows([f"row {i}" for i in reversed(range(5000))], list(reversed(range(5000))))
    assert backwards.sample(500, seed=1, columns=["value"]) == sample


def test_rows_that_stay_sampled_stay_comparable_while_the_table_grows():
    small, large = Rows(range(1000), range(1000)), Rows(range(1100), range(1100))
    before = set(small.sample(100, seed=0, columns=[])["key"].to_pylist())
    after = set(large.sample(100, seed=0, columns=[])["key"].to_pylist())
    assert len(before & after) > 80


def test_a_source_that_cannot_be_written_says_what_to_do():
    with pytest.raises(UnsupportedError, match="Give --db and --table"):
        Rows([1], [1]).check_annotation(pa.schema([("x", pa.int32())]))


def test_a_missing_field_is_named_with_the_nearest():
    with pytest.raises(ColumnNotFoundError, match=r"No column 'valu' in memory. Did you mean 'value'"):
        find_field(Rows([1], [1]), "valu")


def plug_in(folder, package, name, target, code):
    """An installed distribution with one entry point."""
    (folder / f"{package.replace('-', '_')}_module.py").write_text(code)
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[spec_store.connectors]\n{name} = {target}\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [m for m in sys.modules if m.endswith("_module")]:
        del sys.modules[name]


def test_an_unknown_connector_lists_those_installed():
    with pytest.raises(ConnectorError, match=r"No connector named 'pinecone' is installed.*lancedb"):
        get_connector("pinecone")


def test_two_packages_that_claim_a_name_are_both_named(site):
    for package in ("one-store", "two-store"):
        plug_in(site, package, "mine", f"{package.replace('-', '_')}_module:C", "")
    with pytest.raises(ConnectorError, match="'mine' is claimed by one-store and two-store: uninstall one"):
        get_connector("mine")


def test_a_plug_in_that_fails_at_import_is_named_and_breaks_nothing_else(site):
    plug_in(site, "broken-store", "broken", "broken_store_module:C", "raise RuntimeError('no licence')")
    with pytest.raises(ConnectorError, match=r"'broken' of package broken-store.*RuntimeError: no licence"):
        get_connector("broken")
    with pytest.warns(UserWarning, match="broken-store"):
        found = {c.name: c for c in installed_connectors()}
    assert "no licence" in found["broken"].error
    assert found["lancedb"].error is None
    assert "annotate" in found["lancedb"].capabilities


def test_a_plug_in_of_an_extra_that_is_not_installed_gives_the_install_line(site):
    target = "cloud_store_module:C [client]"
    plug_in(site, "cloud-store", "cloud", target, "import a_client_that_nobody_has\n")
    with pytest.raises(
        MissingExtraError, match=r'needs a_client_that.*: pip install "cloud-store\[client\]"$'
    ):
        get_connector("cloud")
    with pytest.warns(UserWarning, match="pip install"):
        found = {c.name: c for c in installed_connectors()}
    assert found["lancedb"].error is None


def test_a_plug_in_that_is_no_connector_is_refused(site):
    plug_in(site, "odd-store", "odd", "odd_store_module:C", "C = dict\n")
    with pytest.raises(ConnectorError, match=r"is a dict, not a spec_store\.connector\.Connector"):
        get_connector("odd")


def unchanged(batch):
    return batch


def test_an_annotation_pickles_where_its_compute_does():
    annotation = Annotation(
        pa.schema([("r", pa.int32())]), ("clip",), unchanged, "token", {"spec_store.run": "r"}
    )
    assert pickle.loads(pickle.dumps(annotation)) == annotation
