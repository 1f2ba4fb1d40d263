"""`penstock convert`: a routes file from another proxy's configuration."""

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from proxy.cli.options import EXIT_PROBLEMS, EXIT_USAGE, json_option

if TYPE_CHECKING:
    from proxy.config.problem import ConfigError, Problem

_EXAMPLE = """\b
Example:
  penstock convert litellm config.yaml -o routes.yaml
  penstock check --config routes.yaml
"""


@click.group(name="convert", epilog=_EXAMPLE)
def command() -> None:
    """Write a routes file from another proxy's configuration."""


@command.command(epilog=_EXAMPLE)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="OUT",
    help="Write the routes file to OUT, also over one that is there. Default: standard output.",
)
@json_option
def litellm(file: Path, out: Path | None, as_json: bool) -> None:
    """Convert FILE, the configuration of a LiteLLM proxy with its model_list.

    What cannot be carried over is told on standard error, one note a line, with its place; settings that are alike share
    one. No credential is ever copied. Exit code 1 if FILE cannot be converted, 2 if it does not exist.
    """
    from proxy.config.from_litellm.source import printable  # noqa: PLC0415 - not for --help
    from proxy.config.litellm import convert, header  # noqa: PLC0415
    from proxy.config.problem import ConfigError  # noqa: PLC0415
    from proxy.config.read import read, text_of  # noqa: PLC0415
    from proxy.config.write import rendered  # noqa: PLC0415

    if not file.is_file():
        click.echo(f"{file}: no such file", err=True)
        sys.exit(EXIT_USAGE)
    if out is not None and out.exists() and out.samefile(file):
        click.echo(f"{out}: is the file to convert. Name another with -o OUT", err=True)
        sys.exit(EXIT_USAGE)
    try:
        converted = convert(read(text_of(file)[1], str(file)), str(file))
    except ConfigError as error:
        _refuse(file, error, as_json=as_json)
    text = rendered(converted.document, header(file.name))
    if out is not None:
        _write(out, text)
    counts = {section: len(converted.document.get(section, {})) for section in ("routes", "models", "providers")}
    if as_json:
        notes = [_as_json(note) for note in converted.notes]
        named = {"file": str(file), "out": None if out is None else str(out)}
        click.echo(json.dumps({**named, **counts, "notes": notes, "yaml": text}, indent=2))
        return
    if out is None:
        click.echo(text, nl=False)
    for line in _gathered(converted.notes):
        click.echo(printable(line), err=True)
    if out is not None:
        told = ", ".join(f"{number} {section}" for section, number in counts.items())
        click.echo(f"{out}: {told}. Next: penstock check --config {out}")


def _write(out: Path, text: str) -> None:
    try:
        out.write_text(text, "utf-8")
    except OSError as error:
        click.echo(f"{out}: cannot be written: {error.strerror or error}", err=True)
        sys.exit(EXIT_PROBLEMS)


def _refuse(file: Path, error: "ConfigError", *, as_json: bool) -> NoReturn:
    from proxy.config.from_litellm.source import printable  # noqa: PLC0415 - not for --help

    if as_json:
        problems = [_as_json(problem) for problem in error.problems]
        click.echo(json.dumps({"file": str(file), "problems": problems}, indent=2))
    else:
        for problem in error.problems:
            click.echo(printable(str(problem)), err=True)
    sys.exit(EXIT_PROBLEMS)


def _as_json(note: "Problem") -> dict[str, object]:
    from proxy.config.problem import dotted  # noqa: PLC0415 - not for --help

    return {"line": note.line, "column": note.column, "path": dotted(note.path), "message": note.message}


def _gathered(notes: "tuple[Problem, ...]") -> list[str]:
    """One line for notes that say the same of the same setting of different entries."""
    from proxy.config.problem import dotted  # noqa: PLC0415 - not for --help

    alike: dict[tuple[str, str], list[Problem]] = {}
    for note in notes:
        setting = re.sub(r"\[\d+\]", "[]", dotted(note.path))
        alike.setdefault((setting, note.message), []).append(note)
    return [f"{first}{_and_more(others)}" for first, *others in alike.values()]


def _and_more(others: "list[Problem]") -> str:
    if not others:
        return ""
    lines = ", ".join(str(note.line) for note in others[:8])
    return f" (also on line{'s' if len(others) > 1 else ''} {lines}{', ...' if len(others) > 8 else ''})"
