"""One client's connection: reads requests, plays the steps of their answers.

States: *reading* (no steps; the body goes to its intake piece by piece), *playing* (steps in hand, one of: writing,
waiting for a timer, held by back-pressure), and *silent* (a script asked for it: the request stays unfinished until the
client leaves). No task per connection: a wait is one timer, which is what lets a thousand paced streams run at a few
microseconds an event. Requests that arrive while an answer is played wait in the reader.

An intake may stop the reading for a while, or begin the answer before the body is over. Nothing is read from the socket
meanwhile, so that the client feels it; and so it is not noticed either if the client leaves just then. Held by
`tests/simulator/test_connection.py` and `tests/simulator/test_uploads.py`.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from proxy.simulator.intake import Drained, Intake
from proxy.simulator.reader import Malformed, Request, RequestReader
from proxy.simulator.wire import JSON, Ending, Step, Steps, head, length

_RESET_POLL_S: Final = 0.005  # how often a reset looks whether the bytes before it have left
_LINGER_NONE: Final = struct.pack("ii", 1, 0)
_MALFORMED: Final = b'{"error":{"message":"%b","type":"invalid_request_error","param":null,"code":"bad_request"}}'


class Connection(asyncio.Protocol):
    """`begin` says what becomes of a request whose head has come; `opened` is the set in which a connection stands while
    it is open.
    """

    __slots__ = (
        "_begin",
        "_due",
        "_held",
        "_intake",
        "_loop",
        "_opened",
        "_paused",
        "_reader",
        "_reading",
        "_request",
        "_steps",
        "_timer",
        "_transport",
    )

    def __init__(
        self, begin: Callable[[Request], Intake], opened: "set[Connection]", loop: asyncio.AbstractEventLoop
    ) -> None:
        self._begin = begin
        self._opened = opened
        self._loop = loop
        self._reader = RequestReader()
        self._transport: asyncio.Transport | None = None
        self._request: Request | None = None  # the last one, answered or not
        self._intake: Intake | None = None  # of the request whose body is being read
        self._reading = True  # False: an interruption stopped it
        self._held: asyncio.Handle | None = None  # when it goes on
        self._steps: Steps | None = None
        self._timer: asyncio.Handle | None = None
        self._due = 0.0
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A TCP server's transport is an asyncio.Transport; uvloop's is not a subclass of it.
        self._transport = transport  # type: ignore[assignment]
        self._opened.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - any loss is the same to a script
        self._opened.discard(self)
        if self._transport is not None and self._request is not None:
            self._request.disconnected_at = self._loop.time()
        self._forget()

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
        except Malformed as problem:
            self._refuse(str(problem))
        else:
            self._advance()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._steps is not None and self._timer is None:
            self._play()

    def abort(self) -> None:
        """Close at once, as the simulator's own doing."""
        transport = self._transport
        self._forget()
        if transport is not None:
            transport.abort()

    def _forget(self) -> None:
        for timer in (self._timer, self._held):
            if timer is not None:
                timer.cancel()
        self._timer = self._held = self._transport = self._steps = self._intake = None

    def _advance(self) -> None:
        """Read on, until more bytes are needed or the next request has to wait its turn."""
        try:
            while self._transport is not None and self._reading and self._next():
                continue
        except Malformed as problem:
            self._refuse(str(problem))

    def _next(self) -> bool:
        """Whether there may be more to read at once."""
        if self._intake is None:
            return self._steps is None and self._open()
        piece = self._reader.next_piece()
        if piece is None:
            self._let_continue()
            return False
        if piece:
            self._obey(self._intake.take(piece))
            return True
        intake, self._intake = self._intake, None
        if self._request is not None:
            self._request.whole_at = self._loop.time()
        steps = intake.finish()
        if steps is None:
            return True
        self._answer(steps)
        return False

    def _open(self) -> bool:
        request = self._reader.next_head()
        if request is None:
            return False
        request.received_at = self._loop.time()
        self._request = request
        self._intake = self._begin(request)
        return True

    def _let_continue(self) -> None:
        if self._reader.awaits_continue and self._transport is not None:
            self._reader.awaits_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _obey(self, interruption: Steps | float | None) -> None:
        if interruption is None or self._transport is None or self._request is None:
            return
        self._reading = False
        self._transport.pause_reading()
        if isinstance(interruption, float):
            self._held = self._loop.call_later(interruption, self._read_on)
            return
        self._intake = Drained(self._request)
        self._answer(interruption)

    def _read_on(self) -> None:
        if self._transport is None:
            return
        self._reading = True
        self._transport.resume_reading()
        self._advance()

    def _answer(self, steps: Steps) -> None:
        self._due = self._loop.time()
        self._steps = steps
        self._play()

    def _play(self) -> None:
        """Take steps until one of them is to wait, the transport asks for a pause, or the answer ends."""
        self._timer = None
        steps, transport = self._steps, self._transport
        if steps is None or transport is None:
            return
        write = transport.write
        while not self._paused:
            step: Step = next(steps, Ending.DONE)
            if type(step) is bytes:
                write(step)
            elif type(step) is float:
                self._wait(step)
                return
            elif isinstance(step, Ending):
                self._end(step)
                return

    def _wait(self, wait_s: float) -> None:
        """Waits add up from when the one before was due, so that a stream of them does not drift."""
        if wait_s == 0.0:
            self._timer = self._loop.call_soon(self._play)
            return
        self._due = max(self._due + wait_s, self._loop.time())
        self._timer = self._loop.call_at(self._due, self._play)

    def _end(self, ending: Ending) -> None:
        match ending:
            case Ending.DONE:
                self._finish()
                self._continue()
            case Ending.FIN:
                self._finish()
                self._close()
            case Ending.RST:
                self._finish()
                self._reset()
            case Ending.SILENCE:
                self._steps = iter((Ending.SILENCE,))

    def _finish(self) -> None:
        if self._request is not None:
            self._request.finished_at = self._loop.time()

    def _continue(self) -> None:
        self._steps = None
        if self._request is not None and not self._request.keep_alive:
            self._close()
        elif not self._reading:
            self._loop.call_soon(self._read_on)
        elif self._reader.pending:
            self._loop.call_soon(self._advance)  # not at once: a thousand pipelined requests would be as many frames

    def _close(self) -> None:
        transport = self._transport
        self._forget()
        if transport is not None:
            transport.close()

    def _reset(self) -> None:
        """Bytes still in this process are waited for: a reset after K events must come after K events."""
        transport = self._transport
        if transport is None:
            return
        if transport.get_write_buffer_size() > 0:
            self._timer = self._loop.call_later(_RESET_POLL_S, self._reset)
            return
        own: socket.socket = transport.get_extra_info("socket")
        with socket.socket(fileno=os.dup(own.fileno())) as twin:  # uvloop's own has no setsockopt
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        self.abort()

    def _refuse(self, message: str) -> None:
        if self._transport is not None:
            body = _MALFORMED % message.replace("\\", " ").replace('"', "'").encode()
            self._transport.write(head(400, JSON, length(body) + b"connection: close\r\n") + body)
            self._close()
