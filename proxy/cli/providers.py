"""`penstock providers`: who could answer, and who can."""

import json
from pathlib import Path

import click

from proxy.cli.options import config_option, json_option, loaded
from proxy.cli.table import show
from proxy.core.routing import Provider


@click.command(epilog="Example: OPENAI_API_KEY=... penstock providers")
@config_option
@json_option
def command(config: Path, as_json: bool) -> None:
    """List the providers: state, APIs and address; never a credential."""
    table = loaded(config)
    if as_json:
        click.echo(json.dumps([_as_json(provider) for provider in table.providers.values()], indent=2))
        return
    rows = [
        (provider.id, _state(provider), ", ".join(api.value for api in provider.urls), provider.base_url)
        for provider in sorted(table.providers.values(), key=lambda provider: provider.inactive is not None)
    ]
    show(("PROVIDER", "STATE", "APIS", "BASE URL"), rows)


def _state(provider: Provider) -> str:
    return "active" if provider.inactive is None else f"inactive: {provider.inactive}"


def _as_json(provider: Provider) -> dict[str, object]:
    return {
        "id": provider.id,
        "active": provider.inactive is None,
        "inactive": provider.inactive,
        "apis": [api.value for api in provider.urls],
        "base_url": provider.base_url,
        "local": provider.local,
    }
