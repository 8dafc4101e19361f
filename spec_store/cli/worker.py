"""`worker`: a comparison in steps that separate processes take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

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
from .help import HeadedCommand, headed
from .options import (
    batch_rows_option,
    executor_options,
    json_option,
    location_options,
    on_missing_option,
    seed_option,
    skip_invalid_option,
    storage_options_option,
    table_option,
    threads_option,
)
from .terminal import echo, echo_json, print_warnings, shown_progress

if TYPE_CHECKING:
    from ..connector import Location
    from ..executor import Executor
    from ..workflows.comparison import Comparison

_job_option = click.option(
    "--job",
    "folder",
    required=True,
    type=click.Path(file_okay=False),
    help="The folder of the job, which all machines can reach.",
)
_part_option = click.option(
    "--part", required=True, type=int, help="Number of the part, from 0 to the number of parts less 1."
)


@main.group()
def worker() -> None:
    """Compare in steps that separate processes take, started by Slurm, Dask, Spark or by hand.

    prepare once, accumulate each part, solve once, stage each part, publish once. Results are those of
    spec-store compare.

    \b
    spec-store worker prepare --job job --table images --cols clip,dino --parts 100
    spec-store worker accumulate --job job --part 0     # … to 99, in any order, at the same time
    spec-store worker solve --job job
    spec-store worker stage --job job --part 0          # … to 99
    spec-store worker publish --job job
    """


worker.command_class = HeadedCommand


@worker.command()
@headed(
    "Job",
    _job_option,
    click.option(
        "--parts",
        type=int,
        help="Number of parts. Default and maximum: the number of units of 65,536 rows or more.",
    ),
)
@headed(
    "Data",
    table_option,
    click.option("--cols", required=True, metavar="A,B", help="The two embedding columns, as of compare."),
    where_option,
    key_option,
    on_missing_option,
    skip_invalid_option,
)
@headed("Database", location_options)
@headed(
    "Results",
    json_option,
    prefix_option,
    write_modes_option,
    describe_option,
    keep_sample_option,
    maps_from_option,
)
@kernel_options
@feature_options
@mode_options
@headed("Execution", seed_option, batch_rows_option, threads_option)
def prepare(
    folder: str,
    parts: int | None,
    table: str,
    cols: str,
    db: Location,
    as_json: bool,
    write_modes: str | None,
    **fields: Any,
) -> None:
    """Draw the sample, fit the feature maps, and cut the work into parts; print their number."""
    from ..options import CompareOptions
    from ..stores.references import split_columns
    from ..workflows.job import Job

    options = CompareOptions(**fields, write_modes=write_modes is not None)
    job = Job.prepare(folder, table, split_columns(cols), db=db, n_parts=parts, options=options)
    if as_json:
        echo_json({"job": folder, "n_parts": job.n_parts})
    else:
        echo(f"Prepared {folder}: parts 0 to {job.n_parts - 1}.")


@worker.command()
@headed("Job", _job_option, _part_option)
@headed("Database", storage_options_option)
@headed("Execution", threads_option)
def accumulate(folder: str, part: int, storage_options: dict[str, str], threads: int | None) -> None:
    """Sum one part of the rows."""
    from ..workflows.job import Job

    with shown_progress() as progress:
        n = Job(folder, storage_options).accumulate(part, threads=threads, progress=progress)
    echo(f"Part {part}: {n:,} rows summed.")


@worker.command()
@headed("Job", _job_option)
@headed("Database", storage_options_option)
@headed("Results", json_option)
def solve(folder: str, storage_options: dict[str, str], as_json: bool) -> None:
    """Add the sums of all parts, and find the clusters; publish nothing."""
    from ..workflows.job import Job

    with shown_progress() as progress:
        run = Job(folder, storage_options).solve(progress=progress)
    _print(run, as_json)


@worker.command()
@headed("Job", _job_option, _part_option)
@headed("Database", storage_options_option)
@headed("Execution", threads_option)
def stage(folder: str, part: int, storage_options: dict[str, str], threads: int | None) -> None:
    """Write the column files of one part beside the table, where no reader sees them."""
    from ..workflows.job import Job

    with shown_progress() as progress:
        n = Job(folder, storage_options).stage(part, threads=threads, progress=progress)
    echo(f"Part {part}: results of {n:,} rows staged.")


@worker.command()
@headed("Job", _job_option)
@headed("Database", storage_options_option)
@headed("Results", json_option)
@headed("Execution", executor_options)
def publish(folder: str, storage_options: dict[str, str], as_json: bool, executor: Executor) -> None:
    """Make the staged files columns of the table in one commit; what is not staged is computed first."""
    from ..workflows.job import Job

    with shown_progress() as progress:
        run = Job(folder, storage_options).publish(progress=progress, executor=executor)
    _print(run, as_json)


def _print(run: Comparison, as_json: bool) -> None:
    print_warnings(run.warnings)
    if as_json:
        echo_json(run.to_json())
    else:
        print_comparison(run, unwritten="Nothing is written yet: stage the parts, then publish.")
