"""Real queries in the whole table: exact against sorting every similarity, from any store, or refused."""

import shutil

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import spec_store
from gated import QUICK, N, Naive, gate, lost_table
from lance_tables import make_table
from planted import unit, vectors
from spec_store.errors import ConnectorError, InputError, InvalidVectorsError, TableNotFoundError
from spec_store.keys import hash_keys

BOTH = {"query_source": "q_clip", "query_target": "q_dino"}
LOST = "label = 'lost'"


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    folder = tmp_path_factory.mktemp("queries")
    make_table(folder, lost_table().slice(0, 1500), lost_table().slice(1500))
    spec_store.align("images", "clip", "dino", db=str(folder), write=True, **QUICK)
    return str(folder)


@pytest.fixture(scope="module")
def naive(db):
    return Naive(db)


@pytest.fixture(scope="module")
def asked(naive):
    """60 queries near a row each, that row and a few others being relevant."""
    rng = np.random.default_rng(0)
    rows = rng.choice(N, 60, replace=False)
    near = [unit(x[rows] + 0.2 * rng.standard_normal((60, x.shape[1]))) for x in (naive.clip, naive.dino)]
    relevant = [[int(naive.ids[int(r)].as_py()), *map(int, rng.choice(N, i % 4, replace=False))]
                for i, r in enumerate(rows)]  # fmt: skip
    relevant[7] = []
    relevant[9] = [relevant[9][0], 10**9]
    return pa.table({"q_clip": vectors(near[0]), "q_dino": vectors(near[1]), "right": relevant})


@pytest.fixture(scope="module")
def file(asked, tmp_path_factory):
    path = tmp_path_factory.mktemp("asked") / "queries.parquet"
    pq.write_table(asked, path, row_group_size=7)
    return str(path)


def matrices(asked):
    return [unit(np.stack(asked[c].to_numpy())) for c in ("q_clip", "q_dino")]


def overlap(one, two):
    return np.mean([len(set(p) & set(q)) / len(p) for p, q in zip(one, two, strict=True)])


def test_overlap_and_ndcg_are_exact_for_every_way_to_search(db, naive, asked, file):
    found = gate(db, LOST, queries=file, k=7, **BOTH).queries
    old, new = matrices(asked)
    wanted = naive.found(new, naive.dino, 7)
    lost = (naive.label == "lost")[:, None]
    ways = {
        "do_nothing": naive.found(old, naive.clip, 7),
        "mapped": naive.found(new, naive.mapped, 7),
        "mixed": naive.found(new, np.where(lost, naive.dino, naive.mapped), 7),
        "re_embedded": wanted,
    }
    discount = 1 / np.log2(np.arange(7) + 2)
    for name, rows in ways.items():
        figures = getattr(found, name)
        assert figures.search_overlap.value == pytest.approx(overlap(rows, wanted), abs=1e-3), name
        right = np.array([[r in set(w) for r in row] for row, w in zip(rows, wanted, strict=True)])
        assert figures.ndcg.value == pytest.approx((right @ discount / discount.sum()).mean(), abs=1e-3), name
        assert figures.recall is None
    assert found.mapped.search_overlap.value < found.mixed.search_overlap.value < 1
    assert (found.n_queries, found.n_rows) == (60, N)


def test_against_relevant_rows(db, naive, asked, file):
    gated = gate(db, queries=file, k=5, relevant="right", **BOTH)
    found = gated.queries
    old, new = matrices(asked)
    row_of = {key: i for i, key in enumerate(naive.ids.to_pylist())}
    relevant = [[row_of.get(key, -1) for key in keys] for keys in asked["right"].to_pylist()]
    discount = 1 / np.log2(np.arange(5) + 2)
    for name, rows in (
        ("do_nothing", naive.found(old, naive.clip, 5)),
        ("mapped", naive.found(new, naive.mapped, 5)),
        ("re_embedded", naive.found(new, naive.dino, 5)),
    ):
        recall, gain = [], []
        for row, keys in zip(rows, relevant, strict=True):
            if keys:
                right = np.array([r in keys for r in row])
                recall.append(right.sum() / len(keys))
                gain.append(right @ discount / discount[: len(keys)].sum())
        assert getattr(found, name).recall.value == pytest.approx(np.mean(recall), abs=1e-3)
        assert getattr(found, name).ndcg.value == pytest.approx(np.mean(gain), abs=1e-3)
    assert (found.n_relevant, found.n_unknown, found.n_without) == (sum(map(len, relevant)), 1, 1)
    assert found.re_embedded.recall.value > 0.2
    assert gated.to_json()["queries"]["mapped"]["recall"]["value"] == found.mapped.recall.value


def test_batches_of_any_size_and_many_queries_give_the_same(db, file, monkeypatch):
    whole = gate(db, LOST, queries=file, **BOTH).queries
    monkeypatch.setattr("spec_store.workflows.searching._BATCH_ROWS", 97)
    monkeypatch.setattr("spec_store.workflows.searching._QUERIES", 17)
    assert gate(db, LOST, queries=file, **BOTH).queries == whole


def test_queries_lie_in_a_table_another_store_or_memory(db, asked, file):
    from_file = gate(db, queries=file, **BOTH).queries
    lancedb.connect(db).create_table("asked", asked.select(["q_clip", "q_dino"]), mode="overwrite")
    for place in ("asked", f"lancedb:{db}#asked", f"arrow:{file}", asked, asked.to_pandas()):
        assert gate(db, queries=place, **BOTH).queries == from_file


def test_the_verdict_goes_by_real_queries_too(db, file):
    found = gate(db, queries=file, fail_under=0.4, **BOTH)
    assert found.headline == found.queries.mapped.search_overlap
    assert "queries" not in found.failures
    found = gate(db, queries=file, fail_under=found.headline.high + 1e-3, **BOTH)
    assert "queries" in found.failures


def test_without_old_queries_nothing_is_said_of_today(db, file):
    found = gate(db, queries=file, query_target="q_dino").queries
    assert found.do_nothing is None
    assert found.mapped == gate(db, queries=file, **BOTH).queries.mapped


def test_without_a_map_old_queries_are_all_there_is(db, naive, asked, file):
    found = gate(db, queries=file, map=None, **BOTH)
    old, new = matrices(asked)
    expected = overlap(naive.found(old, naive.clip, 10), naive.found(new, naive.dino, 10))
    assert found.queries.mapped is None
    assert found.headline.value == pytest.approx(expected, abs=1e-3)


def test_in_place_the_source_s_queries_are_asked(db, naive, asked, file):
    run = spec_store.align("images", "clip", "dino", db=db, in_place=True, **QUICK)
    found = gate(db, map=run.map, queries=file, query_source="q_clip").queries
    mapped = unit(run.map.transform(naive.clip).astype(np.float64))
    old, _ = matrices(asked)
    expected = overlap(naive.found(old, mapped, 10), naive.found(old, naive.clip, 10))
    assert found.mapped.search_overlap.value == pytest.approx(expected, abs=1e-3)
    assert found.do_nothing is None


def test_a_map_that_no_column_was_written_with(db, naive, asked, file, tmp_path):
    spec_store.align("images", "clip", "dino", db=db, **QUICK).export(tmp_path / "map.npz")
    found = gate(db, queries=file, map=tmp_path / "map.npz", **BOTH).queries
    assert found.mapped == gate(db, queries=file, **BOTH).queries.mapped


def broken(asked, column, change):
    values = asked[column].to_pylist()
    change(values)
    kind = asked.schema.field(column).type
    return asked.set_column(asked.schema.get_field_index(column), column, pa.array(values, kind))


def test_queries_that_cannot_be_used_are_refused_before_any_work(db, asked, file, monkeypatch):
    def refused(error, match, queries=file, **options):
        with pytest.raises(error, match=match):
            gate(db, queries=queries, **{**BOTH, **options})

    monkeypatch.setattr("spec_store.workflows.gate.draw_switch_sample", None)
    refused(TableNotFoundError, "absent", queries="absent.parquet")
    refused(TableNotFoundError, "No table 'asket'", queries="asket")
    refused(ConnectorError, "No connector named 'fais'", queries="fais:x.index")
    refused(InputError, "No column 'q_dina'", query_target="q_dina")
    refused(InputError, r"without query_target \(--query-target\).*'dino'", query_target=None)
    refused(InputError, r"without query_source \(--query-source\).*'clip'", query_source=None, map=None)
    refused(InvalidVectorsError, r"those of 'dino' must have one width, 24", query_target="q_clip")
    refused(InputError, "holds no queries", queries=asked.slice(0, 0))
    refused(InputError, "is int64; expected one vector", queries=asked.append_column("n", [range(60)]),
            query_target="n")  # fmt: skip
    for value, said in ((None, "null"), ([0.0] * 24, "zero"), ([float("nan")] * 24, "not finite")):
        bad = broken(asked, "q_dino", lambda v, value=value: v.__setitem__(3, value))
        refused(InvalidVectorsError, f"column 'q_dino': 1 {said}", queries=bad)
    text = asked.append_column("text", pa.array([["a"]] * 60))
    refused(InputError, r"lists string; the rows of .* go by 'id', which is int64", queries=text,
            relevant="text")  # fmt: skip
    refused(InputError, "expected lists of keys", queries=asked.append_column("n", [range(60)]), relevant="n")
    none = asked.append_column("none", pa.array([[]] * 60, pa.list_(pa.int64())))
    refused(InputError, "lists no relevant row", queries=none, relevant="none")
    with pytest.raises(InputError, match="relevant is a column of the queries, and no queries are given"):
        gate(db, relevant="right")


@pytest.fixture(scope="module")
def indexed(db, tmp_path_factory):
    """The same table with a vector index on the aligned column."""
    folder = shutil.copytree(db, tmp_path_factory.mktemp("indexed") / "db")
    dataset = lance.dataset(folder / "images.lance")
    dataset.create_index("clip_as_dino", "IVF_PQ", metric="cosine", num_partitions=4, num_sub_vectors=4)
    return str(folder)


def index_answers(db, queries, k):
    """Ids by Lance's own search."""
    dataset = lance.dataset(f"{db}/images.lance")
    return [
        dataset.scanner(columns=["id"], nearest={"column": "clip_as_dino", "q": q.astype(np.float32), "k": k})
        .to_table()["id"]
        .to_pylist()
        for q in queries
    ]


@pytest.mark.parametrize("relevant", [None, "right"])
def test_the_vector_index_is_searched_as_searchers_do(indexed, naive, asked, file, relevant):
    found = gate(indexed, queries=file, relevant=relevant, **BOTH).queries
    _, new = matrices(asked)
    ids = np.array(naive.ids.to_pylist())
    answers = index_answers(indexed, new, 10)
    expected = overlap(ids[naive.found(new, naive.dino, 10)].tolist(), answers)
    assert found.through_index.search_overlap.value == pytest.approx(expected, abs=1e-6)
    assert found.through_index.search_overlap.value < found.mapped.search_overlap.value - 0.03
    if relevant:
        shares = [
            len(set(a) & set(keys)) / len(set(keys))
            for a, keys in zip(answers, asked["right"].to_pylist(), strict=True)
            if keys
        ]
        assert found.through_index.recall.value == pytest.approx(np.mean(shares), abs=1e-6)


def test_rows_as_queries_leave_themselves_out_of_the_index_s_answer(indexed, naive):
    found = gate(indexed).through_index
    rows = np.argsort(hash_keys(naive.ids, 271_828))[:200]
    ids = naive.ids.to_pylist()
    answers = [
        [i for i in answer if i != ids[row]][:10]
        for row, answer in zip(rows, index_answers(indexed, naive.dino[rows], 11), strict=True)
    ]
    wanted = [[ids[i] for i in near] for near in naive.found(naive.dino[rows], naive.dino, 10, rows)]
    assert found.value == pytest.approx(overlap(wanted, answers), abs=1e-6)
    assert gate(indexed, judged_rows=1000).through_index is None


def test_without_a_vector_index_there_is_no_figure_for_one(db, file):
    found = gate(db, queries=file, **BOTH)
    assert found.through_index is found.queries.through_index is None


def test_rows_stand_in_as_queries_of_the_whole_table(indexed, naive):
    options = {"judged_rows": 500, "query_rows": 300, "k": 6}
    found = gate(indexed, LOST, whole_table=True, **options)
    rows = np.argsort(hash_keys(naive.ids, 271_828))[:300]
    wanted = naive.found(naive.dino, naive.dino, 6, np.arange(N))[rows]
    mixed = np.where((naive.label == "lost")[:, None], naive.dino, naive.mapped)
    for name, index in (("mapped", naive.mapped), ("mixed", mixed), ("re_embedded", naive.dino)):
        figures = getattr(found.queries, name)
        assert figures.search_overlap.value == pytest.approx(naive.overlap(index, rows, 6).mean(), abs=1e-3)
    today = naive.overlap(naive.clip, rows, 6, queries=naive.clip).mean()
    assert found.queries.do_nothing.search_overlap.value == pytest.approx(today, abs=1e-3)
    ids = naive.ids.to_pylist()
    answers = [
        [i for i in answer if i != ids[row]][:6]
        for row, answer in zip(rows, index_answers(indexed, naive.dino[rows], 7), strict=True)
    ]
    through = overlap([[ids[i] for i in near] for near in wanted], answers)
    assert found.queries.through_index.search_overlap.value == pytest.approx(through, abs=1e-6)
    assert (found.queries.real, found.queries.n_queries, found.n_searched) == (False, 300, 500)
    assert found.headline == found.queries.mapped.search_overlap
    assert found.headline.value < found.overall.search_overlap.value  # the fewer rows, the easier


def test_with_a_budget_the_plan_is_searched_in_the_whole_table(db, naive, asked, file):
    found = gate(db, "id < 1000", "label = 'odd'", queries=file, budget=1000, **BOTH)
    assert found.plan.where == "(id < 1000)"
    _, new = matrices(asked)
    index = np.where((np.array(naive.ids.to_pylist()) < 1000)[:, None], naive.dino, naive.mapped)
    expected = overlap(naive.found(new, index, 10), naive.found(new, naive.dino, 10))
    assert found.queries.mixed.search_overlap.value == pytest.approx(expected, abs=1e-3)


def test_a_relevant_key_that_repeats_is_found_once(tmp_path, asked):
    table = lost_table()
    table = table.set_column(0, "id", pa.array(np.arange(N) // 2))
    make_table(tmp_path, table)
    right = asked.set_column(2, "right", pa.array([[int(i)] for i in np.arange(60)]))
    near = {
        c: vectors(np.stack(table[d].to_numpy())[:120:2]) for c, d in (("q_clip", "clip"), ("q_dino", "dino"))
    }
    right = pa.table({**near, "right": right["right"]})
    found = gate(str(tmp_path), queries=right, relevant="right", key="id", map=None, k=100, **BOTH).queries
    assert found.re_embedded.recall.value == 1
    assert found.n_unknown == 0
