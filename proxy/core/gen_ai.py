"""What OpenTelemetry calls things of generative AI, for metrics and traces.

Source: semantic conventions for generative AI, github.com/open-telemetry/semantic-conventions-genai (status: development,
read 2026-11-21). Operations and providers that it does not know have their own names here, as it allows.
"""

from collections.abc import Mapping
from typing import Final

from proxy.terms import Api

_OPERATIONS: Final[Mapping[str, str]] = {
    Api.CHAT.value: "chat",
    Api.RESPONSES.value: "chat",
    Api.MESSAGES.value: "chat",
    Api.COMPLETIONS.value: "text_completion",
}
_PROVIDERS: Final[Mapping[str, str]] = {
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "xai": "x_ai",
}


def operation_of(api: str) -> str:
    """`gen_ai.operation.name`."""
    return _OPERATIONS.get(api, api)


def provider_of(provider: str) -> str:
    """`gen_ai.provider.name`."""
    return _PROVIDERS.get(provider, provider)
