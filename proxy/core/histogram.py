"""Latencies as a histogram of fixed, log-spaced buckets, held in one integer: adding histograms is adding integers.

Bucket 0 is below 1 ms, then five buckets an octave up to 2^20 ms (17 minutes); the last takes all above. A bucket is 40
bits of the integer, so it counts to 10^12. A quantile is told as the middle of its bucket: at most 7.2 % off. Fixed
buckets, because what was counted on different days and machines must add up (a sketch that adapts would not).
"""

import math
from typing import Final

BUCKETS: Final = 102
_PER_OCTAVE: Final = 5
_LANE_BITS: Final = 40
_LANE_MASK: Final = (1 << _LANE_BITS) - 1
_ONES: Final = tuple(1 << (_LANE_BITS * bucket) for bucket in range(BUCKETS))
_EDGES: Final = tuple(2 ** (bucket / _PER_OCTAVE) for bucket in range(BUCKETS - 1))  # lower edge of bucket 1, 2, ...


def bucket_of(ms: float) -> int:
    if ms < 1:
        return 0
    bucket = int(math.log2(ms) * _PER_OCTAVE) + 1
    return min(bucket, BUCKETS - 1)


def one(ms: float) -> int:
    """The histogram of one latency."""
    return _ONES[bucket_of(ms)]


def counts(histogram: int) -> list[int]:
    return [histogram >> (_LANE_BITS * bucket) & _LANE_MASK for bucket in range(BUCKETS)]


def quantile(histogram: int, share: float) -> float | None:
    """The latency that a share of the calls did not exceed. Units: milliseconds; None where nothing was counted."""
    counted = counts(histogram)
    total = sum(counted)
    if total == 0:
        return None
    rank, seen = max(1, math.ceil(share * total)), 0
    for bucket, count in enumerate(counted):
        seen += count
        if seen >= rank:
            return round(_middle(bucket), 3)
    raise AssertionError("the counts add up to the total")


def pack(histogram: int) -> bytes:
    """As a store keeps it: little-endian, as long as the highest bucket needs."""
    return histogram.to_bytes((histogram.bit_length() + 7) // 8, "little")


def unpack(packed: bytes) -> int:
    return int.from_bytes(packed, "little")


def _middle(bucket: int) -> float:
    if bucket == 0:
        return 0.5
    return _EDGES[bucket - 1] * 2 ** (0.5 / _PER_OCTAVE)
