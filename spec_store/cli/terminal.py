"""Output: tables and progress on a terminal, plain text in a pipe, files in the formats of `query`."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

__all__ = ["ProgressLines", "echo_rows", "echo_table", "format_number"]

_SECONDS_BETWEEN_LINES = 10.0
_MOST_ITEMS = 5


def format_number(value: float | None) -> str:
    """Four significant digits; a dash for what is not known."""
    return "-" if value is None or value != value else f"{value:.4g}"


def echo_table(header: Sequence[str], body: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """A ruled table on a terminal, aligned columns in a pipe."""
    if sys.stdout.isatty():
        table = Table(header_style="bold")
        for i, name in enumerate(header):
            table.add_column(name, justify="right" if i in right else "left", overflow="fold")
        for row in body:
            table.add_row(*row)
        Console().print(table)
        return
    widths = [max(len(row[i]) for row in [header, *body]) for i in range(len(header))]
    for row in [header, *body]:
        cells = [
            c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def echo_rows(reader: pa.RecordBatchReader, style: str, output: str | None, *, cut: int | None) -> bool:
    """Print or write all rows of a stream; a table is cut at `cut` rows. Whether it was."""
    if style == "parquet":
        assert output is not None
        _write_whole(Path(output), lambda path: _write_parquet(reader, path))
        return False
    if output is not None:
        _write_whole(Path(output), lambda path: _write_text(reader, style, path))
        return False
    if style == "table":
        return _echo_readable(reader, sys.stdout, cut)
    _stream_text(reader, style, sys.stdout)
    return False


def _write_whole(target: Path, write: Any) -> None:
    """Write beside the target and rename, so that no half-written file ever has its name."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        write(partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _write_parquet(reader: pa.RecordBatchReader, path: Path) -> None:
    with pq.ParquetWriter(path, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)


def _write_text(reader: pa.RecordBatchReader, style: str, path: Path) -> None:
    with path.open("w", newline="") as stream:
        if style == "table":
            _echo_readable(reader, stream, None)
        else:
            _stream_text(reader, style, stream)


def _stream_text(reader: pa.RecordBatchReader, style: str, stream: TextIO) -> None:
    names = reader.schema.names
    writer = csv.writer(stream)
    if style == "csv":
        writer.writerow(names)
    for batch in reader:
        for row in batch.to_pylist():
            if style == "json":
                stream.write(json.dumps(row, default=str) + "\n")
            else:
                writer.writerow([_cell(row[n]) for n in names])


def _echo_readable(reader: pa.RecordBatchReader, stream: TextIO, cut: int | None) -> bool:
    rows = [row for batch in reader for row in batch.to_pylist()]
    body = [[_short(v) for v in row.values()] for row in rows[:cut]]
    numeric = [
        i for i, f in enumerate(reader.schema) if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)
    ]
    if stream is sys.stdout:
        echo_table(reader.schema.names, body, right=numeric)
    else:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerows([reader.schema.names, *body])
    return cut is not None and len(rows) > cut


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + ", ".join(_cell(v) for v in value) + "]"
    return str(value)


def _short(value: Any) -> str:
    """As `_cell`, for eyes: the first few items of a long list."""
    if isinstance(value, list) and len(value) > _MOST_ITEMS:
        return _cell(value[:_MOST_ITEMS])[:-1] + f", … {len(value)} in all]"
    return _cell(value)


class ProgressLines:
    """Progress on stderr: bars on a terminal, a line at intervals elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}
        self._began: dict[str, float] = {}
        self._last = time.monotonic()

    def __enter__(self) -> ProgressLines:
        if self._stream.isatty():
            columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn())
            speed = TextColumn("{task.fields[speed]}")
            console = Console(file=self._stream)
            self._bars = Progress(*columns, speed, TimeRemainingColumn(), console=console, transient=True)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self, stage: str, rows: int, total: int) -> None:
        """Rows done since the last call, of a stage's total."""
        now = time.monotonic()
        began = self._began.setdefault(stage, now)
        done = self._done[stage] = self._done.get(stage, 0) + rows
        speed = f"{done / max(now - began, 1e-3):,.0f} rows/s"
        if self._bars is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(stage, total=total, speed="")
            self._bars.update(self._tasks[stage], completed=min(done, total), speed=speed)
        elif now - max(self._last, began) >= _SECONDS_BETWEEN_LINES:
            self._last = now
            left = f", about {(total - done) * (now - began) / done:.0f} s left" if done < total else ""
            self._stream.write(f"{stage}: {min(done, total):,} of {total:,} rows, {speed}{left}\n")
            self._stream.flush()
