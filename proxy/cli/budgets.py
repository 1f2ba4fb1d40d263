"""`penstock budgets`: what the running server's budgets have left."""

import json
from typing import Any

import click

from proxy.cli.options import fail, json_option, url_option
from proxy.cli.table import show


@click.command(epilog="Example: penstock budgets --account acme")
@click.option("--account", help="Only this account's own.")
@json_option
@url_option
def command(account: str | None, as_json: bool, url: str | None) -> None:
    """Show every budget of the running server: used, held for requests that run, left, and when it begins anew.

    Amounts are in the server's currency. Exit code 1 if the account has no budget of its own.
    """
    from proxy.cli.admin_client import asked  # noqa: PLC0415 - not for --help

    path = "/admin/budgets"
    told: dict[str, Any] = asked("GET", path if account is None else f"{path}?{_query(account)}", url=url)
    found: list[dict[str, Any]] = told["budgets"]
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif found:
        code = told["currency"]["code"]
        show(
            ("BUDGET", "PERIOD", "USED", "HELD", "LEFT", "LIMIT", "ALERT", "SEEN", "BEGINS ANEW"),
            [_cells(one, code) for one in found],
        )
    elif account is None:
        click.echo("There are no budgets: `budgets:` in the routes file sets them.")
    if account is not None and not found:
        known = {one["account"] for one in asked("GET", path, url=url)["budgets"]} - {None}
        fail(_none_of(account, known))


def _query(account: str) -> str:
    from urllib.parse import urlencode  # noqa: PLC0415 - not for --help

    return urlencode({"account": account}, errors="replace")


def _cells(one: dict[str, Any], code: str) -> tuple[str, ...]:
    return (
        one["account"] or one["subject"],
        one["period"],
        *(_amount(one[name], code) for name in ("used", "held", "left", "limit")),
        one["alert"] or "-",
        one["seen"],
        one["resets_at"],
    )


def _amount(value: float | None, code: str) -> str:
    """With as many digits as tell it from nothing. Unknown while both its store and the ledger are away."""
    if value is None:
        return "?"
    return f"{value:,.{2 if abs(value) >= 1 or not value else 6}f} {code}"


def _none_of(account: str, known: set[str]) -> str:
    from proxy.core.nearest import did_you_mean  # noqa: PLC0415 - not for --help

    return f"the account {account[:80]!r} has no budget of its own.{did_you_mean(account, sorted(known))}"
