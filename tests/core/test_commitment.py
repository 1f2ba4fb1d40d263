"""The tap against a reference that knows what every event of a stream means, over chunkings, cuts and faults."""

import json
import re
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.core.commitment import Fault, StreamTap
from proxy.core.dialect import DIALECTS, Dialect, well_formed
from proxy.core.sse import COPY_BYTES_MAX, HELD_BYTES_MAX
from proxy.terms import Api
from tests.core.streams import Recording, chunkings, cut_at, recordings, sliced

# Events and what they mean.


class Means(Enum):
    NOTHING = auto()  # a comment, a bare `event:` line
    PREFACE = auto()
    CONTENT = auto()
    FINISH = auto()
    USAGE_ONLY = auto()
    TERMINAL = auto()
    DONE = auto()
    ERROR = auto()
    MALFORMED = auto()


class Piece(NamedTuple):
    raw: bytes
    means: Means
    choice: int | None = 0
    figures: dict[str, Any] | None = None


USAGE: Final = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


def data(document: object, *, name: str = "", spaced: bool = False) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    text = json.dumps(document, separators=separators, ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def chunk(delta: dict[str, Any], finish: str | None = None, *, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **more}


def preface(*, index: int = 0, **more: Any) -> Piece:
    return Piece(data(chunk({"role": "assistant", "content": ""}, index=index, **more)), Means.PREFACE, index)


def says(text: str, *, index: int = 0, **more: Any) -> Piece:
    return Piece(data(chunk({"content": text}, index=index, **more)), Means.CONTENT, index)


def finish(*, index: int = 0, reason: str = "stop", figures: dict[str, Any] | None = None, **more: Any) -> Piece:
    return Piece(data(chunk({}, reason, index=index, **more)), Means.FINISH, index, figures)


def usage_only(**more: Any) -> Piece:
    return Piece(data({"id": "c", "choices": [], "usage": USAGE, **more}), Means.USAGE_ONLY, None, USAGE)


def comment(text: str = ": OPENROUTER PROCESSING") -> Piece:
    return Piece(f"{text}\n\n".encode(), Means.NOTHING, None)


def event(kind: str, means: Means, figures: dict[str, Any] | None = None, **more: Any) -> Piece:
    return Piece(data({"type": kind, **more}, name=kind), means, None, figures)


DONE: Final = Piece(b"data: [DONE]\n\n", Means.DONE, None)
TAKEN: Final = {"input_tokens": 3, "output_tokens": 4}

CHAT: Final[dict[str, list[Piece]]] = {
    "OpenAI": [
        preface(usage=None),
        says("é", usage=None),
        says(' "finish_reason":"stop" \u2028', usage=None),
        finish(usage=None),
        usage_only(),
        DONE,
    ],
    "OpenRouter": [
        comment(),
        comment(),
        preface(provider="x"),
        says("a"),
        comment(),
        finish(),
        Piece(data(chunk({"content": ""}, usage={**USAGE, "cost": 0.1})), Means.PREFACE, 0, {**USAGE, "cost": 0.1}),
        DONE,
    ],
    "Mistral": [preface(), says("a"), finish(figures=USAGE, usage=USAGE), DONE],
    "Groq": [
        preface(x_groq={"id": "r"}),
        says("a"),
        finish(figures=USAGE, x_groq={"id": "r", "usage": USAGE}),
        usage_only(),
        DONE,
    ],
    "Moonshot": [
        preface(),
        says("a"),
        Piece(
            data({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]}),
            Means.FINISH,
            0,
            USAGE,
        ),
        DONE,
    ],
    "Azure": [
        Piece(
            data({"choices": [], "id": "", "prompt_filter_results": [{"prompt_index": 0}], "usage": None}),
            Means.PREFACE,
            None,
        ),
        preface(),
        says("a"),
        finish(),
        DONE,
    ],
    "Snowflake": [preface(), says("a"), says("b"), usage_only(), DONE],
    "vLLM": [
        Piece(data(chunk({"role": "assistant"}, usage=USAGE)), Means.PREFACE, 0, USAGE),
        Piece(data(chunk({"content": "a"}, usage=USAGE)), Means.CONTENT, 0, USAGE),
        finish(figures=USAGE, usage=USAGE),
        usage_only(),
        DONE,
    ],
    "llama.cpp": [comment(":"), preface(), says("a"), comment(":"), finish(), usage_only(timings={"n": 1}), DONE],
    "without [DONE]": [preface(), says("a"), finish()],
    "spaced": [
        Piece(data(chunk({"content": "a"}), spaced=True), Means.CONTENT),
        Piece(data(chunk({"content": "b"}), spaced=True), Means.CONTENT),
        Piece(data(chunk({}, "length"), spaced=True), Means.FINISH),
        DONE,
    ],
    "space before the colon": [
        Piece(data(chunk({"content": "a"})).replace(b'":', b'" :'), Means.CONTENT),
        Piece(data(chunk({"content": "b"})).replace(b'":', b'" :'), Means.CONTENT),
        Piece(data(chunk({}, "stop", usage=USAGE)).replace(b'":', b'" :'), Means.FINISH, 0, USAGE),
    ],
    "what looks like the end": [
        says("a"),
        comment(": data: [DONE]"),
        says("b"),
        Piece(b"x: data: [DONE]\n\n", Means.NOTHING, None),
        finish(),
        comment(": data: [DONE]"),
        DONE,
    ],
    "reasoning": [Piece(data(chunk({"reasoning_content": "a"})), Means.CONTENT), finish(), DONE],
    "tools": [
        Piece(
            data(chunk({"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": ""}}]})),
            Means.CONTENT,
        ),
        Piece(data(chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a'}}]})), Means.CONTENT),
        finish(reason="tool_calls"),
        DONE,
    ],
    "finish alone": [preface(), finish(reason="content_filter"), DONE],
    "named events": [
        Piece(data(chunk({"content": "a"}), name="chunk"), Means.CONTENT),
        Piece(data(chunk({"content": "b"}), name="chunk"), Means.CONTENT),
        Piece(data(chunk({}, "stop"), name="chunk"), Means.FINISH),
        Piece(b"event: done\ndata: [DONE]\n\n", Means.DONE, None),
    ],
    "three line feeds": [says("a"), comment(""), says("b"), comment(""), finish(), DONE],
    "no space": [
        Piece(data(chunk({"content": "a"})).replace(b"data: ", b"data:"), Means.CONTENT),
        Piece(data(chunk({}, "stop")).replace(b"data: ", b"data:"), Means.FINISH),
        Piece(b"data:[DONE]\n\n", Means.DONE, None),
    ],
    "ids": [
        Piece(b"id: 1\n" + data(chunk({"content": "a"})), Means.CONTENT),
        Piece(data(chunk({}, "stop"))[:-1] + b"id: 2\n\n", Means.FINISH),
        DONE,
    ],
}
COMPLETIONS: Final[dict[str, list[Piece]]] = {
    "Ollama": [
        Piece(
            data({"choices": [{"text": "", "index": 0, "finish_reason": None}], "usage": dict.fromkeys(USAGE, 0)}),
            Means.PREFACE,
        ),
        Piece(
            data({"choices": [{"text": "a", "index": 0, "finish_reason": None}], "usage": dict.fromkeys(USAGE, 0)}),
            Means.CONTENT,
        ),
        Piece(
            data({"choices": [{"text": "", "index": 0, "finish_reason": "stop"}], "usage": USAGE}),
            Means.FINISH,
            0,
            USAGE,
        ),
        DONE,
    ],
}
RESPONSES: Final[dict[str, list[Piece]]] = {
    "OpenAI": [
        event("response.created", Means.PREFACE, response={"error": None, "status": "in_progress"}),
        event("response.in_progress", Means.PREFACE, response={"error": None}),
        event("response.output_item.added", Means.CONTENT, item={"type": "message"}),
        event("response.output_text.delta", Means.CONTENT, delta='"response.completed" é'),
        event("response.completed", Means.TERMINAL, TAKEN, response={"error": None, "usage": TAKEN}),
    ],
    "name behind the data": [
        Piece(b'data: {"type":"response.created"}\nevent: response.created\n\n', Means.PREFACE, None),
        Piece(
            b'data: {"type":"response.output_text.delta","delta":"a"}\nevent: response.output_text.delta\n\n',
            Means.CONTENT,
            None,
        ),
        Piece(b'data: {"type":"response.completed"}\nevent: response.completed\n\n', Means.TERMINAL, None),
    ],
    "without names": [
        Piece(data({"type": "response.queued"}), Means.PREFACE, None),
        Piece(data({"type": "response.refusal.delta", "delta": "a"}), Means.CONTENT, None),
        Piece(data({"type": "response.incomplete", "response": {"usage": TAKEN}}), Means.TERMINAL, None, TAKEN),
    ],
    "failed after content": [
        event("response.output_text.delta", Means.CONTENT, delta="a"),
        event("response.failed", Means.TERMINAL, response={"error": {"code": "server_error"}}),
    ],
}
MESSAGES: Final[dict[str, list[Piece]]] = {
    "Anthropic": [
        event("message_start", Means.PREFACE, TAKEN, message={"usage": TAKEN}),
        event("ping", Means.PREFACE),
        event("content_block_start", Means.CONTENT, index=0, content_block={"type": "text", "text": ""}),
        event("content_block_delta", Means.CONTENT, index=0, delta={"type": "text_delta", "text": "message_stop é"}),
        event("ping", Means.CONTENT),
        event("content_block_stop", Means.CONTENT, index=0),
        event(
            "message_delta",
            Means.CONTENT,
            {"output_tokens": 9},
            delta={"stop_reason": "end_turn"},
            usage={"output_tokens": 9},
        ),
        event("message_stop", Means.TERMINAL),
    ],
}
SPOKEN: Final[dict[str, list[Piece]]] = {
    "OpenAI": [
        event("transcript.text.delta", Means.CONTENT, delta="High"),
        event("transcript.text.segment", Means.CONTENT, text='"transcript.text.done"'),
        event("transcript.text.done", Means.TERMINAL, TAKEN, text="High", usage=TAKEN),
    ],
}
SOUND: Final[dict[str, list[Piece]]] = {
    "OpenAI": [
        event("speech.audio.delta", Means.CONTENT, audio="AAAA"),
        event("speech.audio.delta", Means.CONTENT, audio="BBBB"),
        event("speech.audio.done", Means.TERMINAL, TAKEN, usage=TAKEN),
    ],
}


def image(kind: str, means: Means, figures: dict[str, Any] | None = None, **more: Any) -> Piece:
    return Piece(data({"type": kind, **more}, name=kind), means, 0 if means is Means.FINISH else None, figures)


PICTURES: Final[dict[str, list[Piece]]] = {
    "OpenAI": [
        image("image_generation.partial_image", Means.CONTENT, b64_json="iVBOR", partial_image_index=0),
        image("image_generation.completed", Means.FINISH, TAKEN, b64_json="iVBOR", usage=TAKEN),
    ],
    "an edit": [
        image("image_edit.partial_image", Means.CONTENT, b64_json="iVBOR"),
        image("image_edit.completed", Means.FINISH, b64_json="iVBOR"),
        DONE,
    ],
}

STREAMS: Final = {
    f"{api.value}: {name}": (api, pieces)
    for api, table in (
        (Api.CHAT, CHAT),
        (Api.COMPLETIONS, COMPLETIONS),
        (Api.RESPONSES, RESPONSES),
        (Api.MESSAGES, MESSAGES),
        (Api.TRANSCRIPTIONS, SPOKEN),
        (Api.SPEECH, SOUND),
        (Api.IMAGES, PICTURES),
    )
    for name, pieces in table.items()
}


# The reference: the rules of "Endings", over the meanings.


@dataclass(slots=True)
class Outcome:
    out: bytes = b""
    content: bool = False
    done: bool = False
    complete: bool = False
    fault: Fault | None = None
    figures: dict[str, Any] | None = None


@dataclass(slots=True)
class Reference:
    wanted: int
    withhold: bool
    found: Outcome = field(default_factory=Outcome)
    data_seen: bool = False
    seen: set[int] = field(default_factory=set)
    finished: set[int] = field(default_factory=set)

    def take(self, piece: Piece) -> None:
        match piece.means:
            case Means.NOTHING:
                self.found.out += piece.raw
            case Means.ERROR:
                self.found.fault = Fault.ERROR_EVENT
            case Means.MALFORMED:
                self.found.fault = Fault.MALFORMED
            case Means.DONE if not self.found.content:
                self.found.fault = Fault.EMPTY
            case Means.DONE:
                self.found.out += piece.raw
                self.found.done = True
            case _:
                self.take_data(piece)

    def take_data(self, piece: Piece) -> None:
        self.data_seen = True
        self.found.content |= piece.means in (Means.CONTENT, Means.FINISH, Means.TERMINAL)
        if piece.figures is not None:
            self.found.figures = {**(self.found.figures or {}), **piece.figures}
        if piece.choice is not None:
            self.seen.add(piece.choice)
            self.finished |= {piece.choice} if piece.means is Means.FINISH else set()
        if piece.means is not Means.USAGE_ONLY or not self.withhold:
            self.found.out += piece.raw
        self.found.done = piece.means is Means.TERMINAL

    def end(self, *, clean: bool) -> None:
        if self.found.done or self.found.fault is not None:
            return
        whole = self.finished and self.seen == self.finished and (clean or len(self.finished) >= self.wanted)
        if not whole:
            self.found.fault = Fault.CUT if self.data_seen else Fault.EMPTY


def reference(pieces: list[Piece], *, clean: bool = True, wanted: int = 1, withhold: bool = False) -> Outcome:
    slow = Reference(wanted, withhold)
    for piece in pieces:
        slow.take(piece)
        if slow.found.done or slow.found.fault is not None:
            break
    slow.end(clean=clean)
    slow.found.complete = slow.found.fault is None
    return slow.found


def run(tap: StreamTap, chunks: list[bytes], *, clean: bool = True) -> Outcome:
    """What a tap makes of a stream; `on_boundary` and the finality of its states are held on the way."""
    out: list[bytes] = []
    for number, piece in enumerate(chunks):
        before = tap.content
        out.append(tap.feed(piece))
        assert tap.content or not before
        if tap.is_over():
            assert tap.feed(b"".join(chunks[number:]) + b"data: {}\n\n") == b""
            break
    out.append(tap.finish(clean=clean))
    assert tap.finish(clean=clean) == b"" or not tap.is_over()
    assert tap.complete == (tap.fault is None)
    return Outcome(b"".join(out), tap.content, tap.done or tap.ending, tap.complete, tap.fault, tap.figures)


def bytes_of(pieces: list[Piece]) -> bytes:
    return b"".join(piece.raw for piece in pieces)


ENDED: Final = {name: row for name, row in STREAMS.items() if reference(row[1]).done}


# Any chunking.


@pytest.mark.parametrize("withhold", [False, True])
@pytest.mark.parametrize(("api", "pieces"), STREAMS.values(), ids=STREAMS)
def test_a_stream_is_the_same_in_any_chunking(api: Api, pieces: list[Piece], withhold: bool) -> None:
    expected = reference(pieces, withhold=withhold)
    assert expected.complete
    for how, chunks in chunkings(bytes_of(pieces)):
        assert run(StreamTap(DIALECTS[api], withhold_usage=withhold), chunks) == expected, how


@pytest.mark.parametrize(
    "trailing", [b"data: {}\n\n", b"garbage", b"\n\n", b"data: [DONE]\n\n", b'data: {"error":{}}\n\n']
)
@pytest.mark.parametrize(("api", "pieces"), ENDED.values(), ids=ENDED)
def test_nothing_after_the_end_is_relayed(api: Api, pieces: list[Piece], trailing: bytes) -> None:
    expected = reference(pieces)
    if trailing == DONE.raw and pieces[-1].means is Means.TERMINAL:
        expected = replace(expected, out=expected.out + DONE.raw)  # OpenRouter ends its Responses so
    for how, chunks in chunkings(bytes_of(pieces) + trailing):
        assert run(StreamTap(DIALECTS[api]), chunks, clean=False) == expected, how


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
@pytest.mark.parametrize(("api", "pieces"), STREAMS.values(), ids=STREAMS)
def test_other_line_ends(api: Api, pieces: list[Piece], end: bytes) -> None:
    expected = reference([piece._replace(raw=piece.raw.replace(b"\n", end)) for piece in pieces])
    for how, chunks in chunkings(bytes_of(pieces).replace(b"\n", end)):
        found = run(StreamTap(DIALECTS[api]), chunks)
        # The last LF of a CRLF that came alone belongs to nothing once the stream is over.
        tolerated = expected.out.removesuffix(b"\n") if end == b"\r\n" else expected.out
        assert found.out in (expected.out, tolerated), how
        assert replace(found, out=b"") == replace(expected, out=b""), how


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize(("api", "pieces"), STREAMS.values(), ids=STREAMS)
def test_a_missing_last_blank_line_is_added(api: Api, pieces: list[Piece], missing: int) -> None:
    expected = reference(pieces)
    for how, chunks in chunkings(bytes_of(pieces)[:-missing]):
        assert run(StreamTap(DIALECTS[api]), chunks) == expected, how


@pytest.mark.parametrize("half", [b"e", b"event: response.out", b"id: 1", b": c"])
def test_a_half_line_behind_the_data_is_never_relayed(half: bytes) -> None:
    tap = StreamTap(DIALECTS[Api.RESPONSES])
    stream = FIRST[Api.RESPONSES] + b'data: {"type":"response.output_text.delta"}\n' + half
    assert run(tap, [stream], clean=False).out == FIRST[Api.RESPONSES]
    assert tap.fault is Fault.CUT


def test_a_bom_passes() -> None:
    stream = b"\xef\xbb\xbf" + bytes_of(CHAT["OpenAI"])
    for how, chunks in chunkings(stream):
        assert run(StreamTap(DIALECTS[Api.CHAT]), chunks).out == stream, how


def _wordy(dialect: Dialect) -> Dialect:
    """The same dialect, but every event is decoded."""
    return replace(dialect, markers=re.compile(b""))


_PIECES: Final = [
    preface(),
    says("a"),
    says("b"),
    says('\\"error\\"'),
    says("x" * 300),
    comment(),
    comment(":"),
    comment(""),
    comment(": data: [DONE]"),
    Piece(b"event: ping\n\n", Means.NOTHING, None),
    Piece(data(chunk({"content": "n"}), name="chunk"), Means.CONTENT),
    Piece(data(chunk({"content": "s"}), spaced=True), Means.CONTENT),
    Piece(b"data:" + data(chunk({"content": "t"}))[6:], Means.CONTENT),
    Piece(b'data: {"choices":\ndata: [{"index":0,"delta":{"content":"u"}}]}\n\n', Means.CONTENT),
    usage_only(),
    finish(),
    finish(figures=USAGE, usage=USAGE),
    DONE,
    Piece(data({"error": {"message": "m"}}), Means.ERROR, None),
    Piece(b"data: oops\n\n", Means.MALFORMED, None),
    Piece(b'data: {"a":1\n\n', Means.MALFORMED, None),
]


@settings(max_examples=500)
@given(
    pieces=st.lists(st.sampled_from(_PIECES), max_size=10),
    cuts=st.lists(st.integers(0, 2000), max_size=8),
    clean=st.booleans(),
    withhold=st.booleans(),
)
@example(pieces=[says("a"), says("b"), comment("")], cuts=[120], clean=True, withhold=False)
@example(pieces=[comment(), comment(""), _PIECES[18]], cuts=[26], clean=False, withhold=False)
def test_any_stream_ends_as_the_reference_says(
    pieces: list[Piece], cuts: list[int], clean: bool, withhold: bool
) -> None:
    expected = reference(pieces, clean=clean, withhold=withhold)
    chunks = cut_at(bytes_of(pieces), cuts)
    dialect = DIALECTS[Api.CHAT]
    assert run(StreamTap(dialect, withhold_usage=withhold), chunks, clean=clean) == expected
    assert run(StreamTap(_wordy(dialect), withhold_usage=withhold), chunks, clean=clean) == expected


@settings(max_examples=300)
@given(
    pieces=st.lists(
        st.sampled_from(
            [says("a"), says("b", index=1), finish(), finish(index=1), preface(index=1), usage_only(), comment(), DONE]
        ),
        max_size=8,
    ),
    cuts=st.lists(st.integers(0, 1200), max_size=5),
    clean=st.booleans(),
)
def test_two_choices_end_as_the_reference_says(pieces: list[Piece], cuts: list[int], clean: bool) -> None:
    expected = reference(pieces, clean=clean, wanted=2)
    assert run(StreamTap(DIALECTS[Api.CHAT], choices=2), cut_at(bytes_of(pieces), cuts), clean=clean) == expected


@pytest.mark.parametrize(("api", "pieces"), STREAMS.values(), ids=STREAMS)
def test_the_quiet_way_and_the_slow_way_agree(api: Api, pieces: list[Piece]) -> None:
    stream = bytes_of(pieces)
    for how, chunks in chunkings(stream):
        quiet, wordy = StreamTap(DIALECTS[api]), StreamTap(_wordy(DIALECTS[api]))
        assert run(quiet, chunks) == run(wordy, chunks), how
        assert quiet.data_events == wordy.data_events, how


@settings(max_examples=500)
@given(
    stream=st.lists(
        st.sampled_from(
            [b"\n", b"\n\n", b"\r", b"data: ", b"data:", b"{", b"}", b'"error"', b"[DONE]", b"event: error", b":"]
        ),
        max_size=14,
    ).map(b"".join),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    begun=st.booleans(),
    api=st.sampled_from(list(DIALECTS)),
)
@example(stream=b"\n\n\n", cuts=[], begun=True, api=Api.CHAT)
@example(stream=b"event: x\ndata: [DONE]\n\n", cuts=[], begun=True, api=Api.CHAT)
@example(stream=b": data: [DONE]\n\n", cuts=[], begun=True, api=Api.CHAT)
def test_any_bytes_never_raise_and_come_out_as_a_prefix(stream: bytes, cuts: list[int], begun: bool, api: Api) -> None:
    tap = StreamTap(DIALECTS[api])
    if begun:
        tap.content = True
    outcome = run(tap, cut_at(stream, cuts))
    assert stream.startswith(outcome.out) or outcome.out.rstrip(b"\r\n") == stream.rstrip(b"\r\n")


# Cuts.


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize(("api", "pieces"), STREAMS.values(), ids=STREAMS)
def test_a_cut_at_any_byte_is_never_an_end(api: Api, pieces: list[Piece], clean: bool) -> None:
    stream = bytes_of(pieces)
    ending = [Means.FINISH, Means.TERMINAL, Means.DONE]
    first = next(number for number, piece in enumerate(pieces) if piece.means in ending)
    ender = pieces[first].raw
    whole_at = len(bytes_of(pieces[:first])) + ender.index(b"\n", ender.index(b"data:"))
    boundaries = {bytes_of(pieces[:number]).rstrip(b"\n") for number in range(len(pieces) + 1)}
    for at in range(len(stream)):
        tap = StreamTap(DIALECTS[api])
        out = tap.feed(stream[:at])
        assert stream.startswith(out), at
        assert out.rstrip(b"\n") in boundaries, at
        out += tap.finish(clean=clean)
        assert out == b"" or out.endswith(b"\n\n"), at
        # An event whose data is whole may pass for whole: what could have come behind it, nobody knows. A cut line never.
        lines = out.rstrip(b"\n")
        assert stream.startswith(lines), at
        assert not lines or clean or stream[len(lines) :].startswith(b"\n"), at
        assert tap.on_boundary, at
        assert not (tap.complete and at < whole_at), at
        assert tap.complete == (tap.fault is None), at


ENDINGS = {
    # (pieces, choices asked for, clean end, complete, fault)
    "nothing": ([], 1, True, False, Fault.EMPTY),
    "nothing, cut": ([], 1, False, False, Fault.EMPTY),
    "comments alone": ([comment(), comment()], 1, True, False, Fault.EMPTY),
    "[DONE] alone": ([DONE], 1, True, False, Fault.EMPTY),
    "a role and [DONE]": ([preface(), DONE], 1, True, False, Fault.EMPTY),
    "usage and [DONE]": ([usage_only(), DONE], 1, True, False, Fault.EMPTY),
    "a role alone": ([preface()], 1, True, False, Fault.CUT),
    "content, clean end": ([says("a")], 1, True, False, Fault.CUT),
    "content, cut": ([says("a")], 1, False, False, Fault.CUT),
    "content and usage": ([says("a"), usage_only()], 1, True, False, Fault.CUT),
    "content and [DONE]": ([says("a"), DONE], 1, False, True, None),
    "finish, clean end": ([says("a"), finish()], 1, True, True, None),
    "finish, cut": ([says("a"), finish()], 1, False, True, None),
    "finish, usage, cut": ([says("a"), finish(), usage_only()], 1, False, True, None),
    "n=2, both finish": ([says("a"), says("b", index=1), finish(), finish(index=1)], 2, False, True, None),
    "n=2, one finishes": ([says("a"), says("b", index=1), finish()], 2, True, False, Fault.CUT),
    "n=2, one finishes, cut": ([says("a"), says("b", index=1), finish()], 2, False, False, Fault.CUT),
    "n=2, one ever seen, cut": ([says("a"), finish()], 2, False, False, Fault.CUT),
    "n=2, one ever seen": ([says("a"), finish()], 2, True, True, None),
    "n=2, one finishes, [DONE]": ([says("a"), says("b", index=1), finish(), DONE], 2, True, True, None),
    "n=2, interleaved": (
        [says("a"), says("b", index=1), finish(index=1), says("c"), finish(), DONE],
        2,
        True,
        True,
        None,
    ),
    "content after its finish": ([says("a"), finish(), says("b")], 1, False, True, None),
}


@pytest.mark.parametrize(("pieces", "wanted", "clean", "complete", "fault"), ENDINGS.values(), ids=ENDINGS)
def test_endings(pieces: list[Piece], wanted: int, clean: bool, complete: bool, fault: Fault | None) -> None:
    for how, chunks in chunkings(bytes_of(pieces)):
        outcome = run(StreamTap(DIALECTS[Api.CHAT], choices=wanted), chunks, clean=clean)
        assert (outcome.complete, outcome.fault) == (complete, fault), how


@pytest.mark.parametrize("clean", [False, True])
def test_messages_are_whole_only_with_their_stop(clean: bool) -> None:
    outcome = run(StreamTap(DIALECTS[Api.MESSAGES]), [bytes_of(MESSAGES["Anthropic"][:-1])], clean=clean)
    assert outcome.fault is Fault.CUT


@pytest.mark.parametrize("clean", [False, True])
def test_responses_are_whole_only_with_their_last_event(clean: bool) -> None:
    outcome = run(StreamTap(DIALECTS[Api.RESPONSES]), [bytes_of(RESPONSES["OpenAI"][:-1])], clean=clean)
    assert outcome.fault is Fault.CUT


# Errors and malformed events.

ERRORS = {
    "OpenAI": (Api.CHAT, b'data: {"error":{"message":"m","type":"t","code":"c"}}\n\n'),
    "spaced": (Api.CHAT, b'data: { "error" : {"message": "m"} }\n\n'),
    "error as text": (Api.CHAT, b'data: {"code":"c","error":"m"}\n\n'),
    "OpenRouter": (
        Api.CHAT,
        b'data: {"error":{"code":502,"message":"m"},"choices":[{"delta":{"content":""},"finish_reason":"error"}]}\n\n',
    ),
    "OpenRouter, the finish alone": (Api.CHAT, b'data: {"choices":[{"delta":{},"finish_reason":"error"}]}\n\n'),
    "Groq": (Api.CHAT, b'data: {"choices":[{"delta":{}}],"x_groq":{"error":"over capacity"}}\n\n'),
    "Cerebras": (Api.CHAT, b'data: {"error":{"message":"m"},"status_code":429}\n\n'),
    "old vLLM, Mistral": (Api.CHAT, b'data: {"object":"error","message":"m","code":"1300"}\n\n'),
    "a flat error event": (Api.CHAT, b'event: error\ndata: {"message":"m"}\n\n'),
    "a named error event": (Api.CHAT, b'event: error\ndata: {"error":{"message":"m"}}\n\n'),
    "a flat error event, name last": (Api.CHAT, b'data: {"message":"m"}\nevent: error\n\n'),
    "completions": (Api.COMPLETIONS, b'data: {"error":{"message":"m"}}\n\n'),
    "Responses": (Api.RESPONSES, b'event: error\ndata: {"type":"error","code":"c","message":"m"}\n\n'),
    "Responses, untyped": (Api.RESPONSES, b'data: {"error":{"message":"m"}}\n\n'),
    "Responses, a flat error event": (Api.RESPONSES, b'event: error\ndata: {"message":"m"}\n\n'),
    "Messages": (Api.MESSAGES, b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n'),
    "Messages, untyped": (Api.MESSAGES, b'data: {"error":{"message":"m"}}\n\n'),
    "images": (Api.IMAGES, b'event: error\ndata: {"type":"error","error":{"message":"m"}}\n\n'),
    "transcriptions": (Api.TRANSCRIPTIONS, b'data: {"error":{"message":"m"}}\n\n'),
}
FIRST = {
    Api.CHAT: says("a").raw,
    Api.COMPLETIONS: b'data: {"choices":[{"text":"a","index":0,"finish_reason":null}]}\n\n',
    Api.RESPONSES: event("response.output_text.delta", Means.CONTENT, delta="a").raw,
    Api.MESSAGES: event("content_block_delta", Means.CONTENT).raw,
    Api.IMAGES: event("image_generation.partial_image", Means.CONTENT).raw,
    Api.TRANSCRIPTIONS: event("transcript.text.delta", Means.CONTENT).raw,
}


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize(("api", "error"), ERRORS.values(), ids=ERRORS)
def test_an_error_event_of_any_form_is_seen_and_kept(api: Api, error: bytes, before: int) -> None:
    head = FIRST[api] * before
    for how, chunks in chunkings(head + error + FIRST[api] + DONE.raw):
        tap = StreamTap(DIALECTS[api])
        outcome = run(tap, chunks)
        assert (outcome.out, outcome.fault) == (head, Fault.ERROR_EVENT), how
        assert tap.error is not None, how
        assert tap.error == json.loads(re.findall(rb"data: (.*)", error)[0]), how
        assert tap.on_boundary, how


def test_a_failed_response_before_content_is_an_error() -> None:
    stream = RESPONSES["OpenAI"][0].raw + event("response.failed", Means.ERROR, response={"error": {"code": "x"}}).raw
    tap = StreamTap(DIALECTS[Api.RESPONSES])
    assert run(tap, [stream]).fault is Fault.ERROR_EVENT
    assert tap.error is not None
    assert tap.error["type"] == "response.failed"


def test_a_failed_response_after_content_is_relayed_as_its_end() -> None:
    tap = StreamTap(DIALECTS[Api.RESPONSES])
    stream = bytes_of(RESPONSES["failed after content"])
    assert run(tap, [stream]).out == stream
    assert tap.failed


MALFORMED = [
    b"data: oops\n\n",
    b"data: \n\n",
    b"data\n\n",
    b'data: "text"\n\n',
    b"data: [1]\n\n",
    b"data: <html>\n\n",
    b'data: {"a":1\n\n',
    b'data: {"choices":[]} x\n\n',
    b"data: [DONE\n\n",
    b"data: [DONE] x\n\n",
    b'data: {"error":\n\n',
    b'data: {"error":{]}\n\n',
    b'data: {"usage":{"a":nope}}\n\n',
    b'data: {"usage":' + b"[" * 2000 + b"]" * 2000 + b"}\n\n",
    b'data: {"error":"\xff"}\n\n',
]


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("malformed", MALFORMED)
def test_a_malformed_event_ends_the_stream_before_it(malformed: bytes, before: int) -> None:
    head = FIRST[Api.CHAT] * before
    for how, chunks in chunkings(head + malformed + DONE.raw):
        outcome = run(StreamTap(DIALECTS[Api.CHAT]), chunks)
        assert (outcome.out, outcome.fault) == (head, Fault.MALFORMED), how


def test_a_carriage_return_ends_a_line_also_where_line_feeds_end_the_event() -> None:
    stream = data(chunk({"content": "a"}))[:-2] + b"\r: comment\n\n" + finish().raw
    for how, chunks in chunkings(stream):
        outcome = run(StreamTap(DIALECTS[Api.CHAT]), chunks)
        assert (outcome.out, outcome.fault) == (stream, None), how


HOSTILE = [
    {"type": []},
    {"type": {}},
    {"type": None, "usage": 5, "response": [], "message": "x"},
    {"choices": {}},
    {"choices": [None, 5, [], "x", {}]},
    {"choices": [{"index": True, "delta": [], "finish_reason": {}}]},
    {"choices": [{"index": -(2**63), "delta": {"content": {"a": []}}, "finish_reason": [1]}]},
    {"choices": [{"index": 1.5, "delta": None, "finish_reason": 1}]},
    {"usage": {"prompt_tokens": [], "completion_tokens": {}}, "x_groq": [], "error": None},
    {"x_groq": {"error": None, "usage": "x"}, "object": ["error"]},
    {"response": {"usage": {"input_tokens": "x", "output_tokens": 1e308}}},
]


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("document", HOSTILE, ids=str)
@pytest.mark.parametrize("api", DIALECTS)
def test_hostile_documents_never_raise(api: Api, document: dict[str, Any], begun: bool) -> None:
    for choices in (1, 2):
        tap = StreamTap(DIALECTS[api], choices=choices)
        tap.content = begun
        tap.feed(data({**document, "_": {"error": 1}}))
        tap.finish(clean=True)


# Content.

CONTENT = [
    (Api.CHAT, chunk({}), False),
    (Api.CHAT, chunk({"role": "assistant", "content": ""}), False),
    (Api.CHAT, chunk({"role": "assistant", "content": None, "refusal": None, "tool_calls": []}), False),
    (Api.CHAT, {"choices": []}, False),
    (Api.CHAT, {"choices": [], "usage": USAGE}, False),
    (Api.CHAT, {}, False),
    (Api.CHAT, chunk({"content": "a"}), True),
    (Api.CHAT, chunk({"content": [{"type": "thinking"}]}), True),
    (Api.CHAT, chunk({"reasoning": "a"}), True),
    (Api.CHAT, chunk({"reasoning_content": "a"}), True),
    (Api.CHAT, chunk({"reasoning_details": [{}]}), True),
    (Api.CHAT, chunk({"refusal": "a"}), True),
    (Api.CHAT, chunk({"tool_calls": [{"index": 0}]}), True),
    (Api.CHAT, chunk({"function_call": {"name": "f"}}), True),
    (Api.CHAT, chunk({"audio": {"id": "a"}}), True),
    (Api.CHAT, chunk({}, "stop"), True),
    (Api.COMPLETIONS, {"choices": [{"text": ""}]}, False),
    (Api.COMPLETIONS, {"choices": [{"text": "a"}]}, True),
    (Api.COMPLETIONS, {"choices": [{"text": "", "finish_reason": "stop"}]}, True),
    (Api.RESPONSES, {"type": "response.created"}, False),
    (Api.RESPONSES, {"type": "response.queued"}, False),
    (Api.RESPONSES, {"type": "response.in_progress"}, False),
    (Api.RESPONSES, {"type": "response.output_item.added"}, True),
    (Api.RESPONSES, {"type": "response.completed"}, True),
    (Api.RESPONSES, {"no": "type"}, False),
    (Api.MESSAGES, {"type": "message_start"}, False),
    (Api.MESSAGES, {"type": "ping"}, False),
    (Api.MESSAGES, {"type": "content_block_start"}, True),
    (Api.MESSAGES, {"type": "content_block_delta"}, True),
]


@pytest.mark.parametrize(("api", "document", "content"), CONTENT)
def test_what_is_content(api: Api, document: dict[str, Any], content: bool) -> None:
    tap = StreamTap(DIALECTS[api])
    assert tap.feed(data(document)) == data(document)
    assert tap.content is content


def test_usage_that_the_client_asked_for_is_relayed() -> None:
    stream = bytes_of(CHAT["OpenAI"])
    assert run(StreamTap(DIALECTS[Api.CHAT]), [stream]).out == stream


WITHHELD = [
    ({"choices": [], "usage": USAGE}, True),
    ({"choices": [], "usage": USAGE, "timings": {}}, True),
    ({"choices": [], "usage": None}, False),
    ({"choices": []}, False),
    (chunk({}, "stop", usage=USAGE), False),
    ({"choices": [], "prompt_filter_results": []}, False),
]


@pytest.mark.parametrize(("document", "withheld"), WITHHELD)
def test_only_the_usage_only_event_is_withheld(document: dict[str, Any], withheld: bool) -> None:
    tap = StreamTap(DIALECTS[Api.CHAT], withhold_usage=True)
    tap.feed(says("a").raw)
    assert tap.feed(data(document)) == (b"" if withheld else data(document))


# Events too large to hold back.

_LARGE: Final = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * (2 * HELD_BYTES_MAX) + b'"}}]}\n\n'


@pytest.mark.parametrize("size", [1021, 65_536, 10**9])
@pytest.mark.parametrize("choices", [1, 2])
def test_a_large_event_flows(size: int, choices: int) -> None:
    stream = says("a").raw + _LARGE + finish().raw + DONE.raw
    tap = StreamTap(DIALECTS[Api.CHAT], choices=choices)
    assert run(tap, sliced(stream, size)).out == stream
    assert tap.data_events == 3
    assert tap.on_boundary


def test_an_event_too_large_to_read_is_content() -> None:
    stream = b'data: {"x":"' + b"x" * (COPY_BYTES_MAX + 2**17) + b'"}\n\n' + finish().raw
    tap = StreamTap(DIALECTS[Api.CHAT])
    assert run(tap, sliced(stream, 2**16)).out == stream
    assert tap.complete


_BEYOND: Final = b"x" * (COPY_BYTES_MAX + 2**17)
EDGES = {
    # a last event that is too large to keep: (API, its tail, what is known of it, usage)
    "finish and usage": (
        Api.CHAT,
        b'"}},"finish_reason":"stop"}],"usage":{"prompt_tokens":5}}\n\n',
        True,
        {"prompt_tokens": 5},
    ),
    "finish, spaced": (Api.CHAT, b'"}}, "finish_reason": "stop"}]}\n\n', True, None),
    "no finish": (Api.CHAT, b'"}},"finish_reason":null}],"usage":null}\n\n', False, None),
    "usage in a text": (Api.CHAT, b'\\"usage\\":{\\"prompt_tokens\\":5}"}}}\n\n', False, None),
    "usage too deep": (Api.CHAT, b'"},"usage":' + b"[" * 9000 + b"]" * 9000 + b"}\n\n", False, None),
    "usage cut": (Api.CHAT, b'"},"usage":{"a":}\n\n', False, None),
    "Responses": (
        Api.RESPONSES,
        b'","usage":{"input_tokens":5}},"type":"response.completed"}\n\n',
        True,
        {"input_tokens": 5},
    ),
    "an image": (Api.IMAGES, b'","usage":{"a":1},"type":"image_generation.completed"}\n\n', True, {"a": 1}),
    "a part of an image": (Api.IMAGES, b'","type":"image_generation.partial_image"}\n\n', False, None),
    "Responses, more to come": (Api.RESPONSES, b'"},"type":"response.output_item.done"}\n\n', False, None),
}


@pytest.mark.parametrize(("api", "tail", "complete", "figures"), EDGES.values(), ids=EDGES)
@pytest.mark.parametrize("size", [4093, 2**16])
def test_the_edges_of_an_event_too_large_to_keep_are_read(
    api: Api, tail: bytes, complete: bool, figures: dict[str, Any] | None, size: int
) -> None:
    stream = FIRST[api] + b'data: {"choices":[{"index":0,"delta":{"content":"' + _BEYOND + tail
    tap = StreamTap(DIALECTS[api])
    outcome = run(tap, sliced(stream, size), clean=False)
    assert (outcome.out, outcome.complete, outcome.figures) == (stream, complete, figures)
    assert tap.on_boundary


def test_a_cut_within_a_flowing_event_leaves_no_boundary() -> None:
    tap = StreamTap(DIALECTS[Api.CHAT])
    out = tap.feed(says("a").raw) + tap.feed(_LARGE[:-500])
    assert not tap.on_boundary
    out += tap.finish(clean=False)
    assert tap.fault is Fault.CUT
    assert not tap.on_boundary
    assert _LARGE.startswith(out.removeprefix(says("a").raw))


@pytest.mark.parametrize(
    ("large", "fault"),
    [
        (_LARGE[:-7] + b"\n\n", Fault.MALFORMED),
        (b'data: {"error":{"message":"' + b"x" * (2 * HELD_BYTES_MAX) + b'"}}\n\n', Fault.ERROR_EVENT),
    ],
)
def test_a_flowing_event_at_fault_leaves_no_boundary(large: bytes, fault: Fault) -> None:
    tap = StreamTap(DIALECTS[Api.CHAT])
    stream = says("a").raw + large + DONE.raw
    out = b"".join(tap.feed(part) for part in sliced(stream, 4096) if not tap.is_over())
    if tap.fault is None:
        pytest.fail("the fault was not seen")
    assert tap.fault is fault
    assert stream.startswith(out)
    assert not tap.on_boundary


def test_a_usage_only_event_that_flows_is_relayed_to_its_end() -> None:
    large = data({"choices": [], "usage": USAGE, "x": "x" * 2 * HELD_BYTES_MAX})
    stream = says("a").raw + large + finish().raw + DONE.raw
    tap = StreamTap(DIALECTS[Api.CHAT], withhold_usage=True)
    assert run(tap, sliced(stream, 4096)).out == stream
    assert tap.figures == USAGE


@pytest.mark.parametrize("missing", [1, 2])
def test_a_flowing_event_without_its_blank_line_is_ended(missing: int) -> None:
    large = data(chunk({"content": "x" * 2 * HELD_BYTES_MAX}, "stop"))
    assert run(StreamTap(DIALECTS[Api.CHAT]), sliced(large[:-missing], 4096)).out == large


@pytest.mark.parametrize("named", [True, False])
def test_a_large_preface_commits_to_nothing(named: bool) -> None:
    created = data(
        {"type": "response.created", "response": {"instructions": "x" * 3 * HELD_BYTES_MAX}},
        name="response.created" if named else "",
    )
    tap = StreamTap(DIALECTS[Api.RESPONSES])
    for part in sliced(created, 4096):
        tap.feed(part)
        assert not tap.content
    error = ERRORS["Responses"][1]
    assert tap.feed(error) == b""
    assert tap.fault is Fault.ERROR_EVENT


def test_a_large_preface_is_known_by_its_name_where_its_type_comes_late() -> None:
    created = data({"response": {"x": "x" * 3 * HELD_BYTES_MAX}, "type": "response.created"}, name="response.created")
    tap = StreamTap(DIALECTS[Api.RESPONSES])
    tap.feed(created[:-100])
    assert not tap.content
    tap.feed(created[-100:])
    assert not tap.content


# The short test for a run of whole events.


@settings(max_examples=300)
@given(
    run_=st.lists(
        st.sampled_from(
            [b"data: {", b"}", b"\n", b"\n\n", b"event: x", b"event: error", b":", b"data: [DONE]", b"\r", b"a"]
        ),
        max_size=14,
    ).map(b"".join)
)
def test_a_well_formed_run_is_nothing_but_whole_events(run_: bytes) -> None:
    events = well_formed(run_)
    if not events:
        return
    parts = run_.split(b"\n\n")
    assert parts.pop() == b""
    assert len(parts) == events
    assert b"\r" not in run_
    for part in parts:
        assert part.startswith((b"data: {", b"event: "))
        assert part.endswith(b"}")


# What was recorded.


def speaks(recording: Recording) -> bool:
    return recording.meta["api"] in {api.value for api in DIALECTS}


@pytest.mark.parametrize("recording", recordings(".sse", speaks))
def test_recorded_streams_pass_untouched_and_are_whole(recording: Recording) -> None:
    dialect = DIALECTS[Api(recording.meta["api"])]
    body = recording.body
    expected = body if body.endswith(b"\n\n") else body.rstrip(b"\n") + b"\n\n"
    outcomes = [run(StreamTap(dialect), chunks) for _, chunks in chunkings(recording.body)]
    for outcome in outcomes:
        assert outcome == outcomes[0]
        assert outcome.out == expected
        assert outcome.complete
    figures = outcomes[0].figures or {}
    told = recording.meta["usage"] or {}
    assert {name: figures.get(name) for name in told} == told


@pytest.mark.parametrize("recording", recordings(".sse", speaks))
def test_recorded_streams_cut_anywhere_are_never_whole_too_early(recording: Recording) -> None:
    dialect = DIALECTS[Api(recording.meta["api"])]
    marks = [rb'"finish_reason": ?"', rb"\[DONE\]", rb'"type": ?"response\.(?:completed|incomplete|failed)"']
    ends = [match.start() for mark in marks for match in re.finditer(mark, recording.body)]
    first = min(ends)
    step = max(1, len(recording.body) // 400)
    for at in range(0, len(recording.body), step):
        tap = StreamTap(dialect)
        out = tap.feed(recording.body[:at]) + tap.finish(clean=False)
        assert recording.body.startswith(out.rstrip(b"\n")), at
        assert out == b"" or out.endswith(b"\n\n"), at
        assert not (tap.complete and at < first), at
