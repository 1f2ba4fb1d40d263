"""One streamed answer as it passes: what may be relayed now, has content begun, did it end well?

`StreamTap` is fed the upstream's bytes and returns those that may go to the client. It is the state machine behind two
promises: no answer is begun that could still come from another target, and a cut is never passed off as an end.

States (attributes, in the order in which they can come true):

- ``content``: a first content event was seen; until then the caller keeps what it is given, and may throw it away.
- ``fault``: an error event, a malformed event, or a cut. The event at fault is not returned. Final.
- ``finished_choices`` covers every choice seen, or the API's own terminal event came: the answer is whole, whatever
  the transport does next. Usage and `[DONE]` may still follow.
- ``ending``: the API's own terminal event came; at most `[DONE]` may follow, and nobody has to wait for it long.
- ``done``: `[DONE]` came. Final: nothing after it is returned.

What is deliberately not handled: whether an event's JSON is valid when no marker asks for decoding (a data line has to
begin with `{` and end with `}`, no more); the middle of an event too large to copy; choices of an answer whose request
asked for one (`n` > 1 decodes every event, so that each choice is seen).

Held by `tests/core/test_commitment.py`: any chunking of a stream gives the same bytes and states as the whole.
"""

import re
from enum import Enum
from typing import Any, Final

from proxy.core import lenient_json, usage
from proxy.core.dialect import Dialect, well_formed
from proxy.core.sse import Event, EventScanner, data_of, missing_end, name_of

_DONE: Final = b"[DONE]"
_CHOICES_MAX: Final = 1024  # more than any API gives; what a hostile stream may make us remember
_DONE_EVENT: Final = b"data: [DONE]\n\n"
_FIRST: Final = re.compile(b"")  # matches where it is asked: of a run that is not well formed, every event is looked at


class Fault(Enum):
    """Why a stream cannot be relayed further."""

    ERROR_EVENT = "error_event"
    MALFORMED = "malformed"
    CUT = "cut"
    EMPTY = "empty"


class PlainTap:
    """An answer that is no stream of events: every byte of it is content, and its framing alone tells where it ends.

    The same attributes as `StreamTap`, for the same reader.
    """

    __slots__ = ("complete", "content", "data_events", "fault")

    done = ending = failed = on_boundary = False
    error = figures = None

    def __init__(self) -> None:
        self.complete = False
        self.content = False
        self.data_events = 0  # one a chunk, so that whoever waits for events sees that it goes on
        self.fault: Fault | None = None

    def feed(self, chunk: bytes) -> bytes:
        self.content = True
        self.data_events += 1
        return chunk

    def finish(self, *, clean: bool) -> bytes:
        self.complete = clean
        self.fault = None if clean else Fault.CUT
        return b""


class StreamTap:
    """Fed with one attempt's body. Never raises, whatever the bytes; memory bounded by the scanner's bounds."""

    __slots__ = (
        "_dialect",
        "_ended_well",
        "_inside_event",
        "_markers",
        "_scanner",
        "_wanted",
        "_withhold_usage",
        "content",
        "data_events",
        "done",
        "ending",
        "error",
        "failed",
        "fault",
        "figures",
        "finished_choices",
        "seen_choices",
    )

    def __init__(self, dialect: Dialect, *, choices: int = 1, withhold_usage: bool = False) -> None:
        self._dialect = dialect
        self._markers = dialect.markers.search
        self._scanner = EventScanner()
        self._wanted = choices
        self._withhold_usage = withhold_usage
        self._ended_well = False
        self._inside_event = False  # what was returned ends within an event, for good
        self.content = False
        self.ending = False
        self.done = False
        self.fault: Fault | None = None
        self.error: dict[str, Any] | None = None  # the document of an ERROR_EVENT
        self.failed = False  # the API's own ending that reports a failure
        self.figures: dict[str, Any] | None = None  # raw usage, see `usage.normalise`
        self.data_events = 0
        self.seen_choices: set[int] = set()
        self.finished_choices: set[int] = set()

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that may be relayed after `chunk`; empty where none may. Look at ``done`` and ``fault`` after it."""
        if self.done or self.fault is not None:
            return b""
        scanner = self._scanner
        if self.content and not self.ending and not scanner.held and not scanner.flowing and self._wanted == 1:
            # By far the most frequent case, first: whole events with nothing to read in them.
            events = well_formed(chunk)
            if events and self._markers(chunk) is None:
                self.data_events += events
                return chunk
        buffer = scanner.held + chunk if scanner.held else chunk
        if self._wanted > 1 or self.ending or scanner.flowing or b"\r" in buffer:
            return self._feed_by_event(chunk)
        relayed: list[bytes] = []
        cut = buffer.rfind(b"\n\n") + 2
        if cut > 1:
            start = 0 if self.content else self._feed_preface(buffer, relayed)
            if start < cut and not self.is_over():
                self._feed_run(buffer[start:cut], relayed)
            buffer = buffer[cut:]
        if not self.is_over():
            scanner.hold(buffer)
            self._flow(relayed)
        return relayed[0] if len(relayed) == 1 else b"".join(relayed)

    def _feed_preface(self, buffer: bytes, relayed: list[bytes]) -> int:
        """Take event after event until content begins; where the rest starts."""
        start = 0
        while not self.content and not self.is_over():
            end = buffer.find(b"\n\n", start) + 2
            if end == 1:
                break
            self._feed_event(buffer[start:end], relayed)
            start = end
        return start

    def _feed_run(self, run: bytes, relayed: list[bytes]) -> None:
        """Take whole events, after content has begun: what stands between the events with markers goes unread."""
        ending = run == _DONE_EVENT or run.endswith(b"\n\n" + _DONE_EVENT)
        events = run[: -len(_DONE_EVENT)] if ending else run
        position, end = 0, len(events)
        quiet = well_formed(events) > 0
        while position < end and not self.is_over():
            marker = self._markers(events, position) if quiet and not self.ending else _FIRST.match(events, position)
            if marker is None:
                self.data_events += events.count(b"\n\n", position)
                relayed.append(events[position:] if position else events)
                break
            before = events.rfind(b"\n\n", position, marker.start())
            start = position if before < 0 else before + 2
            if start > position:
                self.data_events += events.count(b"\n\n", position, start)
                relayed.append(events[position:start])
            blank = events.find(b"\n\n", start)
            position = blank + 2 if blank >= 0 else end  # a lone line feed may be left of three in a row
            self._feed_event(events[start:position], relayed)
        if ending and not self.is_over():
            self._feed_event(_DONE_EVENT, relayed)

    def _feed_event(self, raw: bytes, relayed: list[bytes]) -> None:
        if self._take(raw):
            relayed.append(raw)
        elif raw.startswith(b"\n") and not (self.done or self.ending):
            # The second half of an empty event that came in two reads.
            relayed.append(raw[: len(raw) - len(raw.lstrip(b"\n"))])

    def _feed_by_event(self, chunk: bytes) -> bytes:
        relayed: list[bytes] = []
        for event in self._scanner.feed(chunk):
            relayed.append(self._end(event))
            if self.is_over():
                return b"".join(relayed)
        self._flow(relayed)
        return b"".join(relayed)

    def _end(self, event: Event) -> bytes:
        """What may be relayed of a whole event: one that has begun to flow gets its end, unless it is at fault."""
        flowed = event.raw is not event.rest
        if event.raw is None:
            self._note_edges(event.edges)
        if self._take(event.raw) or (flowed and self.fault is None):
            return event.rest
        self._inside_event = flowed
        return b""

    def _flow(self, relayed: list[bytes]) -> None:
        """Let what is too large to hold back flow. Only the head of an event tells what it is."""
        is_head = not self._scanner.flowing
        overflow = self._scanner.overflow()
        if overflow:
            if is_head and not self.content:
                self.content = not self._dialect.preamble(overflow)
            relayed.append(overflow)

    def finish(self, *, clean: bool) -> bytes:
        """The upstream ended: the bytes still to relay. Afterwards the stream is `complete` or has a fault."""
        if self.is_over():
            return b""
        relayed = b""
        event = self._scanner.last()
        if event is not None:
            flowed = event.raw is not event.rest
            if not flowed and not event.rest.strip(b"\r\n"):
                relayed = b"" if self.ending else event.rest
            elif _is_whole(event.raw, clean=clean):
                relayed = self._end(event)
                relayed += missing_end(relayed) if relayed else b""
            elif flowed:
                self.fault, self._inside_event = Fault.CUT, True
        if self.is_over() or self.ending:
            return relayed
        self._ended_well = self._all_choices_finished(clean=clean)
        if not self._ended_well:
            self.fault = Fault.CUT if self.data_events else Fault.EMPTY
        return relayed

    def is_over(self) -> bool:
        """Whether nothing more will be relayed: the stream ended by itself, or is at fault."""
        return self.done or self.fault is not None

    @property
    def complete(self) -> bool:
        """Whether the answer is whole by now, whatever the transport does next."""
        return (
            self.done
            or self.ending
            or self._ended_well
            or (self.fault is None and self._all_choices_finished(clean=False))
        )

    @property
    def on_boundary(self) -> bool:
        """Whether what was returned so far ends on an event boundary, so that an event of ours may follow."""
        return not (self._scanner.flowing or self._inside_event)

    def _all_choices_finished(self, *, clean: bool) -> bool:
        if not self.finished_choices or self.seen_choices > self.finished_choices:
            return False
        return clean or len(self.finished_choices) >= self._wanted

    def _take(self, raw: bytes | None) -> bool:
        """Whether an event is to be relayed; notes what it means. None: too large to be read, so surely content."""
        if raw is None:
            self.content = True
            self.data_events += 1
            return True
        if self.ending:
            return self._take_after_the_end(raw)
        one_line = raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2 and b"\r" not in raw
        data = raw[6:-2] if one_line else data_of(raw)
        if data is None:
            return True
        data = data.strip()
        if data == _DONE:
            # An answer of nothing but [DONE] is empty: no content, so that another target may still answer.
            self.done = True
            if not self.content:
                self.fault, self.done = Fault.EMPTY, False
            return self.done
        if not (data.startswith(b"{") and data.endswith(b"}")):
            self.fault = Fault.MALFORMED
            return False
        self.data_events += 1
        named_error = not one_line and name_of(raw) == b"error"
        if self.content and self._wanted == 1 and not named_error and self._markers(data) is None:
            return True
        try:
            document = lenient_json.loads(data)
        except ValueError:
            self.fault = Fault.MALFORMED
            return False
        if named_error:
            # Some send `event: error` with a flat payload, which every SDK takes for a chunk like any other.
            self.fault, self.error = Fault.ERROR_EVENT, document
            return False
        return self._note(document)

    def _take_after_the_end(self, raw: bytes) -> bool:
        """OpenRouter's Responses end with `[DONE]` all the same; nothing else behind the end is relayed."""
        data = data_of(raw)
        self.done = data is not None
        return data is not None and data.strip() == _DONE

    def _note_edges(self, edges: bytes) -> None:
        """Read what can be read of an event that was too large to keep: whether it is a last one, and usage."""
        reading = self._dialect.read_edges(edges)
        self.seen_choices.update(reading.seen)
        self.finished_choices.update(reading.finished)
        self.ending = reading.terminal
        if reading.figures is not None:
            self.figures = usage.fold(self.figures, reading.figures)

    def _note(self, document: dict[str, Any]) -> bool:
        reading = self._dialect.read(document)
        if reading.error is not None or (reading.failed and not self.content):
            self.fault, self.error = Fault.ERROR_EVENT, document
            return False
        if reading.figures is not None:
            self.figures = usage.fold(self.figures, reading.figures)
        self.content = self.content or reading.content
        if len(self.seen_choices) <= _CHOICES_MAX:
            self.seen_choices.update(reading.seen)
            self.finished_choices.update(reading.finished)
        self.ending = reading.terminal
        if reading.failed:
            self.failed, self.error = True, document
        return not (self._withhold_usage and reading.only_usage)


def _is_whole(raw: bytes | None, *, clean: bool) -> bool:
    """Whether an event that no blank line ended has all of its data, JSON that parses or `[DONE]`, and no half line more."""
    data = data_of(raw) if raw is not None else None
    if raw is None or data is None:
        return False
    last_line = raw.replace(b"\r", b"\n").rpartition(b"\n")[2]
    if last_line and not clean and not last_line.startswith(b"data"):
        return False  # `event:` may stand behind the data (Bedrock), and a name cut short is another name
    data = data.strip()
    if data == _DONE:
        return True
    try:
        lenient_json.loads(data)
    except ValueError:
        return False
    return True
