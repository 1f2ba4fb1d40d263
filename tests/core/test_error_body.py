"""Failures as each API's clients read them."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import error_body
from proxy.core.failure import TABLE, Failure, FailureKind
from proxy.core.sse import data_of, name_of
from proxy.terms import Api

K = FailureKind
MESSAGES_APIS = (Api.MESSAGES, Api.COUNT_TOKENS)


@pytest.mark.parametrize("kind", FailureKind, ids=lambda kind: kind.value)
@pytest.mark.parametrize("api", [*Api, None])
def test_a_body_has_the_apis_own_form(api: Api | None, kind: FailureKind) -> None:
    failure = Failure(kind, "what happened", param="model")
    document = orjson.loads(error_body.body(failure, failure.status, api, [], "req_1"))
    error = document["error"]
    if api in MESSAGES_APIS:
        assert set(document) == {"type", "error", "request_id"}
        assert (document["type"], document["request_id"]) == ("error", "req_1")
    else:
        assert set(document) == {"error"}
    assert set(error) == {"message", "type", "param", "code", "metadata"}
    assert (error["message"], error["param"], error["code"]) == ("what happened", "model", TABLE[kind].code)
    assert error["metadata"] == {"retryable": error_body.is_retryable(failure)}
    assert error["type"].endswith(("_error", "_too_large"))


TYPES: list[tuple[FailureKind, str, str]] = [
    (K.BAD_REQUEST, "invalid_request_error", "invalid_request_error"),
    (K.MODEL_UNKNOWN, "not_found_error", "not_found_error"),
    (K.BODY_TOO_LARGE, "invalid_request_error", "request_too_large"),
    (K.REQUEST_TIMEOUT, "invalid_request_error", "timeout_error"),
    (K.THROTTLED, "rate_limit_error", "rate_limit_error"),
    (K.INTERNAL, "api_error", "api_error"),
    (K.SERVER_ERROR, "api_error", "api_error"),
    (K.OVERLOADED, "api_error", "overloaded_error"),
    (K.CONNECT_TIMEOUT, "api_error", "timeout_error"),
]


@pytest.mark.parametrize(("kind", "openai", "anthropic"), TYPES)
def test_types(kind: FailureKind, openai: str, anthropic: str) -> None:
    failure = Failure(kind, "m")
    for api, expected in ((Api.CHAT, openai), (Api.RESPONSES, openai), (Api.MESSAGES, anthropic)):
        document = orjson.loads(error_body.body(failure, failure.status, api, [], "r"))
        assert document["error"]["type"] == expected


def test_metadata_tells_the_attempts_and_the_upstreams_own_words() -> None:
    failure = Failure(K.SERVER_ERROR, "m", upstream_status=500, upstream_body=b'{"detail":"x"}')
    attempts = [{"target": "a/b", "ms": 1.5, "failure": "server_error", "status": 500}]
    document = orjson.loads(error_body.body(failure, 502, Api.CHAT, attempts, "r"))
    assert document["error"]["metadata"] == {
        "retryable": False,
        "attempts": attempts,
        "upstream_status": 500,
        "raw": {"detail": "x"},
    }


RAW: dict[str, tuple[bytes, Any]] = {
    "object": (b'{"a":1}', {"a": 1}),
    "array": (b'[{"error":{}}]', [{"error": {}}]),
    "scalar": (b'"x"', "x"),
    "HTML": (b"<html>", "<html>"),
    "not UTF-8": (b"\xff{", "\ufffd{"),
    "null": (b"null", "null"),
    "just not too long": (b'"' + b"x" * 4094 + b'"', "x" * 4094),
    "too long": (b'"' + b"x" * 4095 + b'"', '"' + "x" * 4095),
    "cut within a character": ("é".encode() * 3000, "é" * 2048),
    "too deep to be written": (b"[" * 300 + b"]" * 300, "[" * 300 + "]" * 300),
    "too deep to be read": (b"[" * 2000 + b"]" * 2000, "[" * 2000 + "]" * 2000),
    "just too deep below the error": (b"[" * 253 + b"]" * 253, "[" * 253 + "]" * 253),
}


@pytest.mark.parametrize(("upstream_body", "shown"), RAW.values(), ids=RAW)
def test_an_upstreams_body_is_shown_as_json_or_as_bounded_text(upstream_body: bytes, shown: Any) -> None:
    assert error_body.raw(upstream_body) == shown
    failure = Failure(K.SERVER_ERROR, "m", upstream_status=500, upstream_body=upstream_body)
    for api in (Api.CHAT, Api.MESSAGES):
        document = orjson.loads(error_body.body(failure, 502, api, [], "r"))
        assert document["error"]["metadata"]["raw"] == shown


@pytest.mark.parametrize("levels", range(245, 256))
def test_at_any_depth_a_body_can_be_written(levels: int) -> None:
    failure = Failure(K.SERVER_ERROR, "m", upstream_body=b'{"a":' * levels + b"1" + b"}" * levels)
    assert orjson.loads(error_body.body(failure, 502, Api.CHAT, [], "r"))["error"]["message"] == "m"


@pytest.mark.parametrize("api", [Api.CHAT, Api.COMPLETIONS, Api.RESPONSES, Api.MESSAGES])
@pytest.mark.parametrize("kind", [K.TRUNCATED, K.STALLED, K.SERVER_ERROR, K.INVALID_REQUEST, K.SHUTTING_DOWN])
def test_the_event_that_ends_a_broken_stream(api: Api, kind: FailureKind) -> None:
    event = error_body.event(Failure(kind, 'a "quote"\nand a line'), api, 7)
    assert event.endswith(b"\n\n")
    assert event.count(b"\n\n") == 1
    data = data_of(event)
    assert data is not None
    document = orjson.loads(data)
    assert document["error"]["message"] == 'a "quote"\nand a line'
    assert document["error"]["code"] == TABLE[kind].code
    if api in (Api.CHAT, Api.COMPLETIONS):
        assert name_of(event) is None
        assert set(document) == {"error"}
        assert set(document["error"]) == {"message", "type", "code", "param"}
    else:
        assert name_of(event) == b"error"
        assert document["type"] == "error"
    if api is Api.RESPONSES:
        assert (document["message"], document["code"]) == (document["error"]["message"], document["error"]["code"])
        assert document["sequence_number"] == 7


def test_who_should_send_again() -> None:
    again = {kind for kind in FailureKind if error_body.is_retryable(Failure(kind, "m"))}
    assert again == {
        *(K.THROTTLED, K.SHUTTING_DOWN, K.OVERLOADED_HERE, K.REQUEST_TIMEOUT, K.BUDGET_UNAVAILABLE, K.LIMIT_REACHED)
    }


@given(message=st.text(alphabet=st.characters(), max_size=20), surrogate=st.integers(0xD800, 0xDFFF))
def test_any_message_can_be_told(message: str, surrogate: int) -> None:
    """Undecodable bytes of a path or a header come as lone surrogates, which JSON cannot hold."""
    said = f"{message}{chr(surrogate)}"
    failure = Failure(K.UNKNOWN_PATH, said, param=said)
    attempts = [{"target": said, "message": said, "ms": 1.0}]
    assert orjson.loads(error_body.body(failure, 404, Api.CHAT, attempts, "r"))["error"]["message"].endswith("?")
    for api in (Api.CHAT, Api.RESPONSES, Api.MESSAGES):
        assert error_body.event(failure, api, 0).endswith(b"\n\n")
