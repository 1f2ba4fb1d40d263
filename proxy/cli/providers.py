"""`penstock providers`: who could answer, and who can; with a name, all that is known of one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from proxy.cli.options import config_option, json_option, live_options, loaded
from proxy.cli.table import show
from proxy.core.routing import Provider

_EPILOG = """\b
Example:
  OPENAI_API_KEY=... penstock providers
  penstock providers azure
  penstock providers --prices
"""


@click.command(epilog=_EPILOG)
@click.argument("name", required=False)
@click.option("--prices", is_flag=True, help="List what every configured target charges, in USD, and who says so.")
@config_option
@json_option
@live_options
def command(*, name: str | None, prices: bool, config: Path | None, as_json: bool, live: bool, url: str | None) -> None:
    """List the providers: state, APIs and address; never a credential.

    By the routes file and the environment here; with --live, as the running server has them. With NAME show one: its
    variables, the address of each API, what it has retired, and what is peculiar to it.
    """
    if config is not None and url is not None:
        raise click.UsageError("--url goes with --live.")
    if name is not None:
        if config is None:
            raise click.UsageError("NAME goes without --live.")
        from proxy.cli.provider import show_one  # noqa: PLC0415 - not for --help

        show_one(name, config, as_json=as_json)
        return
    if prices:
        if config is None:
            raise click.UsageError("--prices goes without --live.")
        from proxy.cli.prices import show_all  # noqa: PLC0415 - likewise

        show_all(loaded(config), in_json=as_json)
        return
    found = _of_server(url) if live or config is None else [listed(one) for one in loaded(config).providers.values()]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = [
        (one["id"], state(one), ", ".join(one["apis"]), one["base_url"])
        for one in sorted(found, key=lambda one: not one["active"])
    ]
    show(("PROVIDER", "STATE", "APIS", "BASE URL"), rows)


def state(one: Mapping[str, Any]) -> str:
    return "active" if one["active"] else f"inactive: {one['inactive']}"


def listed(provider: Provider) -> dict[str, Any]:
    return {
        "id": provider.id,
        "active": provider.inactive is None,
        "inactive": provider.inactive,
        "apis": [api.value for api in provider.urls],
        "base_url": provider.base_url,
        "local": provider.local,
    }


def _of_server(url: str | None) -> list[dict[str, Any]]:
    """The same of a running server, in the same shape."""
    from proxy.cli.admin_client import asked  # noqa: PLC0415 - not for --help

    return [
        {
            "id": one["id"],
            "active": one["state"] == "active",
            "inactive": one["reason"],
            "apis": one["apis"],
            "base_url": one["base_url"],
            "local": one["local"],
        }
        for one in asked("GET", "/admin/providers", url=url)["providers"]
    ]
