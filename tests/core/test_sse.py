"""The scanner against a line-by-line reference of WHATWG HTML section 9.2.6, over random streams and chunkings."""

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.sse import COPY_BYTES_MAX, HELD_BYTES_MAX, Event, EventScanner, data_of, missing_end, name_of
from tests.core.streams import Recording, chunkings, cut_at, recordings, sliced
from tests.stopwatch import Stopwatch

_BOM = b"\xef\xbb\xbf"


# The reference: slow, obvious, one character at a time.


def reference_lines(stream: bytes) -> list[bytes]:
    """The lines that have an end, without it."""
    lines, line, at = [], b"", 0
    while at < len(stream):
        byte = stream[at : at + 1]
        at += 1
        if byte == b"\r":
            if stream[at : at + 1] == b"\n":
                at += 1
            lines.append(line)
            line = b""
        elif byte == b"\n":
            lines.append(line)
            line = b""
        else:
            line += byte
    return lines


def reference(stream: bytes) -> list[tuple[bytes | None, bytes]]:
    """The type and data of every event that a client dispatches."""
    events: list[tuple[bytes | None, bytes]] = []
    data: list[bytes] = []
    name: bytes | None = None
    for line in reference_lines(stream.removeprefix(_BOM)):
        if not line:
            if data:
                events.append((name, b"\n".join(data)))
            data, name = [], None
            continue
        if line.startswith(b":"):
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return events


def scanned(chunks: list[bytes]) -> tuple[list[Event], Event | None]:
    scanner = EventScanner()
    return [event for chunk in chunks for event in scanner.feed(chunk)], scanner.last()


def payloads(events: list[Event]) -> list[tuple[bytes | None, bytes]]:
    read = [(name_of(event.raw), data_of(event.raw)) for event in events if event.raw is not None]
    return [(name, data) for name, data in read if data is not None]


def handed_out(events: list[Event], last: Event | None) -> bytes:
    return b"".join(event.rest for event in events) + (last.rest if last is not None else b"")


# The streams.

STREAMS = {
    "LF": b"data: a\n\ndata: b\n\n",
    "CRLF": b"data: a\r\n\r\ndata: b\r\n\r\n",
    "CR": b"data: a\r\rdata: b\r\r",
    "mixed in a blank line": b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n",
    "mixed within an event": b"data: a\rdata: b\ndata: c\r\ndata: d\n\n",
    "no space": b"data:a\n\ndata:  b\n\n",
    "several data lines": b"data: a\ndata\ndata:\ndata: b\n\n",
    "empty data": b"data\n\ndata:\n\ndata: \n\n",
    "names": b"event: x\ndata: a\n\ndata: b\nevent: y\n\nevent\ndata: c\n\nevent: x\nevent: z\ndata: d\n\n",
    "no data": b"event: ping\n\nid: 5\n\nretry: 3\n\n: comment\n\n:\n\n",
    "near names": b"dat: a\ndatas: b\n data: c\ndata : d\nDATA: e\ndata: f\n\n",
    "BOM": _BOM + b"data: a\n\n",
    "BOM inside": b"data: " + _BOM + b"a\n\n",
    "separators of Unicode": "data: a\u2028b\u2029c\u0085d\x0be\x0cf\n\n".encode(),
    "characters of four bytes": "data: \U0001f600é\u20ac\n\n".encode(),
    "NUL": b"data: a\0b\n\n",
    "blank lines": b"\n\n\n\ndata: a\n\n\n\n\ndata: b\n\n\r\n\r\n\r\r",
    "unfinished": b"data: a\n\ndata: b",
    "unfinished line": b"data: a\n\ndata: b\n",
    "invalid UTF-8": b"data: \xff\xfe\xc3\n\n\xc3",
    "nothing": b"",
}


@pytest.mark.parametrize("trailing", [b"", b"data: t", b"\n", b"\r", b"\r\n", b": c\n"])
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_stream_is_read_as_the_reference_reads_it(stream: bytes, trailing: bytes) -> None:
    whole = stream + trailing
    for how, chunks in chunkings(whole):
        events, last = scanned(chunks)
        assert handed_out(events, last) == whole, how
        assert payloads(events) == reference(whole), how


_LINE_ENDS = st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"])
_VALUES = st.text(alphabet="ab:{} \u2028\u0085é\U0001f600\ufeff\0", max_size=8).map(str.encode)
_FIELDS = st.sampled_from([b"data", b"data:", b"data: ", b"event: ", b"event", b":", b": ", b"id: ", b"retry: ", b"x"])
_LINES = st.one_of(st.just(b""), st.just(b""), st.tuples(_FIELDS, _VALUES).map(b"".join))
_STREAMS = st.tuples(
    st.sampled_from([b"", _BOM]), st.lists(st.tuples(_LINES, _LINE_ENDS).map(b"".join), max_size=12).map(b"".join)
).map(b"".join)


@given(stream=_STREAMS, cuts=st.lists(st.integers(0, 300), max_size=8))
@example(stream=b"data: a\r\n\r\n", cuts=[10])
@example(stream=b"data: a\r\rdata: b\n\n", cuts=[8, 9, 10])
def test_any_stream_in_any_chunking_is_read_as_the_reference_reads_it(stream: bytes, cuts: list[int]) -> None:
    events, last = scanned(cut_at(stream, cuts))
    assert handed_out(events, last) == stream
    assert payloads(events) == reference(stream)


@given(stream=st.binary(max_size=60), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_any_bytes_are_handed_out_as_they_came(stream: bytes, cuts: list[int]) -> None:
    events, last = scanned(cut_at(stream, cuts))
    assert handed_out(events, last) == stream


@pytest.mark.parametrize("recording", recordings(".sse"))
def test_recorded_streams(recording: Recording) -> None:
    for how, chunks in chunkings(recording.body):
        events, last = scanned(chunks)
        assert handed_out(events, last) == recording.body, how
        assert payloads(events) == reference(recording.body), how


def test_the_last_line_feed_may_begin_the_next_event() -> None:
    events, last = scanned([b"data: a\r\n\r", b"\ndata: b\r\n\r\n"])
    assert [event.raw for event in events] == [b"data: a\r\n\r", b"\ndata: b\r\n\r\n"]
    assert last is None


# Events too large to hold back.


def flow(chunks: list[bytes]) -> tuple[list[bytes], list[Event], EventScanner]:
    """What flowed, what ended, and the scanner, each chunk followed by `overflow` as its users do it."""
    scanner = EventScanner()
    flowed: list[bytes] = []
    ended: list[Event] = []
    for chunk in chunks:
        for event in scanner.feed(chunk):
            ended.append(event)
            flowed.append(event.rest)
        assert len(scanner.held) <= HELD_BYTES_MAX + len(chunk)
        flowed.append(scanner.overflow())
        assert len(scanner.held) <= HELD_BYTES_MAX
    return flowed, ended, scanner


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
@pytest.mark.parametrize("size", [HELD_BYTES_MAX - 20, HELD_BYTES_MAX, HELD_BYTES_MAX + 1, 3 * HELD_BYTES_MAX])
@pytest.mark.parametrize("chunk", [1021, 65_536, 10**9])
def test_a_large_event_flows_and_is_still_read_whole(size: int, end: bytes, chunk: int) -> None:
    large = b"data: " + b"x" * (size - 6)
    stream = large + end + b"data: y" + end
    flowed, ended, scanner = flow(sliced(stream, chunk))
    assert b"".join(flowed) == stream
    assert [event.raw for event in ended] == [large + end, b"data: y" + end]
    assert not scanner.flowing
    assert scanner.last() is None


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\r\n\n", b"\n\r\n"])
def test_the_end_of_a_flowing_event_is_found_byte_by_byte(end: bytes) -> None:
    head = b"data: " + b"x" * (HELD_BYTES_MAX - 3)
    flowed, ended, scanner = flow([head, *sliced(b"yz" + end, 1), b"data: y", *sliced(end, 1)])
    whole = head + b"yz" + end + b"data: y" + end
    assert b"".join(flowed) + scanner.held == whole
    assert payloads(ended) == reference(whole)


def test_an_event_is_held_back_up_to_the_bound_and_not_beyond() -> None:
    scanner = EventScanner()
    assert scanner.feed(b"x" * HELD_BYTES_MAX) == []
    assert scanner.overflow() == b""
    assert not scanner.flowing
    assert scanner.feed(b"x") == []
    assert scanner.overflow() == b"x" * (HELD_BYTES_MAX - 2)
    assert scanner.held == b"xxx"
    assert scanner.flowing


@pytest.mark.parametrize("size", [COPY_BYTES_MAX - 2**17, COPY_BYTES_MAX + 2**18])
def test_an_event_is_copied_up_to_a_bound(size: int) -> None:
    flowed, ended, scanner = flow([*sliced(b"data: " + b"x" * size, 2**16), b"\n\n", b"data: y\n\n"])
    assert b"".join(flowed) == b"data: " + b"x" * size + b"\n\ndata: y\n\n"
    assert ended[0].raw == (None if size > COPY_BYTES_MAX else b"data: " + b"x" * size + b"\n\n")
    assert ended[1].raw == b"data: y\n\n"
    assert scanner.last() is None


def test_what_is_too_large_to_copy_is_let_go() -> None:
    scanner = EventScanner()
    for _ in range(200):
        scanner.feed(b"x" * 2**16)
        scanner.overflow()
        assert sum(map(len, scanner._copy)) <= COPY_BYTES_MAX
    assert scanner._copy == []


def test_a_cut_within_a_flowing_event() -> None:
    flowed, ended, scanner = flow([b"data: " + b"x" * HELD_BYTES_MAX])
    last = scanner.last()
    assert ended == []
    assert last is not None
    assert last.raw == b"data: " + b"x" * HELD_BYTES_MAX
    assert b"".join(flowed) + last.rest == last.raw
    assert last.raw is not last.rest


def test_byte_by_byte_is_not_quadratic() -> None:
    chunks = sliced(b"data: " + b"x" * (HELD_BYTES_MAX - 6), 16)
    watch = Stopwatch.patient()
    scanned(chunks)
    assert watch.spent_s < 1.0


# The fields of one event.

ENDS = {
    b"data: a": b"\n\n",
    b"data: a\n": b"\n",
    b"data: a\r\n": b"\r\n",
    b"data: a\r": b"\r",
    b"event: x\r\ndata: a": b"\r\n\r\n",
    b"event: x\rdata: a": b"\r\r",
    b"event: x\r\ndata: a\r": b"\r\n",
    b"": b"\n\n",
}


@pytest.mark.parametrize(("raw", "missing"), ENDS.items())
def test_a_missing_blank_line_is_in_the_events_own_style(raw: bytes, missing: bytes) -> None:
    assert missing_end(raw) == missing
    assert reference(raw + missing) == reference(raw + b"\n\n\n")


@given(raw=_STREAMS.filter(lambda stream: b"\n" not in stream.strip(b"\r\n")))
def test_a_missing_end_makes_an_event_whole(raw: bytes) -> None:
    data = data_of(raw)
    dispatched = [payload for _, payload in reference(raw + missing_end(raw))]
    assert (data is None) == (not dispatched)


def test_random_bytes_never_raise() -> None:
    rng = random.Random(11)
    for _ in range(300):
        raw = bytes(rng.choices(b"\r\n:data evnt\xef\xbb\xbf{}[DONE]", k=rng.randrange(40)))
        data_of(raw)
        name_of(raw)
        missing_end(raw)
