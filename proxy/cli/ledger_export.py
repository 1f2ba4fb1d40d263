"""Rows as files: CSV for a spreadsheet, JSON lines for a script, Parquet for an analyst."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Final

from proxy.core.ledger import COLUMNS, LedgerRow
from proxy.core.ledger_document import document
from proxy.core.tags import tags_text

Write = Callable[[Sequence[LedgerRow]], None]

# A cell that begins so is run as a formula by spreadsheets, and model names and tags are a client's.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class CannotExport(Exception):  # noqa: N818 - a message for the command line, which exits with it
    """This form cannot be written here. The message says what to do."""


def writer(form: str, output: Path | None) -> AbstractContextManager[Write]:
    """What takes rows, a batch at a time. Raises `CannotExport` before anything is touched."""
    if form == "parquet":
        if output is None:
            raise CannotExport("Parquet is no text for a terminal: name a file with --output rows.parquet")
        if find_spec("pyarrow") is None:
            raise CannotExport("Parquet needs pyarrow: pip install pyarrow, or choose --format csv or jsonl")
        return _parquet(output)
    return _csv(output) if form == "csv" else _jsonl(output)


@contextmanager
def _csv(output: Path | None) -> Iterator[Write]:
    with _opened(output) as file:
        lines = csv.writer(file)
        lines.writerow(COLUMNS)
        yield lambda rows: lines.writerows([_cell(value) for value in _values(row)] for row in rows)


@contextmanager
def _jsonl(output: Path | None) -> Iterator[Write]:
    with _opened(output) as file:
        yield lambda rows: file.writelines(f"{json.dumps(document(row))}\n" for row in rows)


@contextmanager
def _parquet(output: Path) -> Iterator[Write]:
    import pyarrow  # type: ignore[import-not-found] # noqa: PLC0415 - it may not be there
    from pyarrow import parquet  # noqa: PLC0415

    kinds = {"str": pyarrow.string(), "int": pyarrow.int64(), "float": pyarrow.float64(), "bool": pyarrow.bool_()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in zip(COLUMNS, _kinds(), strict=True)])
    with parquet.ParquetWriter(output, schema) as file:

        def write(rows: Sequence[LedgerRow]) -> None:
            columns = zip(*map(_values, rows), strict=True) if rows else [()] * len(COLUMNS)
            arrays = [pyarrow.array(list(values), field.type) for values, field in zip(columns, schema, strict=True)]
            file.write_table(pyarrow.table(arrays, schema=schema))

        yield write


def _kinds() -> Iterator[str]:
    """The kind of each column, by its name's own type in the row."""
    annotations = LedgerRow.__annotations__
    for name in COLUMNS:
        kind = annotations[name]
        if kind is bool:
            yield "bool"
        elif name.endswith("_ms"):
            yield "float"
        elif name in ("status", "attempts") or name.endswith(("_us", "_tokens", "_nanousd")):
            yield "int"
        else:
            yield "str"


def _values(row: LedgerRow) -> list[Any]:
    return [tags_text(row.tags) if name == "tags" else getattr(row, name) for name in COLUMNS]


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


@contextmanager
def _opened(output: Path | None) -> Iterator[IO[str]]:
    if output is None:
        yield sys.stdout
        return
    with output.open("w", encoding="utf-8", newline="") as file:
        yield file
