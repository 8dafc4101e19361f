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
    from .align import Alignment
    from .compare import Comparison
    from .gate import Gate

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


class _List(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """Values separated by commas."""

    def __init__(self, kind: type, name: str) -> None:
        self.name = name
        self._kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return tuple(self._kind(part.strip()) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not {self.name}.", param, ctx)


def _align_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The fields of `AlignOptions`, in the order in which --help shows them."""
    options = [
        click.option(
            "--in-place",
            is_flag=True,
            help="Stay in the source's space, where its own queries still work; otherwise the output lies in"
            " the target's, where old vectors answer the new model's queries.",
        ),
        click.option(
            "--kind",
            type=_List(str, "affine|lowrank|residual,…"),
            default="affine",
            show_default=True,
            help="Of map; of several, the best on training rows kept aside is written.",
        ),
        click.option(
            "--kernel",
            type=click.Choice(["cosine", "gaussian"]),
            default="cosine",
            show_default=True,
            help="Of the objective.",
        ),
        click.option("--beta", type=float, default=1.0, show_default=True, help="Weight of SPEC-diff²."),
        click.option(
            "--fidelity",
            type=_List(float, "μ,…"),
            default="0.01",
            show_default=True,
            help="Weight of staying near the target's vectors (in place: the source's own). Of several, each"
            " is fitted and shown, and nothing is written.",
        ),
        click.option("--ridge", type=float, default=0.01, show_default=True, help="Penalty of the start."),
        click.option("--rank", type=int, default=32, show_default=True, help="Of lowrank maps."),
        click.option(
            "--n-frequencies",
            type=int,
            default=512,
            show_default=True,
            help="Random features of residual maps.",
        ),
        click.option("--steps", type=int, default=400, show_default=True, help="Mini-batches of the fit."),
        click.option("--minibatch-rows", type=int, default=2048, show_default=True, help="Rows of each."),
        click.option("--learning-rate", type=float, default=1e-3, show_default=True, help="Of Adam."),
        click.option(
            "--held-out", type=float, default=0.1, show_default=True, help="Share of rows never trained on."
        ),
        click.option(
            "--judged-rows", type=int, default=5000, show_default=True, help="Held-out rows judged, at most."
        ),
        click.option("--seed", type=int, default=0, show_default=True, help="Of the split and every draw."),
        click.option("--where", metavar="SQL", help="Only rows that match are fitted, judged and written."),
        click.option(
            "--key",
            metavar="COLUMN",
            help="The column that identifies rows: decides the split, joins stores.",
        ),
        click.option(
            "--on-missing",
            type=click.Choice(["error", "drop"]),
            default="error",
            show_default=True,
            help="Rows that only one of two stores holds: refuse, or leave them out and say so.",
        ),
        click.option(
            "--column", help="The result column. Default: {source}_as_{target}, or {source}_aligned."
        ),
        click.option(
            "--unit/--no-unit",
            default=True,
            show_default=True,
            help="Write unit vectors, which cosine search ranks alike, or the map's raw output.",
        ),
        click.option("--force", is_flag=True, help="Write even what held-out rows speak against."),
        click.option(
            "--skip-invalid",
            is_flag=True,
            help="Leave out null, NaN and zero vectors; their results are null.",
        ),
        click.option("--batch-rows", type=int, default=4096, show_default=True, help="Rows per batch."),
    ]
    return functools.reduce(lambda c, option: option(c), reversed(options), command)


@main.command()
@_table_option
@click.option("--source", required=True, help="The column to be aligned.")
@click.option("--target", required=True, help="The column whose clusters it is to hold.")
@_db_option
@_align_options
@click.option(
    "--map",
    "map_file",
    type=click.Path(dir_okay=False),
    help="Judge and write a map that was exported before; fit nothing.",
)
@click.option("--export", type=click.Path(dir_okay=False), help="Save the map: spec_store.load_map(FILE).")
@click.option("--dry-run", is_flag=True, help="Fit, judge and print; write no column.")
@_json_option
def align(
    table: str,
    source: str,
    target: str,
    db: str | None,
    map_file: str | None,
    export: str | None,
    dry_run: bool,
    as_json: bool,
    **fields: Any,
) -> None:
    """Fit a map under which one embedding holds the other's clusters; write the aligned column.

    \b
    spec-store align --table images --source clip --target dino --key id
    spec-store align --table images --source clip --target dino --in-place --fidelity 0,0.01,0.1 --dry-run
    spec-store align --table images --source clip --target dino --export map.npz
    """
    from .align import align as run_alignment
    from .alignment import AlignOptions
    from .errors import NotBetterError

    options = AlignOptions(**fields)
    if len(options.fidelity) > 1 and not dry_run:
        raise click.UsageError("Several --fidelity values are for looking at: add --dry-run.")
    with _progress() as progress:
        run = run_alignment(
            table,
            source,
            target,
            db=db,
            map=map_file,
            progress=progress,
            check_write=not dry_run,
            options=options,
        )
        if export:
            run.export(export)
        refused = None
        if not dry_run:
            try:
                run.write()
            except NotBetterError as error:
                refused = error
    for warning in run.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if as_json:
        click.echo(json.dumps(run.to_json(), indent=2))
    else:
        _print_alignment(run, export)
    if refused:
        raise refused


def _print_alignment(run: Alignment, export: str | None) -> None:
    a, b = run.columns
    click.echo(
        f"{a} to {b}: {run.n_train:,} rows to fit, {run.n_judged:,} of {run.n_held_out:,} held-out rows"
        " judged"
    )
    header = ["map", "SPEC-diff", "recall@1", "recall@10", f"as {a}", f"as {b}", f"cos {a}", f"cos {b}"]
    header += ["own end", f"{b}'s end"]
    body = []
    for i, j in enumerate(run.judgements):
        numbers = (
            j.recall_1,
            j.recall_10,
            j.overlap_source,
            j.overlap_target,
            j.cosine_source,
            j.cosine_target,
        )
        ends = [" ".join(format_number(v) for v in end[:3]) for end in j.eigenvalues]
        name = f"{j.name} *" if i == run.chosen else j.name
        body.append([name, format_number(j.spec_diff), *(_share(v) for v in numbers), *ends])
    echo_table(header, body, right=range(1, 8))
    click.echo(f"as {a}, as {b}: share of the 10 nearest neighbours that are those in {a}'s, in {b}'s space.")
    if run.after.clusters:
        click.echo(
            "Per SPEC cluster, for the map marked *; recovered is the share of the target's lead made up:"
        )
        header = ["cluster", "judged", f"in {a}", f"in {b}", "in map", "recovered", "recall@1", "recall@10"]
        body = [
            [
                *(str(c.cluster), str(c.n_rows)),
                *(format_number(v) for v in c.held),
                _share(c.recovered) if c.held[1] > c.held[0] else "-",
                *(_share(c.recall_1), _share(c.recall_10)),
            ]
            for c in run.after.clusters
        ]
        echo_table(header, body, right=range(8))
        lost = [c for c in run.after.clusters if c.held[1] > c.held[0] and c.recovered < 0.5]
        if lost:
            names = ", ".join(str(c.cluster) for c in lost)
            click.echo(f"Not recoverable from {a}: cluster {names}. {b} holds them, and no map of {a} does.")
    if export:
        click.echo(f'Exported {export}: spec_store.load_map("{export}").transform(vectors)')
    if run.written:
        total = sum(run.seconds.values())
        click.echo(f"Wrote {run.column} in {total:.1f} s (run {run.run_id}).")
        click.echo(f"Next: spec-store gate --table {run.source.table} --source {a} --target {b}")
    else:
        click.echo("No column was written.")


def _share(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"


@main.command()
@_table_option
@click.option("--source", required=True, help="The column in use now.")
@click.option("--target", required=True, help="The column to switch to.")
@_db_option
@click.option("--map", "map_file", type=click.Path(dir_okay=False), help="A map. Default: align's newest.")
@click.option("--no-map", is_flag=True, help="Judge the switch without any map, by neighbours alone.")
@click.option("--slice", "slices", multiple=True, metavar="SQL", help="Rows to judge beside the clusters.")
@click.option("--k", type=int, default=10, show_default=True, help="Of recall and overlap.")
@click.option("--fail-under", type=float, default=0.8, show_default=True, help="The least recall@k.")
@click.option("--min-rows", type=int, default=50, show_default=True, help="Smaller slices never fail.")
@click.option("--judged-rows", type=int, default=5000, show_default=True, help="Size of the target index.")
@click.option("--key", metavar="COLUMN", help="The column that identifies rows. Default: as align was told.")
@click.option(
    "--on-missing",
    type=click.Choice(["error", "drop"]),
    default="error",
    show_default=True,
    help="Rows that only one of two stores holds.",
)
@_json_option
def gate(
    table: str, map_file: str | None, no_map: bool, slices: tuple[str, ...], as_json: bool, **fields: Any
) -> None:
    """Exit with 1 if a switch of models would break a cluster or slice; name the rows to embed anew.

    \b
    spec-store gate --table images --source clip --target dino
    spec-store gate --table images --source clip --target dino --slice "label = 'cat'" --fail-under 0.9
    """
    from .gate import gate as judge

    if no_map and map_file:
        raise click.UsageError("Give --map or --no-map, not both.")
    with _progress() as progress:
        found = judge(
            table, map=None if no_map else map_file or "recorded", slices=slices, progress=progress, **fields
        )
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        _print_gate(found)
    if found.failed:
        sys.exit(1)


def _print_gate(found: Gate) -> None:
    a, b = found.columns
    click.echo(f"{a} to {b} with {found.map or 'no map'}; a slice is kept from {found.fail_under:g} up")
    header = ["slice", "rows", "judged", f"recall@{found.k}", f"overlap@{found.k}", "verdict"]
    body = [
        [
            *(s.name, f"{s.n_rows:,}", f"{s.n_judged:,}"),
            *("-" if v is None else f"{v:.3f}" for v in (s.recall, s.overlap)),
            s.verdict,
        ]
        for s in (found.overall, *found.slices)
    ]
    echo_table(header, body, right=(1, 2, 3, 4))
    if found.re_embed:
        click.echo(f"Embed anew, {found.n_re_embed:,} rows: {found.re_embed}")
    click.echo(f"Failed: {', '.join(s.name for s in found.failed)}" if found.failed else "Passed.")


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
