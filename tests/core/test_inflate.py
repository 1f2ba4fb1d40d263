"""Content codings against the standard library, in any chunking; bombs and cuts bounded."""

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.inflate import FREE_BYTES, RATIO_MAX, STEP_BYTES_MAX, CodingError, Inflater, is_known
from tests.core.streams import cut_at, sliced


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
}
_NOISE = random.Random(5).randbytes(3 * STEP_BYTES_MAX)
BODIES = {
    "nothing": b"",
    "a byte": b"x",
    "JSON": b'{"error":{"message":"m"}}' * 50,
    "noise": _NOISE,
    "a step": bytes(STEP_BYTES_MAX),
    "a step and a bit": bytes(STEP_BYTES_MAX + 100),
    "two steps": bytes(2 * STEP_BYTES_MAX),
    "several steps": b"abc" * (STEP_BYTES_MAX // 2),
}


def inflate(coding: str, chunks: list[bytes]) -> tuple[bytes, bool]:
    inflater = Inflater(coding)
    out = []
    for chunk in chunks:
        for step in inflater.feed(chunk):
            assert 0 < len(step) <= STEP_BYTES_MAX
            out.append(step)
    return b"".join(out), inflater.finished


@pytest.mark.parametrize("size", [1, 1000, 10**9])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize(("coding", "pack"), CODINGS.values(), ids=CODINGS)
def test_a_body_comes_back_in_any_chunking(coding: str, pack: Callable[[bytes], bytes], body: bytes, size: int) -> None:
    packed = pack(body)
    if size == 1 and len(packed) > 10_000:
        packed = pack(body[:5000])
        body = body[:5000]
    assert inflate(coding, sliced(packed, size)) == (body, True)


@pytest.mark.parametrize("trailing", [b"\0", b"garbage" * 10, b"\0" * 1000])
@pytest.mark.parametrize(("coding", "pack"), CODINGS.values(), ids=CODINGS)
def test_what_follows_the_end_is_dropped(coding: str, pack: Callable[[bytes], bytes], trailing: bytes) -> None:
    packed = pack(b"hello" * 100)
    for size in (1, 7, 10**9):
        assert inflate(coding, sliced(packed + trailing, size)) == (b"hello" * 100, True)


@pytest.mark.parametrize("over", range(0, 2600, 13))
def test_raw_deflate_owes_nothing_where_a_step_is_full(over: int) -> None:
    """Without a trailer, all input may be taken while output is still due."""
    data = bytes(STEP_BYTES_MAX + over)
    assert inflate("deflate", [raw_deflate(data)]) == (data, True)


@pytest.mark.parametrize(("coding", "pack"), CODINGS.values(), ids=CODINGS)
def test_a_cut_body_is_never_finished(coding: str, pack: Callable[[bytes], bytes]) -> None:
    body = b"hello, " * 40 + random.Random(1).randbytes(100)
    packed = pack(body)
    for at in range(len(packed)):
        out, finished = inflate(coding, [packed[:at]])
        assert not finished, at
        assert body.startswith(out), at


def test_a_flushed_stream_is_not_held_back() -> None:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    inflater = Inflater("gzip")
    for number in range(20):
        event = b'data: {"n":%d}\n\n' % number
        packed = packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH)
        assert b"".join(inflater.feed(packed)) == event
    assert not inflater.finished


BROKEN = {
    "text": ("gzip", b"hello, this is no gzip"),
    "zlib as gzip": ("gzip", zlib.compress(b"x")),
    "gzip as deflate": ("deflate", gzip.compress(b"x" * 100)),
    "text as deflate": ("deflate", b"\xff\xff\xff hello"),
    "a wrong checksum": ("gzip", gzip.compress(b"hello")[:-8] + b"\0" * 8),
    "a wrong adler": ("deflate", zlib.compress(b"hello")[:-1] + b"\0"),
    "a dictionary": ("deflate", b"\x78\xbb\0\0\0\0" + b"\0" * 10),
}


@pytest.mark.parametrize("size", [1, 10**9])
@pytest.mark.parametrize(("coding", "data"), BROKEN.values(), ids=BROKEN)
def test_what_is_not_its_coding_is_an_error(coding: str, data: bytes, size: int) -> None:
    with pytest.raises(CodingError):
        inflate(coding, sliced(data, size))


def packed_zeros(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(mebibytes)) + packer.flush()


def test_a_bomb_is_bounded_in_size_and_in_memory() -> None:
    bomb = packed_zeros(256)
    for size in (100, 65_536, 10**9):
        inflater = Inflater("gzip")
        given = 0

        def feed(inflater: Inflater = inflater, size: int = size) -> int:
            total = 0
            for chunk in sliced(bomb, size):
                for step in inflater.feed(chunk):
                    total += len(step)
                    assert total <= max(FREE_BYTES, RATIO_MAX * len(bomb)) + STEP_BYTES_MAX
            return total

        tracemalloc.start()
        with pytest.raises(CodingError, match="200 times"):
            given = feed()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert given == 0
        assert peak < 4 * STEP_BYTES_MAX + 2 * len(bomb)


def test_bytes_behind_the_end_are_not_kept() -> None:
    inflater = Inflater("gzip")
    assert b"".join(inflater.feed(gzip.compress(b"x"))) == b"x"
    tracemalloc.start()
    for _ in range(100):
        assert list(inflater.feed(bytes(2**20))) == []
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 3 * 2**20


def test_a_small_body_may_grow_freely() -> None:
    body = bytes(FREE_BYTES)
    assert inflate("gzip", [gzip.compress(body)]) == (body, True)


@given(
    data=st.binary(max_size=200),
    cuts=st.lists(st.integers(0, 200), max_size=4),
    coding=st.sampled_from(["gzip", "deflate"]),
)
def test_any_bytes_are_decoded_or_an_error(data: bytes, cuts: list[int], coding: str) -> None:
    try:
        whole = inflate(coding, [data])
    except CodingError:
        with pytest.raises(CodingError):
            inflate(coding, cut_at(data, cuts))
    else:
        assert inflate(coding, cut_at(data, cuts)) == whole


@pytest.mark.parametrize(
    ("coding", "known"),
    [
        ("gzip", True),
        ("x-gzip", True),
        ("deflate", True),
        ("br", False),
        ("zstd", False),
        ("gzip, gzip", False),
        ("", False),
    ],
)
def test_known_codings(coding: str, known: bool) -> None:
    assert is_known(coding) is known
