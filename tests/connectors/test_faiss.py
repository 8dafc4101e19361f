"""FAISS index files: every kind gives back what it holds, and none takes the process down."""

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest

from faiss_files import WIDTH, random_rows, shuffled_ids, write_index, write_index_with_lists_on_disk
from spec_store.errors import InputError, TableNotFoundError, UnsupportedError
from spec_store.plugins import get_connector
from spec_store_faiss import FaissSource
from spec_store_faiss.file import open_index

N = 20_000
ROWS = random_rows(N)
IDS = shuffled_ids(N)


def contents(source, batch_rows=3000):
    batches = list(source.batches(["vector"], batch_rows=batch_rows))
    ids = np.concatenate([b["id"].to_numpy() for b in batches])
    flat = np.concatenate([b["vector"].flatten().to_numpy() for b in batches])
    return ids, flat.reshape(len(ids), -1)


def stored(path, description, *, own_ids):
    """The ids and vectors that come out of an index, in the order of the rows that went in."""
    source = get_connector("faiss").open(write_index(path, description, ROWS, IDS if own_ids else None))
    ids, vectors = contents(source)
    expected = IDS if own_ids else np.arange(N)
    assert len(ids) == N == source.count()
    order = np.argsort(ids)
    np.testing.assert_array_equal(ids[order], np.sort(expected))
    taken = source.take(pa.array(expected[:500]), ["vector"])
    assert taken["id"].to_pylist() == expected[:500].tolist()
    vectors = vectors[order][np.argsort(np.argsort(expected))]
    got = taken["vector"].combine_chunks().flatten().to_numpy().reshape(500, -1)
    np.testing.assert_allclose(got, vectors[:500], atol=1e-5)
    return source, vectors


WITH_IDS = ["IDMap,Flat", "IDMap2,Flat", "IVF16,Flat", "IVF300,Flat", "IDMap,HNSW8", "IDMap2,IVF16,Flat"]
WITH_IDS += ["IVF16_HNSW8,Flat", "IDMap2,PQ16x4,RFlat"]
BY_POSITION = ["Flat", "HNSW8", "NSG16", "IVF16,PQ16x4,RFlat", "Pad128,Flat"]


@pytest.mark.parametrize(
    ("description", "own_ids"), [*((d, True) for d in WITH_IDS), *((d, False) for d in BY_POSITION)]
)
def test_exact_kinds_give_every_vector_back_bit_for_bit(tmp_path, description, own_ids):
    source, vectors = stored(tmp_path / "x.index", description, own_ids=own_ids)
    np.testing.assert_array_equal(vectors, ROWS)
    assert source.notes == ()


LOSSY = [
    ("SQfp16", False, 0.0005, "scalar quantizer"),
    ("SQ8", False, 0.012, "scalar quantizer"),
    ("IVF16,SQ8", True, 0.012, "scalar quantizer"),
    ("HNSW8_SQ8", False, 0.012, "scalar quantizer"),
    ("PQ4x4fs,Refine(SQ8)", False, 0.012, "scalar quantizer"),
    ("PQ16x6", False, 0.5, "product quantizer"),
    ("IVF16,PQ16x6", True, 0.5, "product quantizer"),
    ("PQ16x4", False, 0.65, "product quantizer"),
    ("PQ16x4fs", False, 0.65, "product quantizer"),
    ("IVF16,PQ16x4fs", True, 0.65, "product quantizer"),
    ("IDMap,IVF16,PQ16x4fsr", True, 0.65, "product quantizer"),
    ("OPQ8_32,PQ8x4", False, 0.95, "product quantizer"),
    ("PCA32,Flat", False, 0.75, "PCAMatrix from 64 to 32 dimensions"),
    ("IDMap,PCAW32,Flat", True, 0.75, "PCAMatrix from 64 to 32 dimensions"),
    ("PCA32,IVF16,Flat", True, 0.75, "PCAMatrix from 64 to 32 dimensions"),
    ("LSH", False, 0.7, "binary hashes"),
    ("RaBitQ", False, 0.8, "RaBitQ"),
    ("IVF16,RQ4x4", True, 0.9, "residual quantizer"),
]


@pytest.mark.parametrize(("description", "own_ids", "error", "told"), LOSSY, ids=lambda v: str(v))
def test_lossy_kinds_stay_within_their_error_and_say_what_they_are(
    tmp_path, description, own_ids, error, told
):
    source, vectors = stored(tmp_path / "x.index", description, own_ids=own_ids)
    relative = np.linalg.norm(vectors - ROWS, axis=1) / np.linalg.norm(ROWS, axis=1)
    assert 0 < relative.mean() < error
    (note,) = source.notes
    assert told in note
    assert "keeps its vectors only approximately" in note


@pytest.mark.parametrize("description", ["RR64,Flat", "PCAWR64,Flat"])
def test_transforms_that_lose_nothing_are_undone(tmp_path, description):
    source, vectors = stored(tmp_path / "x.index", description, own_ids=False)
    np.testing.assert_allclose(vectors, ROWS, atol=1e-4)
    assert source.notes == ()


def test_a_transform_that_holds_nan_is_refused():
    index = faiss.index_factory(WIDTH, "PCA32,Flat")
    index.train(ROWS[:2000])
    matrix = faiss.downcast_VectorTransform(index.chain.at(0))
    values = faiss.vector_to_array(matrix.A)
    values[5] = np.nan
    faiss.copy_array_to_vector(values, matrix.A)
    with pytest.raises(InputError, match="its PCAMatrix holds values that are not finite"):
        FaissSource.from_index(index)


def test_lists_whose_codes_are_of_another_width_are_refused():
    index = faiss.index_factory(WIDTH, "IVF4,PQ16x4fs")
    index.train(ROWS[:2000])
    index.add(ROWS[:100])
    index.d = 80
    with pytest.raises(InputError, match="it says 80 dimensions, its codes hold 64"):
        contents(FaissSource.from_index(index))


def test_normalised_vectors_have_their_direction_and_lost_their_length(tmp_path):
    source, vectors = stored(tmp_path / "x.index", "L2norm,Flat", own_ids=False)
    np.testing.assert_allclose(vectors, ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True), atol=1e-6)
    assert "lengths" in source.notes[0]


def test_an_index_in_memory_is_read_like_a_file():
    index = faiss.IndexFlatIP(WIDTH)
    index.add(ROWS[:100])
    ids, vectors = contents(FaissSource.from_index(index), batch_rows=7)
    assert ids.tolist() == list(range(100))
    np.testing.assert_array_equal(vectors, ROWS[:100])


def test_what_cannot_be_read_back_is_refused_by_name(tmp_path):
    index = faiss.index_factory(WIDTH, "ITQ64,LSH")
    index.train(ROWS[:2000])
    with pytest.raises(
        UnsupportedError, match="ITQTransform can't be streamed: this transform has no inverse"
    ):
        FaissSource.from_index(index)
    shards = faiss.IndexShards(WIDTH)
    part = faiss.IndexFlatL2(WIDTH)
    shards.add_shard(part)
    with pytest.raises(UnsupportedError, match="IndexShards can't be streamed: its parts are separate"):
        FaissSource.from_index(shards)
    with pytest.raises(UnsupportedError, match="IndexLattice can't be streamed: this kind is not known"):
        FaissSource.from_index(faiss.IndexLattice(WIDTH, 4, 8, 14))
    binary = faiss.IndexBinaryFlat(WIDTH)
    binary.add(np.zeros((3, WIDTH // 8), np.uint8))
    faiss.write_index_binary(binary, str(tmp_path / "b.index"))
    with pytest.raises(UnsupportedError, match=r"b\.index is a binary FAISS index"):
        FaissSource.open(str(tmp_path / "b.index"))


def test_duplicate_ids_are_refused_with_their_count(tmp_path):
    path = write_index(tmp_path / "x.index", "IDMap2,Flat", ROWS[:100], np.arange(100) % 90)
    with pytest.raises(InputError, match="10 of 100 ids in FAISS index"):
        FaissSource.open(path)


def test_options_that_mean_nothing_here_are_refused(tmp_path):
    path = write_index(tmp_path / "x.index", "Flat", ROWS[:10])
    with pytest.raises(InputError, match="have no table"):
        get_connector("faiss").open(path, table="images")
    with pytest.raises(UnsupportedError, match="is not a local file"):
        get_connector("faiss").open("s3://bucket/x.index")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a FAISS index: it has 0 bytes"),
        (b"PAR1 and so on", "is not a FAISS index: it begins with b'PAR1'"),
        (b"IxXX" + b"\0" * 60, "can't be read as a FAISS index"),
    ],
)
def test_what_is_no_index_is_refused(tmp_path, content, message):
    (tmp_path / "x.index").write_bytes(content)
    with pytest.raises(InputError, match=message):
        FaissSource.open(str(tmp_path / "x.index"))


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(TableNotFoundError, match="No FAISS index file"):
        FaissSource.open(str(tmp_path / "nothing.index"))
    with pytest.raises(InputError, match="is a folder"):
        FaissSource.open(str(tmp_path))


READ_ALL = """
import sys
from spec_store.errors import SpecStoreError
from spec_store_faiss import FaissSource
for path in sys.argv[1:]:
    try:
        print(sum(len(b) for b in FaissSource.open(path).batches(["vector"])))
    except SpecStoreError as error:
        print("refused:", error)
"""


def test_no_broken_file_takes_the_process_down(tmp_path):
    rows = random_rows(600)
    paths = []
    for kind in ("IDMap2,Flat", "IVF4,Flat", "HNSW8", "PCA32,Flat", "PQ16x4", "IVF4,PQ16x4fs"):
        ids = np.arange(600) if kind.startswith("IDMap") else None
        data = Path(write_index(tmp_path / "whole.index", kind, rows, ids)).read_bytes()
        for cut in (60, 100, len(data) // 2, len(data) - 8):
            path = tmp_path / f"{kind.replace(',', '_')}_{cut}.index"
            path.write_bytes(data[:cut])
            paths.append(str(path))
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths)
    for path, line in zip(paths, lines, strict=True):
        assert line.startswith("refused: "), (path, line)
    assert any("crashes FAISS (SIGSEGV)" in line for line in lines)  # or the probe is not needed any more


def test_a_file_written_to_while_it_is_read_is_noticed_and_one_renamed_into_its_place_does_no_harm(tmp_path):
    path = write_index(tmp_path / "x.index", "Flat", ROWS[:1000])
    source = FaissSource.open(path)
    batches = source.batches(["vector"], batch_rows=100)
    next(batches)
    write_index(tmp_path / "y.index", "Flat", ROWS[1000:1500])
    (tmp_path / "y.index").rename(path)
    rest = np.concatenate([b["vector"].flatten().to_numpy() for b in batches]).reshape(900, WIDTH)
    np.testing.assert_array_equal(rest, ROWS[100:1000])
    source = FaissSource.open(path)
    batches = source.batches(["vector"], batch_rows=100)
    next(batches)
    with open(path, "ab") as stream:
        stream.write(b"more")
    with pytest.raises(InputError, match="was written to while it was read"):
        next(batches)


def test_the_limits_of_faiss_are_put_back(tmp_path):
    before = faiss.get_deserialization_vector_byte_limit()
    FaissSource.open(write_index(tmp_path / "x.index", "Flat", ROWS[:10]))
    assert faiss.get_deserialization_vector_byte_limit() == before


def by_id(source):
    ids, vectors = contents(source)
    return vectors[np.argsort(ids)]


def test_lists_on_disk_are_found_beside_an_index_that_was_moved(tmp_path):
    for name in ("old", "new", "copy"):
        (tmp_path / name).mkdir()
    rows = random_rows(3000)
    path = Path(write_index_with_lists_on_disk(tmp_path / "old", rows))
    np.testing.assert_array_equal(by_id(FaissSource.open(str(path))), rows)
    for file in path.parent.iterdir():
        shutil.copy(file, tmp_path / "copy")
        file.rename(tmp_path / "new" / file.name)
    moved = FaissSource.open(str(tmp_path / "new" / "x.index"))
    np.testing.assert_array_equal(by_id(moved), rows)
    # Another index, built where the first one was: a copy keeps its own lists.
    write_index_with_lists_on_disk(tmp_path / "old", rows[::-1].copy())
    np.testing.assert_array_equal(by_id(FaissSource.open(str(tmp_path / "copy" / "x.index"))), rows)


def test_lists_on_disk_that_are_missing_or_of_another_size_are_refused_by_name(tmp_path):
    (tmp_path / "new").mkdir()
    path = Path(write_index_with_lists_on_disk(tmp_path, random_rows(3000)))
    path.rename(tmp_path / "new" / "x.index")
    (tmp_path / "merged.ivfdata").rename(tmp_path / "elsewhere")
    with pytest.raises(TableNotFoundError, match=r"keeps its vectors in merged\.ivfdata, which is neither"):
        FaissSource.open(str(tmp_path / "new" / "x.index"))
    (tmp_path / "new" / "merged.ivfdata").write_bytes(b"0" * 1000)
    with pytest.raises(InputError, match=r"has 1,000 bytes where .* expects [0-9,]*: it belongs to another"):
        FaissSource.open(str(tmp_path / "new" / "x.index"))


def test_dropped_pages_are_those_of_the_index_alone(tmp_path):
    rows = random_rows(2000)
    path = write_index(tmp_path / "x.index", "Flat", rows)
    first, second = FaissSource.open(path), FaissSource.open(path)
    ranges = [{start for start, _ in source._pages._ranges} for source in (first, second)]
    assert all(ranges)
    assert ranges[0].isdisjoint(ranges[1])


def test_an_index_file_is_pickled_by_path_and_refused_once_it_has_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_index(tmp_path / "x.index", "IDMap2,Flat", ROWS[:500], IDS[:500])
    source = FaissSource.open("x.index")
    content = pickle.dumps(source)
    assert len(content) < 1000
    monkeypatch.chdir("/")
    again = pickle.loads(content)
    assert (again.uri, again.fingerprint) == (source.uri, source.fingerprint)
    for one, other in zip(contents(again), contents(source), strict=True):
        np.testing.assert_array_equal(one, other)
    write_index(tmp_path / "x.index", "IDMap2,Flat", ROWS[500:1000], IDS[:500])
    with pytest.raises(InputError, match="was changed or replaced since it was opened"):
        pickle.loads(content)


def test_an_index_in_memory_is_pickled_by_value():
    index = faiss.IndexFlatIP(WIDTH)
    index.add(ROWS[:100])
    again = pickle.loads(pickle.dumps(FaissSource.from_index(index)))
    np.testing.assert_array_equal(contents(again)[1], ROWS[:100])


def test_an_index_is_read_where_faiss_has_no_limit_on_loops(tmp_path, monkeypatch):
    for verb in ("get", "set"):
        monkeypatch.delattr(faiss, f"{verb}_deserialization_loop_limit")
    path = write_index(tmp_path / "x.index", "Flat", ROWS[:10])
    assert open_index(Path(path)).index.ntotal == 10
