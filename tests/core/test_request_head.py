"""What the parser takes of a head, and is refused all the same."""

from typing import NamedTuple

import pytest

from proxy.core.failure import FailureKind
from proxy.core.request_head import FIELD_OVERHEAD_BYTES, HEAD_BYTES_MAX, is_too_long, not_text, refusal


class Row(NamedTuple):
    method: str
    target: str
    version: tuple[int, int]
    coding: str | None
    word: str


HTTP_1_1, HTTP_1_0 = (1, 1), (1, 0)


@pytest.mark.parametrize(
    ("method", "target", "version", "coding"),
    [
        ("POST", "/v1/chat/completions", HTTP_1_1, None),
        ("POST", "/v1/chat/completions", HTTP_1_1, "chunked"),
        ("GET", "/", HTTP_1_0, None),
        ("TRACE", "/v1/models", HTTP_1_1, None),  # refused by the table of paths, as any other method
    ],
)
def test_fine(method: str, target: str, version: tuple[int, int], coding: str | None) -> None:
    assert refusal(method, target, version, coding) is None


@pytest.mark.parametrize(
    "row",
    [
        Row("GET", "http://penstock/v1/models", HTTP_1_1, None, "path"),
        Row("OPTIONS", "*", HTTP_1_1, None, "path"),
        Row("CONNECT", "host:443", HTTP_1_1, None, "path"),
        Row("GET", "", HTTP_1_1, None, "path"),
        Row("CONNECT", "/v1/models", HTTP_1_1, None, "CONNECT"),
        Row("POST", "/", HTTP_1_1, "gzip, chunked", "transfer-encoding"),
        Row("POST", "/", HTTP_1_1, "Chunked", "transfer-encoding"),
        Row("POST", "/", HTTP_1_1, "", "transfer-encoding"),
        Row("POST", "/", HTTP_1_0, "chunked", "HTTP/1.0"),
        Row("GET", "/", (0, 9), None, "HTTP/1.1"),
        Row("PRI", "/", (2, 0), None, "HTTP/1.1"),
    ],
)
def test_s21_s27_refused(row: Row) -> None:
    failure = refusal(row.method, row.target, row.version, row.coding)
    assert failure is not None
    assert failure.kind is (FailureKind.WRONG_METHOD if row.word == "CONNECT" else FailureKind.BAD_REQUEST)
    assert row.word in failure.message


@pytest.mark.parametrize(("more", "expected"), [(0, False), (1, True)])
def test_s29_the_bound_of_a_head(more: int, expected: bool) -> None:
    field = (b"n" * 12, b"v" * (HEAD_BYTES_MAX // 4 - 12 - FIELD_OVERHEAD_BYTES))
    assert is_too_long([field] * 3 + [(field[0], field[1] + b"v" * more)]) is expected


def test_s26_a_value_that_is_no_text_is_told_by_its_name() -> None:
    assert not_text([(b"a", b"plain"), (b"b", "é".encode())]) is None
    failure = not_text([(b"a", b"plain"), (b"x-title", b"B\xfcro canary")])
    assert failure is not None
    assert "'x-title'" in failure.message
    assert "canary" not in failure.message
