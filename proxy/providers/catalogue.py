"""The providers that Penstock knows, as data: one row each.

A provider is data plus quirks; a row says everything that the pipeline needs to speak to it. Nothing here is code: what
differs between providers is a column. The rows themselves are in `proxy.providers.rows`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from proxy.core.routing import AuthStyle
from proxy.terms import Api, ProviderId

PATHS: Final[Mapping[Api, str]] = MappingProxyType(
    {
        Api.CHAT: "/chat/completions",
        Api.RESPONSES: "/responses",
        Api.MESSAGES: "/messages",
        Api.COUNT_TOKENS: "/messages/count_tokens",
        Api.EMBEDDINGS: "/embeddings",
        Api.COMPLETIONS: "/completions",
        Api.MODERATIONS: "/moderations",
        Api.IMAGES: "/images/generations",
        Api.IMAGE_EDITS: "/images/edits",
        Api.SPEECH: "/audio/speech",
        Api.TRANSCRIPTIONS: "/audio/transcriptions",
        Api.TRANSLATIONS: "/audio/translations",
        Api.RERANK: "/rerank",
    }
)


@dataclass(frozen=True, slots=True)
class Retired:
    """Since when (ISO date) a provider or one of its APIs no longer serves, and what to use instead."""

    since: str
    instead: str

    def __str__(self) -> str:
        return f"retired {self.since}: {self.instead}"


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    """One provider.

    Shapes: ``base_url`` may hold ``${NAME}`` (the provider is inactive while it is unset) and ``${NAME:-default}``, so
    that the environment may move it. ``paths`` maps each API that the provider speaks to a path below ``base_url``, or
    to a whole URL where it lives elsewhere; a whole URL counts only while ``base_url`` is the catalogue's own, so that
    no credential leaves for a host that a changed ``base_url`` did not name. ``key_vars`` are the environment variables
    that may hold the credential, the first one set wins. A ``local`` server needs none, and counts as active only where
    something answers. ``retired_apis`` are APIs that it no longer serves.
    """

    id: ProviderId
    title: str
    base_url: str
    key_vars: tuple[str, ...]
    paths: Mapping[Api, str]
    auth: AuthStyle = AuthStyle.BEARER
    auth_by_api: Mapping[Api, AuthStyle] = field(default_factory=dict)
    models_path: str | None = "/models"
    asks_usage: bool = True
    chat_output_cap: str = "max_tokens"
    local: bool = False
    retired: Retired | None = None
    retired_apis: Mapping[Api, Retired] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


def standard(*apis: Api) -> dict[Api, str]:
    """The usual paths of the given APIs."""
    return {api: PATHS[api] for api in apis}
