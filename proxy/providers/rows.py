"""The rows of the catalogue, in the order in which tables show them: one per provider.

Facts were gathered in November 2026. A line of ``sources`` says where one comes from; a line of ``notes`` says what a
reader of the row would otherwise have to find out again.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from proxy.core.routing import AuthStyle
from proxy.providers.catalogue import PATHS, CatalogueRow, Retired, standard
from proxy.terms import Api, ProviderId

_CHAT, _RESPONSES, _MESSAGES, _COUNT = Api.CHAT, Api.RESPONSES, Api.MESSAGES, Api.COUNT_TOKENS
_EMBEDDINGS, _COMPLETIONS = Api.EMBEDDINGS, Api.COMPLETIONS
_MODERATIONS, _RERANK, _SPEECH = Api.MODERATIONS, Api.RERANK, Api.SPEECH
_IMAGES, _IMAGE_EDITS = Api.IMAGES, Api.IMAGE_EDITS
_TRANSCRIPTIONS, _TRANSLATIONS = Api.TRANSCRIPTIONS, Api.TRANSLATIONS

_ROWS: Final = (
    CatalogueRow(
        id=ProviderId("openai"),
        title="OpenAI",
        base_url="https://api.openai.com/v1",
        key_vars=("OPENAI_API_KEY",),
        chat_output_cap="max_completion_tokens",
        paths=standard(
            *(_CHAT, _RESPONSES, _EMBEDDINGS, _COMPLETIONS, _MODERATIONS),
            *(_IMAGES, _IMAGE_EDITS, _SPEECH, _TRANSCRIPTIONS, _TRANSLATIONS),
        ),
        notes=(
            "its o-series and later models refuse max_tokens",
            "OPENAI_BASE_URL is not read: clients set it to reach Penstock, which would then call itself",
            "usage in a stream: a chunk of its own before [DONE], only if asked; absent when the stream is cut",
            "usage of a transcription: tokens, or seconds where whisper-1 made it; speech tells it in its event stream only",
        ),
        sources=("openai-python 3.52 resources", "platform.openai.com/docs/api-reference/chat-streaming"),
    ),
    CatalogueRow(
        id=ProviderId("anthropic"),
        title="Anthropic",
        base_url="https://api.anthropic.com/v1",
        key_vars=("ANTHROPIC_API_KEY",),
        paths=standard(_CHAT, _MESSAGES, _COUNT),
        auth_by_api=dict.fromkeys((_MESSAGES, _COUNT, Api.PASSTHROUGH), AuthStyle.X_API_KEY),
        notes=("the native API wants anthropic-version, which clients of it send; the chat layer takes a Bearer key",),
        sources=("platform.claude.com/docs/cli-sdks-libraries/libraries/openai-sdk",),
    ),
    CatalogueRow(
        id=ProviderId("mistral"),
        title="Mistral AI",
        base_url="https://api.mistral.ai/v1",
        key_vars=("MISTRAL_API_KEY",),
        paths=standard(_CHAT, _EMBEDDINGS, _MODERATIONS, _TRANSCRIPTIONS),
        asks_usage=False,
        notes=(
            "usage comes unasked in the last choice chunk; stream_options has been refused with 422 since March 2025",
            "results of moderations have categories and scores, but no `flagged`",
            "its /audio/speech answers in JSON, not in sound, so it is not listed",
        ),
        sources=(
            "schema of mistralai's SDK, November 2026",
            "mistralai 3.7.0: classifiers, transcriptions, speech",
        ),
    ),
    CatalogueRow(
        id=ProviderId("gemini"),
        title="Google Gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key_vars=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        paths=standard(_CHAT, _EMBEDDINGS, _IMAGES),
        notes=(
            "an error body is an array with one object",
            "images: as public clients of /v1beta/openai call it; that they come as b64_json only is from memory",
        ),
        sources=("ai.google.dev/gemini-api/docs/openai", "public clients of /v1beta/openai/images/generations"),
    ),
    CatalogueRow(
        id=ProviderId("dashscope"),
        title="Qwen (Alibaba DashScope)",
        base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        key_vars=("DASHSCOPE_API_KEY", "ALIBABA_API_KEY"),
        paths={
            **standard(_CHAT, _EMBEDDINGS),
            _RESPONSES: "https://dashscope-intl.aliyuncs.com/api/v2/apps/protocols/compatible-mode/v1/responses",
            _MESSAGES: "https://dashscope-intl.aliyuncs.com/apps/anthropic/v1/messages",
            _RERANK: "https://dashscope-intl.aliyuncs.com/compatible-api/v1/reranks",
        },
        auth_by_api={_MESSAGES: AuthStyle.X_API_KEY},
        notes=(
            "in China: base_url https://dashscope.aliyuncs.com/compatible-mode/v1; keys differ by region",
            "rerank takes qwen3-rerank in this form; its images and sound have forms of their own",
        ),
        sources=(
            "alibabacloud.com/help/en/model-studio/text-rerank-api; LiteLLM's default for the host outside China",
            "alibabacloud.com/help/en/model-studio/anthropic-api-messages",
            "alibabacloud.com/help/en/model-studio/compatibility-with-openai-responses-api",
        ),
    ),
    CatalogueRow(
        id=ProviderId("deepseek"),
        title="DeepSeek",
        base_url="https://api.deepseek.com",
        key_vars=("DEEPSEEK_API_KEY",),
        paths={**standard(_CHAT), _MESSAGES: "/anthropic/v1/messages"},
        auth_by_api={_MESSAGES: AuthStyle.X_API_KEY},
        notes=("sends blank lines before a JSON answer and ': keep-alive' comments in a stream while a request waits",),
        sources=("api-docs.deepseek.com/guides/anthropic_api", "api-docs.deepseek.com/quick_start/rate_limit"),
    ),
    CatalogueRow(
        id=ProviderId("moonshot"),
        title="Moonshot AI (Kimi)",
        base_url="https://api.moonshot.ai/v1",
        key_vars=("MOONSHOT_API_KEY", "KIMI_API_KEY"),
        paths=standard(_CHAT),
        notes=(
            "in China: base_url https://api.moonshot.cn/v1",
            "usage in a stream: choices[0].usage of the last choice chunk, or top-level",
        ),
        sources=("platform.kimi.ai/docs/overview",),
    ),
    CatalogueRow(
        id=ProviderId("zhipu"),
        title="Zhipu, Z.ai (GLM)",
        base_url="${ZAI_BASE_URL:-https://api.z.ai/api/paas/v4}",
        key_vars=("ZAI_API_KEY", "ZHIPUAI_API_KEY", "BIGMODEL_API_KEY"),
        paths={
            **standard(_CHAT, _IMAGES, _SPEECH, _TRANSCRIPTIONS, _RERANK),
            _MESSAGES: "https://api.z.ai/api/anthropic/v1/messages",
        },
        auth_by_api={_MESSAGES: AuthStyle.X_API_KEY},
        models_path=None,
        notes=(
            "one id for both of its names; `zai: {like: zhipu}` in the file makes the other",
            "in China: ZAI_BASE_URL=https://open.bigmodel.cn/api/paas/v4",
            "429 is also its status for an empty balance and a locked account",
            "images come as a url; a stream of a transcription ends with [DONE]",
            "rerank is documented for open.bigmodel.cn only; moderations has a form of its own",
        ),
        sources=(
            "zai-sdk",
            "zai-sdk 0.2.3: images, audio, transcriptions",
            "docs.bigmodel.cn/api-reference (rerank, transcriptions)",
            "docs.z.ai/scenario-example/develop-tools/claude",
            "docs.z.ai/api-reference/api-code",
        ),
    ),
    CatalogueRow(
        id=ProviderId("groq"),
        title="Groq",
        base_url="${GROQ_BASE_URL:-https://api.groq.com}/openai/v1",
        key_vars=("GROQ_API_KEY",),
        paths=standard(_CHAT, _RESPONSES, _SPEECH, _TRANSCRIPTIONS, _TRANSLATIONS),
        asks_usage=False,
        notes=(
            "GROQ_BASE_URL is the root, as in groq's own SDK, which appends /openai/v1 itself",
            "usage comes unasked as x_groq.usage in the last chunk",
        ),
        sources=("groq-python", "console.groq.com/docs/responses-api", "groq 1.7.0: audio"),
    ),
    CatalogueRow(
        id=ProviderId("xai"),
        title="xAI (Grok)",
        base_url="https://api.x.ai/v1",
        key_vars=("XAI_API_KEY",),
        paths=standard(_CHAT, _RESPONSES, _IMAGES),
        retired_apis={_MESSAGES: Retired("2026-02-20", "use chat or responses")},
        notes=(
            "completion_tokens leaves reasoning tokens out; total_tokens has them",
            "its /images/edits takes JSON with image.url, not OpenAI's form, so it is not listed",
        ),
        sources=(
            "docs.x.ai/developers/cost-tracking",
            "docs.x.ai/developers/model-capabilities/images",
        ),
    ),
    CatalogueRow(
        id=ProviderId("perplexity"),
        title="Perplexity",
        base_url="https://api.perplexity.ai/v1",
        key_vars=("PERPLEXITY_API_KEY", "PERPLEXITYAI_API_KEY"),
        paths=standard(_RESPONSES),
        retired_apis={_CHAT: Retired("2026-09-27", "use responses, with model perplexity/sonar")},
        sources=("release notes of @ai-sdk/perplexity 3.1.0",),
    ),
    CatalogueRow(
        id=ProviderId("openrouter"),
        title="OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        key_vars=("OPENROUTER_API_KEY", "OR_API_KEY"),
        paths={
            **standard(_CHAT, _RESPONSES, _MESSAGES, _EMBEDDINGS, _COMPLETIONS, _SPEECH, _TRANSCRIPTIONS, _RERANK),
            _IMAGES: "/images",
        },
        asks_usage=False,
        notes=(
            "usage comes unasked; include_usage is deprecated there and has no effect",
            "usage of images has prompt_tokens, completion_tokens and cost; of rerank, search_units and cost",
            "transcriptions take OpenAI's multipart form, and JSON; they do not stream",
        ),
        sources=(
            "@openrouter/sdk 1.3.84",
            "openrouter.ai/docs/api-reference",
            "openrouter 1.3.84 for Python: images, tts, stt, rerank",
        ),
    ),
    CatalogueRow(
        id=ProviderId("huggingface"),
        title="Hugging Face",
        base_url="https://router.huggingface.co/v1",
        key_vars=("HF_TOKEN", "HUGGINGFACE_API_KEY"),
        paths=standard(_CHAT, _RESPONSES),
        notes=("a model may carry a :provider suffix", "responses is in beta there"),
        sources=("huggingface.co/docs/inference-providers/guides/responses-api",),
    ),
    CatalogueRow(
        id=ProviderId("github-models"),
        title="GitHub Models",
        base_url="https://models.github.ai/inference",
        key_vars=("GITHUB_TOKEN",),
        paths=standard(_CHAT),
        models_path=None,
        retired=Retired("2026-07-30", "use openai or azure"),
        sources=("github.com/orgs/community/discussions/203602",),
    ),
    CatalogueRow(
        id=ProviderId("azure"),
        chat_output_cap="max_completion_tokens",
        title="Azure OpenAI",
        base_url="${AZURE_OPENAI_ENDPOINT}/openai/v1",
        key_vars=("AZURE_OPENAI_API_KEY",),
        paths={
            **standard(_CHAT, _RESPONSES, _EMBEDDINGS, _COMPLETIONS),
            **{
                api: f"{PATHS[api]}?api-version=preview"
                for api in (_IMAGES, _IMAGE_EDITS, _SPEECH, _TRANSCRIPTIONS, _TRANSLATIONS)
            },
        },
        auth=AuthStyle.API_KEY,
        notes=(
            "the model is the name of a deployment",
            "v1 surface: no dated api-version; images and audio are in its preview, which the address has to say",
        ),
        sources=(
            "learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle",
            "learn.microsoft.com/azure/ai-services/openai/reference-preview-latest",
        ),
    ),
    CatalogueRow(
        id=ProviderId("together"),
        title="Together AI",
        base_url="https://api.together.ai/v1",
        key_vars=("TOGETHER_API_KEY",),
        paths=standard(
            *(_CHAT, _EMBEDDINGS, _COMPLETIONS, _IMAGES, _SPEECH, _TRANSCRIPTIONS, _TRANSLATIONS, _RERANK),
        ),
        notes=(
            "images: response_format is base64 or url, the size is width and height",
            "speech: `stream` makes it an event stream that ends with [DONE]",
        ),
        sources=("together-python", "together 3.1.1: images, audio, rerank"),
    ),
    CatalogueRow(
        id=ProviderId("fireworks"),
        title="Fireworks AI",
        base_url="https://api.fireworks.ai/inference/v1",
        key_vars=("FIREWORKS_API_KEY",),
        paths={
            **standard(_CHAT, _RESPONSES, _MESSAGES, _EMBEDDINGS, _COMPLETIONS, _RERANK),
            _TRANSCRIPTIONS: "https://audio-prod.api.fireworks.ai/v1/audio/transcriptions",
            _TRANSLATIONS: "https://audio-prod.api.fireworks.ai/v1/audio/translations",
        },
        notes=(
            "results of rerank stand in `data`, not in `results`",
            "whisper-v3-turbo lives at audio-turbo.api.fireworks.ai: a provider of its own in the file, like: openai",
            "its images have a form of their own",
        ),
        sources=(
            "docs.fireworks.ai/guides/response-api",
            "docs.fireworks.ai/anthropic-messages.openapi.json",
            "docs.fireworks.ai/api-reference/rerank-documents",
            "docs.fireworks.ai/api-reference (audio-transcriptions; the hosts of its batch page)",
        ),
    ),
    CatalogueRow(
        id=ProviderId("cerebras"),
        title="Cerebras",
        base_url="https://api.cerebras.ai/v1",
        key_vars=("CEREBRAS_API_KEY",),
        paths=standard(_CHAT, _COMPLETIONS),
        sources=("cerebras-cloud-sdk",),
    ),
    CatalogueRow(
        id=ProviderId("ollama"),
        title="Ollama",
        base_url="${OLLAMA_URL:-http://localhost:11434}/v1",
        key_vars=(),
        paths=standard(_CHAT, _RESPONSES, _MESSAGES, _EMBEDDINGS, _COMPLETIONS, _TRANSCRIPTIONS),
        local=True,
        notes=(
            "OLLAMA_HOST is not read: it is the address that the server binds, often 0.0.0.0",
            "ollama.com: {like: ollama, base_url: https://ollama.com/v1, api_key: env:OLLAMA_API_KEY}",
        ),
        sources=(
            "github.com/ollama/ollama docs/openai.md, docs/anthropic-compatibility.md",
            "github.com/ollama/ollama server/routes.go at fb3076099, August 2026",
        ),
    ),
    CatalogueRow(
        id=ProviderId("vllm"),
        title="vLLM",
        base_url="${VLLM_URL:-http://localhost:8000}/v1",
        key_vars=("VLLM_API_KEY", "HOSTED_VLLM_API_KEY"),
        paths=standard(
            *(_CHAT, _RESPONSES, _MESSAGES, _COUNT, _EMBEDDINGS, _COMPLETIONS),
            *(_TRANSCRIPTIONS, _TRANSLATIONS, _RERANK),
        ),
        local=True,
        notes=("one model a server: which of its APIs answer depends on the model",),
        sources=(
            "docs.vllm.ai/en/latest/serving/openai_compatible_server",
            "docs.vllm.ai/en/v0.32.0/serving/online_serving",
        ),
    ),
    CatalogueRow(
        id=ProviderId("llama.cpp"),
        title="llama.cpp server",
        base_url="${LLAMA_CPP_URL:-http://localhost:8080}/v1",
        key_vars=("LLAMA_API_KEY",),
        paths=standard(_CHAT, _RESPONSES, _MESSAGES, _COUNT, _EMBEDDINGS, _COMPLETIONS, _TRANSCRIPTIONS, _RERANK),
        local=True,
        notes=(
            "transcriptions since April 2026, with response_format json only; rerank only where it was started for it",
        ),
        sources=(
            "github.com/ggml-org/llama.cpp tools/server/README.md",
            "github.com/ggml-org/llama.cpp pull requests 9510 (rerank) and 21863 (transcriptions)",
        ),
    ),
    CatalogueRow(
        id=ProviderId("lmstudio"),
        title="LM Studio",
        base_url="${LMSTUDIO_URL:-http://localhost:1234}/v1",
        key_vars=("LM_API_TOKEN",),
        paths=standard(_CHAT, _RESPONSES, _MESSAGES, _EMBEDDINGS, _COMPLETIONS),
        local=True,
        sources=("lmstudio.ai/docs/developer, 0.4.1",),
    ),
)

CATALOGUE: Final[Mapping[ProviderId, CatalogueRow]] = MappingProxyType({row.id: row for row in _ROWS})
