"""`penstock explain`: what a request would do, without sending it."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from proxy.cli.options import EXIT_PROBLEMS, config_option, json_option, loaded
from proxy.cli.table import show
from proxy.core.failure import Failure
from proxy.core.routing import Plan, Target, Timeouts, considered, plan
from proxy.terms import Api

HEADERS: Final = ("", "TARGET", "MODEL SENT", "SKIPPED")


@click.command(epilog="Example: penstock explain qualification --api chat")
@click.argument("route")
@click.option(
    "--api",
    type=click.Choice([api.value for api in Api]),
    default=Api.CHAT.value,
    show_default=True,
    help="The API that the request comes by.",
)
@config_option
@json_option
def command(route: str, api: str, config: Path, as_json: bool) -> None:
    """Show which targets a request for ROUTE would try, in which order, and why others are skipped.

    ROUTE is anything that a request may name as its model. Exit code 1 if no target could serve it.
    """
    table = loaded(config)
    if all(provider.inactive is not None for provider in table.providers.values()):
        from proxy.config.resolve import with_demo  # noqa: PLC0415 - not for --help

        table = with_demo(table, "http://127.0.0.1/v1")  # as `penstock serve` does then
    planned = plan(table, route, Api(api))
    targets = considered(table, route, Api(api))
    if as_json:
        click.echo(json.dumps(_as_json(route, api, planned, targets), indent=2))
    elif isinstance(planned, Failure):
        if targets:
            show(HEADERS, _rows(targets))
        click.echo(planned.message, err=True)
    else:
        known = None if planned.route is None else table.routes[planned.route]
        what = "a target named directly" if known is None else f"route {known.name}"
        about = f" ({known.about})" if known is not None and known.about else ""
        click.echo(f"{route}: {what}{about}, by the {api} API")
        click.echo(f"timeouts: {_spelled(planned.timeouts)}\n")
        show(HEADERS, _rows(targets))
    if isinstance(planned, Failure):
        sys.exit(EXIT_PROBLEMS)


def _as_json(
    asked: str, api: str, planned: Plan | Failure, targets: list[tuple[Target, str | None]]
) -> dict[str, object]:
    shown = {
        "asked": asked,
        "api": api,
        "targets": [{"target": target.name, "model": target.model, "skipped": reason} for target, reason in targets],
    }
    if isinstance(planned, Plan):
        return {**shown, "route": planned.route, "timeouts": asdict(planned.timeouts), "error": None}
    return {**shown, "route": None, "timeouts": None, "error": planned.message}


def _rows(targets: list[tuple[Target, str | None]]) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    number = 0
    for target, reason in targets:
        number += reason is None
        if reason is None:
            rows.append((str(number), target.name, target.model, ""))
        else:
            rows.append(("-", target.name, "", reason))
    return rows


def _spelled(timeouts: Timeouts) -> str:
    return ", ".join(f"{name.removesuffix('_s')} {value:g}s" for name, value in asdict(timeouts).items())
