"""The command line: parse, build options, call the library, print. Each command is one public function."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from .errors import SpecStoreError
from .terminal import ProgressLines, echo_rows, echo_table, format_number

if TYPE_CHECKING:
    from .compare import Comparison

__all__ = ["main"]

_MOST_CLUSTERS = 12
_DB_HELP = "Database (folder or URI). Default: $SPEC_STORE_DB, else ./lancedb."


class _Group(click.Group):
    """Prints the library's errors without a traceback, unless --debug asks for one."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SpecStoreError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"Unexpected {type(error).__name__}: {error}\nRun with --debug for details.", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("Interrupted. The table is as it was before.", err=True)
            ctx.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show a traceback for errors.")
@click.version_option(package_name="spec-store")
def main(debug: bool) -> None:
    """Which rows of a table do two embedding models group differently?

    SPEC compares two embedding columns through the spectrum of their kernel difference: each leading
    mode is a group of rows that one model holds together and the other does not.
    """


def _db_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--db", envvar="SPEC_STORE_DB", help=_DB_HELP)(command)


def _table_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--table", required=True, help="The table.")(command)


def _json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")(command)


class _Bandwidth(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """``auto``, or one σ per embedding: ``3.5,28``."""

    name = "auto|σ,σ"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value is None or value == "auto" or isinstance(value, tuple):
            return None if value == "auto" else value
        try:
            first, second = (float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is neither auto nor two numbers such as 3.5,28.", param, ctx)
        return first, second


def _compare_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The fields of `CompareOptions`, in the order in which --help shows them."""
    options = [
        click.option(
            "--kernel", type=click.Choice(["gaussian", "cosine"]), default="gaussian", show_default=True
        ),
        click.option(
            "--features",
            type=click.Choice(["nystroem", "orf", "rff"]),
            default="nystroem",
            show_default=True,
            help="Gaussian kernel features. nystroem: landmarks from the data, the most accurate for its"
            " size. orf: orthogonal random features, for states that merge without sharing landmarks."
            " rff: random Fourier features, the paper's recipe.",
        ),
        click.option("--dim", type=int, help="Landmarks or frequencies. Default: 500; orf 1000, rff 3000."),
        click.option(
            "--landmarks",
            type=click.Choice(["kmeans", "uniform"]),
            default="kmeans",
            show_default=True,
            help="nystroem's landmarks: centroids of a sample, or sampled rows.",
        ),
        click.option("--modes", type=int, default=10, show_default=True, help="Leading modes at each end."),
        click.option(
            "--bandwidth", type=_Bandwidth(), default="auto", show_default=True, help="Gaussian σ of each."
        ),
        click.option("--bandwidth-scale", type=float, default=1.0, show_default=True, help="Multiplies σ."),
        click.option(
            "--eta", type=float, default=1.0, show_default=True, help="Weight of the second kernel."
        ),
        click.option(
            "--center/--no-center",
            default=True,
            show_default=True,
            help="Remove the mode that is the mean similarity itself; --no-center is the paper's.",
        ),
        click.option(
            "--normalize/--no-normalize",
            default=True,
            show_default=True,
            help="Scale rows to unit length first; --no-normalize is the paper's.",
        ),
        click.option(
            "--rotate",
            type=click.Choice(["varimax", "none"]),
            default="varimax",
            show_default=True,
            help="Unmix modes of near-equal eigenvalues, or take raw eigenvectors.",
        ),
        click.option("--where", metavar="SQL", help="Only rows that match are compared and annotated."),
        click.option(
            "--skip-invalid",
            is_flag=True,
            help="Leave out null, NaN and zero vectors; their results are null.",
        ),
        click.option(
            "--min-stability",
            type=float,
            default=0.5,
            show_default=True,
            help="Claim no mode on which two halves of the rows agree less (0 to 1).",
        ),
        click.option(
            "--precision",
            type=click.Choice(["float32", "float64"]),
            default="float32",
            show_default=True,
            help="float64 takes twice as long and tells nearly identical embeddings apart.",
        ),
        click.option(
            "--key",
            metavar="COLUMN",
            help="The column that identifies rows: joins columns of two stores, names typical rows.",
        ),
        click.option(
            "--on-missing",
            type=click.Choice(["error", "drop"]),
            default="error",
            show_default=True,
            help="Rows that only one of two stores holds: refuse, or leave them out and say so.",
        ),
        click.option("--prefix", help="Of the result columns. Default: spec_{first}_{second}."),
        click.option(
            "--sample-rows", type=int, default=10_000, show_default=True, help="Rows of the seeded sample."
        ),
        click.option("--seed", type=int, default=0, show_default=True, help="Of every random draw."),
        click.option("--batch-rows", type=int, default=4096, show_default=True, help="Rows per batch."),
    ]
    return functools.reduce(lambda c, option: option(c), reversed(options), command)


@main.command()
@click.option("--table", help="The table; a new one for the results, where both columns are of other stores.")
@click.option(
    "--cols",
    required=True,
    metavar="A,B",
    help="The two embedding columns. name=connector:uri is one of another store: dino=faiss:dino.index,"
    " dino=arrow:dino.parquet#vector, dino=lancedb:./db#images/dino.",
)
@_db_option
@click.option(
    "--connector",
    default="lancedb",
    show_default=True,
    help="The kind of database, see spec-store connectors.",
)
@_compare_options
@click.option(
    "--out", type=click.Path(dir_okay=False), help="Write the results to this Parquet file, keyed by row."
)
@click.option("--dry-run", is_flag=True, help="Compute and print; write nothing.")
@click.option("--index", is_flag=True, help="Build a BITMAP index on the cluster column.")
@_json_option
def compare(
    table: str | None,
    cols: str,
    db: str | None,
    connector: str,
    out: str | None,
    dry_run: bool,
    index: bool,
    as_json: bool,
    **fields: Any,
) -> None:
    """Compare two embedding columns and write each row's clusters back.

    \b
    spec-store compare --table images --cols clip,dino
    spec-store compare --table images --cols clip,dino --where "split = 'train'" --dry-run
    spec-store compare --table images --cols clip,dino=faiss:dino.index --key image_id
    spec-store compare --table image_scores --cols clip=faiss:clip.index,dino=faiss:dino.index
    spec-store compare --cols clip=arrow:clip.parquet,dino=arrow:dino/ --key id --out scores.parquet
    """
    from .compare import compare as run_comparison
    from .options import CompareOptions

    if dry_run and (index or out):
        raise click.UsageError(f"--dry-run writes nothing, so {'--index' if index else '--out'} has no use.")
    if not (table or out or dry_run):
        raise click.UsageError("Name a --table, or a file with --out; --dry-run writes nothing.")
    with _progress() as progress:
        run = run_comparison(
            table,
            [column.strip() for column in cols.split(",")],
            db=db,
            connector=connector,
            write=not dry_run,
            out=out,
            progress=progress,
            options=CompareOptions(**fields),
        )
        if dry_run:
            run.score()
        elif index:
            run.create_index()
    for warning in run.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if as_json:
        click.echo(json.dumps(run.to_json(), indent=2))
    else:
        _print_comparison(run)


def _print_comparison(run: Comparison) -> None:
    a, b = run.columns
    skipped = f", {run.n_skipped:,} left out" if run.n_skipped else ""
    click.echo(f"{a} against {b}: {run.n_rows:,} rows of {run.source.describe()}{skipped}")
    spectrum = run.spectrum
    centred = format_number(spectrum.spec_diff_centered)
    click.echo(
        f"SPEC-diff {format_number(spectrum.spec_diff)}, centred {centred}; CKA {format_number(spectrum.cka)}"
    )
    if run.bandwidths:
        for i, column in enumerate(run.columns):
            click.echo(
                f"{column}: bandwidth {format_number(run.bandwidths.values[i])}, largest eigenvalue"
                f" {format_number(run.bandwidths.largest_eigenvalues[i])}, median kernel value"
                f" {format_number(run.bandwidths.median_kernels[i])}, coverage {spectrum.coverage[i]:.1%}"
            )
        click.echo(f"error of the eigenvalues from the feature maps: at most {format_number(run.map_error)}")
    _print_clusters(run.clusters.slice(0, _MOST_CLUSTERS), run.columns)
    more = len(run.clusters) - _MOST_CLUSTERS
    if more > 0:
        click.echo(f"… and {more} weaker clusters.")
    if not run.written:
        click.echo("Dry run: nothing was written.")
        return
    place = f" to {run.destination.describe()}" if run.destination else ""
    total = sum(run.seconds.values())
    click.echo(f"Wrote {', '.join(run.written)}{place} in {total:.1f} s (run {run.run_id}).")
    if run.recorded:
        click.echo(f"Next: spec-store clusters --table {run.table}")


def _print_clusters(rows: Any, columns: tuple[str, ...], *, examples: bool = False) -> None:
    if not len(rows):
        click.echo("No cluster stands out from error and noise: the embeddings group these rows alike.")
        return
    header = ["cluster", "held by", "strength", f"in {columns[0]}", f"in {columns[1]}", "rows", "stability"]
    labelled = "labels" in rows.column_names
    header += ["over-represented"] if labelled else []
    header += ["typical rows"] if examples else []
    body = []
    for r in rows.to_pylist():
        numbers = [format_number(r[n]) for n in ("strength", "energy_first", "energy_second")]
        stability = "-" if r["stability"] != r["stability"] else f"{r['stability']:.2f}"
        line = [str(r["cluster"]), r["side"], *numbers, f"{r['size']:,}", stability]
        if labelled:
            line.append(", ".join(f"{e['value']} {e['share']:.0%} (x{e['lift']:.1f})" for e in r["labels"]))
        if examples:
            line.append(" ".join(r["top_rows"][:5]))
        body.append(line)
    echo_table(header, body, right=(0, 2, 3, 4, 5, 6))


@main.command()
@_table_option
@_db_option
@click.option("--prefix", help="Of the result columns. Default: the newest comparison's.")
@click.option("--by", metavar="COLUMN", help="A column of labels: show which are over-represented.")
@_json_option
def clusters(table: str, db: str | None, prefix: str | None, by: str | None, as_json: bool) -> None:
    """What each cluster is: who holds it together, how strongly, how many rows, which labels.

    \b
    spec-store clusters --table images
    spec-store clusters --table images --by label
    """
    from .query import clusters as find

    report = find(table, prefix=prefix, by=by, db=db)
    rows = report.clusters
    if as_json:
        found = rows.drop_columns(["run_id", "table"]).to_pylist()
        click.echo(json.dumps({"run_id": report.run["run_id"], "table": table, "clusters": found}, indent=2))
        return
    a, b = report.run["columns"]
    click.echo(f"{a} against {b}: run {report.run['run_id']} on {report.run['n_rows']:,} rows of {table}")
    _print_clusters(rows, (a, b), examples=by is None)
    if len(rows):
        prefix = report.run["prefix"]
        click.echo(f'Next: spec-store query --table {table} --where "{prefix}_cluster = 0"')
    if report.other_prefixes:
        click.echo(f"Also compared, see --prefix: {', '.join(report.other_prefixes)}")


@main.command()
@_table_option
@click.option("--where", metavar="SQL", help="The rows wanted; all by default.")
@_db_option
@click.option("--select", metavar="A,B,…", help="Columns. Default: all but vectors and binary values.")
@click.option("--limit", type=int, help="At most so many rows. Default: 20 as a table, else all.")
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "json", "csv", "parquet"]),
    default="table",
    show_default=True,
    help="json is one object per line; parquet needs -o.",
)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write to a file, not to stdout.")
def query(
    table: str,
    where: str | None,
    db: str | None,
    select: str | None,
    limit: int | None,
    style: str,
    output: str | None,
) -> None:
    """Rows that match a SQL filter over any columns, results included.

    \b
    spec-store query --table images --where "spec_clip_dino_cluster = 0 AND spec_clip_dino_score > 0.8"
    spec-store query --table images --where "array_has(spec_clip_dino_clusters, 3)" --format csv
    """
    from .query import query as find

    if style == "parquet" and output is None:
        raise click.UsageError("--format parquet needs -o FILE.")
    shown = 20 if style == "table" and limit is None else limit
    wanted = None if shown is None else shown + (limit is None)
    names = [name.strip() for name in select.split(",")] if select else None
    reader = find(table, where, select=names, limit=wanted, db=db)
    cut = shown if limit is None else None
    more = echo_rows(reader, style, output, cut=cut)
    if more:
        click.echo(f"The first {cut} rows; --limit shows more.", err=True)


@main.command()
@_db_option
@click.option("--table", help="Only runs on this table.")
@_json_option
def runs(db: str | None, table: str | None, as_json: bool) -> None:
    """Recorded runs, newest first."""
    from .runs import list_runs

    found = list_runs(db=db, table=table).to_pylist()
    if as_json:
        click.echo(json.dumps(found, indent=2, default=str))
        return
    header = ["run", "kind", "table", "columns", "prefix", "rows", "clusters", "SPEC-diff", "centred"]
    body = [
        [
            *(r["run_id"], r["kind"], r["table"], ",".join(r["columns"]), r["prefix"], f"{r['n_rows']:,}"),
            "-" if r["n_clusters"] is None else str(r["n_clusters"]),
            format_number(r["spec_diff"]),
            format_number(r["spec_diff_centered"]),
        ]
        for r in found
    ]
    echo_table(header, body, right=(5, 6, 7, 8))


@main.command()
@_table_option
@_db_option
@click.option("--prefix", required=True, help="Of the result columns, as runs shows it.")
def undo(table: str, db: str | None, prefix: str) -> None:
    """Remove result columns that spec-store wrote; nobody else's data is touched."""
    from .query import undo as remove

    removed = remove(table, prefix=prefix, db=db)
    click.echo(f"Removed {', '.join(removed)} from {table}.")


@main.command()
@_json_option
def connectors(as_json: bool) -> None:
    """Installed connectors: name, package, version, capabilities."""
    import dataclasses

    from .connector import installed_connectors

    found = installed_connectors()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(c) for c in found], indent=2))
        return
    body = [[c.name, c.package, c.version, c.error or ", ".join(c.capabilities)] for c in found]
    echo_table(["name", "package", "version", "capabilities"], body)


@main.command()
@_db_option
@click.option("--table", default="images", show_default=True, help="The table to create.")
def demo(db: str | None, table: str) -> None:
    """Make a small real table: images of handwritten digits under two embeddings."""
    from .demo import create_demo

    n_rows, uri = create_demo(table, db=db)
    click.echo(f"Created table {table} in {uri}: {n_rows:,} images with columns pixels and hog.")
    click.echo(f"Next: spec-store compare --table {table} --cols pixels,hog")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    with ProgressLines(sys.stderr) as lines:
        yield lines.update
