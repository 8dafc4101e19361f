"""Where `query` writes its rows, and in which format; whatever leaves it for a program is exact."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from ..errors import InputError
from ..reporting.text import visible_lines
from .terminal import echo_table, stdout_errors

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FORMATS", "chosen_format", "readable", "write_rows"]

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
FORMATS = ["table", *dict.fromkeys(_SUFFIXES.values())]

# What the system calls this process's own streams.
_OWN_STREAMS = re.compile(r"/dev/stdout|/dev/stderr|(?:/dev|/proc/self)/fd/(\d+)")
_MOST_ITEMS = 5
_LONGEST_TEXT = 100


def chosen_format(output: str | None, style: str | None, *, excel_safe: bool = False) -> str:
    """What --format says, else the suffix of -o; a table for eyes on stdout.

    Raises
    ------
    UsageError
        The two contradict each other, or none of them names a format that can be written there.
    InputError
        The file can't be written.
    """
    file = None if output in (None, "-") else output
    by_suffix = _SUFFIXES.get(Path(file).suffix.lower()) if file else None
    if style and by_suffix and style != by_suffix:
        raise click.UsageError(f"--format {style} contradicts -o {output}, whose name says {by_suffix}.")
    chosen = style or by_suffix or (None if file else "table")
    if chosen is None or (file and chosen == "table"):
        suffixes = ", ".join(_SUFFIXES)
        raise click.UsageError(f"-o {output}: give a name that ends in one of {suffixes}, or a --format.")
    if chosen in ("parquet", "arrow") and output is None:
        raise click.UsageError(f"--format {chosen} needs -o FILE, or -o - for stdout.")
    if excel_safe and chosen not in ("csv", "tsv"):
        raise click.UsageError(f"--excel-safe is for csv and tsv, not for {chosen}.")
    if file and not _is_stream(file):
        from ..stores.files import check_replaceable

        check_replaceable(file)
    return chosen


def write_rows(
    reader: pa.RecordBatchReader, style: str, output: str | None, *, cut: int | None, excel_safe: bool = False
) -> bool:
    """Print or write all rows of a stream; a table is cut at `cut` rows. Whether it was."""
    if style == "table":
        return _echo_readable(reader, cut)
    with _opened(output) as (stream, seekable):
        if style == "parquet":
            _write_parquet(reader, stream)
        elif style == "arrow":
            _write_arrow(reader, stream, seekable)
        else:
            for line in _lines(reader, style, excel_safe):
                stream.write(line)
    return False


def _is_stream(file: str) -> bool:
    """Whether it is a pipe or a terminal, or leads to one: written to, where a file would be replaced."""
    if _own_descriptor(file) is not None:
        return True
    try:
        mode = os.stat(file).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _own_descriptor(file: str) -> int | None:
    found = _OWN_STREAMS.fullmatch(os.path.abspath(file))
    if found is None:
        return None
    return int(found[1]) if found[1] else 1 if file.endswith("stdout") else 2


@contextmanager
def _opened(output: str | None) -> Iterator[tuple[Any, bool]]:
    """A binary stream to stdout, a pipe or a new file; whether a reader of it will be able to seek."""
    if output in (None, "-"):
        with stdout_errors():
            sys.stdout.flush()
            yield (_ForEyes() if sys.stdout.isatty() else sys.stdout.buffer), False
            sys.stdout.flush()
    elif output is not None and _is_stream(output):
        own = _own_descriptor(output)
        try:
            # Opened by its name, a file behind /dev/stdout would lose what was printed to it before.
            with open(output if own is None else os.dup(own), "wb") as stream:
                yield stream, False
        except BrokenPipeError:
            raise
        except OSError as error:
            raise InputError(f"{output} can't be written: {error.strerror}.") from error
    elif output is not None:
        from ..stores.files import atomic_file

        with atomic_file(output) as stream:
            yield stream, True


class _ForEyes:
    """A terminal that is shown what a program would read: nothing in it is obeyed."""

    def write(self, line: bytes) -> None:
        click.echo(visible_lines(line.decode()), nl=False)


def _lines(reader: pa.RecordBatchReader, style: str, excel_safe: bool) -> Iterator[bytes]:
    from .formats import csv_header, csv_rows, json_rows

    if style == "jsonl":
        yield from (f"{row}\n".encode() for batch in reader for row in json_rows(batch))
    elif style == "json":
        before = "[\n"
        for row in (row for batch in reader for row in json_rows(batch)):
            yield (before + row).encode()
            before = ",\n"
        yield b"[]\n" if before == "[\n" else b"\n]\n"
    else:
        delimiter = "," if style == "csv" else "\t"
        yield (csv_header(reader.schema.names, delimiter, excel_safe=excel_safe) + "\n").encode()
        for batch in reader:
            yield from (f"{row}\n".encode() for row in csv_rows(batch, delimiter, excel_safe=excel_safe))


def _write_parquet(reader: pa.RecordBatchReader, stream: BinaryIO) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(stream, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)


def _write_arrow(reader: pa.RecordBatchReader, stream: BinaryIO, seekable: bool) -> None:
    """The IPC file format; in a pipe the stream format, since a file is read from its end."""
    import pyarrow as pa

    with (pa.ipc.new_file if seekable else pa.ipc.new_stream)(stream, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)


def _echo_readable(reader: pa.RecordBatchReader, cut: int | None) -> bool:
    import pyarrow as pa

    columns = ([column.to_pylist() for column in batch.columns] for batch in reader)
    rows = [[readable(v) for v in row] for batch in columns for row in zip(*batch, strict=True)]
    numeric = [
        i for i, f in enumerate(reader.schema) if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)
    ]
    echo_table(reader.schema.names, rows[:cut], right=numeric)
    return cut is not None and len(rows) > cut


def readable(value: Any) -> str:
    """For eyes: four digits, the first few items of a long list, the beginning of a long text."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    if isinstance(value, list):
        more = f", … {len(value)} in all" if len(value) > _MOST_ITEMS else ""
        return "[" + ", ".join(map(readable, value[:_MOST_ITEMS])) + more + "]"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    text = str(value)
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
