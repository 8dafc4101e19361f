"""The options that several commands take, and the types of their values."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ..workflows.executor import Engine

Command = TypeVar("Command", bound=Callable[..., Any])


class _StorageOption(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """``KEY=VALUE``."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        key, equals, content = str(value).partition("=")
        if not (key and equals):
            self.fail(f"{value!r} is not KEY=VALUE.", param, ctx)
        return key, content


def _storage_option(name: str, **more: Any) -> Callable[[Command], Command]:
    return click.option(
        "--storage-option",
        name,
        type=_StorageOption(),
        multiple=True,
        help="What the store needs to be reached, such as endpoint=http://localhost:9000; repeatable.",
        **more,
    )


storage_options_option = _storage_option(
    "storage_options", callback=lambda ctx, parameter, values: dict(values)
)


def location_options(command: Command) -> Command:
    """--db, --connector and --storage-option, handed to the command as one `Location`, its ``db``."""

    @functools.wraps(command)
    def located(*args: Any, db: str | None, connector: str, storage_option: Any, **options: Any) -> Any:
        from ..connector import Location
        from ..stores.locate import location_of

        return command(*args, db=Location(location_of(db).uri, connector, dict(storage_option)), **options)

    shared = (
        _storage_option("storage_option"),
        click.option(
            "--connector",
            default="lancedb",
            show_default=True,
            help="The kind of database, see spec-store connectors.",
        ),
        click.option(
            "--db",
            envvar="SPEC_STORE_DB",
            help="Database (folder or URI). Default: $SPEC_STORE_DB, else ./lancedb.",
        ),
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), shared, located)  # type: ignore[return-value]


table_option = click.option("--table", required=True, help="The table.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
on_missing_option = click.option(
    "--on-missing",
    type=click.Choice(["error", "drop"]),
    default="error",
    show_default=True,
    help="What to do with rows that only one of two stores has: refuse, or skip them and report how many.",
)
skip_invalid_option = click.option(
    "--skip-invalid",
    is_flag=True,
    help="Skip rows with null, NaN or zero vectors; their results are null. Default: refuse them.",
)
batch_rows_option = click.option(
    "--batch-rows", type=int, default=4096, show_default=True, help="Rows that are read and scored at a time."
)
threads_option = click.option(
    "--threads", type=int, help="Number of threads. Default: the cores that the process may use."
)
fresh_option = click.option(
    "--fresh",
    is_flag=True,
    help="Start over, where an interrupted run with the same arguments would be continued.",
)
seed_option = click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of every random draw."
)


def executor_options(command: Command) -> Command:
    """--engine, --workers and --address, handed to the command as one `Executor`, which ends with it."""

    @functools.wraps(command)
    def executed(
        *args: Any, engine: Engine | None, workers: int | None, address: str | None, **options: Any
    ) -> Any:
        from ..workflows.executor import executor_for

        with executor_for(engine, workers, address) as executor:
            return command(*args, executor=executor, **options)

    shared = (
        click.option(
            "--address", help="Address of the Ray cluster. Default: $RAY_ADDRESS, else one on this machine."
        ),
        click.option(
            "--workers",
            type=int,
            help="Number of processes or Ray tasks that read, compute and write. Default: all cores.",
        ),
        click.option(
            "--engine",
            type=click.Choice(["threads", "processes", "ray"]),
            help="What goes through the rows: threads of this process, processes of this machine, or tasks in"
            " a Ray cluster. Results are the same. Default: threads, or processes if --workers is given.",
        ),
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), shared, executed)  # type: ignore[return-value]


class ListOf(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
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
