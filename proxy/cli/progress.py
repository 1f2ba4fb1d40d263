"""A progress bar on a terminal, for what takes long."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def progress(length: int, label: str, note: Callable[[], str] | None = None) -> Iterator[Callable[[int], None]]:
    """Gives what is called with each step. Draws nothing elsewhere, or where there is nothing to do.

    ``note``: what stands behind the bar, asked with each step.
    """
    if not length or not sys.stderr.isatty():
        yield lambda _: None
        return
    shown = None if note is None else lambda _: note()
    with click.progressbar(length=length, label=label, file=sys.stderr, item_show_func=shown) as bar:
        yield bar.update
