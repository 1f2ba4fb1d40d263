"""`penstock providers NAME`: all that is known of one provider."""

import json
import os
import sys
from pathlib import Path

import click

from proxy.cli.options import EXIT_USAGE, loaded
from proxy.cli.providers import listed, state
from proxy.cli.table import show
from proxy.config.read import read
from proxy.config.schema import File
from proxy.core.nearest import did_you_mean
from proxy.core.routing import Provider
from proxy.providers.catalogue import CatalogueRow
from proxy.providers.rows import CATALOGUE
from proxy.terms import ProviderId


def show_one(name: str, config: Path, *, as_json: bool) -> None:
    """Print it. Errors: exit code 2 where there is no such provider, with the nearest name."""
    table = loaded(config)
    provider = table.providers.get(ProviderId(name))
    if provider is None:
        hint = did_you_mean(name, table.providers) or " `penstock providers` lists them."
        click.echo(f"There is no provider {name!r}.{hint}", err=True)
        sys.exit(EXIT_USAGE)
    row = _row(provider, config)
    if as_json:
        click.echo(json.dumps(listed(provider) | _details(provider, row), indent=2))
        return
    click.echo(f"{provider.id}: {row.title}, {state(listed(provider))}")
    click.echo(f"base URL: {provider.base_url}")
    click.echo(f"key: {', '.join(_keys(provider)) or ('none is needed' if provider.local else 'none is set')}")
    click.echo(f"models: {provider.models_url or 'it does not list them'}\n")
    show(("API", "URL"), [(api.value, url) for api, url in provider.urls.items()])
    for api, retired in provider.retired_apis.items():
        click.echo(f"{api.value}: {retired}")
    for title, lines in (("Notes", row.notes), ("Sources", row.sources)):
        if lines:
            click.echo(f"\n{title}:")
        for line in lines:
            click.echo(f"- {line}")


def _row(provider: Provider, config: Path) -> CatalogueRow:
    """The catalogue's row that a provider is, or is like by the file, which is known to be valid."""
    document = read(config.read_text("utf-8-sig"), str(config))
    entry = File.model_validate(document.data or {}).providers.get(provider.id)
    return CATALOGUE[provider.id if entry is None or entry.like is None else ProviderId(entry.like)]


def _keys(provider: Provider) -> list[str]:
    """Where its credentials may be in the environment, and where they are sealed."""
    sealed = [one.origin for one in provider.credentials if one.origin.startswith("sealed:")]
    return [*(_key_shown(one) for one in provider.key_vars), *sealed]


def _key_shown(key_var: str) -> str:
    return f"{key_var} (set)" if os.environ.get(key_var, "").strip() else key_var


def _details(provider: Provider, row: CatalogueRow) -> dict[str, object]:
    """What the list leaves out."""
    return {
        "title": row.title,
        "like": row.id,
        "key_vars": list(provider.key_vars),
        "credentials": [one.origin for one in provider.credentials],
        "urls": {api.value: url for api, url in provider.urls.items()},
        "models_url": provider.models_url,
        "retired_apis": {api.value: retired for api, retired in provider.retired_apis.items()},
        "notes": list(row.notes),
        "sources": list(row.sources),
    }
