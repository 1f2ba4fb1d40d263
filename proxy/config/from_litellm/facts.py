"""What LiteLLM's configuration means, as data: its providers, its request members, and its settings without counterpart.

Sources: docs.litellm.ai (proxy/config_settings, proxy/load_balancing, proxy/reliability, proxy/timeout, routing,
wildcard_routing, providers/*) and LiteLLM's get_llm_provider_logic, constants and types.router; November 2026.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Spoken:
    """A provider of LiteLLM's that Penstock speaks to.

    Shapes: ``like`` is the row of Penstock's catalogue. ``id`` and ``base_url`` are set where the provider has no row of
    its own: it becomes a provider ``id`` at that address. ``key_var`` is what LiteLLM reads where `api_key` is absent, if
    the row does not read it too; ``base_var`` likewise for `api_base`, if LiteLLM has no address without it. ``suffix`` is
    what LiteLLM itself appends to `api_base` on the way to the API. ``usual`` are addresses that lead to where the row
    leads. ``own_server``: the address is always the deployer's own. ``own_form``: LiteLLM speaks the provider's own API,
    so that another address of it is none for Penstock. ``model_prefix`` is what LiteLLM puts before a short model name.
    """

    like: str
    id: str = ""
    base_url: str | None = None
    key_var: str | None = None
    base_var: str | None = None
    suffix: str = ""
    usual: tuple[str, ...] = ()
    own_server: bool = False
    own_form: bool = False
    model_prefix: str = ""


def _compatible(prefix: str, base_url: str, key_var: str) -> Spoken:
    return Spoken("openai", id=prefix, base_url=base_url, key_var=key_var)


_OPENAI: Final = Spoken("openai")
_AZURE: Final = Spoken(
    "azure", key_var="AZURE_API_KEY", base_var="AZURE_API_BASE", suffix="/openai/v1", own_server=True
)
_OLLAMA: Final = Spoken("ollama", suffix="/v1", own_server=True)
_VLLM: Final = Spoken("vllm", base_var="HOSTED_VLLM_API_BASE", own_server=True)

# What stands before the slash of litellm_params.model, or in custom_llm_provider.
SPOKEN: Final[Mapping[str, Spoken]] = MappingProxyType(
    {
        "openai": _OPENAI,
        "text-completion-openai": _OPENAI,
        "custom_openai": _OPENAI,
        "openai_like": _OPENAI,
        "aiohttp_openai": _OPENAI,
        "azure": _AZURE,
        "azure_text": _AZURE,
        "anthropic": Spoken("anthropic", suffix="/v1"),
        "gemini": Spoken("gemini", own_form=True),
        "mistral": Spoken("mistral"),
        "dashscope": Spoken("dashscope"),
        "deepseek": Spoken("deepseek", usual=("https://api.deepseek.com/v1", "https://api.deepseek.com/beta")),
        "moonshot": Spoken("moonshot"),
        "zai": Spoken("zhipu"),
        "zhipu": Spoken("zhipu"),
        "groq": Spoken("groq"),
        "xai": Spoken("xai"),
        "perplexity": Spoken("perplexity", usual=("https://api.perplexity.ai",)),
        "openrouter": Spoken("openrouter"),
        "huggingface": Spoken("huggingface", suffix="/v1"),
        "github": Spoken("github-models"),
        "together_ai": Spoken("together", usual=("https://api.together.xyz/v1",)),
        "fireworks_ai": Spoken("fireworks", model_prefix="accounts/fireworks/models/"),
        "cerebras": Spoken("cerebras"),
        "ollama": _OLLAMA,
        "ollama_chat": _OLLAMA,
        "hosted_vllm": _VLLM,
        "vllm": _VLLM,
        "llamafile": Spoken("llama.cpp", own_server=True),
        "lm_studio": Spoken("lmstudio", base_var="LM_STUDIO_API_BASE", own_server=True),
        "litellm_proxy": Spoken(
            "openai", id="litellm_proxy", key_var="LITELLM_PROXY_API_KEY", base_var="LITELLM_PROXY_API_BASE"
        ),
        # OpenAI-compatible services without a row in the catalogue.
        "ai21_chat": _compatible("ai21_chat", "https://api.ai21.com/studio/v1", "AI21_API_KEY"),
        "codestral": _compatible("codestral", "https://codestral.mistral.ai/v1", "CODESTRAL_API_KEY"),
        "deepinfra": _compatible("deepinfra", "https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
        "empower": _compatible("empower", "https://app.empower.dev/api/v1", "EMPOWER_API_KEY"),
        "featherless_ai": _compatible("featherless_ai", "https://api.featherless.ai/v1", "FEATHERLESS_AI_API_KEY"),
        "friendliai": _compatible("friendliai", "https://api.friendli.ai/serverless/v1", "FRIENDLIAI_API_KEY"),
        "hyperbolic": _compatible("hyperbolic", "https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY"),
        "inception": _compatible("inception", "https://api.inceptionlabs.ai/v1", "INCEPTION_API_KEY"),
        "lambda_ai": _compatible("lambda_ai", "https://api.lambda.ai/v1", "LAMBDA_API_KEY"),
        "meta_llama": _compatible("meta_llama", "https://api.llama.com/compat/v1", "LLAMA_API_KEY"),
        "nebius": _compatible("nebius", "https://api.studio.nebius.ai/v1", "NEBIUS_API_KEY"),
        "novita": _compatible("novita", "https://api.novita.ai/v3/openai", "NOVITA_API_KEY"),
        "nscale": _compatible("nscale", "https://inference.api.nscale.com/v1", "NSCALE_API_KEY"),
        "nvidia_nim": _compatible("nvidia_nim", "https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
        "parasail": _compatible("parasail", "https://api.parasail.io/v1", "PARASAIL_API_KEY"),
        "sambanova": _compatible("sambanova", "https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
        "siliconflow": _compatible("siliconflow", "https://api.siliconflow.com/v1", "SILICONFLOW_API_KEY"),
        "v0": _compatible("v0", "https://api.v0.dev/v1", "V0_API_KEY"),
        "vercel_ai_gateway": _compatible(
            "vercel_ai_gateway", "https://ai-gateway.vercel.sh/v1", "VERCEL_AI_GATEWAY_API_KEY"
        ),
        "volcengine": _compatible("volcengine", "https://ark.cn-beijing.volces.com/api/v3", "VOLCENGINE_API_KEY"),
    }
)

_OWN_API: Final = "it speaks an API of its own"
_AWS: Final = "its requests are signed with AWS credentials"
_GOOGLE: Final = "its credentials are Google Cloud's. Models of Google AI Studio are gemini/<model>"
_ACCOUNT: Final = "it signs in with a person's account"

# Why Penstock cannot speak to it, where there is more to say than that it does not.
UNSPOKEN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "azure_ai": "add it as {like: azure, base_url: https://<resource>.services.ai.azure.com/openai/v1}",
        "auto_router": "it chooses a model by what the request says",
        "bedrock": _AWS,
        "chatgpt": _ACCOUNT,
        "cohere": _OWN_API,
        "cohere_chat": _OWN_API,
        "github_copilot": _ACCOUNT,
        "replicate": _OWN_API,
        "sagemaker": _AWS,
        "sagemaker_chat": _AWS,
        "vertex_ai": _GOOGLE,
        "vertex_ai_beta": _GOOGLE,
        "watsonx": _OWN_API,
    }
)

# LiteLLM knows the provider of a bare model name from its list of models; these are the families of that list.
BARE_NAMES: Final = (
    (
        re.compile(
            r"(?:gpt-|chatgpt-|o[134](?:-|$)|ft:|text-embedding-|dall-e|whisper-|tts-|omni-moderation|codex-|computer-use-"
            r"|davinci-|babbage-)"
        ),
        "openai",
    ),
    (re.compile(r"claude-"), "anthropic"),
)
OPENAI_FAMILIES: Final = ("gpt-*", "chatgpt-*", "o1*", "o3*", "o4*", "text-embedding-*")
ANTHROPIC_FAMILIES: Final = ("claude-*",)

# Members of litellm_params that LiteLLM puts into the request where the client is silent.
REQUEST_MEMBERS: Final = frozenset(
    {
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "min_p",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning_effort",
        "repetition_penalty",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)

# A routing strategy to the order that a tier has in Penstock.
BALANCE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "simple-shuffle": "weighted",
        "latency-based-routing": "fastest",
        "cost-based-routing": "cheapest",
    }
)

# What people write where a server wants no credential.
NO_CREDENTIAL: Final = frozenset(
    {
        "",
        "-",
        "anything",
        "dummy",
        "empty",
        "fake",
        "fake-api-key",
        "fake-key",
        "lm-studio",
        "n/a",
        "na",
        "no-key",
        "no-key-required",
        "none",
        "not-needed",
        "null",
        "ollama",
        "placeholder",
        "sk-no-key-required",
        "token-abc123",
        "unused",
        "vllm",
        "x",
        "xxx",
    }
)

_LIMIT: Final = "limits of a deployment have no place in a routes file"
_PRICE: Final = "prices are not taken from LiteLLM. Where the price list is wrong, give the target a price"
_RETRY: Final = "the kind of failure decides whether Penstock asks a target again, and then the next one"
_ASIDE: Final = "when a target is left alone for a while is Penstock's own rule"
_HEADER: Final = "Penstock sends no headers of its own; pass_headers of a provider lets the client's through"
_CALLBACK: Final = "Penstock has no callbacks; it writes one log line an exchange"
_CACHE: Final = "routes keep answers here: give them, or defaults, cache: {ttl: 1h}, and set REDIS_URL to share them"
_KEYS: Final = "keys of clients have no place in a routes file"
_STORE: Final = "where state is kept is said by Penstock's environment"
_ENTRA: Final = "an access token or client secret is no API key; set one and name it as api_key: env:NAME"
_AS_IT_CAME: Final = "Penstock relays a request as it came, so what a provider refuses is refused"
_TOO_LONG: Final = "a request that is too long for a model goes back to the client as the provider refused it"
_LOG: Final = "what is logged is not part of a routes file"
_ANSWERED: Final = "only a provider answers"
NOT_NEEDED: Final = "not needed here"

# Settings without counterpart, by name, wherever they stand: why.
REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "access_groups": _KEYS,
        "additional_drop_params": _AS_IT_CAME,
        "allowed_fails": _ASIDE,
        "allowed_fails_policy": _ASIDE,
        "allowed_openai_params": _AS_IT_CAME,
        "api_version": f"{NOT_NEEDED}: Penstock uses Azure's v1 surface, which has no dated version",
        "azure_ad_token": _ENTRA,
        "base_model": NOT_NEEDED,
        "budget_duration": _LIMIT,
        "cache": _CACHE,
        "cache_params": _CACHE,
        "cache_responses": _CACHE,
        "callbacks": _CALLBACK,
        "client_id": _ENTRA,
        "client_secret": _ENTRA,
        "content_policy_fallbacks": "a refusal for what a request holds goes to the client as it came",
        "context_window_fallbacks": _TOO_LONG,
        "cooldown_time": _ASIDE,
        "custom_auth": _KEYS,
        "database_url": _STORE,
        "default_headers": _HEADER,
        "disable_cooldowns": _ASIDE,
        "drop_params": _AS_IT_CAME,
        "enable_pre_call_checks": "Penstock does not count a request's tokens beforehand",
        "extra_headers": _HEADER,
        "failure_callback": _CALLBACK,
        "headers": _HEADER,
        "id": NOT_NEEDED,
        "input_cost_per_second": _PRICE,
        "input_cost_per_token": _PRICE,
        "itpm": _LIMIT,
        "json_logs": _LOG,
        "master_key": _KEYS,
        "max_budget": _LIMIT,
        "max_parallel_requests": _LIMIT,
        "max_retries": _RETRY,
        "mock_response": _ANSWERED,
        "mode": f"{NOT_NEEDED}: a route serves every API that its targets speak",
        "model_group_retry_policy": _RETRY,
        "num_retries": _RETRY,
        "organization": _HEADER,
        "otpm": _LIMIT,
        "output_cost_per_second": _PRICE,
        "output_cost_per_token": _PRICE,
        "provider_budget_config": _LIMIT,
        "redis_host": _STORE,
        "redis_password": _STORE,
        "redis_port": _STORE,
        "redis_url": _STORE,
        "retry_after": _RETRY,
        "retry_policy": _RETRY,
        "rpm": _LIMIT,
        "salt_key": _STORE,
        "service_callbacks": _CALLBACK,
        "set_verbose": _LOG,
        "store_model_in_db": _STORE,
        "stream": "the client says whether it wants a stream",
        "success_callback": _CALLBACK,
        "tenant_id": _ENTRA,
        "tpm": _LIMIT,
        "turn_off_message_logging": _LOG,
        "use_redis_transaction_buffer": _STORE,
    }
)
NO_SUCH: Final = "Penstock has no such setting"
