"""`penstock explain`: what a request would do, without sending it."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final, NamedTuple

import click

from proxy.cli import explain_cache, explain_limits
from proxy.cli.explain_money import PROMPT_TOKENS, Explained, cells, explained, paid_by, payers_as_json, too_dear
from proxy.cli.explain_money import as_json as as_json_of
from proxy.cli.options import EXIT_PROBLEMS, config_option, json_option, loaded
from proxy.cli.table import show
from proxy.core.failure import Failure
from proxy.core.routing import Plan, RoutingTable, Target, Timeouts, considered, plan
from proxy.terms import DEFAULT_ACCOUNT, AccountId, Api, RouteName

HEADERS: Final = ("", "TARGET", "MODEL SENT", "INPUT", "OUTPUT", "FROM", "COST TIER", "OUTPUT CAP", "SKIPPED")


class _Asked(NamedTuple):
    name: str
    api: str
    account: AccountId


class _Row(NamedTuple):
    """A target; ``skipped``: why a plan leaves it out, None: it does not."""

    target: Target
    skipped: str | None
    money: Explained


@click.command(epilog="Example: penstock explain qualification --api chat")
@click.argument("route")
@click.option(
    "--api",
    type=click.Choice([api.value for api in Api]),
    default=Api.CHAT.value,
    show_default=True,
    help="The API that the request comes by.",
)
@click.option("--account", metavar="ID", default=DEFAULT_ACCOUNT, help="The account that asks, whose own routes count.")
@config_option
@json_option
def command(route: str, api: str, account: str, config: Path, as_json: bool) -> None:
    """Show which targets a request for ROUTE would try, in which order, and why others are skipped.

    With what each charges, the most that a request may cost there, the output cap that a request without one gets, and
    who pays. ROUTE is anything that a request may name as its model. Exit code 1 if no target could serve it.
    """
    served = loaded(config)
    asked = _Asked(route, api, AccountId(account))
    table = served.of(asked.account)
    if not served.is_active:
        from proxy.config.resolve import with_demo  # noqa: PLC0415 - not for --help

        table = with_demo(table, "http://127.0.0.1/v1")  # as `penstock serve` does then
    from proxy.config.pricing import with_price_list  # noqa: PLC0415 - likewise

    planned = plan(table, route, Api(api))
    found = considered(table, route, Api(api))
    table = with_price_list(table, {target.provider.id for target, _ in found})
    known = None if isinstance(planned, Failure) else planned.route
    known = RouteName(route) if known is None and route in table.routes else known
    at_s = int(time.time())
    rows = [_Row(target, reason, explained(table, known, target, at_s)) for target, reason in found]
    if as_json:
        click.echo(json.dumps(_as_json(table, asked, planned, rows), indent=2))
    else:
        _show(table, asked, planned, rows)
    if isinstance(planned, Failure):
        sys.exit(EXIT_PROBLEMS)


def _show(table: RoutingTable, asked: _Asked, planned: Plan | Failure, rows: list[_Row]) -> None:
    if isinstance(planned, Plan):
        route = None if planned.route is None else table.routes[planned.route]
        what = "a target named directly" if route is None else f"route {route.name}"
        about = f" ({route.about})" if route is not None and route.about else ""
        click.echo(f"{asked.name}: {what}{about}, by the {asked.api} API")
        click.echo(f"timeouts: {_spelled(planned.timeouts)}")
        click.echo(f"cache: {explain_cache.told(planned.cache)}")
        for line in (
            paid_by(table, asked.account),
            *explain_limits.told(table, asked.account, [one.target for one in rows]),
        ):
            click.echo(line)
        click.echo(
            f"prices: USD for a million tokens; output cap: for a prompt of {PROMPT_TOKENS} tokens that sets none\n"
        )
    if rows:
        show(HEADERS, _cells(rows))
    if isinstance(planned, Failure):
        click.echo(planned.message, err=True)


def _as_json(table: RoutingTable, asked: _Asked, planned: Plan | Failure, rows: list[_Row]) -> dict[str, object]:
    targets = [
        {"target": one.target.name, "model": one.target.model, "skipped": one.skipped, **as_json_of(one.money)}
        for one in rows
    ]
    told = {
        "asked": asked.name,
        "api": asked.api,
        "prompt_tokens": PROMPT_TOKENS,
        "targets": targets,
        "account": asked.account,
        "payers": payers_as_json(table, asked.account),
        "limits": explain_limits.as_json(table, asked.account, [one.target for one in rows]),
    }
    if isinstance(planned, Plan):
        found = {"route": planned.route, "timeouts": asdict(planned.timeouts)}
        return {**told, **found, "cache": explain_cache.as_json(planned.cache), "error": None}
    return {**told, "route": None, "timeouts": None, "cache": None, "error": planned.message}


def _cells(rows: list[_Row]) -> list[tuple[str, ...]]:
    made: list[tuple[str, ...]] = []
    number = 0
    for one in rows:
        why = one.skipped or too_dear(one.money)
        number += why is None
        first = (str(number), one.target.name, one.target.model) if why is None else ("-", one.target.name, "")
        made.append((*first, *cells(one.money), why or ""))
    return made


def _spelled(timeouts: Timeouts) -> str:
    return ", ".join(f"{name.removesuffix('_s')} {value:g}s" for name, value in asdict(timeouts).items())
