"""`penstock breakers`: what the running server's breakers hold back, and how to make them forget it."""

import json
from typing import Any

import click

from proxy.cli.options import json_option, url_option
from proxy.cli.table import show


@click.group(name="breakers", epilog="Example: penstock breakers status")
def command() -> None:
    """Show and reset the circuit breakers of the running server.

    A target that failed five times in a row is left alone for a minute; then one request at a time finds out how it is.
    """


@command.command(epilog="Example: penstock breakers status --json")
@json_option
@url_option
def status(as_json: bool, url: str | None) -> None:
    """List what is not closed, or was lately. Exit code 0, open or not."""
    from proxy.cli.admin_client import asked  # noqa: PLC0415 - not for --help

    found: list[dict[str, Any]] = asked("GET", "/admin/breakers", url=url)["breakers"]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo("All closed: nothing is held back.")
        return
    rows = [(one["target"], one["state"], _wait(one), str(one["failures"]), _why(one)) for one in found]
    show(("TARGET", "STATE", "ASKED AGAIN", "FAILURES", "WHY"), rows)


@command.command(epilog="Example: penstock breakers reset openai/gpt-4o-mini")
@click.argument("target", required=False)
@json_option
@url_option
def reset(target: str | None, as_json: bool, url: str | None) -> None:
    """Close the breaker of TARGET, or all of them, in every process at once."""
    from proxy.cli.admin_client import asked  # noqa: PLC0415 - likewise

    body = {} if target is None else {"target": target}
    told: list[str] = asked("POST", "/admin/breakers/reset", url=url, body=body)["reset"]
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(f"Reset: {', '.join(told)}" if told else "Nothing was held back.")


def _wait(one: dict[str, Any]) -> str:
    if one["state"] == "open":
        return f"in {one['seconds']:.0f} s"
    return "by a probe" if one["state"] == "half_open" else "now"


def _why(one: dict[str, Any]) -> str:
    return " ".join(part for part in (one["cause"] if one["cause"] != "none" else "", one["last_error"] or "") if part)
