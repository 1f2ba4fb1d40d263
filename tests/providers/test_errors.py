"""Errors in every form that providers put them in, and in forms that nobody should."""

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.classify import Report
from proxy.core.failure import FailureKind
from proxy.providers import errors
from tests.core.streams import Recording, recordings

NOW = 1_700_000_000.0

# body -> (message, type, code, param)
FORMS: dict[str, tuple[Any, tuple[str, str, str, str]]] = {
    "OpenAI": (
        {"error": {"message": "m", "type": "t", "code": "c", "param": "p"}},
        ("m", "t", "c", "p"),
    ),
    "OpenAI, nulls": ({"error": {"message": "m", "type": None, "code": None, "param": None}}, ("m", "", "", "")),
    "a number as code": ({"error": {"message": "m", "code": 429}}, ("m", "", "429", "")),
    "Gemini": (
        [{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}],
        ("m", "INVALID_ARGUMENT", "400", ""),
    ),
    "Mistral": (
        {"object": "error", "message": "m", "type": "t", "param": None, "code": "1300"},
        ("m", "t", "1300", ""),
    ),
    "Mistral, details": (
        {"object": "error", "message": {"detail": [{"loc": ["body"]}]}, "type": "t", "code": 3001},
        ('{"detail":[{"loc":["body"]}]}', "t", "3001", ""),
    ),
    "xAI": ({"code": "c", "error": "m"}, ("m", "", "c", "")),
    "Hugging Face": ({"error": "m"}, ("m", "", "", "")),
    "FastAPI": ({"detail": "m"}, ("m", "", "", "")),
    "FastAPI, a list": ({"detail": [{"msg": "m"}]}, ('[{"msg":"m"}]', "", "", "")),
    "Anthropic": ({"type": "error", "error": {"type": "t", "message": "m"}}, ("m", "t", "", "")),
    "Responses": (
        {"type": "response.failed", "response": {"error": {"code": "c", "message": "m"}}},
        ("m", "", "c", ""),
    ),
    "Groq, in a chunk": ({"x_groq": {"error": "m"}}, ("m", "", "", "")),
    "a problem document": ({"title": "m", "status": 400}, ("m", "400", "", "")),
    "an empty message": ({"error": {"message": "", "detail": "m"}}, ("m", "", "", "")),
    "no message": ({"error": {"code": "c"}}, ("", "", "c", "")),
    "an empty error": ({"error": {}}, ("", "", "", "")),
    "an error that is true": ({"error": True, "message": "m"}, ("m", "", "", "")),
    "booleans are no words": ({"error": {"message": "m", "code": True, "type": False}}, ("m", "", "", "")),
    "an empty list": ([], ("[]", "", "", "")),
    "a list of texts": (["m"], ('["m"]', "", "", "")),
    "a number": (5, ("5", "", "", "")),
    "HTML": (b"<html><head><title>502</title></head>\n<h1>Bad  Gateway</h1></html>", ("502 Bad Gateway", "", "", "")),
    "text": (b"upstream connect error\n", ("upstream connect error", "", "", "")),
    "nothing": (b"", ("", "", "", "")),
    "not UTF-8": (b"\xff\xfe", ("\ufffd\ufffd", "", "", "")),
    "cut": (b'{"error":{"mess', ('{"error":{"mess', "", "", "")),
}


@pytest.mark.parametrize(("body", "words"), FORMS.values(), ids=FORMS)
def test_forms(body: Any, words: tuple[str, str, str, str]) -> None:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    _, report = errors.of_answer(400, {}, raw, NOW)
    assert (report.message, report.type, report.code, report.param) == words


@pytest.mark.parametrize(
    ("body", "openai", "messages"),
    [
        (b'{"error":{"message":"m"}}', True, False),
        (b'{"error":{}}', True, False),
        (b'{"type":"error","error":{"type":"t"}}', True, True),
        (b'{"error":"m"}', False, False),
        (b'[{"error":{}}]', False, False),
        (b'{"type":"error","error":"m"}', False, False),
        (b'{"detail":"m"}', False, False),
        (b"<html>", False, False),
        (b"", False, False),
        (b"null", False, False),
        (b"[" * 2000, False, False),
    ],
)
def test_which_forms_pass_as_they_came(body: bytes, openai: bool, messages: bool) -> None:
    assert errors.conforms(body) is openai
    assert errors.conforms_to_messages(body) is messages


@pytest.mark.parametrize(
    ("document", "is_error"),
    [
        ({"error": {"message": "m"}}, True),
        ({"error": "m", "code": "c"}, True),
        ([{"error": {"message": "m"}}], True),
        ({"object": "error", "message": "m"}, True),
        ({"type": "error", "error": {}}, True),
        ({"error": {"message": "m"}, "choices": []}, True),
        ({"error": None, "choices": [{}]}, False),
        ({"error": {}, "choices": [{}]}, False),
        ({"error": {"message": "m"}, "choices": [{}]}, False),
        ({"object": "response", "status": "failed", "error": {"code": "c"}}, False),
        ({"object": "list", "data": []}, False),
        ({}, False),
        ([], False),
        ([[{"error": {}}]], False),
        ([1], False),
        ("error", False),
        (None, False),
    ],
)
def test_what_is_an_error_inside_a_200(document: Any, is_error: bool) -> None:
    assert errors.is_error(document) is is_error


# Hints.


def http_date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=seconds), usegmt=True)


HEADER_HINTS: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"retry-after": "2"}, 2.0),
    ({"retry-after": "0"}, 0.0),
    ({"retry-after": " 2.5 "}, 2.5),
    ({"retry-after": "-1"}, 0.0),
    ({"retry-after": "1e9"}, 86400.0),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, None),
    ({"retry-after": "9" * 400}, None),
    ({"retry-after": ""}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": "2s"}, None),
    ({"retry-after": "\0"}, None),
    ({"retry-after-ms": "1500"}, 1.5),
    ({"retry-after-ms": "1500", "retry-after": "60"}, 1.5),
    ({"retry-after-ms": "x", "retry-after": "60"}, 60.0),
    ({"retry-after": http_date(30)}, 30.0),
    ({"retry-after": http_date(-30)}, 0.0),
    ({"retry-after": http_date(10**7)}, 86400.0),
    ({"retry-after": "Tue, 14 Nov 2023 22:13:50 +0000"}, 30.0),
    ({"retry-after": "Wed, 21 Oct 99999 07:28:00 GMT"}, None),
    ({"retry-after": "Fri, 31 Dec 9999 23:59:59 -2359"}, 86400.0),
    ({"retry-after": "99 Jan 2020 99:99:99 +9999"}, None),
]


@pytest.mark.parametrize(("headers", "hint_s"), HEADER_HINTS)
def test_hints_in_headers(headers: dict[str, str], hint_s: float | None) -> None:
    _, report = errors.of_answer(429, headers, b"{}", NOW)
    assert report.retry_after_s == hint_s


def openrouter(reset: object) -> dict[str, Any]:
    return {"error": {"code": 429, "message": "m", "metadata": {"headers": {"X-RateLimit-Reset": reset}}}}


def gemini(*delays: object) -> list[Any]:
    return [{"error": {"code": 429, "details": [{"retryDelay": delay} for delay in delays]}}]


BODY_HINTS: list[tuple[Any, float | None]] = [
    (openrouter(str(int((NOW + 5) * 1000))), 5.0),
    (openrouter(int((NOW + 5) * 1000)), 5.0),
    (openrouter(int((NOW - 5) * 1000)), 0.0),
    (openrouter("soon"), None),
    (openrouter(None), None),
    (openrouter([]), None),
    (openrouter(True), None),
    (openrouter("1" * 400), None),
    (gemini("34s"), 34.0),
    (gemini("34.074824224s"), 34.074824224),
    (gemini(5, None, "7s"), 7.0),
    (gemini("1m"), None),
    (gemini("-5s"), None),
    (gemini("9" * 12 + "s"), 86400.0),
    ({"error": {"details": "34s"}}, None),
    ({"error": {"details": [None, 5, [], "x"]}}, None),
    ({"error": {"metadata": [], "details": {}}}, None),
    ({"error": {"metadata": {"headers": []}}}, None),
]


@pytest.mark.parametrize(("document", "hint_s"), BODY_HINTS, ids=str)
def test_hints_in_bodies(document: Any, hint_s: float | None) -> None:
    _, report = errors.of_answer(429, {}, orjson.dumps(document), NOW)
    assert report.retry_after_s == hint_s


def test_a_header_says_more_than_a_body() -> None:
    _, report = errors.of_answer(429, {"retry-after": "1"}, orjson.dumps(gemini("34s")), NOW)
    assert report.retry_after_s == 1.0


# What nobody should send.

HOSTILE = [
    b'{"message":' + b"[" * 1000 + b"]" * 1000 + b"}",
    b'{"error":{"message":' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}}",
    b"[" * 1000 + b"]" * 1000,
    b"[" * 100_000,
    b'{"error":' * 1000 + b"1" + b"}" * 1000,
    b"<" * 200_000,
    b"<a" * 100_000 + b">",
    b'{"code":"000429' + b"9" * 5000 + b'"}',
    b'{"status_code":' + b"9" * 300 + b"}",
    b'{"error":{"message":"' + b"api key " * 20_000 + b'"}}',
    b'{"error":{"code":18446744073709551615,"type":-9223372036854775808}}',
]


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: f"{body[:20]!r} {len(body)}")
@pytest.mark.parametrize("status", [400, 403, 404, 429, 500])
def test_hostile_bodies_never_raise(status: int, body: bytes) -> None:
    kind, report = errors.of_answer(status, {"retry-after": "\0"}, body, NOW)
    said = errors.failure(kind, report, target="t", status=status, body=body, secrets=("secret-secret",))
    assert len(said.message) <= errors.MESSAGE_CHARS_MAX + 20
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return
    if errors.is_error(document):
        errors.of_document(document[0] if isinstance(document, list) else document, NOW)


_SAID = ["message", "detail", "title", "type", "code", "status", "param", "object", "status_code"]
_HELD = ["error", "details", "metadata", "headers", "x_groq", "response", "choices", "X-RateLimit-Reset", "retryDelay"]
_NAMES = st.sampled_from([*_SAID, *_HELD])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(_NAMES, values, max_size=4),
    max_leaves=10,
)


@settings(max_examples=300)
@given(document=_JSON, status=st.integers(300, 599), header=st.text(max_size=12))
def test_any_document_is_read(document: Any, status: int, header: str) -> None:
    hostile = {"retry-after": header, "retry-after-ms": header}
    kind, report = errors.of_answer(status, hostile, orjson.dumps(document), NOW)
    assert isinstance(kind, FailureKind)
    assert report.retry_after_s is None or 0 <= report.retry_after_s <= errors.RETRY_AFTER_S_MAX
    if errors.is_error(document):
        inner = document[0] if isinstance(document, list) else document
        _, _, implied = errors.of_document(inner, NOW)
        assert 400 <= implied <= 599


@given(
    header=st.text(max_size=40) | st.from_regex(r"\A[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{1,5} \d+:\d+:\d+ \S{0,5}\Z")
)
def test_any_date_is_read(header: str) -> None:
    _, report = errors.of_answer(429, {"retry-after": header}, b"", NOW)
    hint_s = report.retry_after_s
    assert hint_s is None or (not math.isnan(hint_s) and 0 <= hint_s <= errors.RETRY_AFTER_S_MAX)


# What goes to the client.


def test_a_message_is_bounded_and_without_secrets() -> None:
    secret = "s3cr3t/0123456789"
    for pad in range(errors.MESSAGE_CHARS_MAX - 30, errors.MESSAGE_CHARS_MAX + 5):
        for body in (
            f"{'x' * pad} {secret} {'y' * 2000}".encode(),
            orjson.dumps({"detail": [f"{'x' * pad} {secret}"]}),
            orjson.dumps({"error": {"message": f"{'x' * pad} {secret}"}}),
        ):
            kind, report = errors.of_answer(400, {}, body, NOW)
            failure = errors.failure(kind, report, target="p/m", status=400, body=body, secrets=(secret,))
            assert secret[:8] not in failure.message
            assert failure.upstream_body is not None
            assert secret.encode() not in failure.upstream_body
            assert len(failure.message) < errors.MESSAGE_CHARS_MAX + 40


def test_an_answer_without_words_says_its_status() -> None:
    failure = errors.failure(FailureKind.SERVER_ERROR, Report(), target="p/m", status=500, body=b"", secrets=())
    assert failure.message == "p/m answered: status 500 without a message"
    assert failure.upstream_body == b""


# What was recorded. Statuses as recorded; kinds as read by eye.
RECORDED = {
    "azure/chat-json-404-1.json": FailureKind.MODEL_NOT_FOUND,
    "azure/embeddings-json-401-1.json": FailureKind.CREDENTIAL_REJECTED,
    "deepseek/responses-json-400-1.json": FailureKind.INVALID_REQUEST,
    "google/chat-json-400-1.json": FailureKind.INVALID_REQUEST,
    "groq/chat-json-404-1.json": FailureKind.MODEL_NOT_FOUND,
    "openai/chat-json-400-1.json": FailureKind.INVALID_REQUEST,
    "openai/embeddings-json-404-1.json": FailureKind.MODEL_NOT_FOUND,
    "openai/images-json-400-1.json": FailureKind.INVALID_REQUEST,
    "openai/responses-json-400-1.json": FailureKind.MODEL_NOT_FOUND,
    "openrouter/chat-json-429-1.json": FailureKind.THROTTLED,
    "voyage/embeddings-json-400-1.json": FailureKind.MODEL_NOT_FOUND,
}


def failed(recording: Recording) -> bool:
    return int(recording.meta["status"]) >= 400


@pytest.mark.parametrize("recording", recordings(".json", failed))
def test_recorded_errors(recording: Recording) -> None:
    headers = {name.lower(): value for name, value in recording.meta["headers"]}
    kind, report = errors.of_answer(recording.meta["status"], headers, recording.body, NOW)
    assert kind is RECORDED[recording.name]
    assert report.message
    assert errors.is_error(orjson.loads(recording.body)) == ("error" in orjson.loads(recording.body))


@pytest.mark.parametrize("recording", recordings(".json", lambda recording: not failed(recording)))
def test_recorded_answers_are_no_errors(recording: Recording) -> None:
    assert not errors.is_error(orjson.loads(recording.body))
