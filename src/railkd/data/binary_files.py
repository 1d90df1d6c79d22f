"""Reads files that keep types: parquet and Arrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from railkd.data.delimited import check_names
from railkd.data.text_files import memory_limit, too_large
from railkd.errors import RailkdError


def read_parquet(path: Path) -> Any:
    """Return the table of a parquet file, with categories as the values that they stand for.

    Args:
        path: of the file.

    Raises:
        RailkdError: it does not fit in memory.
    """
    with open_parquet(path) as file:
        facts = file.metadata  # A few bytes can stand for millions of rows.
        read = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
        read = max(read, facts.num_rows * facts.num_columns)
        if read > memory_limit():
            raise RailkdError(too_large(path, read))
        return _plain(file.read())


def read_arrow(path: Path) -> Any:
    """Return the table of an Arrow file, such as pandas' ``to_feather`` writes, or of a stream, as `datasets` does.

    Args:
        path: of the file.

    Raises:
        RailkdError: the file is no complete Arrow file.
    """
    import pyarrow as pa

    if path.stat().st_size == 0:
        raise RailkdError(f"{path}: expected an Arrow file, got an empty file.")
    path.open("rb").close()  # errors of the system are not those of the format
    try:
        source = pa.memory_map(str(path))
        try:
            file = pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            file = pa.ipc.open_stream(source)
        check_names(file.schema.names, path)
        table = file.read_all()
        table.validate(full=True)  # nothing else compares the places in it with its size
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise RailkdError(f"{path}: not a complete Arrow file ({reason}). Fix: write it again.") from None
    return _plain(table)


def _plain(table: Any) -> Any:
    """Return a table with its categories as the values that they stand for."""
    import pyarrow as pa

    for place, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            cells = table.column(place).cast(column.type.value_type)
            table = table.set_column(place, column.name, cells)
    return table


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """Open a parquet file.

    Args:
        path: of the file.

    Yields:
        The ``ParquetFile``, whose names of columns are distinct.

    Raises:
        RailkdError: the file is no complete parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.stat().st_size == 0:
        raise RailkdError(f"{path}: expected a parquet file, got an empty file.")
    try:
        # read_table would add columns for folder names such as "lang=en".
        with pq.ParquetFile(path) as file:
            check_names(file.schema_arrow.names, path)
            yield file
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise RailkdError(f"{path}: not a complete parquet file ({reason}). Fix: write it again.") from None
