"""What an answer means: (status, headers, body), in the providers' own forms, to a kind and a hint.

Read through `proxy.providers.errors`, as the pipeline does, so that the forms and the words are held together.
"""

from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.classify import Report, implied_status, of_status
from proxy.core.failure import FailureKind
from proxy.providers import errors

K = FailureKind
NOW = 1_700_000_000.0


class Row(NamedTuple):
    status: int
    body: Any  # a document, or bytes as they are
    kind: FailureKind
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    hint_s: float | None = None


def openai(message: str, kind: str = "invalid_request_error", code: Any = None, param: str | None = None) -> Any:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


_GEMINI = {
    "error": {
        "code": 429,
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [{"@type": "QuotaFailure"}, {"@type": "RetryInfo", "retryDelay": "34.4s"}],
    }
}
_GROQ_LIMIT = (
    "Rate limit reached for model `openai/gpt-oss-120b` on tokens per minute (TPM): Limit 8000, Used 1113, Requested "
    "7211. Please try again in 7.66s. Need more tokens? Upgrade at https://console.groq.com/settings/billing"
)
_OPENAI_FREE = (
    "Rate limit reached for gpt-4o on requests per min. Limit: 3 / min. Please try again in 20s. Please add a payment "
    "method to your account to increase your rate limit. Visit https://platform.openai.com/account/billing."
)

ROWS: dict[str, Row] = {
    # 400 and 422: the client's, unless the words say otherwise
    "OpenAI unknown parameter": Row(400, openai("Unknown parameter: 'x'.", param="x"), K.INVALID_REQUEST),
    "OpenAI context": Row(
        400,
        openai("This model's maximum context length is 128000 tokens.", code="context_length_exceeded"),
        K.CONTEXT_EXCEEDED,
    ),
    "Anthropic context": Row(
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens"}},
        K.CONTEXT_EXCEEDED,
    ),
    "Gemini context": Row(
        400,
        [{"error": {"code": 400, "message": "The input token count exceeds the maximum number of tokens allowed"}}],
        K.CONTEXT_EXCEEDED,
    ),
    "llama.cpp context": Row(
        400,
        {
            "error": {
                "code": 400,
                "message": "request (40023 tokens) exceeds the available context size (2048 tokens), try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 40023,
                "n_ctx": 2048,
            }
        },
        K.CONTEXT_EXCEEDED,
    ),
    "Z.ai context": Row(400, {"error": {"code": "1261", "message": "Prompt too long"}}, K.CONTEXT_EXCEEDED),
    "OpenAI bad stream_options": Row(
        400, openai("Unrecognized request argument supplied: stream_options"), K.UNSUPPORTED_PARAM
    ),
    "Mistral refuses stream_options": Row(
        422,
        {
            "object": "error",
            "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options", "include_usage"]}]},
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        },
        K.UNSUPPORTED_PARAM,
    ),
    "FastAPI refuses stream_options": Row(
        422, {"detail": [{"loc": ["body", "stream_options"], "msg": "extra fields"}]}, K.UNSUPPORTED_PARAM
    ),
    "param says stream_options": Row(400, openai("No.", param="stream_options.include_usage"), K.UNSUPPORTED_PARAM),
    "Mistral refuses another field": Row(
        422,
        {"object": "error", "message": {"detail": [{"loc": ["body", "metadata"]}]}, "code": 3001},
        K.INVALID_REQUEST,
    ),
    "Gemini unknown field": Row(
        400,
        [{"error": {"code": 400, "message": 'Unknown name "x": Cannot find field.', "status": "INVALID_ARGUMENT"}}],
        K.INVALID_REQUEST,
    ),
    "Gemini bad key": Row(
        400,
        [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}],
        K.CREDENTIAL_REJECTED,
    ),
    "xAI bad key": Row(
        400,
        {"code": "invalid-argument", "error": "Incorrect API key provided: xa***yz."},
        K.CREDENTIAL_REJECTED,
    ),
    "Azure content filter": Row(
        400, openai("The response was filtered", code="content_filter", param="prompt"), K.CONTENT_REFUSED
    ),
    "Z.ai content": Row(400, {"error": {"code": "1301", "message": "unsafe"}}, K.CONTENT_REFUSED),
    "OpenAI model as a parameter": Row(
        400,
        openai("The requested model 'x' does not exist.", code="model_not_found", param="model"),
        K.MODEL_NOT_FOUND,
    ),
    "Voyage model": Row(400, {"detail": "Model nonexistent is not supported."}, K.MODEL_NOT_FOUND),
    "Hugging Face model": Row(
        400,
        {
            "error": {
                "message": "The requested model 'x' is not supported by any provider",
                "code": "model_not_supported",
            }
        },
        K.MODEL_NOT_FOUND,
    ),
    "Mistral model": Row(
        400,
        {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "code": "1500"},
        K.MODEL_NOT_FOUND,
    ),
    "Z.ai model": Row(400, {"error": {"code": "1211", "message": "Unknown"}}, K.MODEL_NOT_FOUND),
    "a parameter that the model lacks": Row(
        400, {"code": "x", "error": "The model grok-4 does not support parameter presencePenalty."}, K.INVALID_REQUEST
    ),
    "OpenAI parameter not for this model": Row(
        400, openai("Unsupported parameter: 'max_tokens' is not supported with this model."), K.INVALID_REQUEST
    ),
    "numbers are not codes": Row(400, openai("You sent 1261 messages, 1301 tools, 1211 files."), K.INVALID_REQUEST),
    "DeepSeek Responses": Row(400, openai("No tool output found for tool call call-a."), K.INVALID_REQUEST),
    "413": Row(413, openai("Request too large"), K.INVALID_REQUEST),
    "Z.ai odd status": Row(434, {"error": {"code": "1220", "message": "no permission"}}, K.INVALID_REQUEST),
    # 401, 402, 403
    "OpenAI 401": Row(401, openai("Incorrect API key provided", code="invalid_api_key"), K.CREDENTIAL_REJECTED),
    "Azure 401": Row(
        401,
        {"error": {"code": "401", "message": "Access denied due to invalid subscription key"}},
        K.CREDENTIAL_REJECTED,
    ),
    "bare 401": Row(401, b"", K.CREDENTIAL_REJECTED),
    "DeepSeek 402": Row(402, openai("Insufficient Balance"), K.QUOTA_EXHAUSTED),
    "OpenRouter 402": Row(402, {"error": {"code": 402, "message": "Insufficient credits"}}, K.QUOTA_EXHAUSTED),
    "OpenRouter moderation": Row(
        403,
        {"error": {"code": 403, "message": "openai/gpt-4o requires moderation. Your input was flagged."}},
        K.CONTENT_REFUSED,
    ),
    "403 blames the key": Row(403, {"error": "Invalid API key for this project"}, K.CREDENTIAL_REJECTED),
    "403 blames nothing": Row(403, {"error": {"message": "Country not supported"}}, K.ACCESS_DENIED),
    "403 of a firewall": Row(403, b"<html><h1>403 Forbidden</h1><p>cloudflare</p></html>", K.ACCESS_DENIED),
    # 404, 410
    "OpenAI 404": Row(
        404,
        openai("The model `x` does not exist or you do not have access to it.", code="model_not_found"),
        K.MODEL_NOT_FOUND,
    ),
    "Azure 404": Row(
        404,
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}},
        K.MODEL_NOT_FOUND,
    ),
    "Groq retired": Row(
        404, openai("The model `x` has been decommissioned", code="model_decommissioned"), K.MODEL_NOT_FOUND
    ),
    "OpenRouter retired": Row(
        404, {"error": {"code": 404, "message": "No endpoints found for x/y."}}, K.MODEL_NOT_FOUND
    ),
    "OpenRouter, asked too much": Row(
        404, {"error": {"code": 404, "message": "No endpoints found that support tool use."}}, K.NOT_FOUND
    ),
    "Ollama 404": Row(404, openai("model 'x' not found", "not_found_error"), K.MODEL_NOT_FOUND),
    "wrong path": Row(404, {"detail": "Not Found"}, K.NOT_FOUND),
    "xAI gone": Row(410, {"code": "gone", "error": "This API is gone"}, K.NOT_FOUND),
    # 429
    "OpenAI 429": Row(
        429,
        openai("Rate limit reached for gpt-4o", "tokens", "rate_limit_exceeded"),
        K.THROTTLED,
        {"retry-after": "2", "retry-after-ms": "1500"},
        1.5,
    ),
    "OpenAI 429 names its billing page": Row(429, openai(_OPENAI_FREE, "requests", "rate_limit_exceeded"), K.THROTTLED),
    "OpenAI no money": Row(
        429,
        openai("You exceeded your current quota, please check your plan", "insufficient_quota", "insufficient_quota"),
        K.QUOTA_EXHAUSTED,
    ),
    "Groq 429 names its billing page": Row(
        429, openai(_GROQ_LIMIT, "tokens", "rate_limit_exceeded"), K.THROTTLED, {"retry-after": "7.66"}, 7.66
    ),
    "Anthropic 429": Row(
        429,
        {"error": {"code": "rate_limit_error", "message": "exceed your rate limit", "type": "invalid_request_error"}},
        K.THROTTLED,
        {"retry-after": "30"},
        30.0,
    ),
    "Mistral 429": Row(
        429,
        {"object": "error", "message": "Requests rate limit exceeded", "type": "rate_limited", "code": "1300"},
        K.THROTTLED,
    ),
    "Gemini 429 calls it a quota": Row(429, [_GEMINI], K.THROTTLED, {}, 34.4),
    "OpenRouter 429": Row(
        429,
        {
            "error": {
                "code": 429,
                "message": "Rate limit exceeded: free-models-per-day",
                "metadata": {"headers": {"X-RateLimit-Reset": str(int((NOW + 90) * 1000))}},
            }
        },
        K.THROTTLED,
        {},
        90.0,
    ),
    "OpenRouter 429 of its provider": Row(
        429, {"error": {"code": 429, "message": "Provider returned error", "metadata": {"raw": "x"}}}, K.THROTTLED
    ),
    "Moonshot no money": Row(
        429,
        openai("Your account is suspended, please check your plan and billing", "exceeded_current_quota_error"),
        K.QUOTA_EXHAUSTED,
    ),
    "Moonshot 429": Row(429, openai("rate limit", "rate_limit_reached_error"), K.THROTTLED),
    "Z.ai no money": Row(429, {"error": {"code": "1113", "message": "余额不足"}}, K.QUOTA_EXHAUSTED),
    "Z.ai locked": Row(429, {"error": {"code": "1112", "message": "locked"}}, K.QUOTA_EXHAUSTED),
    "Z.ai 429": Row(429, {"error": {"code": "1302", "message": "Too many requests"}}, K.THROTTLED),
    "bare 429": Row(429, b"", K.THROTTLED, {"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
    # 5xx
    "500": Row(500, openai("The server had an error", "server_error"), K.SERVER_ERROR),
    "502 of a proxy": Row(502, b"<html><body>502 Bad Gateway</body></html>", K.SERVER_ERROR),
    "503": Row(503, openai("Service unavailable"), K.OVERLOADED, {"retry-after": "3600"}, 3600.0),
    "Anthropic 529": Row(529, {"type": "error", "error": {"type": "overloaded_error"}}, K.OVERLOADED),
    "Cloudflare 524": Row(524, b"", K.SERVER_ERROR),
    "408": Row(408, b"", K.SERVER_ERROR),
    "425": Row(425, b"", K.SERVER_ERROR),
    "599": Row(599, b"", K.SERVER_ERROR),
    # neither
    "302": Row(302, b"", K.REDIRECT),
    "308": Row(308, b"", K.REDIRECT),
    "100": Row(100, b"", K.MALFORMED),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_what_an_answer_means(row: Row) -> None:
    body = row.body if isinstance(row.body, bytes) else orjson.dumps(row.body)
    kind, report = errors.of_answer(row.status, row.headers, body, NOW)
    assert kind is row.kind
    assert report.retry_after_s == (pytest.approx(row.hint_s, abs=0.002) if row.hint_s is not None else None)


# Errors inside a 200: what they say, the kind, the status that they would have had.
INSIDE: dict[str, tuple[dict[str, Any], FailureKind, int]] = {
    "OpenRouter": ({"error": {"code": 429, "message": "m"}}, K.THROTTLED, 429),
    "OpenRouter, as text": ({"error": {"code": "502", "message": "m"}}, K.SERVER_ERROR, 502),
    "OpenRouter moderation": ({"error": {"code": 403, "message": "flagged"}}, K.CONTENT_REFUSED, 403),
    "Cerebras": ({"error": {"message": "m"}, "status_code": 503}, K.OVERLOADED, 503),
    "xAI": ({"code": "x", "error": "Incorrect API key provided"}, K.CREDENTIAL_REJECTED, 401),
    "Groq": ({"choices": [{}], "x_groq": {"error": "over capacity"}}, K.OVERLOADED, 529),
    "Groq limit": (openai(_GROQ_LIMIT, "tokens", "rate_limit_exceeded"), K.THROTTLED, 429),
    "OpenAI quota": (openai("m", "insufficient_quota", "insufficient_quota"), K.QUOTA_EXHAUSTED, 402),
    "OpenAI rate": (openai("m", "rate_limit_error"), K.THROTTLED, 429),
    "OpenAI server": (openai("The server had an error", "server_error"), K.SERVER_ERROR, 500),
    "OpenAI context": (openai("m", code="context_length_exceeded"), K.CONTEXT_EXCEEDED, 400),
    "OpenAI model": (openai("m", code="model_not_found"), K.MODEL_NOT_FOUND, 404),
    "OpenAI request": (openai("m"), K.INVALID_REQUEST, 400),
    "OpenAI content": (openai("m", "x", "content_filter"), K.CONTENT_REFUSED, 400),
    "Gemini rate": (_GEMINI, K.THROTTLED, 429),
    "Anthropic overloaded": ({"type": "error", "error": {"type": "overloaded_error"}}, K.OVERLOADED, 529),
    "Anthropic authentication": (
        {"type": "error", "error": {"type": "authentication_error", "message": "x"}},
        K.CREDENTIAL_REJECTED,
        401,
    ),
    "Anthropic api": ({"type": "error", "error": {"type": "api_error"}}, K.SERVER_ERROR, 500),
    "Responses": (
        {"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "m"}}},
        K.THROTTLED,
        429,
    ),
    "Responses, flat": ({"type": "error", "code": "server_error", "message": "m"}, K.SERVER_ERROR, 500),
    "old vLLM": ({"object": "error", "message": "m", "code": 400}, K.INVALID_REQUEST, 400),
    "a flat error event": ({"message": "m"}, K.SERVER_ERROR, 500),
    "no words": ({"error": {}}, K.SERVER_ERROR, 500),
}


@pytest.mark.parametrize(("document", "kind", "status"), INSIDE.values(), ids=INSIDE)
def test_what_an_error_inside_a_200_means(document: dict[str, Any], kind: FailureKind, status: int) -> None:
    found, _, implied = errors.of_document(document, NOW)
    assert (found, implied) == (kind, status)


@pytest.mark.parametrize(
    "claim", ["200", "399", "600", "4290", "0429", "429999", "000429" + "9" * 9, "9" * 5000, "-429", ""]
)
def test_only_a_whole_status_is_taken_for_one(claim: str) -> None:
    assert implied_status(Report(code=claim)) == 500
    assert implied_status(Report(), claim) == 500


@given(status=st.integers(-5, 1100), words=st.text(max_size=50))
def test_any_answer_has_a_kind(status: int, words: str) -> None:
    report = Report(message=words, type=words, code=words, param=words)
    assert isinstance(of_status(status, report), FailureKind)
    assert 400 <= implied_status(report, words) <= 599


def test_words_are_bounded() -> None:
    assert of_status(429, Report(message="x" * 10**6 + " billing")) is K.THROTTLED
