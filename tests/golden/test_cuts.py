"""A cut is never passed off as an end: every golden stream, its connection ended at many places."""

import random
from dataclasses import replace
from typing import Final

import pytest

from tests.core.streams import cut_at
from tests.golden import oracle
from tests.golden.bench import Bench, Case, golden_cases
from tests.golden.replay import Framing, Scripted

STREAMS: Final = [
    pytest.param(case, id=case.name) for case in golden_cases() if case.streamed and case.expected["outcome"] == "ok"
]
CUTS: Final = 60
FRAMINGS: Final = [Framing.CHUNKED, Framing.CLOSE, Framing.LENGTH]


def offsets(body: bytes, seed: str) -> list[int]:
    """Where to cut: seeded, with the ends of some events among them, and never behind the last byte."""
    rng = random.Random(seed)
    at, ends = 0, []
    for event in oracle.events_of(body):
        at += len(event)
        ends += [at - 2, at - 1, at]
    ends = [end for end in ends if end < len(body)]
    chosen = set(rng.sample(ends, min(20, len(ends))))
    rest = [at for at in range(len(body)) if at not in chosen]
    return sorted(chosen | set(rng.sample(rest, CUTS - len(chosen))))


def cut_short(case: Case, at: int, framing: Framing) -> Scripted:
    """The first `at` bytes in a few writes, then the end of the connection."""
    rng = random.Random(at)
    start = case.body[:at]
    writes = cut_at(start, [rng.randrange(at + 1) for _ in range(3)])
    return replace(case.scripted(writes, framing), cut=True)


@pytest.mark.parametrize("framing", [pytest.param(framing, id=framing.value) for framing in FRAMINGS])
@pytest.mark.parametrize("case", STREAMS)
async def test_a_stream_that_is_cut_ends_so_that_the_client_notices(case: Case, framing: Framing, bench: Bench) -> None:
    for at in offsets(case.body, f"{case.name} {framing.value}"):
        seen = await bench.ask(case, cut_short(case, at, framing))
        answer, record = seen.answer, seen.record
        clean = framing is Framing.CLOSE
        expected = oracle.cut(case.body[:at], case.api, case.choices, withhold=case.asks_usage, clean=clean)
        if expected.complete:
            assert (answer.status, answer.end, answer.body) == (200, "whole", expected.body), at
            assert record["outcome"] == "ok", at
        elif expected.content:
            assert (answer.status, answer.end) == (200, "eof"), at
            assert answer.body.startswith(expected.body), at
            (last,) = oracle.events_of(answer.body.removeprefix(expected.body))
            oracle.check_stream_error(last, case.api, "upstream_incomplete")
            assert b"[DONE]" not in answer.body, at
            assert (record["outcome"], record["code"]) == ("partial", "upstream_incomplete"), at
        else:
            assert (answer.status, answer.end) == (502, "whole"), at
            assert answer.headers["content-type"].startswith("application/json"), at
            assert answer.error["code"] == "upstream_incomplete", at
            assert (record["outcome"], record["attempts"]) == ("failed", 1), at


@pytest.mark.parametrize("framing", [Framing.CHUNKED, Framing.LENGTH])
@pytest.mark.parametrize("case", STREAMS)
async def test_a_stream_that_came_whole_is_whole_whatever_its_framing_lacks(
    case: Case, framing: Framing, bench: Bench
) -> None:
    """All of the answer came, and then the connection ended without the end of its framing."""
    seen = await bench.ask(case, cut_short(case, len(case.body), framing))
    assert (seen.answer.end, seen.answer.body) == ("whole", case.relayed)
    assert seen.record.get("usage") == case.expected["usage"]


@pytest.mark.parametrize("framing", [Framing.CHUNKED, Framing.LENGTH])
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name) for case in golden_cases() if not case.streamed and case.status == 200],
)
async def test_a_json_answer_that_is_cut_is_never_begun(case: Case, framing: Framing, bench: Bench) -> None:
    rng = random.Random(case.name)
    for at in [0, len(case.body) - 1, *(rng.randrange(len(case.body)) for _ in range(20))]:
        seen = await bench.ask(case, cut_short(case, at, framing))
        assert (seen.answer.status, seen.answer.end) == (502, "whole"), at
        assert seen.answer.error["message"], at
        assert seen.record["outcome"] == "failed", at
