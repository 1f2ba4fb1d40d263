import pytest

from proxy.core import lenient_json


@pytest.mark.parametrize(
    ("data", "document"),
    [
        (b'{"a":1}', {"a": 1}),
        (b'{"a":"\\ud83d"}', {"a": "\ud83d"}),
        (b'{"a":-Infinity}', {"a": float("-inf")}),
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        (b"\n\n  [1]", [1]),
    ],
)
def test_what_providers_send_is_read(data: bytes, document: object) -> None:
    assert lenient_json.loads(data) == document


@pytest.mark.parametrize("data", [b"", b"{", b"nope", b'{"a":1}x', b"[" * 100_000, b'{"a":"\xff"}'])
def test_what_nobody_reads_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        lenient_json.loads(data)
