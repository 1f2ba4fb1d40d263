"""Streams to try a parser with: every way to chunk them, and what real providers were recorded to send."""

import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

RECORDINGS = os.environ.get("PENSTOCK_RECORDINGS")
WITHOUT_RECORDINGS = "PENSTOCK_RECORDINGS is not set: recorded provider answers are not tried"


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded answer: its body as it came, and what its `.meta` says of it."""

    name: str
    body: bytes
    meta: dict[str, Any]


def recordings(suffix: str, wanted: Callable[[Recording], bool] = lambda _: True) -> list[Any]:
    """Parameters for a test: every wanted recording whose file ends so, or one that skips and says why."""
    if not RECORDINGS:
        return [pytest.param(None, marks=pytest.mark.skip(reason=WITHOUT_RECORDINGS), id="no recordings")]
    folder = Path(RECORDINGS)
    found = []
    for path in sorted(folder.glob(f"*/*{suffix}")):
        name = str(path.relative_to(folder))
        meta = json.loads(path.with_suffix(".meta").read_text("utf-8"))
        found.append(Recording(name, path.read_bytes(), meta))
    return [pytest.param(recording, id=recording.name) for recording in found if wanted(recording)]


def sliced(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def cut_at(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def chunkings(data: bytes, *, seed: int = 7) -> Iterator[tuple[str, list[bytes]]]:
    """The ways in which a network may deliver bytes: whole, event by event, byte by byte, at random, inside characters."""
    yield "whole", [data]
    *events, last = data.split(b"\n\n")
    yield "by event", [*(event + b"\n\n" for event in events), last]
    yield "by byte", sliced(data, 1)
    yield "by seven", sliced(data, 7)
    inside = [at for at, byte in enumerate(data) if byte & 0xC0 == 0x80]
    yield "inside characters", cut_at(data, inside or [0])
    rng = random.Random(seed)
    for number in range(3):
        yield f"random {number}", cut_at(data, [rng.randrange(len(data) + 1) for _ in range(1 + len(data) // 40)])
