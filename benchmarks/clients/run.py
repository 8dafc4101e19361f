"""What LanceDB clients of other ages can do with annotated tables, and what annotating does to theirs.

python benchmarks/clients/run.py --work FOLDER --clients FOLDER/lancedb-0.14 … [--node FOLDER]

Each client is a virtual environment with that LanceDB (and the NumPy and pyarrow of its time); this
Python's own LanceDB is always one of them. In `--node`, `npm install @lancedb/lancedb` has run.

Every client makes tables, which `--annotator` annotates (a Python in which this checkout is installed; this
one by default). Every other column must then have the digest it had, no data file may have changed, and
nothing but the result columns may be left behind. The client opens, filters, searches, appends, updates,
deletes and optimises. The table is annotated again, and undone. What a client can't do with a copy that was
never annotated is not counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lance

HERE = Path(__file__).parent
PREFIX = "spec_clip_dino"
COMPARE = ["compare", *["--cols", "clip,dino", "--key", "id", "--dim", "60", "--sample-rows", "1000"]]
NEWEST = "this lancedb"
IMPOSSIBLE = "not without annotation either"
Outcomes = dict[str, str]  # by step: "ok", or what went wrong


@dataclass
class Client:
    """A program that uses tables: a Python with its LanceDB, or the Node client in its folder."""

    name: str
    python: Path | None = None
    node: Path | None = None

    def run(self, *arguments: str) -> dict[str, Any]:
        """The JSON of the last line that it printed; an error if there is none."""
        if self.node is None:
            return answer([str(self.python), str(HERE / "client.py"), *arguments])
        shutil.copy(HERE / "client.mjs", self.node)
        return answer(["node", "client.mjs", *arguments], self.node)

    def use(self, folder: Path, tables: list[str], column: str) -> dict[str, Outcomes]:
        """What it can do with each table; all of it changes the table."""
        if self.node is None:
            found = self.run("use", str(folder), ",".join(tables), column)
        else:
            found = {table: self.run(str(folder), table, column) for table in tables}
        found = dict.fromkeys(tables, found) if "error" in found else found
        return {t: {"open": found[t]["error"]} if "error" in found[t] else found[t] for t in tables}


def answer(command: list[str], folder: Path | None = None) -> dict[str, Any]:
    """The JSON of the last line that a program printed; an error if there is none."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        return {"error": f"exit {done.returncode}: {' '.join(last)[:200]}"}
    return found


@dataclass
class Report:
    """Outcomes by client, then step, then table."""

    found: dict[str, dict[str, Outcomes]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )

    def add(self, client: str, step: str, table: str, outcome: str) -> None:
        self.found[client][step][table] = outcome
        if outcome not in ("ok", IMPOSSIBLE):
            print(f"  {client}, {step}, {table}: {outcome}", flush=True)

    def show(self) -> None:
        """Tables that went well of all, by client and step."""
        steps = list(dict.fromkeys(step for by_step in self.found.values() for step in by_step))
        width = max(map(len, self.found)) + 2
        print("\nTables that went well, of all tried:")
        names = list(self.found)
        print(f"{'':22}" + "".join(f"{name:>{width}}" for name in names))
        for step in steps:
            cells = []
            for name in names:
                outcomes = list(self.found[name].get(step, {}).values())
                counted = [o for o in outcomes if o != IMPOSSIBLE]
                cells.append(f"{sum(o == 'ok' for o in counted)}/{len(counted)}" if counted else "-")
            print(f"{step:22}" + "".join(f"{cell:>{width}}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True, help="an empty or new folder")
    parser.add_argument("--clients", type=Path, nargs="*", default=[], help="virtual environments")
    parser.add_argument("--node", type=Path, help="where npm install @lancedb/lancedb has run")
    parser.add_argument("--annotator", type=Path, default=Path(sys.executable))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    clients = [Client(path.name, path.absolute() / "bin/python") for path in args.clients]
    clients.append(Client(NEWEST, Path(sys.executable)))
    node = Client("node", node=args.node.absolute()) if args.node else None

    report = Report()
    for client in clients:
        print(f"Tables of {client.name}", flush=True)
        folder = args.work.absolute() / client.name.replace(" ", "-")
        tables = client.run("create", str(folder))["tables"]
        plain = shutil.copytree(folder, folder.with_name(f"{folder.name}-plain"))
        check_annotating(report, client, folder, tables, args.annotator)
        if client.name == NEWEST:
            for other in clients[:-1]:
                check_use(report, other, "newest's: ", *copies(folder, plain, other), tables)
        if node:
            check_use(report, node, f"{client.name}'s: ", *copies(folder, plain, node), tables)
        check_use(report, client, "", folder, plain, tables)
        check_annotating_again(report, client, folder, tables, args.annotator)
    report.show()


def copies(annotated: Path, plain: Path, client: Client) -> tuple[Path, Path]:
    """Of each a copy for the client to change."""
    made = [shutil.copytree(f, f.with_name(f"{f.name}-for-{client.name}")) for f in (annotated, plain)]
    return made[0], made[1]


def check_annotating(
    report: Report, client: Client, folder: Path, tables: list[str], annotator: Path
) -> None:
    before, files = client.run("digest", str(folder)), data_files(folder)
    for table, outcome in spec_store(annotator, folder, tables, *COMPARE).items():
        report.add(client.name, "annotate", table, outcome)
    after, now = client.run("digest", str(folder)), data_files(folder)
    for table in tables:
        report.add(client.name, "columns unchanged", table, difference(before[table], after.get(table, {})))
        own = {path: digest for path, digest in files.items() if f"/{table}.lance/" in path}
        same = all(now.get(path) == digest for path, digest in own.items())
        report.add(client.name, "files unchanged", table, "ok" if same else "data files changed")
        report.add(client.name, "nothing left", table, leftovers(folder / f"{table}.lance"))


def check_use(
    report: Report, client: Client, whose: str, folder: Path, plain: Path, tables: list[str]
) -> None:
    without = client.use(plain, tables, "price")
    for table, outcomes in client.use(folder, tables, f"{PREFIX}_cluster").items():
        for step, outcome in outcomes.items():
            impossible = outcome != "ok" and without[table].get(step, without[table]["open"]) != "ok"
            report.add(client.name, whose + step, table, IMPOSSIBLE if impossible else outcome)


def check_annotating_again(
    report: Report, client: Client, folder: Path, tables: list[str], annotator: Path
) -> None:
    before = client.run("digest", str(folder))
    for table, outcome in spec_store(annotator, folder, tables, *COMPARE).items():
        report.add(client.name, "annotate again", table, outcome)
    for table, outcome in spec_store(annotator, folder, tables, "undo", "--prefix", PREFIX).items():
        report.add(client.name, "undo", table, outcome)
    after = client.run("digest", str(folder))
    for table in tables:
        report.add(client.name, "unchanged by undo", table, difference(before[table], after.get(table, {})))
        report.add(client.name, "nothing left by undo", table, leftovers(folder / f"{table}.lance"))


def spec_store(annotator: Path, folder: Path, tables: list[str], *arguments: str) -> dict[str, str]:
    """What the command said of each table; "ok" if it exited with 0."""
    script = str(HERE / "annotate.py")
    found = answer([str(annotator), script, str(folder), ",".join(tables), *arguments])
    return dict.fromkeys(tables, found["error"]) if "error" in found else found


def difference(before: dict[str, str], after: dict[str, str]) -> str:
    """Columns that are not result columns must have the same digest."""
    if "error" in before or "error" in after:
        return str(after.get("error", before.get("error")))
    before, after = (
        {n: v for n, v in found.items() if not n.startswith(PREFIX)} for found in (before, after)
    )
    differ = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
    return f"{', '.join(differ)} changed" if differ else "ok"


def data_files(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.glob("*.lance/data/**/*.*")
    }


def leftovers(path: Path) -> str:
    """Detached manifests, tags, ledgers, and staged files that no version refers to."""
    dataset = lance.dataset(path)
    left = [f.name for f in (path / "_versions").glob("d*.manifest")]
    left += [f"tag {name}" for name in dataset.tags.list()]
    left += [str(f.relative_to(path)) for f in path.glob("_spec_store/**/*")]
    versions = [dataset.checkout_version(v["version"]) for v in dataset.versions()]
    live = {d.path for v in versions for f in v.get_fragments() for d in f.metadata.files}
    left += [f.name for f in (path / "data").glob("spec-*") if f.name not in live]
    return f"left: {', '.join(left)}" if left else "ok"


if __name__ == "__main__":
    main()
