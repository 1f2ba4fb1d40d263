"""Which targets of a table are retired, or are going to be: by our catalogue, and by the price list's data."""

from collections.abc import Iterator
from typing import Final

from proxy.config.prices import listed_at, version
from proxy.core.routing import RoutingTable, configured
from proxy.providers.rows import CATALOGUE

WHY: Final = "its provider calls it deprecated"


def retired(table: RoutingTable) -> dict[str, str]:
    """Target to why. Imports the price list, which opens no connection."""
    return dict(_found(table))


def _found(table: RoutingTable) -> Iterator[tuple[str, str]]:
    from genai_prices.data import providers  # noqa: PLC0415 - 70 ms, for those who ask

    lists = {provider.id: provider for provider in providers}
    for target in configured(table):
        row = CATALOGUE.get(target.provider.id)
        if row is not None and row.retired is not None:
            yield target.name, f"provider {target.provider.id} is {row.retired}"
            continue
        listed = listed_at(target.provider.base_url)
        model = None if listed is None or listed not in lists else lists[listed].find_model(target.model)
        if model is not None and model.deprecated:
            yield target.name, f"{WHY} ({version()})"
