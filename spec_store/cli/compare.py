"""`compare`: which rows two embeddings group differently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from .align import print_alignment, publish
from .comparison_options import (
    describe_option,
    feature_options,
    keep_sample_option,
    kernel_options,
    key_option,
    maps_from_option,
    mode_options,
    prefix_option,
    where_option,
    write_modes_option,
)
from .comparison_text import print_comparison
from .group import main
from .help import headed
from .models import compare_several
from .options import (
    batch_rows_option,
    executor_options,
    fresh_option,
    json_option,
    location_options,
    on_missing_option,
    seed_option,
    skip_invalid_option,
    threads_option,
)
from .recorded import compare_recorded, compare_recorded_times
from .terminal import echo, echo_json, print_warnings, shown_progress

if TYPE_CHECKING:
    from ..alignment import AlignOptions
    from ..connector import Location
    from ..executor import Executor
    from ..options import CompareOptions
    from ..workflows.models import Pairs


class _Pairs(click.ParamType):  # type: ignore[type-arg]  # likewise
    """``all``, ``first``, or pairs of columns: ``clip:dino,clip:siglip``."""

    name = "all|first|A:B,…"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str) or value in ("all", "first"):
            return value
        pairs = [tuple(name.strip() for name in part.split(":")) for part in value.split(",")]
        for pair in pairs:
            if len(pair) != 2 or not all(pair):
                self.fail(f"{value!r} is neither all nor first nor pairs such as clip:dino.", param, ctx)
        return pairs


@main.command()
@headed(
    "Data",
    click.option("--table", help="The table; a new one for the results if both columns are in other stores."),
    click.option(
        "--cols",
        metavar="A,B,…",
        help="The embedding columns, two or more. name=connector:uri is a column of another store:"
        " dino=faiss:dino.index, dino=arrow:dino.parquet#vector, dino=lancedb:./db#images/dino.",
    ),
    click.option(
        "--pairs",
        type=_Pairs(),
        metavar="all|first|A:B,…",
        help="Which pairs' clusters are wanted, where there are more than two columns: all, first (the first"
        " column with each of the others), or those named. Each is written under its own prefix. Default:"
        " none, only the matrix of differences.",
    ),
    where_option,
    key_option,
    on_missing_option,
    skip_invalid_option,
)
@headed("Database", location_options)
@headed(
    "Results",
    click.option("--dry-run", is_flag=True, help="Compute and print; write nothing."),
    json_option,
    prefix_option,
    click.option(
        "--out",
        type=click.Path(dir_okay=False),
        help="Write the results to this Parquet file, keyed by row, instead of to the table.",
    ),
    write_modes_option,
    describe_option,
    click.option("--index", is_flag=True, help="Build a BITMAP index on the cluster column."),
    keep_sample_option,
    click.option(
        "--align",
        "pair",
        metavar="SOURCE:TARGET",
        help="Then align one column to the other and write it too, as spec-store align does.",
    ),
)
@kernel_options
@feature_options
@mode_options
@headed(
    "Recorded runs",
    click.option(
        "--from-run",
        metavar="ID",
        help="Answer from the state of a recorded run instead of reading vectors: other modes, eta, centring,"
        " objective, prefix, or pairs.",
    ),
    click.option(
        "--against-run",
        metavar="ID",
        help="Tell what is new in one embedding, the one of the option column, between the run of from-run"
        " and this later one.",
    ),
    click.option("--column", help="The embedding to compare between the two runs."),
    maps_from_option,
)
@headed("Execution", seed_option, batch_rows_option, threads_option, executor_options, fresh_option)
def compare(
    table: str | None,
    cols: str | None,
    pairs: Pairs | None,
    db: Location,
    out: str | None,
    dry_run: bool,
    index: bool,
    pair: str | None,
    as_json: bool,
    write_modes: str | None,
    from_run: str | None,
    against_run: str | None,
    column: str | None,
    executor: Executor,
    fresh: bool,
    **fields: Any,
) -> None:
    """Compare two embedding columns, or several, and write each row's clusters back.

    \b
    spec-store compare --table images --cols clip,dino
    spec-store compare --table images --cols clip,dino --where "split = 'train'" --dry-run
    spec-store compare --table images --cols clip,dino=faiss:dino.index --key image_id
    spec-store compare --table image_scores --cols clip=faiss:clip.index,dino=faiss:dino.index
    spec-store compare --cols clip=arrow:clip.parquet,dino=arrow:dino/ --key id --out scores.parquet
    spec-store compare --table images --cols clip,dino --align clip:dino
    spec-store compare --table images --cols clip,dino,siglip --pairs first
    spec-store compare --from-run 20260131T120000-5f3a2b --objective koda --dry-run
    """
    fields["write_modes"] = write_modes is not None
    if against_run or column:
        compare_recorded_times(from_run, against_run, column, db, as_json)
        return
    if from_run is not None:
        ctx = click.get_current_context()
        given = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
        compare_recorded(
            from_run, table, pairs, db, fields, given, executor, dry_run=dry_run, as_json=as_json
        )
        return
    if cols is None:
        raise click.UsageError("Name the embedding columns with --cols, or a recorded run with --from-run.")
    _compare(table, cols, pairs, db, out, dry_run, index, pair, as_json, executor, fresh, fields)


def _compare(
    table: str | None,
    cols: str,
    pairs: Pairs | None,
    db: Location,
    out: str | None,
    dry_run: bool,
    index: bool,
    pair: str | None,
    as_json: bool,
    executor: Executor,
    fresh: bool,
    fields: dict[str, Any],
) -> None:
    from ..options import CompareOptions
    from ..stores.references import split_columns
    from ..workflows.align import align, check_alignment
    from ..workflows.compare import compare as run_comparison

    if dry_run and (index or out):
        raise click.UsageError(f"--dry-run writes nothing, so {'--index' if index else '--out'} has no use.")
    if not (table or out or dry_run):
        raise click.UsageError("Name a --table, or a file with --out; --dry-run writes nothing.")
    if pair and (out or not table):
        raise click.UsageError("--align writes a column of --table: it can't go with --out.")
    options = CompareOptions(**fields)
    columns = split_columns(cols)
    if len(columns) > 2:
        if out or index or pair:
            given = "--out" if out else "--index" if index else "--align"
            raise click.UsageError(f"{given} takes two columns; --cols names {len(columns)}.")
        compare_several(
            table, columns, pairs, db, options, executor, dry_run=dry_run, as_json=as_json, fresh=fresh
        )
        return
    if pairs is not None:
        raise click.UsageError("--pairs is for more than two columns.")
    asked = _asked_alignment(pair, columns, options) if pair else None
    if asked and table:
        check_alignment(table, *asked.columns, db=db, write=not dry_run, options=asked.options)
    with shown_progress() as progress:
        run = run_comparison(
            table,
            columns,
            db=db,
            write=not dry_run,
            fresh=fresh,
            out=out,
            progress=progress,
            executor=executor,
            options=options,
        )
        if dry_run:
            run = run.score(progress=progress)
        elif index:
            run = run.create_index(progress=progress)
        alignment = None
        if asked and table:
            alignment = align(
                table, *asked.columns, db=db, progress=progress, executor=executor, options=asked.options
            )
    print_warnings(run.warnings)
    refused = None
    if alignment:
        alignment, refused = publish(alignment, write=not dry_run)
    if as_json:
        more = {"alignment": alignment.to_json()} if alignment else {}
        echo_json({**run.to_json(), **more})
    else:
        print_comparison(run)
        if alignment and asked:
            echo("")
            print_alignment(alignment, asked.columns)
    if refused:
        raise refused


class _AskedAlignment(NamedTuple):
    columns: tuple[str, str]
    options: AlignOptions


def _asked_alignment(pair: str, columns: list[str], options: CompareOptions) -> _AskedAlignment:
    """What ``--align SOURCE:TARGET`` asks for: the same rows, and defaults for the rest."""
    from ..alignment import AlignOptions
    from ..stores.references import ColumnRef

    by_name = {ColumnRef.parse(column).name: column for column in columns}
    names = [name.strip() for name in pair.split(":")]
    if sorted(names) != sorted(by_name):
        either = ":".join(by_name)
        raise click.UsageError(f"--align {pair}: expected the two columns of --cols, such as {either}.")
    shared = ("where", "key", "on_missing", "skip_invalid", "seed", "batch_rows")
    return _AskedAlignment(
        (by_name[names[0]], by_name[names[1]]),
        AlignOptions(**{name: getattr(options, name) for name in shared}),
    )
