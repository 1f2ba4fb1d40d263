"""Every row of the catalogue keeps the promises that the rest of the program relies on."""

import re
from datetime import date

import pytest

from proxy.config.address import expand, is_loopback, refusal
from proxy.config.schema import PROVIDER_ID
from proxy.core.routing import AuthStyle
from proxy.providers import rows
from proxy.providers.catalogue import CatalogueRow
from proxy.providers.rows import CATALOGUE
from proxy.terms import Api

ROWS = pytest.mark.parametrize("row", CATALOGUE.values(), ids=CATALOGUE.keys())

MISSION = (
    "openai", "anthropic", "mistral", "gemini", "dashscope", "deepseek", "moonshot", "zhipu", "groq", "xai",
    "perplexity", "openrouter", "huggingface", "github-models", "azure", "together", "fireworks", "cerebras",
    "ollama", "vllm", "llama.cpp", "lmstudio",
)  # fmt: skip


def test_every_provider_of_the_mission_is_there_once() -> None:
    assert tuple(CATALOGUE) == MISSION
    assert len(rows._ROWS) == len(CATALOGUE)


@ROWS
def test_ids_and_variables_have_their_forms(row: CatalogueRow) -> None:
    assert re.fullmatch(PROVIDER_ID, row.id)
    assert row.title
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*_(API_KEY|TOKEN)|HF_TOKEN", name) for name in row.key_vars)
    assert len(set(row.key_vars)) == len(row.key_vars)
    assert row.local or row.key_vars


@ROWS
def test_addresses_are_usable_and_https_unless_local(row: CatalogueRow) -> None:
    address = expand(row.base_url, {"AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com"})
    assert not address.unset
    assert not address.malformed
    urls = [address.url, *(path for path in row.paths.values() if not path.startswith("/"))]
    for url in urls:
        assert refusal(url, allow_private=False) is None
        scheme, _, rest = url.partition("://")
        assert is_loopback(rest.split(":")[0]) if row.local else scheme == "https"


@ROWS
def test_every_api_has_a_path_and_none_is_both_spoken_and_retired(row: CatalogueRow) -> None:
    assert row.paths
    assert all(path.startswith(("/", "https://")) and not path.endswith("/") for path in row.paths.values())
    assert set(row.auth_by_api) <= {*row.paths, Api.PASSTHROUGH}
    assert not set(row.retired_apis) & set(row.paths)
    assert row.auth is not AuthStyle.NONE
    assert row.models_path is None or row.models_path.startswith("/")


@ROWS
def test_what_is_retired_says_since_when_and_what_instead(row: CatalogueRow) -> None:
    for retired in (*([row.retired] if row.retired else []), *row.retired_apis.values()):
        assert date.fromisoformat(retired.since) < date(2026, 12, 1)
        assert retired.instead.startswith("use ")


@ROWS
def test_every_row_has_evidence(row: CatalogueRow) -> None:
    assert row.sources


def test_what_differs() -> None:
    assert {row.id for row in CATALOGUE.values() if not row.asks_usage} == {"mistral", "openrouter", "groq"}
    assert {row.id for row in CATALOGUE.values() if row.local} == {"ollama", "vllm", "llama.cpp", "lmstudio"}
    assert {row.id for row in CATALOGUE.values() if Api.CHAT not in row.paths} == {"perplexity"}
    assert {row.id for row in CATALOGUE.values() if row.models_path is None} == {"zhipu", "github-models"}
