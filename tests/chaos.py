"""Rounds of chaos on one table: a journalled writer changes it while runs are killed and resumed.

In each round processes run `compare`, `align`, `update`, `undo` and `status --clean`, several at once. Some
kill themselves (kill -9) at a seeded event: a write of a ledger, a checkpoint, a column file, a commit, a row
of the registry. After it the table must hold what the writer's journal says, and every result that `status`
calls current must be that of a recomputation.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import lance
import lancedb
import numpy as np
import pyarrow as pa

import spec_store
from planted import vectors

TESTS = Path(__file__).parent
WIDTHS = {"clip": 6, "dino": 5}
FIRST_ROWS, FRAGMENTS = 240, 3
OWN = ["id", "clip", "dino", "note"]
COMPARE = {"dim": 8, "sample_rows": 200, "modes": 4, "describe": False}
ALIGN = {"n_landmarks": 20, "steps": 2, "force": True}
PREFIXES = {"spec_clip_dino": {}, "odd": {"prefix": "odd", "where": "id % 2 = 1"}}
ALIGNED = {"aligned": {}, "moved": {"in_place": True, "kind": "affine"}}
# Rows of a table and of a world: more would only cost time.
_LARGEST_TABLE = 700
_ROUNDS_OF_A_TABLE = 10
_MOST_EVENTS = 120
_SECONDS = 300
# Of scores and vectors in float32, whose sums depend on how rows are cut into batches.
_TOLERANCE = 2e-3
_CONFLICTS = ("conflict", "incompatible transaction", "concurrent")


@dataclass
class Journal:
    """What the writer has committed: by id, its row; and columns that it has added, multiples of the id."""

    rng: np.random.Generator
    rows: dict[int, tuple[np.ndarray, np.ndarray, str]] = field(default_factory=dict)
    added: dict[str, int] = field(default_factory=dict)
    next_id: int = 0

    def draw(self, n):
        """New rows, not committed yet."""
        centres = {name: np.random.default_rng(1).normal(size=(8, w)) for name, w in WIDTHS.items()}
        centres["dino"][:3] = centres["dino"][3:6]
        groups = self.rng.integers(0, 8, n)
        noise = {name: 0.3 * self.rng.normal(size=(n, w)) for name, w in WIDTHS.items()}
        a, b = ((centres[name][groups] + noise[name]).astype(np.float32) for name in WIDTHS)
        ids = range(self.next_id, self.next_id + n)
        self.next_id += n
        return {i: (a[k], b[k], f"note {i}") for k, i in enumerate(ids)}

    def chosen(self, n):
        """Some ids of the table."""
        ids = sorted(self.rows)
        return sorted(int(i) for i in self.rng.choice(ids, min(n, len(ids)), replace=False))


def as_table(rows):
    """Rows as they are written."""
    a, b, notes = zip(*rows.values(), strict=True)
    return pa.table(
        {"id": list(rows), "clip": vectors(np.stack(a)), "dino": vectors(np.stack(b)), "note": notes}
    )


class Writer:
    """Changes the table as other people's programs do, and keeps the journal."""

    def __init__(self, place, seed, *, stable):
        self.place = place
        self.random = random.Random(seed)
        self.journal = Journal(np.random.default_rng(seed))
        self.counts = Counter()
        rows = self.journal.draw(FIRST_ROWS)
        table = as_table(rows)
        step = FIRST_ROWS // FRAGMENTS
        for start in range(0, FIRST_ROWS, step):
            lance.write_dataset(
                table.slice(start, step),
                place.table_uri,
                mode="append" if start else "create",
                enable_stable_row_ids=stable,
                storage_options=place.options,
            )
        self.journal.rows |= rows

    def change(self):
        """One change, committed and journalled."""
        n = len(self.journal.rows)
        kinds = [
            self.append,
            self.delete,
            self.update_vectors,
            self.update_note,
            self.compact,
            self.add_column,
        ]
        weights = [3 if n < _LARGEST_TABLE else 0, 3 if n > FIRST_ROWS else 1, 3, 1, 2, 1]
        (kind,) = self.random.choices(kinds, weights)
        while not self._committed(kind):
            time.sleep(0.05 * self.random.random())

    def _committed(self, kind):
        try:
            kind(self.place.dataset())
        except (OSError, RuntimeError) as error:
            if not any(words in str(error).lower() for words in _CONFLICTS):
                raise
            self.counts["conflicts"] += 1
            return False
        self.counts[kind.__name__] += 1
        return True

    def append(self, dataset):
        rows = self.journal.draw(self.random.randint(15, 50))
        table = as_table(rows)
        for name, factor in self.journal.added.items():
            table = table.append_column(name, pa.array([factor * i for i in rows]))
        lance.write_dataset(table, dataset, mode="append")
        self.journal.rows |= rows

    def delete(self, dataset):
        ids = self.journal.chosen(self.random.randint(5, 40))
        dataset.delete(f"id IN ({', '.join(map(str, ids))})")
        for i in ids:
            del self.journal.rows[i]

    def update_vectors(self, dataset):
        ids = self.journal.chosen(self.random.randint(5, 30))
        drawn = self.journal.draw(len(ids))
        rows = {i: (a, b, self.journal.rows[i][2]) for i, (a, b, _) in zip(ids, drawn.values(), strict=True)}
        table = as_table(rows).drop_columns("note")
        dataset.merge_insert("id").when_matched_update_all().execute(table)
        self.journal.rows |= rows

    def update_note(self, dataset):
        ids = self.journal.chosen(self.random.randint(5, 30))
        note = f"changed {self.random.randint(0, 999)}"
        dataset.update({"note": f"'{note}'"}, where=f"id IN ({', '.join(map(str, ids))})")
        for i in ids:
            a, b, _ = self.journal.rows[i]
            self.journal.rows[i] = a, b, note

    def compact(self, dataset):
        dataset.optimize.compact_files(target_rows_per_fragment=self.random.choice([100, 200, 400]))

    def add_column(self, dataset):
        if len(self.journal.added) == 2:
            name = self.random.choice(sorted(self.journal.added))
            dataset.drop_columns([name])
            del self.journal.added[name]
            return
        factor = self.random.randint(2, 9)
        name = f"extra_{self.journal.next_id}_{factor}"
        dataset.add_columns({name: f"id * {factor}"})
        self.journal.added[name] = factor


@dataclass(frozen=True)
class Place:
    """A database, local or in an object store."""

    uri: str
    options: dict[str, str] | None = None
    objects: object = None
    """A callable that gives the names of all objects; None for a folder."""

    @property
    def table_uri(self):
        return f"{self.uri}/images.lance"

    @property
    def location(self):
        return spec_store.Location(self.uri, "lancedb", self.options or {})

    def dataset(self):
        return lance.dataset(self.table_uri, storage_options=self.options)

    def names(self):
        """Of all files, relative to the database."""
        if self.objects is not None:
            return set(self.objects())
        return {str(p.relative_to(self.uri)) for p in Path(self.uri).rglob("*")}


# ---- the processes that run spec-store


class Process:
    """One that has imported all, and waits for what it is to do."""

    def __init__(self):
        path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "RUST_LOG": "error", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(TESTS / "chaos.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.commands = []

    def start(self, place, commands, kill_at):
        """Run these at once; the process kills itself at an event of this number."""
        self.commands = commands
        given = {"uri": place.uri, "options": place.options, "commands": commands, "kill_at": kill_at}
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()

    def kill(self):
        self._process.kill()

    def end(self):
        """What became of each command; "killed" for those that were under way, and what stderr said."""
        try:
            out, said = self._process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return ["hangs"] * len(self.commands), ""
        killed = self._process.returncode == -signal.SIGKILL
        outcomes = dict(map(json.loads, out.splitlines()))
        default = "killed" if killed else f"process ended with {self._process.returncode}"
        return [outcomes.get(i, default) for i in range(len(self.commands))], "" if killed else said[-2000:]


def run_commands():
    """The process: read one line, run what it names in threads, print what became of each."""
    import spec_store.workflows.align
    import spec_store.workflows.compare
    import spec_store.workflows.status
    import spec_store.workflows.update
    from spec_store.errors import SpecStoreError
    from spec_store.workflows import checkpoint, units
    from spec_store_lancedb import annotate, ledger, objects, staging, workspace
    from spec_store_lancedb.connector import LanceDBConnector

    os.environ[checkpoint.SECONDS_VARIABLE] = "0"
    units._LEAST_ROWS = 80
    line = sys.stdin.readline()
    if not line:
        return
    given = json.loads(line)
    count, lock = 0, threading.Lock()

    def event():
        nonlocal count
        with lock:
            count += 1
            if count == given["kill_at"]:
                os.kill(os.getpid(), signal.SIGKILL)

    def counted(owner, name):
        inner = getattr(owner, name)

        def wrapper(*args, **kwargs):
            event()
            result = inner(*args, **kwargs)
            event()
            return result

        setattr(owner, name, staticmethod(wrapper) if owner is lance.LanceDataset else wrapper)

    for owner, name in [
        (ledger._LocalLedger, "_append"),
        (ledger._RemoteLedger, "_append"),
        (objects._StoreObjects, "put"),
        (workspace._Folder, "put"),
        (staging, "stage"),
        (annotate, "dry_run_commit"),
        (annotate, "mark_columns"),
        (LanceDBConnector, "append"),
        (lance.LanceDataset, "commit"),
    ]:
        counted(owner, name)

    location = spec_store.Location(given["uri"], "lancedb", given["options"] or {})
    printed = threading.Lock()

    def run(i, command, arguments):
        progress = None if command in ("undo", "status") else lambda stage, rows, total: event()
        more = {} if progress is None else {"progress": progress}
        try:
            getattr(spec_store, command)("images", **arguments, **more, db=location)
            what = "done"
        except SpecStoreError as error:
            what = f"refused: {type(error).__name__}: {error}"
        except BaseException as error:
            import traceback

            traceback.print_exc()
            what = f"failed: {type(error).__name__}: {error}"
        with printed:
            print(json.dumps([i, what]), flush=True)

    threads = [threading.Thread(target=run, args=(i, *c)) for i, c in enumerate(given["commands"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# ---- a round


def drawn_command(rng):
    """A command with its arguments."""
    kind = rng.choices(["compare", "align", "update", "undo", "status"], [6, 4, 5, 2, 1])[0]
    if kind == "compare":
        more = rng.choice(list(PREFIXES.values()))
        return [
            "compare",
            {"columns": ["clip", "dino"], "write": True, "seed": rng.randint(0, 1), **COMPARE, **more},
        ]
    if kind == "align":
        name = rng.choice(list(ALIGNED))
        given = {"source": "clip", "target": "dino", "write": True, "column": name}
        return ["align", {**given, **ALIGN, **ALIGNED[name]}]
    if kind == "update":
        return ["update", {"refit": rng.random() < 0.2}]
    if kind == "undo":
        return ["undo", {"prefix": rng.choice([*PREFIXES, *ALIGNED])}]
    return ["status", {"clean": True}]


class Chaos:
    """Rounds on tables at places that `make_place` makes."""

    def __init__(self, make_place, seed, report=lambda line: None):
        self.make_place = make_place
        self.seed = seed
        self.report = report
        self.totals = Counter()
        self.refusals = Counter()
        self.writes = Counter()
        self.violations = []
        self._pool = [Process() for _ in range(2)]

    def run(self, rounds):
        """So many rounds, each on what the one before left; a new table every ten."""
        writer = None
        for number in range(rounds):
            rng = random.Random(1000 * self.seed + number)
            if number % _ROUNDS_OF_A_TABLE == 0:
                place = self.make_place(number)
                stable = (number // _ROUNDS_OF_A_TABLE) % 2 == 0
                writer = Writer(place, 1000 * self.seed + number, stable=stable)
            self._round(number, writer, rng)
            self.totals["rounds"] += 1
        self.close()
        return not self.violations

    def close(self):
        for process in self._pool:
            process.kill()
            process.end()
        self._pool = []

    def _process(self):
        self._pool.append(Process())  # so that it has imported all when it is its turn
        return self._pool.pop(0)

    def _round(self, number, writer, rng):
        place = writer.place
        together = []
        for _ in range(rng.choice([1, 2])):
            commands = [drawn_command(rng) for _ in range(rng.choice([1, 1, 2]))]
            kill_at = rng.randint(1, _MOST_EVENTS) if rng.random() < 0.7 else None
            together.append((self._process(), commands, kill_at))
        for process, commands, kill_at in together:
            process.start(place, commands, kill_at)
        for _ in range(rng.randint(1, 4)):
            time.sleep(rng.random())
            writer.change()
        ended = [self._ended(number, process) for process, _, _ in together]
        again = [c for outcomes in ended for c, what in outcomes if what == "killed" and rng.random() < 0.6]
        if again:
            self.totals["resumed"] += len(again)
            process = self._process()
            process.start(place, again, rng.randint(1, _MOST_EVENTS) if rng.random() < 0.2 else None)
            if rng.random() < 0.5:
                writer.change()
            self._ended(number, process)
        found = [f"round {number}: {what}" for what in faults(writer)]
        self.violations += found
        self.writes = self.writes + writer.counts
        writer.counts.clear()
        for what in found:
            self.report(what)
        self.report(f"round {number}: {self.summary()}")

    def _ended(self, number, process):
        outcomes, said = process.end()
        self.totals["commands"] += len(outcomes)
        if "killed" in outcomes:
            self.totals["kills"] += 1
        for (name, given), what in zip(process.commands, outcomes, strict=True):
            kind = what.partition(":")[0]
            self.totals[kind] += 1
            if kind == "refused":
                self.refusals[f"{name}: {what.partition(':')[2][:90].strip()}"] += 1
            elif kind not in ("done", "killed"):
                self.violations.append(f"round {number}: {name} {given} {what}\n{said}")
                self.report(self.violations[-1])
        return list(zip(process.commands, outcomes, strict=True))

    def summary(self):
        return ", ".join(f"{n} {kind}" for kind, n in sorted(self.totals.items()))


# ---- what must hold


def faults(writer):
    """What does not hold of a table after a round."""
    place, journal = writer.place, writer.journal
    try:
        status = spec_store.status("images", db=place.location)
        yield from _table_faults(place, journal)
        yield from _result_faults(place, status)
        spec_store.status("images", db=place.location, clean=True)
        left = spec_store.status("images", db=place.location).leftovers
        if left:
            yield f"status --clean leaves what status lists: {left}"
        yield from _leftover_faults(place)
        yield from _table_faults(place, journal)
    except Exception as error:
        import traceback

        yield f"a check failed with {type(error).__name__}: {error}\n{traceback.format_exc()[-1500:]}"


def _table_faults(place, journal):
    dataset = place.dataset()
    dataset.validate()
    readers = {"pylance": dataset.to_table}
    with contextlib.suppress(ImportError):
        table = lancedb.connect(place.uri, storage_options=place.options).open_table("images")
        readers["lancedb"] = table.to_arrow
        if table.count_rows() != len(journal.rows):
            yield f"lancedb counts {table.count_rows()} rows; the journal has {len(journal.rows)}"
    for name, read in readers.items():
        found = read().sort_by("id")
        ids = found["id"].to_pylist()
        if ids != sorted(journal.rows):
            yield f"{name} has {len(ids)} rows; the journal has {len(journal.rows)}, not the same"
            continue
        expected = as_table({i: journal.rows[i] for i in ids})
        for column in OWN[1:]:
            if found[column].combine_chunks().to_pylist() != expected[column].combine_chunks().to_pylist():
                yield f"{name}: column {column} is not the journal's"
        for column, factor in journal.added.items():
            if found[column].to_pylist() != [factor * i for i in ids]:
                yield f"{name}: column {column} is not the journal's"


def _result_faults(place, status):
    from spec_store.runs.registry import Registry
    from spec_store.stores.locate import open_table
    from spec_store.workflows.annotated import held_alignments, held_comparisons

    source = open_table("images", place.location)
    registry = Registry.of(source.location)
    rows = place.dataset().to_table()
    by_prefix = {r.prefix: r for r in status.results}
    checked = set()
    for run in held_comparisons(source):
        expected = _scores(run, registry, rows)
        name = f"{run.prefix}_scores"
        checked |= {n for n in rows.column_names if n.startswith(f"{run.prefix}_")}
        yield from _counted(run, by_prefix, expected, rows[name].combine_chunks(), name)
    for run in held_alignments(source):
        expected = _aligned(run, registry, rows)
        checked.add(run.prefix)
        yield from _counted(run, by_prefix, expected, rows[run.prefix].combine_chunks(), run.prefix)
    others = {n for n in rows.column_names if n not in OWN and not n.startswith("extra_")} - checked
    if others:
        yield f"columns {sorted(others)} are of no recorded run"


def _scores(run, registry, rows):
    """What each row's scores should be; None where there should be none."""
    from spec_store.spectral.covariance import CovarianceAccumulator
    from spec_store.spectral.scoring import Scorer
    from spec_store.workflows.comparison import RULES

    state = CovarianceAccumulator.load(io.BytesIO(registry.state(run.state_run or run.run_id)))
    maps = {m.column: m for m in state.maps}
    scorer = Scorer.from_bytes(registry.artifact(run.run_id, RULES), [maps[c] for c in run.columns])
    batch = rows.select(["id", *run.columns]).combine_chunks().to_batches()[0]
    found = scorer.compute(batch).column(f"{run.prefix}_scores").to_pylist()
    inside = [run.options.get("where") is None or i % 2 == 1 for i in rows["id"].to_pylist()]
    return [scores if kept else None for scores, kept in zip(found, inside, strict=True)]


def _aligned(run, registry, rows):
    fitted = spec_store.load_map(io.BytesIO(registry.state(run.run_id)))
    return list(fitted.transform(np.stack(rows[run.columns[0]].to_numpy(zero_copy_only=False))))


def _counted(run, by_prefix, expected, stored, name):
    """Rows by whether they hold what they should, against what `status` says."""
    if run.prefix not in by_prefix:
        yield f"status lists no results with prefix {run.prefix}"
        return
    told = by_prefix[run.prefix].rows
    n_right = n_null = n_wrong = 0
    for wanted, held in zip(expected, stored.to_pylist(), strict=True):
        if held is None:
            n_right += wanted is None
            n_null += wanted is not None
        elif wanted is not None and _alike(held, wanted):
            n_right += 1
        else:
            n_wrong += 1
    if n_wrong > told.stale + told.unknown:
        yield f"{name} of run {run.run_id}: {n_wrong} rows are not as recomputed; status says {told}"
    if told.current > n_right:
        counted = f"{n_right} rows right, {n_null} null, {n_wrong} wrong"
        yield f"{name} of run {run.run_id}: {counted}; status says {told}"


def _alike(held, wanted):
    """Lists of numbers; numbers of clusters that are gone have no score."""
    a, b = (np.array(x, np.float64) for x in (held, wanted))
    return a.shape == b.shape and np.allclose(a, b, atol=_TOLERANCE, equal_nan=True)


def _leftover_faults(place):
    names = place.names()
    dataset = place.dataset()
    versions = [dataset.checkout_version(v["version"]) for v in dataset.versions()]
    live = {d.path for v in versions for f in v.get_fragments() for d in f.metadata.files}
    for name in sorted(names):
        folder, _, file = name.rpartition("/")
        ours = folder == "images.lance/data" and file.startswith("spec-") and file not in live
        if ours or "_spec_store/" in name or name.endswith("_spec_store") or ".spec-store-" in name:
            yield f"{name} is left after status --clean"


if __name__ == "__main__":
    run_commands()
