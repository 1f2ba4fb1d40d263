"""The currency that a command shows amounts in: as `--currency` says, else as the routes file does."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from proxy.cli.options import config_path

if TYPE_CHECKING:
    from proxy.core.currency import Currency

_CONFIG: Final = "penstock.config"
_Command = TypeVar("_Command", bound=Callable[..., Any])


def currency_options(command: _Command) -> _Command:
    """`--currency CODE=RATE` and `--config PATH`; the command gets a ``currency``."""
    config = click.option(
        "--config",
        type=click.Path(path_type=Path),
        callback=_keep,
        is_eager=True,
        expose_value=False,
        metavar="PATH",
        help="The routes file whose currency counts. Default: PENSTOCK_CONFIG, else config/routes.yaml here.",
    )
    currency = click.option(
        "--currency",
        callback=_currency,
        metavar="CODE=RATE",
        help="Show amounts in it, as CAD=1.38. Default: the routes file's, else USD.",
    )
    return currency(config(command))


def _keep(context: click.Context, _option: click.Parameter, given: Path | None) -> None:
    context.meta[_CONFIG] = given


def _currency(context: click.Context, _option: click.Parameter, given: str | None) -> "Currency":
    from proxy.core.currency import parse  # noqa: PLC0415 - not for --help

    if given is None:
        return configured(config_path(context.meta[_CONFIG]))
    found = parse(given)
    if found is None:
        raise click.BadParameter(f"{given!r} is no currency. Write CODE=RATE, its amount for one USD: CAD=1.38")
    return found


def configured(path: Path) -> "Currency":
    """What a routes file says. One that cannot be read is no reason not to show the ledger: then USD, and a line says so.

    Only this section is looked at: 0.07 s for the file that ships, where the whole of it takes 0.35 s.
    """
    from proxy.config.problem import ConfigError  # noqa: PLC0415 - not for --help
    from proxy.config.read import read, text_of  # noqa: PLC0415
    from proxy.core.currency import USD, parse  # noqa: PLC0415

    try:
        data = read(text_of(path)[1], str(path)).data
    except ConfigError as error:
        return _unread(str(error.problems[0]))
    entry = data.get("currency") if isinstance(data, dict) else None
    if entry is None:
        return USD
    found = parse(f"{entry.get('code')}={entry.get('per_usd')}") if isinstance(entry, dict) else None
    return found or _unread(f"{path}: its currency is none")


def _unread(why: str) -> "Currency":
    from proxy.core.currency import USD  # noqa: PLC0415 - not for --help

    click.echo(f"penstock: {why}. Amounts are in USD; `penstock check` says more.", err=True)
    return USD
