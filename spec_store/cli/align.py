"""`align` and `update`: the aligned column of a switch of models."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import NotBetterError
from ..reporting.alignments import format_share, headline_lines, maps_table
from .group import main
from .help import headed, next_command
from .options import (
    ListOf,
    batch_rows_option,
    executor_options,
    fresh_option,
    json_option,
    location_options,
    on_missing_option,
    seed_option,
    skip_invalid_option,
    table_option,
    threads_option,
)
from .terminal import echo, echo_json, echo_table, print_warnings, shown_progress

if TYPE_CHECKING:
    from ..connector import Location
    from ..executor import Executor
    from ..workflows.alignment import Alignment

_MOST_CLUSTERS = 10
# With fewer test rows the capture of a cluster says little.
_LEAST_ROWS = 20


@main.command()
@headed(
    "Data",
    table_option,
    click.option("--source", required=True, help="The column to align, that of the model in use."),
    click.option("--target", required=True, help="The column whose clusters the aligned column is to have."),
    click.option(
        "--where", metavar="SQL", help="Fit, evaluate and write only the rows that match this filter."
    ),
    click.option(
        "--key",
        metavar="COLUMN",
        help="The column that identifies rows: it selects the test rows and joins columns of two stores.",
    ),
    on_missing_option,
    skip_invalid_option,
)
@headed("Database", location_options)
@headed(
    "Results",
    click.option("--dry-run", is_flag=True, help="Fit, evaluate and print; write no column."),
    json_option,
    click.option(
        "--in-place",
        is_flag=True,
        help="Keep the output in the source's space, where the source model's own queries still work."
        " Default: the target's space, where old vectors answer the new model's queries.",
    ),
    click.option(
        "--only-missing",
        is_flag=True,
        help="Keep the target's own vectors where rows have them and map the others, whose target is null; a"
        " second column {column}_from says embedded or mapped. One index then serves all of a migration:"
        " embed rows step by step, then run spec-store update.",
    ),
    click.option(
        "--column",
        help="Name of the result column. Default: {source}_as_{target}, or {source}_aligned with --in-place.",
    ),
    click.option(
        "--unit/--no-unit",
        default=True,
        show_default=True,
        help="Write unit vectors, which cosine search ranks alike, or the raw output of the map.",
    ),
    click.option("--force", is_flag=True, help="Write the column even if it is no better on the test rows."),
    click.option("--index", is_flag=True, help="Build a vector index on the column; report its recall."),
    click.option(
        "--export",
        type=click.Path(dir_okay=False),
        help="Save the map to a file for spec_store.load_map(FILE); a name that ends in .onnx makes an ONNX"
        " model.",
    ),
    click.option(
        "--map",
        "map_file",
        type=click.Path(dir_okay=False),
        help="Evaluate and write this exported map; fit nothing.",
    ),
)
@headed(
    "Map and objective",
    click.option(
        "--kind",
        type=ListOf(str, "kernel|affine|lowrank|residual,…"),
        metavar="kernel|affine|lowrank|residual,…",
        help="Kinds of map to fit; the one that is best on the validation rows is written. kernel is a ridge"
        " regression on the vectors and Nystroem features, its variance restored, then polished by the"
        " objective; the others are fitted by the objective alone. Default: kernel; in place"
        " affine,residual.",
    ),
    click.option(
        "--kernel",
        type=click.Choice(["cosine", "gaussian"]),
        default="cosine",
        show_default=True,
        help="Kernel of the objective.",
    ),
    click.option(
        "--beta",
        type=float,
        default=0.1,
        show_default=True,
        help="Weight β of SPEC-diff² in the objective.",
    ),
    click.option(
        "--cross",
        type=float,
        default=4.0,
        show_default=True,
        help="Weight in the objective of the similarities of mapped rows to the target's rows, which are what"
        " its queries see. It has no effect in place.",
    ),
    click.option(
        "--fidelity",
        type=ListOf(float, "μ,…"),
        metavar="μ,…",
        default="0.01",
        show_default=True,
        help="Weight μ of staying near the target's vectors (with --in-place, the source's own). Of several"
        " values each is fitted and printed, and nothing is written.",
    ),
    click.option(
        "--ridge",
        type=float,
        help="Ridge penalty, as a share of the mean variance. Default: chosen by search overlap on validation"
        " rows.",
    ),
    click.option(
        "--n-landmarks",
        type=int,
        default=1000,
        show_default=True,
        help="Number of landmarks of kernel maps.",
    ),
    click.option(
        "--rank", type=int, default=32, show_default=True, help="Rank of the correction in lowrank maps."
    ),
    click.option(
        "--n-frequencies",
        type=int,
        default=256,
        show_default=True,
        help="Number of random directions whose cosines and sines residual maps use.",
    ),
)
@headed(
    "Fit and evaluation",
    click.option(
        "--fit-rows",
        type=int,
        default=100_000,
        show_default=True,
        help="Maximum number of training rows that a kernel map is fitted on, a seeded share of them.",
    ),
    click.option(
        "--steps",
        type=int,
        help="Number of mini-batches in the fit. Default: 40 to polish a kernel map, 400 for other kinds.",
    ),
    click.option(
        "--minibatch-rows",
        type=int,
        help="Rows in each mini-batch. Default: 512, or 2,048 for other kinds.",
    ),
    click.option(
        "--learning-rate",
        type=float,
        help="Learning rate of the Adam optimiser. Default: 0.003, or 0.001 for other kinds.",
    ),
    click.option(
        "--held-out",
        type=float,
        default=0.1,
        show_default=True,
        help="Share of the rows kept as test rows: selected by a hash of their keys, never trained on.",
    ),
    click.option(
        "--judged-rows",
        type=int,
        default=5000,
        show_default=True,
        help="Maximum number of test rows on which maps are evaluated.",
    ),
)
@headed("Execution", seed_option, batch_rows_option, threads_option, executor_options, fresh_option)
def align(
    table: str,
    source: str,
    target: str,
    db: Location,
    map_file: str | None,
    export: str | None,
    dry_run: bool,
    index: bool,
    as_json: bool,
    executor: Executor,
    fresh: bool,
    **fields: Any,
) -> None:
    """Fit a map under which one embedding has the other's clusters; write the aligned column.

    \b
    spec-store align --table images --source clip --target dino --key id
    spec-store align --table images --source clip --target dino --in-place --fidelity 0,0.01,0.1 --dry-run
    spec-store align --table images --source clip --target dino --export map.npz
    """
    from ..alignment import AlignOptions
    from ..alignment.onnx import import_onnx, is_onnx
    from ..workflows.align import aligning

    options = AlignOptions.from_keywords(fields)
    if options.compares_fidelities and (export or not dry_run):
        raise click.UsageError("Several --fidelity values are for looking at: --dry-run, without --export.")
    if dry_run and index:
        raise click.UsageError("--dry-run writes nothing, so --index has no use.")
    if export and not Path(export).absolute().parent.is_dir():
        raise click.UsageError(f"--export {export}: there is no folder {Path(export).absolute().parent}.")
    if export and is_onnx(export):
        import_onnx()  # whether it is installed is checked before any work
    with contextlib.ExitStack() as stack:
        with shown_progress() as progress:
            fitting = aligning(
                table,
                source,
                target,
                db=db,
                map=map_file,
                options=options,
                write=not dry_run,
                fresh=fresh,
                progress=progress,
                executor=executor,
            )
            run = stack.enter_context(fitting)
        if export:
            run.export(export)
        run, refused = publish(run, write=not dry_run, index=index)
    if as_json:
        echo_json(run.to_json())
    else:
        print_alignment(run, (source, target), export)
    if refused:
        raise refused


def publish(run: Alignment, *, write: bool, index: bool = False) -> tuple[Alignment, NotBetterError | None]:
    """Print the warnings, then write the column; or say later, once the figures are shown, why not."""
    n_printed = len(run.warnings)
    print_warnings(run.warnings)
    if not write:
        return run, None
    try:
        with shown_progress() as progress:
            run = run.write(progress=progress)
            if index:
                run = run.create_index(progress=progress)
    except NotBetterError as error:
        return run, error
    print_warnings(run.warnings[n_printed:])
    return run, None


def print_alignment(run: Alignment, given: tuple[str, str], export: str | None = None) -> None:
    """A headline, figures of all maps, the clusters carried over worst, and what was written."""
    a, b = run.columns
    n = run.record.counts
    for line in headline_lines(run.columns, run.evaluations, run.chosen, run.options):
        echo(line)
    echo(
        f"Figures of {n['n_judged']:,} of {n['n_held_out']:,} test rows; fitted on {n['n_fitted']:,} of"
        f" {n['n_train']:,} training rows."
    )
    header, body = maps_table(run.columns, run.evaluations, run.chosen, run.options)
    echo_table(header, body, right=range(1, 10))
    wanted = f"{a}'s own" if run.options.in_place else f"{b}'s"
    echo(
        f"search: of {wanted} 10 nearest rows to a query, the share among the map's 10 nearest; mismatch:"
        f" share of\nrows in {b}'s clusters times the capture that is missing; twin: the share of rows whose"
        f" own {b} vector\nis nearest, or among 10; distance: root mean square difference of kernel values."
    )
    if run.after.clusters and not run.options.compares_fidelities:
        _print_clusters(run)
    if export:
        from ..alignment.onnx import is_onnx

        use = f"spec_store.load_map({json.dumps(export)}).transform(vectors)"
        use = "an ONNX model from vectors to aligned" if is_onnx(export) else use
        echo(f"Exported {export}: {use}")
    if run.written:
        total = sum(run.record.seconds.values())
        echo(f"Wrote {run.column} in {total:.1f} s (run {run.run_id}).")
        if run.record.index_recall is not None:
            echo(
                f"Vector index: recall@10 {run.record.index_recall:.3f} against brute force,"
                f" {len(run.queries)} test queries."
            )
        source, target = given
        echo(f"Next: {next_command('gate', table=run.source.table, source=source, target=target)}")
    else:
        echo("No column was written.")


def _print_clusters(run: Alignment) -> None:
    """Those that the target groups and the map carries over worst; which it does not."""
    a, b = run.columns
    gaps = [c for c in run.after.clusters if c.of_target and c.recovered == c.recovered]
    own = sorted((c for c in gaps if c.n_rows >= _LEAST_ROWS), key=lambda c: c.recovered)
    if own:
        echo(
            f"Capture of {b}'s clusters, the worst first; recovered: share of the gap from {a} to {b} closed."
        )
        header = ["cluster", "test rows", f"in {a}", f"in {b}", "in map", "recovered", "search@10"]
        body = [
            [
                str(c.cluster),
                f"{c.n_rows:,}",
                *(format_share(v) for v in (*c.capture, c.recovered, c.search_10)),
            ]
            for c in own[:_MOST_CLUSTERS]
        ]
        echo_table(header, body, right=range(7))
    if len(own) > _MOST_CLUSTERS:
        echo(f"… and {len(own) - _MOST_CLUSTERS} that are carried over better, see --json.")
    if len(own) < len(gaps):
        echo(
            f"{len(gaps) - len(own)} clusters have fewer than {_LEAST_ROWS} test rows, too few for figures:"
            " raise --held-out."
        )
    lost = ", ".join(str(c.cluster) for c in own if c.lost)
    if lost:
        echo(f"Not recoverable from {a} by this map, though {b} groups them: cluster {lost}.")
