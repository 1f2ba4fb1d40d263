"""What was encoded comes back; anything else is a miss, and nothing of it is run or grows."""

import pickle
import random
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import cached_answer
from proxy.core.cache_selector import Labels
from proxy.core.cached_answer import (
    BODY_BYTES_MAX,
    COMPRESSED_FROM_BYTES,
    CachedAnswer,
    Form,
    body_bytes,
    decode,
    encode,
)
from proxy.terms import Api, CacheKey
from tests.cached_answers import ANSWER, STREAM, answer, stream

KEY, OTHER = CacheKey("v1:0f0f"), CacheKey("v1:0f0e")

_TEXT = st.text(st.characters(exclude_categories=[]), max_size=10)
_SECONDS = st.floats(0, 1e11, allow_nan=False)
_ANSWERS = st.builds(
    CachedAnswer,
    api=st.sampled_from(Api),
    form=st.sampled_from(Form),
    status=st.integers(100, 599),
    content_type=_TEXT,
    headers=st.lists(st.tuples(_TEXT, _TEXT), max_size=4).map(tuple),
    body=st.binary(max_size=100) | st.builds(lambda piece, n: piece * n, st.binary(max_size=10), st.integers(0, 2000)),
    usage=st.none() | st.binary(max_size=20),
    cost_nanousd=st.none() | st.integers(0, 2**62),
    labels=st.builds(Labels, _TEXT, _TEXT, _TEXT, _TEXT, st.lists(_TEXT, max_size=3).map(tuple)),
    stored_at_s=_SECONDS,
    ttl_s=_SECONDS,
    generation=st.integers(0, 2**53),
)


@given(_ANSWERS, _TEXT)
def test_what_was_encoded_comes_back(given_answer: CachedAnswer, name: str) -> None:
    blob = encode(CacheKey(name), given_answer)
    assert decode(blob, CacheKey(name)) == given_answer
    assert decode(blob, CacheKey(name + "x")) is None
    assert body_bytes(blob) == len(given_answer.body)


def test_another_key_s_entry_is_a_miss() -> None:
    """F108: moved or restored under another tenant's key."""
    assert decode(encode(OTHER, ANSWER), KEY) is None


@pytest.mark.parametrize("given_answer", [answer(body=b"{}"), stream(COMPRESSED_FROM_BYTES // len(STREAM) + 1)])
def test_any_cut_and_any_flipped_bit_is_a_miss(given_answer: CachedAnswer) -> None:
    blob = encode(KEY, given_answer)
    assert decode(blob, KEY) == given_answer
    for length in range(len(blob)):
        assert decode(blob[:length], KEY) is None, length
    for place in range(8 * len(blob)):
        flipped = bytearray(blob)
        flipped[place // 8] ^= 1 << place % 8
        assert decode(bytes(flipped), KEY) is None, place
    assert decode(blob + b"\x00", KEY) is None


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_miss(data: bytes, signed: bool) -> None:
    assert decode(_signed(data) if signed else data, KEY) is None


def _signed(checked: bytes, version: int = cached_answer.FORMAT) -> bytes:
    """Bytes that pass for an entry by magic, version and checksum."""
    return cached_answer._START.pack(b"PNSA", version, cached_answer._checksum(checked)) + checked


def _entry(header: Any, body: bytes = b"{}", *, coding: int = 0, size: int | None = None) -> bytes:
    head = orjson.dumps(header)
    return _signed(struct.pack(">BII", coding, len(head), len(body) if size is None else size) + head + body)


def _header() -> dict[str, Any]:
    blob = encode(KEY, answer(body=b"{}"))
    return dict(orjson.loads(blob[cached_answer._HEADER_AT : -2]))


def test_an_entry_by_hand_is_one() -> None:
    assert decode(_entry(_header()), KEY) == answer(body=b"{}")


@pytest.mark.parametrize("value", [None, True, -1.5, "x", "\u20ac", [], [1], [["a"]], [["a", 1]], {}, {"a": 1}, 2**63])
@pytest.mark.parametrize("name", sorted(_header()))
def test_whatever_stands_in_a_header(name: str, value: object) -> None:
    """A writer with another idea of the format, and a good checksum."""
    found = decode(_entry({**_header(), name: value}), KEY)
    if found is not None:
        assert decode(encode(KEY, found), KEY) == found
        assert name in {
            "usage",
            "usage_asked",
            "cost_nanousd",
            "status",
            "generation",
            "content_type",
            "headers",
            "stored_at_s",
            "ttl_s",
        }


@pytest.mark.parametrize("name", sorted(_header()))
def test_a_header_without_one(name: str) -> None:
    header = _header()
    del header[name]
    found = decode(_entry(header), KEY)
    assert (found is None) == (name not in {"usage", "cost_nanousd"})


@pytest.mark.parametrize("header", [None, [], "x", 1, {}, {"key": KEY}])
def test_no_header(header: object) -> None:
    assert decode(_entry(header), KEY) is None


def test_other_versions() -> None:
    checked = encode(KEY, ANSWER)[cached_answer._START.size :]
    assert decode(_signed(checked), KEY) == ANSWER
    for version in (0, 2, 255):
        assert decode(_signed(checked, version), KEY) is None


def test_lengths_that_lie() -> None:
    header = _header()
    packed = zlib.compress(b"{}")
    assert decode(_entry(header, packed, coding=1, size=2), KEY) is not None
    for body, coding, size in (
        (packed, 1, 1),
        (packed, 1, 3),
        (packed + b"x", 1, 2),
        (packed[:-1], 1, 2),
        (b"{}", 1, 2),
        (b"{}", 2, 2),
        (b"{}", 0, 3),
        (b"{}", 0, BODY_BYTES_MAX + 1),
    ):
        assert decode(_entry(header, body, coding=coding, size=size), KEY) is None
    assert decode(_signed(struct.pack(">BII", 0, 2**32 - 1, 2) + b"{}"), KEY) is None


def test_a_bomb_does_not_grow() -> None:
    bomb = zlib.compress(bytes(64 * 1024 * 1024), 9)
    blob = _entry(_header(), bomb, coding=1, size=1000)
    tracemalloc.start()
    assert decode(blob, KEY) is None
    assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    tracemalloc.stop()


def test_pickle_is_not_run(tmp_path: Path) -> None:
    """F089."""
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (canary,)

    pickled = pickle.dumps(Evil())
    for blob in (pickled, _signed(pickled), _entry(_header(), pickled, coding=1, size=2)):
        assert decode(blob, KEY) is None
    assert not canary.exists()
    pickle.loads(pickled)  # noqa: S301 - to show that the canary would have sung
    assert canary.exists()  # it would have been


def test_bodies_are_compressed_where_that_makes_them_smaller() -> None:
    recorded = stream(200)
    assert len(encode(KEY, recorded)) < len(recorded.body) / 10
    noise = answer(body=random.Random(1).randbytes(3 * COMPRESSED_FROM_BYTES))
    assert len(noise.body) < len(encode(KEY, noise)) < len(noise.body) + 1000
    small = answer(body=b"a" * (COMPRESSED_FROM_BYTES - 1))
    assert encode(KEY, small).endswith(small.body)


def test_a_body_that_is_too_large_is_refused() -> None:
    assert decode(encode(KEY, answer(body=bytes(BODY_BYTES_MAX))), KEY) is not None
    with pytest.raises(ValueError, match="at most 16777216 bytes, this one has 16777217"):
        encode(KEY, answer(body=bytes(BODY_BYTES_MAX + 1)))
