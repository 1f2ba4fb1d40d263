"""`penstock providers`: who could answer, and who can."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from proxy.cli.options import config_option, json_option, live_options, loaded
from proxy.cli.table import show
from proxy.core.routing import Provider


@click.command(epilog="Example: OPENAI_API_KEY=... penstock providers")
@config_option
@json_option
@live_options
def command(config: Path | None, as_json: bool, live: bool, url: str | None) -> None:
    """List the providers: state, APIs and address; never a credential.

    By the routes file and the environment here; with --live, as the running server has them.
    """
    if config is not None and url is not None:
        raise click.UsageError("--url goes with --live.")
    found = _of_server(url) if live or config is None else [_of(one) for one in loaded(config).providers.values()]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = [
        (one["id"], _state(one), ", ".join(one["apis"]), one["base_url"])
        for one in sorted(found, key=lambda one: not one["active"])
    ]
    show(("PROVIDER", "STATE", "APIS", "BASE URL"), rows)


def _state(one: Mapping[str, Any]) -> str:
    return "active" if one["active"] else f"inactive: {one['inactive']}"


def _of(provider: Provider) -> dict[str, Any]:
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
