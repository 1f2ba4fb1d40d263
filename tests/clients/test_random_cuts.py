"""An answer cut at any byte is never taken for a whole one, and a whole one is never taken for cut.

The upstream sends a stream up to a random byte, in random pieces, with or without a length of its own, and then ends as
it should, closes, or resets. The SDKs read what Penstock makes of it: `cuts.py` and `node/cuts.mjs`.
"""

import json
import random
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

import pytest

from tests.clients.raw import Cut
from tests.clients.script import run_script
from tests.clients.sdks import CUT_READERS, CutReader
from tests.clients.stage import stage

pytestmark = pytest.mark.clients

SEED: Final = 20261121
CUTS: Final = 300
SOAK_CUTS: Final = 10_000
EACH_S: Final = 0.1  # what reading one may take, on a machine that does something else besides
_WORDS: Final = (
    "Das ",
    "Wasser ",
    "fällt — ",
    "水が ",
    "落ちる ",
    '"quoted" ',
    "\n\n",
    "data: [DONE] ",
    "🌊 ",
    "and ",
    "turns.",
)
TEXT: Final = "".join(_WORDS)


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _data({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


def _data(document: object) -> bytes:
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


_FINISH: Final = _event({}, "stop")
_USAGE: Final = _data(
    {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [],
        "usage": {"prompt_tokens": 5, "completion_tokens": 11, "total_tokens": 16},
    }
)
_EVENTS: Final = (
    _event({"role": "assistant", "content": ""}),
    *(_event({"content": word}) for word in _WORDS),
    _FINISH,
    _USAGE,
    b"data: [DONE]\n\n",
)
BODY: Final = b"".join(_EVENTS)
ENDS: Final = tuple(accumulate(map(len, _EVENTS)))  # where each event is over
FINISHED: Final = ENDS[_EVENTS.index(_FINISH)]
FINISH_SAID: Final = FINISHED - 2  # all of the last choice event but its blank line: it may count, or not


def plan(model: str) -> Cut:
    """The cut of `cut-<number>`: the same in every run."""
    rng = random.Random(f"{SEED}-{model}")
    size = rng.choice(
        (
            rng.randint(0, len(BODY)),
            rng.randint(0, len(BODY)),
            rng.choice(ENDS),
            rng.choice(ENDS) + rng.randint(-3, 3),
            len(BODY),
        )
    )
    size = min(max(size, 0), len(BODY))
    pieces = tuple(sorted(rng.randint(0, size) for _ in range(rng.randint(0, 8))))
    framing = rng.choice(("chunked", "chunked", "close"))
    return Cut(BODY[:size], pieces, framing, rng.choice(("clean", "fin", "rst")))


@dataclass(frozen=True, slots=True)
class Seen:
    """``own``: what was raised is the SDK's own kind of error, which programs catch."""

    text: str
    finish: str | None
    raised: str | None
    own: bool


def _verdict(cut: Cut, seen: Seen) -> str:
    """`whole`, `cut`, or what is wrong."""
    size = len(cut.sent)
    if not TEXT.startswith(seen.text):
        return f"words that nobody sent: {seen.text!r}"
    if seen.raised is None:
        if size < FINISH_SAID:
            return "silent truncation"
        return "whole" if (seen.text, seen.finish) == (TEXT, "stop") else f"ended well without its end: {seen}"
    if not seen.own:
        return f"raised {seen.raised}"
    if size >= FINISHED and cut.end != "rst":  # a reset may take with it what was sent before
        return f"whole, and yet it raised {seen.raised}"
    return "cut"


@pytest.mark.parametrize("count", [CUTS, pytest.param(SOAK_CUTS, marks=pytest.mark.soak)])
@pytest.mark.parametrize("reader", CUT_READERS, ids=[reader.name for reader in CUT_READERS])
def test_no_cut_is_silent(reader: CutReader, count: int, tmp_path: Path) -> None:
    with stage(tmp_path, plan) as on:
        environ = {"OPENAI_BASE_URL": on.url, "OPENAI_API_KEY": "anything"}
        ran = run_script(reader.name, reader.command(count), environ, on, within_s=30 + count * EACH_S)
    seen = {model: Seen(**facts) for model, facts in ran.facts.items()}
    assert len(seen) == count
    verdicts = {model: _verdict(plan(model), one) for model, one in seen.items()}
    assert {model: verdict for model, verdict in verdicts.items() if verdict not in ("whole", "cut")} == {}
    counts = Counter(verdicts.values())
    after_content = sum(1 for one in seen.values() if one.text and one.raised is not None)
    print(f"{reader.name} {ran.version}: {counts['whole']} whole, {counts['cut']} cut, {after_content} after content")
    assert counts["whole"] >= count // 6, counts
    assert after_content >= count // 3
    assert ran.bugs == []
    assert len(ran.exchanges) == count, "none was sent again by the SDK"
    logged = {one["asked"].removeprefix("raw/"): one["outcome"] for one in ran.exchanges}
    assert {model for model, outcome in logged.items() if outcome == "ok"} == {
        model for model, verdict in verdicts.items() if verdict == "whole"
    }
