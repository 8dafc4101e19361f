"""What a filter may say is up to the store; that it is one expression, and nothing after it, is not."""

import datetime as dt
import sqlite3

import lancedb
import pyarrow as pa
import pytest

from lance_tables import open_source
from spec_store.errors import FilterError, InputError
from spec_store.stores.filters import negated, parenthesized, quoted

N = 10


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filters")
    rows = range(N)
    games = ["games" if i % 2 else "news" for i in rows]
    days = [dt.datetime(2024, 1, 1 + i) for i in rows]
    table = {
        "id": rows,
        "section": games,
        "x": [i / 4 if i % 3 else None for i in rows],
        "ok": [i % 2 == 0 if i % 3 else None for i in rows],
        "l": [[i, i + 1] for i in rows],
        "a": [{"b": {"c": i}, "d": "é"} for i in rows],
        "d": [day.date() for day in days],
        "ts": pa.array(days, pa.timestamp("us")),
        "price": pa.array([f"{i}.50" for i in rows]).cast(pa.decimal128(10, 2)),
        "ünï": rows,
        "Upper": rows,
        "1a": rows,
    }
    lancedb.connect(folder).create_table("images", pa.table(table))
    return open_source(folder)


@pytest.mark.parametrize(
    ("where", "n"),
    [
        ("array_has(l, 3)", 2),
        ("array_element(l, 1) = 3", 1),
        ("l[1] = 3", 1),
        ("array_has_any(l, [1, 2])", 3),
        ("array_length(l) = 2", 10),
        ("regexp_like(section, 'ga.*')", 5),
        ("regexp_match(section, '^g') IS NOT NULL", 5),
        ("a.b.c = 3", 1),
        ("`a`.`b`.`c` = 3", 1),
        ("a['b']['c'] = 3", 1),
        ("a.d = 'é'", 10),
        ("`1a` = 3", 1),
        ("Upper = 3 AND `Upper` = 3", 1),
        ("ünï = 3 OR `ünï` = 4", 2),
        ("d = date '2024-01-03'", 1),
        ("d < CAST('2024-01-03' AS date)", 2),
        ("date_part('year', d) = 2024", 10),
        ("ts > timestamp '2024-01-03 00:00:00'", 7),
        ("ts > now()", 0),
        ("ok", 3),
        ("ok = true", 3),
        ("ok IS NOT TRUE", 7),
        ("NOT ok", 3),
        ("not(ok) or id = 0", 4),
        ("x IS NULL", 4),
        ("x > 1.25", 2),
        ("x > 1e-2", 6),
        ("coalesce(x, 0) > 1", 3),
        ("price > decimal(10,2) '4.50'", 5),
        ("section LIKE 'ga%'", 5),
        ("section ILIKE 'GA%'", 5),
        ("section NOT LIKE 'ga%'", 5),
        (r"section LIKE 'g\%' ESCAPE '\'", 0),
        ("id IN (1, 2, 3)", 3),
        ("id NOT IN (1, 2)", 8),
        ("id BETWEEN 2 AND 4", 3),
        ("id IS DISTINCT FROM 3", 9),
        ("CAST(id AS string) = '3'", 1),
        ("id::bigint = 3", 1),
        ("try_cast(section AS int) IS NULL", 10),
        ("id % 2 = 0", 5),
        ("-id < -3", 6),
        ("id--1 is one, minus minus is a comment\n = 3", 1),
        ("section || 'x' = 'gamesx'", 5),
        ('section = "games"', 5),
        ("section == 'games'", 5),
        ("section <> 'it''s -- no comment'", 10),
        ("section <> 'a /* b */; c'", 10),
        ("section <> ')('", 10),
        (r"section <> 'ga\'", 10),
        ("id > 0 -- those that count", 9),
        ("id > 0 /* those that (count) */", 9),
        ("/* first */ id > 0", 9),
        ("(id > 3) OR (id = 1)", 7),
        ("((id > 3))", 6),
        ("id > 0\n  AND id < 3", 2),
        ("true", 10),
        ("_rowid < 3", 3),
    ],
)
def test_what_lance_takes_is_taken_and_selects_the_same_rows(source, where, n):
    assert source.count(where) == n
    assert sum(len(b) for b in source.batches(["id"], where=where)) == n
    assert source.count(negated(where)) == N - n


@pytest.mark.parametrize(
    ("where", "not_understood"),
    [
        ("id > 0 LIMIT 5", "LIMIT"),
        ("section = 'games' ADN id < 5000", "ADN"),
        ("id < 3 banana", "banana"),
        ("id < 3 banana split", "banana"),
        ("id < 3 AS banana", "AS"),
        ("id < 3 `banana`", "`banana`"),
        ("1=1; DROP TABLE t", "; DROP TABLE t"),
        ("id < 3;", "';' follows"),
        ("id < 3 ORDER BY id", "ORDER"),
        ("id < 3 GROUP BY id", "GROUP"),
        ("id < 3 UNION SELECT 1", "UNION"),
        ("id < 3 OFFSET 2", "OFFSET"),
        ("id < 3, id > 1", "not supported"),
        ("id = 1 2", "'2'"),
        ("id > 1_000", "_000"),
        ("section = 'a' 'b'", "'b'"),
        ("(id = 1) (id = 2)", "understood at '\\('"),
        ("id > 0) OR (1=1", "closes a parenthesis that was never opened"),
        ("id > 0) LIMIT 5 --", "closes a parenthesis that was never opened"),
        ("(id > 0", "never closed"),
        ("id > 0 /* LIMIT", "never closed"),
        ("section = 'games", "never closed"),
        ("`id = 1", "never closed"),
        ("id > 0 }", "understood at '}'"),
        ("id > 0 /* a /* b */ c */", "understood at 'c'"),
        ("", "empty"),
        ("  -- nothing", "empty"),
        ("id <", "found its end"),
        ("id > ?", "does not implement"),
        ("id / 0 = 1", "Divide by zero"),
        ("CAST(section AS int) = 1", "Cannot cast string"),
        ("id", "does not return a boolean"),
        ("SELECT 1", "not supported"),
    ],
)
def test_what_is_not_one_expression_is_refused_with_what_was_not_understood(source, where, not_understood):
    with pytest.raises(FilterError, match=not_understood) as refusal:
        source.count(where)
    assert ".rs" not in str(refusal.value)
    assert repr(where) in str(refusal.value)
    with pytest.raises(FilterError, match=not_understood):
        list(source.batches(["id"], where=where))


def test_a_comment_can_not_swallow_what_is_written_behind_the_filter(source):
    where = "id < 5 -- the first"
    assert parenthesized(where) == "(id < 5)"
    assert source.count(f"{parenthesized(where)} AND id > 2") == 2


def test_the_rows_that_a_filter_leaves_out_include_those_where_it_is_null(source):
    assert source.count("x > 1") == 3
    assert source.count(negated("x > 1")) == 7
    assert source.count(f"id < 6 AND {negated('x > 1 OR ok')}") == 3


@pytest.mark.parametrize(
    "name",
    ["1a", "a b", " a ", "it's", '"q"', "null", "true", "select", "a-b", "a[0]", "Ünï", "x\ny", "a\\b"],
)
def test_a_column_is_named_in_a_filter_whatever_its_name_is(tmp_path, name):
    lancedb.connect(tmp_path).create_table("images", pa.table({"id": [1, 2], name: [1, None]}))
    assert open_source(tmp_path).count(f"{quoted(name)} IS NULL") == 1
    with sqlite3.connect(":memory:") as db:
        db.execute(f'CREATE TABLE images ("{name.replace(chr(34), chr(34) * 2)}")')
        db.execute("INSERT INTO images VALUES (1), (NULL)")
        found = db.execute(f"SELECT count(*) FROM images WHERE {parenthesized(f'{quoted(name)} IS NULL')}")
        assert found.fetchone() == (1,)
    db.close()


def test_a_name_that_no_filter_can_spell_is_refused():
    for name in ("we`ird", ""):
        with pytest.raises(InputError, match="can't be named in a filter"):
            quoted(name)
