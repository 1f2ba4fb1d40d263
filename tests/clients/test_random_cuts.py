"""An answer cut at any byte is never taken for a whole one, and a whole one is never taken for cut.

The upstream sends a stream up to a random byte, in random pieces, with or without a length of its own, and then ends as
it should, closes, or resets. openai-python reads what Penstock makes of it.
"""

import json
import random
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

import openai
import pytest
from openai import OpenAI

from tests.clients.raw import Cut
from tests.clients.stage import stage

pytestmark = pytest.mark.clients

SEED: Final = 20261121
CUTS: Final = 300
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
    text: str
    finish: str | None
    raised: Exception | None


def _read(client: OpenAI, model: str) -> Seen:
    text, finish = "", None
    try:
        for chunk in client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "?"}], stream=True
        ):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
    except Exception as raised:  # noqa: BLE001 - judged below
        return Seen(text, finish, raised)
    return Seen(text, finish, None)


def _verdict(cut: Cut, seen: Seen) -> str:
    """`whole`, `cut`, or what is wrong."""
    size = len(cut.sent)
    if not TEXT.startswith(seen.text):
        return f"words that nobody sent: {seen.text!r}"
    if seen.raised is None:
        if size < FINISH_SAID:
            return "silent truncation"
        return "whole" if (seen.text, seen.finish) == (TEXT, "stop") else f"ended well without its end: {seen}"
    if not isinstance(seen.raised, openai.APIError):
        return f"raised {seen.raised!r}"
    if size >= FINISHED and cut.end != "rst":  # a reset may take with it what was sent before
        return f"whole, and yet it raised {seen.raised!r}"
    return "cut"


def test_no_cut_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts: dict[str, str] = {}
    answered: Counter[str] = Counter()
    with stage(tmp_path, plan) as on:
        monkeypatch.setenv("OPENAI_BASE_URL", on.url)
        monkeypatch.setenv("OPENAI_API_KEY", "anything")
        with OpenAI() as client:
            for number in range(CUTS):
                model = f"cut-{number}"
                seen = _read(client, f"raw/{model}")
                verdicts[model] = _verdict(plan(model), seen)
                answered["after content" if seen.text and seen.raised else ""] += 1
        on.stop()
        exchanges = on.exchanges()
    wrong = {model: verdict for model, verdict in verdicts.items() if verdict not in ("whole", "cut")}
    assert wrong == {}
    counts = Counter(verdicts.values())
    assert counts["whole"] >= 50, counts
    assert answered["after content"] >= 100, answered
    assert len(exchanges) == CUTS, "none was sent again by the SDK"
    logged = {one["asked"].removeprefix("raw/"): one["outcome"] for one in exchanges}
    assert {model for model, outcome in logged.items() if outcome == "ok"} == {
        model for model, verdict in verdicts.items() if verdict == "whole"
    }
