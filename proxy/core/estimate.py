"""Tokens where a provider tells none, or where its answer broke off: counted from bytes, and marked as estimated.

No vocabulary is loaded: one that fits a provider is often not to be had, costs 60 MiB, and is wrong for all others.

- *Input*: ASCII at four bytes a token, CJK at three quarters of a token a character, other letters at 2.6 bytes. Against
  o200k that is 21 % too much for English, 31 % for Russian, 5 % and 3 % too little for Arabic and German, 15 % for Japanese
  (measured 2026-11-21). A body's own keys and braces are counted too. Data in base64 is not: an image counts as a thousand.
- *Output*: an event of a stream carries one token or more, so the events are a floor; what an event is larger than the
  envelope that each of them repeats is text. A whole body is counted by the texts in it.

Held by `tests/core/test_estimate.py`; recorded answers there stay within the factor that it names.
"""

from dataclasses import replace
from typing import Any, Final

from proxy.core.prompt import Prompt
from proxy.terms import Usage

IMAGE_TOKENS: Final = 1000  # a photograph at the usual resolution takes 700 to 1,600
AUDIO_BYTES_A_TOKEN: Final = 1000  # ten tokens a second, at the 64 kbit/s of a usual mp3, in base64
ENVELOPE_BYTES: Final = 320  # what an event of a chat stream repeats: 190 to 310 in recorded ones

_BYTES_A_TOKEN: Final = 4
_ANSWERS: Final = ("choices", "output", "content")
_SPOKEN: Final = frozenset(
    {"arguments", "content", "reasoning", "reasoning_content", "refusal", "text", "thinking", "transcript"}
)
_NOT_ASCII: Final = bytes(range(0x80, 0x100))
_CJK_LEADS: Final = bytes([*range(0xE3, 0xEE), 0xF0])  # of UTF-8: kana, Han, Hangul, and what lies beyond the BMP
_ESCAPE: Final = rb"\u"


def tokens_of_text(text: bytes, data_bytes: int = 0) -> int:
    """About how many tokens some UTF-8 text or JSON is, of which `data_bytes` are base64 and count nothing."""
    ascii_bytes, cjk, other_bytes = len(text), 0, 0
    if not text.isascii():
        ascii_bytes = len(text.translate(None, _NOT_ASCII))
        cjk = len(text) - len(text.translate(None, _CJK_LEADS))
        other_bytes = max(len(text) - ascii_bytes - 3 * cjk, 0)
    escapes = text.count(_ESCAPE)  # six bytes of ASCII for one character that is none
    ascii_bytes = max(ascii_bytes - 6 * escapes - data_bytes, 0)
    # 1/4, 3/4 and 5/13 (1/2.6) over their common denominator.
    return -(-(13 * ascii_bytes + 39 * (cjk + escapes) + 20 * other_bytes) // 52)


def input_tokens(prompt: Prompt, body: bytes | None = None) -> int:
    """About how many tokens a request is to the model. Without its body, its letters all count as ASCII."""
    if body is None:
        text = -(-prompt.text_bytes // _BYTES_A_TOKEN)
    else:
        text = tokens_of_text(body, prompt.image_bytes + prompt.audio_bytes)
    return text + prompt.images * IMAGE_TOKENS + -(-prompt.audio_bytes // AUDIO_BYTES_A_TOKEN)


def output_of_stream(relayed_bytes: int, events: int, *, envelope_bytes: int = ENVELOPE_BYTES) -> int:
    """About how many tokens a stream carried. ``envelope_bytes``: better the size of its own first event, where known."""
    return max(events, -(-(relayed_bytes - events * envelope_bytes) // _BYTES_A_TOKEN))


def output_of_body(document: dict[str, Any]) -> int:
    """About how many tokens a whole answer is: its texts, reasoning and arguments, wherever the APIs put them."""
    tokens = 0
    waiting = [document[name] for name in _ANSWERS if type(document.get(name)) in (list, dict)]
    while waiting:
        part = waiting.pop()
        if type(part) is list:
            waiting += [item for item in part if type(item) in (list, dict)]
            continue
        for name, value in part.items():
            if type(value) is str and name in _SPOKEN:
                tokens += tokens_of_text(value.encode("utf-8", "replace"))
            elif type(value) in (list, dict):
                waiting.append(value)
    return tokens


def fill(reported: Usage | None, guessed: Usage) -> Usage:
    """What was reported, with what it does not tell from the guess: for an answer that broke off, or was never counted.

    Messages tell their input at the start and of the output only the first token; a stream that is cut tells nothing.
    """
    if reported is None:
        return replace(guessed, estimated=True)
    known_input = reported.input_tokens > 0
    return replace(
        reported,
        input_tokens=reported.input_tokens if known_input else guessed.input_tokens,
        output_tokens=max(reported.output_tokens, guessed.output_tokens),
        estimated=not known_input or guessed.output_tokens > reported.output_tokens,
    )
