"""Tables: drawn by rich on a terminal, aligned plain text elsewhere."""

import sys
from collections.abc import Sequence

import click


def show(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one table on standard output."""
    if sys.stdout.isatty():
        _draw(headers, rows)
        return
    widths = [max(len(cell) for cell in column) for column in zip(headers, *rows, strict=True)]
    for row in (headers, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def plain(text: str) -> str:
    """A name for a cell: it may be a client's, and a terminal obeys what is in it."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _draw(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - 40 ms, for a terminal only
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: brackets in a cell are no markup
    Console().print(table)
