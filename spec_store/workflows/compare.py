"""The comparison of two embeddings of the same rows: sample, pass 1, solve; `Comparison` does the rest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..bars import shown
from ..errors import InputError
from ..executor import IN_PROCESS, Executor
from ..keywords import CompareKeywords
from ..options import CompareOptions, default_prefix
from ..progress import ProgressOption
from ..spectral.scoring import result_schema
from ..stores.locate import Destination, open_columns, open_data
from ..stores.tables import Database, TableLike
from ..stores.view import keyed
from .basis import gather
from .checkpoint import Resumption, resumable
from .checks import check_rows, embedding_names
from .comparison import Comparison, check_place
from .listing import Earlier, described_columns, earlier_run
from .pass_checkpoint import PassCheckpoint
from .solving import Question, compared, given_maps

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["compare"]


def compare(
    table: TableLike | None,
    columns: Sequence[str],
    *,
    db: Database = None,
    version: int | None = None,
    write: bool = False,
    fresh: bool = False,
    results: str | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: ProgressOption = "auto",
    executor: Executor = IN_PROCESS,
    options: CompareOptions | None = None,
    **fields: Unpack[CompareKeywords],
) -> Comparison:
    """Compare two embedding columns; nothing is written unless asked, here or by `write()`.

    Parameters
    ----------
    table
        A table's name, or an open table (of lancedb, synchronous or not, or a Lance data set), which is
        compared at the version at which it is open; or data: anything with ``__arrow_c_stream__`` (pandas,
        polars, DuckDB, Hugging Face datasets) or a mapping of arrays. Where both columns are of other
        stores, the name of a new table for the results, or None.
    columns
        Two vector columns, nested ones by dotted path. ``dino=faiss:dino.index`` is a column of another
        store, matched by the option `key`.
    db
        The database: a LanceDB folder, URI or connection, or a `Location` in any store; None is
        ``$SPEC_STORE_DB``, else ``./lancedb``.
    version
        A version of the table to pin; None is the latest.
    write
        Write the results and record the run; what would stop that is checked before any work. A run that
        writes to a LanceDB table and takes longer keeps its progress beside it: interrupted, the next one
        with the same arguments continues, on the version that was read.
    fresh
        Start over, whatever an interrupted run has kept.
    results, out
        A new table of `db`, or a Parquet file, for the results, instead of columns of the table.
    progress
        How far the work is: "auto" shows a bar on a terminal (stderr) and in a notebook, and nothing
        elsewhere; None shows nothing; a callable is called with the stage, the rows done since the last call
        and all of its rows.
    executor
        Who goes through the rows: by default threads of this process; or `Processes`, or `RayTasks`. The
        results are the same.
    options
        Everything else; or give the fields of `CompareOptions` as keywords.

    Raises
    ------
    InputError
        The table, the columns, the filter or the vectors can't be used; nothing was written.
    ColumnClashError
        Result columns of this name hold another pair's results, or are somebody else's.

    Notes
    -----
    Cost: two passes over the two columns. Pass 1 is O(n p²) for p stacked features, memory O(p²)
    whatever the number of rows; a join of two stores holds 40 bytes per row for their ids, and a `key` in one
    store 16 bytes per row while its repetitions are counted.

    Examples
    --------
    >>> run = spec_store.compare("images", ["clip", "dino"], db="./lancedb")  # doctest: +SKIP
    >>> run.spec_diff, run.clusters.to_pylist()[0]["side"]  # doctest: +SKIP
    """
    if options is None:
        options = CompareOptions.from_keywords(fields)
    elif fields:
        raise InputError(f"Give either options or keywords ({', '.join(fields)}), not both.")
    asked = embedding_names(columns, two=True)
    if table is None or isinstance(table, str):
        opened = open_columns(
            asked, table=table, db=db, version=version, key=options.key, on_missing=options.on_missing
        )
        source, names = opened.source, opened.names
        if not opened.of_table and out is None and results is None:
            results = table
    else:
        source, names = keyed(open_data(table), options.key), asked
    pair = names[0], names[1]
    destination = Destination.of(results, out, db)
    prefix = options.prefix or default_prefix(pair)
    schema = result_schema(prefix, modes=options.write_modes)
    if write or destination is not None:
        check_place(source, destination, schema, pair)
    references = tuple(asked) if isinstance(table, str) or table is None else ()
    resumption = None
    if write and destination is None:
        resumption = Resumption.of(
            asked,
            names,
            options.to_json(),
            {prefix: schema.names},
            by_name=isinstance(table, str),
            version=version,
            fresh=fresh,
        )
    with resumable(PassCheckpoint, source, resumption) as checkpoint:
        source = checkpoint.source
        n_rows = check_rows(source, pair, options)
        earlier = earlier_run(source, pair, prefix) if destination is None else Earlier(None, ())
        described = described_columns(source, pair) if options.describe else ()
        others = [*earlier.columns, *described]
        maps = given_maps(source, pair, options)
        with shown(progress) as update:
            basis = gather(
                source,
                pair,
                references,
                options,
                n_rows,
                update,
                others=others,
                maps=maps,
                checkpoint=checkpoint,
                executor=executor,
            )
            question = Question(pair, options, earlier, destination=destination, run_id=checkpoint.run_id)
            run = compared(basis, question)
            return run.write(progress=update) if write else run
