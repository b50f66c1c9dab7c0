"""Rows of parquet tables as numbers, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

BATCH_ROWS = 4096
CELL_ROWS = 16  # of pictures at once


class TableError(ValueError):
    """A table that cannot be read. The message names the column and lacks the file."""


class TableReader:
    """Reads consecutive rows of some columns, from one table after the other.

    It goes on where it was, so that a table of many episodes is decoded once, and holds one batch in memory.

    Args:
        columns: by name, and the numbers that each row of it has.
    """

    def __init__(self, columns: Mapping[str, int]) -> None:
        self._columns = dict(columns)
        self._opened: tuple[Path, pq.ParquetFile] | None = None
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._batch: pa.RecordBatch | None = None  # what is left of the newest one
        self._position = 0  # its first row

    def row_count(self, path: Path) -> int:
        """Rows of a table. Raises TableError, as `rows` does."""
        with _table_errors():
            return int(self._file(path).metadata.num_rows)

    def rows(self, path: Path, *, first: int, count: int) -> dict[str, NDArray]:
        """The rows `first` … `first + count - 1` of each column, (count, d) in the table's type.

        Raises:
            TableError: for a table that is missing, damaged or shorter, or a column that is missing, holds anything but
                numbers, or has more or fewer of them in a row.
        """
        there = self.row_count(path)
        if first < 0 or count < 1 or first + count > there:
            raise TableError(f"has {there} rows, not the rows {first} … {first + count - 1}")
        with _table_errors():
            try:
                table = pa.Table.from_batches(list(self._take(self._file(path), first, count)))
            except BaseException:
                self._batches = None  # what comes after a damaged place may be whole
                raise
            return {name: _numbers(name, table.column(name), size) for name, size in self._columns.items()}

    def _take(self, file: pq.ParquetFile, first: int, count: int) -> Iterator[pa.RecordBatch]:
        if self._batches is None or first < self._position:
            self._batches, self._position = self._batches_from(file, first)
            self._batch = None
        while count:
            if self._batch is None or not self._batch.num_rows:
                self._batch = next(self._batches, None)
                if self._batch is None:
                    raise TableError(f"ends at row {self._position}")
            skipped = min(first - self._position, self._batch.num_rows)
            taken = min(count, self._batch.num_rows - skipped)
            if taken:
                yield self._batch.slice(skipped, taken)
            self._batch = self._batch.slice(skipped + taken)
            self._position += skipped + taken
            first, count = first + taken, count - taken

    def _batches_from(self, file: pq.ParquetFile, first: int) -> tuple[Iterator[pa.RecordBatch], int]:
        """Batches from the row group on that a row is in, and the first row of that group."""
        metadata = file.metadata
        ends = np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])
        group = int(np.searchsorted(ends, first, side="right"))
        return self._batches_of(file, range(group, metadata.num_row_groups)), int(
            ends[group - 1]
        ) if group else 0

    def _batches_of(self, file: pq.ParquetFile, groups: Sequence[int]) -> Iterator[pa.RecordBatch]:
        for group in groups:
            # One by one, as pyarrow keeps what it has read of all groups that it was asked for.
            yield from file.iter_batches(
                batch_size=BATCH_ROWS, row_groups=[group], columns=list(self._columns), use_threads=False
            )

    def _file(self, path: Path) -> pq.ParquetFile:
        if self._opened is not None and self._opened[0] == path:
            return self._opened[1]
        self._opened = self._batches = None
        file = pq.ParquetFile(path)
        there = file.schema_arrow.names
        for name in self._columns:
            if name not in there:
                raise TableError(f"column {name!r} is missing, there are {', '.join(there)}")
        self._opened = path, file
        return file


def cells(path: Path, column: str, *, first: int, count: int) -> Iterator[bytes | None]:
    """The bytes of consecutive rows of a column: binary, or a structure with a binary `bytes`; None where it has none.

    Memory holds a few rows, and what is packed of a row group.

    Raises:
        TableError: for a table that is missing, damaged or shorter, or a column that is missing or of another type.
    """
    with _table_errors():
        file = pq.ParquetFile(path)
        if column not in file.schema_arrow.names:
            raise TableError(f"is missing, there are {', '.join(file.schema_arrow.names)}")
        ends = np.cumsum(
            [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        )
        for group in range(int(np.searchsorted(ends, first, side="right")), len(ends)):
            begin = int(ends[group - 1]) if group else 0
            for batch in file.iter_batches(
                batch_size=CELL_ROWS, row_groups=[group], columns=[column], use_threads=False
            ):
                skipped = max(0, min(first - begin, batch.num_rows))
                begin += batch.num_rows
                taken = batch.column(0)[skipped : skipped + count]
                first, count = first + len(taken), count - len(taken)
                for cell in taken:
                    yield _bytes(cell)
                if not count:
                    return
        raise TableError(f"ends {count} rows too early")


def _bytes(cell: pa.Scalar) -> bytes | None:
    value = cell.as_py()
    if isinstance(value, dict):
        value = value.get("bytes")
    if value is not None and not isinstance(value, bytes):
        raise TableError(f"holds {cell.type}, allowed are bytes")
    return value


@contextmanager
def _table_errors() -> Iterator[None]:
    try:
        yield
    except TableError:
        raise
    except FileNotFoundError:
        raise TableError("no such file") from None
    # A damaged table makes pyarrow raise errors of many types.
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        raise TableError(f"cannot be read: {' '.join(str(error).split())[:200]}") from error


def _numbers(name: str, column: pa.ChunkedArray, size: int) -> NDArray:
    """A column as (n, size)."""
    rows = len(column)
    flat = column.combine_chunks()
    kind = flat.type
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if flat.null_count:
            raise TableError(f"column {name!r} is empty in {flat.null_count} of its rows")
        _check_lengths(name, flat)
        flat = flat.flatten()
        kind = flat.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise TableError(f"column {name!r} holds {kind}, allowed are numbers")
    if flat.null_count:
        raise TableError(f"column {name!r} lacks {flat.null_count} of its numbers")
    if len(flat) != rows * size:
        raise TableError(f"column {name!r} has {len(flat) / rows:g} numbers in a row, need {size}")
    return flat.to_numpy(zero_copy_only=False).reshape(rows, size)


def _check_lengths(name: str, lists: pa.Array) -> None:
    if pa.types.is_fixed_size_list(lists.type) or not len(lists):
        return
    lengths = lists.value_lengths().to_numpy()
    uneven = lengths != lengths[0]
    if uneven.any():
        row = int(uneven.argmax())
        raise TableError(f"column {name!r} has {lengths[row]} numbers in row {row} and {lengths[0]} in row 0")
