"""Every row of the catalogue keeps the promises that the rest of the program relies on."""

import re
from datetime import date

import pytest

from proxy.config.address import expand, is_loopback, refusal
from proxy.config.scalars import PROVIDER_ID
from proxy.core.routing import AuthStyle
from proxy.providers import rows
from proxy.providers.catalogue import PATHS, CatalogueRow
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


# Beside text: what each provider speaks in OpenAI's form, or for rerank in Jina's and Cohere's.
BESIDE_TEXT = {
    "openai": {"moderations", "images", "image_edits", "speech", "transcriptions", "translations"},
    "mistral": {"moderations", "transcriptions"},
    "gemini": {"images"},
    "dashscope": {"rerank"},
    "zhipu": {"images", "speech", "transcriptions", "rerank"},
    "groq": {"speech", "transcriptions", "translations"},
    "xai": {"images"},
    "openrouter": {"images", "speech", "transcriptions", "rerank"},
    "azure": {"images", "image_edits", "speech", "transcriptions", "translations"},
    "together": {"images", "speech", "transcriptions", "translations", "rerank"},
    "fireworks": {"transcriptions", "translations", "rerank"},
    "ollama": {"transcriptions"},
    "vllm": {"transcriptions", "translations", "rerank"},
    "llama.cpp": {"transcriptions", "rerank"},
}
OF_TEXT = {Api.CHAT, Api.RESPONSES, Api.MESSAGES, Api.COUNT_TOKENS, Api.EMBEDDINGS, Api.COMPLETIONS}


@ROWS
def test_what_is_spoken_beside_text(row: CatalogueRow) -> None:
    assert {api.value for api in row.paths.keys() - OF_TEXT} == BESIDE_TEXT.get(row.id, set())
    assert Api.PASSTHROUGH not in row.paths  # no path of its own: what a client asks for is appended


def test_where_an_api_lives_elsewhere() -> None:
    elsewhere = {
        (row.id, api.value): path
        for row in CATALOGUE.values()
        for api, path in row.paths.items()
        if path != PATHS[api] and api not in OF_TEXT
    }
    audio, preview = "https://audio-prod.api.fireworks.ai/v1/audio", "?api-version=preview"
    assert elsewhere == {
        ("dashscope", "rerank"): "https://dashscope-intl.aliyuncs.com/compatible-api/v1/reranks",
        ("openrouter", "images"): "/images",
        ("fireworks", "transcriptions"): f"{audio}/transcriptions",
        ("fireworks", "translations"): f"{audio}/translations",
        ("azure", "images"): f"/images/generations{preview}",
        ("azure", "image_edits"): f"/images/edits{preview}",
        ("azure", "speech"): f"/audio/speech{preview}",
        ("azure", "transcriptions"): f"/audio/transcriptions{preview}",
        ("azure", "translations"): f"/audio/translations{preview}",
    }
